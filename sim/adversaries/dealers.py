"""Dishonest dealers and advertisers, phases 0 and 1 (docs/PROTOCOL.md section 3, Shares)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from attrs import define, evolve, field

from protocol import merkle
from protocol.algebra import field as fp
from protocol.algebra import shamir
from protocol.codec import digest, encode
from protocol.context import RoundContext
from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Event, Send
from protocol.jobs import DealJob, DealResult, Job, JobResult
from protocol.keys import AgreementKey
from protocol.messages import KeyAdvert, Kind, ReleaseStage, Reveal, SealedShares, ShareRelease
from protocol.secrets import RoundSecrets, round_bytes
from protocol.sharing import (
    SHARE_BYTES,
    Dealing,
    ShareKind,
    SharePackage,
    box_associated,
    package_for,
    share_leaf,
    share_scope,
)
from sim.adversaries.coalition import Coalition
from sim.adversaries.tampering import JobTampering, StatementTampering, heard
from sim.filters import Filter
from sim.reading import read_statement


@define(eq=False)
class DishonestDealer(JobTampering, ABC):
    """Deals something else than it owes; `tampered` says what. It never hears messages in `deaf_to`."""

    deaf_to: frozenset[Kind] = field(default=frozenset(), kw_only=True)

    def events(self, event: Event) -> list[Event]:
        if any(statement.kind in self.deaf_to for statement in heard(event)):
            return []
        return super().events(event)

    @abstractmethod
    def tampered(self, job: DealJob, dealing: Dealing) -> Dealing:
        """What the subclass does."""

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(job, DealJob) or not isinstance(result, DealResult):
            return result
        return DealResult(self.tampered(job, result.dealing))


@define(eq=False)
class BoxSpoiler(DishonestDealer):
    """Sends one holder a box that does not open, in rounds in which it is one."""

    holder: bytes

    def tampered(self, job: DealJob, dealing: Dealing) -> Dealing:
        if self.holder not in job.context.proposers:
            return dealing
        return _with_box(dealing, job.context.proposers.index(self.holder), bytes(64))


@define(eq=False)
class ZSpoiler(DishonestDealer):
    """Gives some holders good shares, and a z_i that is not the one it pinned."""

    holders: tuple[bytes, ...]

    def tampered(self, job: DealJob, dealing: Dealing) -> Dealing:
        for holder, peer in enumerate(job.context.proposers):
            if peer not in self.holders:
                continue
            package = package_for(job.context, job.dealer, holder, job.secrets)
            box = _seal(job.context, job.dealer, holder, job.secrets, evolve(package, z=bytes(32)))
            dealing = _with_box(dealing, holder, box)
        return dealing


@define(eq=False)
class GarbageDealer(DishonestDealer):
    """Shares one kind of secret along no polynomial of low degree, every share under its Merkle root.

    Each holder's own check passes. What T of them rebuild has another root, which proves the dealer guilty.
    """

    kind: ShareKind

    def tampered(self, job: DealJob, dealing: Dealing) -> Dealing:
        shares, tree = _garbage(job.context, job.dealer, self.kind, job.secrets)
        roots = list(dealing.roots)
        roots[self.kind] = tree.root
        boxes = []
        for holder in range(len(job.context.proposers)):
            package = package_for(job.context, job.dealer, holder, job.secrets)
            own, proofs = list(package.shares), list(package.proofs)
            own[self.kind], proofs[self.kind] = shares[holder], tree.proof(holder)
            changed = SharePackage((own[0], own[1], own[2]), (proofs[0], proofs[1], proofs[2]), package.z)
            boxes.append(_seal(job.context, job.dealer, holder, job.secrets, changed))
        return evolve(dealing, roots=(roots[0], roots[1], roots[2]), boxes=tuple(boxes))


def _garbage(
    context: RoundContext, dealer: int, kind: ShareKind, secrets: RoundSecrets
) -> tuple[list[bytes], merkle.Tree]:
    """Honest shares but for one limb of the last holder's."""
    secret = {
        ShareKind.MASK: secrets.mask_secret,
        ShareKind.SELF: secrets.self_seed,
        ShareKind.CHECK: secrets.check_seed,
    }[kind]
    seed = digest("garbage", secret, round_bytes(context.round))
    holders = len(context.proposers)
    vectors = shamir.split_many([secret], context.threshold, holders, [seed])[:, 0]
    vectors[-1, 0] = (int(vectors[-1, 0]) + 1) % fp.P
    packed = fp.to_bytes(vectors)
    shares = [packed[i * SHARE_BYTES : (i + 1) * SHARE_BYTES] for i in range(holders)]
    scope = share_scope(context, dealer, kind)
    leaves = [share_leaf(scope, peer, share) for peer, share in zip(context.proposers, shares, strict=True)]
    return shares, merkle.tree(leaves)


def _seal(
    context: RoundContext, dealer: int, holder: int, secrets: RoundSecrets, package: SharePackage
) -> bytes:
    channel = AgreementKey(secrets.seal_secret).channel(context.seal_publics[holder])
    return channel.seal(encode(package), box_associated(context, dealer, holder))


def _with_box(dealing: Dealing, holder: int, box: bytes) -> Dealing:
    boxes = list(dealing.boxes)
    boxes[holder] = box
    return evolve(dealing, boxes=tuple(boxes))


@define(eq=False)
class FalseReleaser(StatementTampering):
    """Releases shares that are not those it was dealt."""

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        body = statement.body
        if not isinstance(body, ShareRelease):
            return statement
        shares = tuple(evolve(entry, share=bytes(len(entry.share))) for entry in body.shares)
        return self.signed(statement.round, Kind.SHARE_RELEASE, evolve(body, shares=shares))


@define(eq=False)
class CheckWithholder(StatementTampering):
    """Helps to unmask the sum, then gives away no check seed: not its own, nor its shares of others'."""

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        body = statement.body
        hidden = isinstance(body, ShareRelease) and body.stage is ReleaseStage.CHECK
        return None if hidden or isinstance(body, Reveal) else statement


@define(eq=False)
class KeyCopier(StatementTampering):
    """Advertises a victim's mask key as its own, as soon as it has seen it, so that masks would cancel."""

    victim: bytes
    _keys: dict[int, bytes] = field(factory=dict, init=False)
    _waiting: dict[int, Statement] = field(factory=dict, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            if isinstance(statement.body, KeyAdvert) and statement.sender == self.victim:
                self._keys[statement.round] = statement.body.mask_public
        return [event]

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, KeyAdvert):
            return statement
        copied = self._keys.get(statement.round)
        if copied is None:
            self._waiting[statement.round] = statement
            return None
        return self.signed(statement.round, Kind.KEY_ADVERT, evolve(statement.body, mask_public=copied))

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        for round_ in sorted(self._waiting.keys() & self._keys.keys()):
            copied = self.rewrite(self._waiting.pop(round_), None)
            assert copied is not None
            performed.append(Broadcast(copied.to_bytes()))
        return performed


@define(eq=False)
class Eavesdropper(Filter):
    """Tells its coalition the sealed boxes that its node sends, as if it stood on the wire."""

    coalition: Coalition

    def effects(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Send):
                statement = read_statement(effect.data)
                if isinstance(statement.body, SealedShares):
                    key = (statement.round, statement.sender, effect.peer)
                    self.coalition.boxes[key] = statement.body.box
        return effects


@define(eq=False)
class BoxReplayer(StatementTampering):
    """Passes another dealer's overheard boxes off as its own.

    If a holder took one, the replayer would drop out and have the victim's secrets rebuilt in its own name.
    """

    coalition: Coalition
    victim: bytes
    _owed: dict[tuple[int, bytes], Statement] = field(factory=dict, init=False)

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, SealedShares) or to is None or to == self.victim:
            return statement
        box = self.coalition.boxes.get((statement.round, self.victim, to))
        if box is None:
            self._owed[statement.round, to] = statement
            return None
        return self.signed(statement.round, Kind.SEALED_SHARES, SealedShares(box))

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        for round_, holder in sorted(self._owed):
            if (round_, self.victim, holder) in self.coalition.boxes:
                replayed = self.rewrite(self._owed.pop((round_, holder)), holder)
                assert replayed is not None
                performed.append(Send(holder, replayed.to_bytes()))
        return performed
