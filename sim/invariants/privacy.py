"""Privacy: for no honest proposer do the adversary and fewer than T holders together hold what unmasks it.

docs/PROTOCOL.md section 11.2: "mask keys of U2 are never released, self seeds of U1 \\ U2 neither". The
harness keeps what honest holders have let go of and what claims have published, in all rounds, gives the
adversary any T - 1 holders of its choice besides, and tries: it rebuilds the secrets, takes the masks off the
upload and compares the result with what the proposer meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import define, field

from flocknode.observe.ledger import Step
from protocol import durable
from protocol.context import RoundContext
from protocol.events import Broadcast, Effect, Persist, Send
from protocol.jobs import ContributeJob
from protocol.ledger.block import BlockKind
from protocol.ledger.state import RoundState
from protocol.messages import Kind, ReleaseStage, ShareRelease
from protocol.params import Masking, ProtocolParams
from protocol.secagg.scheme import scheme_of
from protocol.sharing import HeldShare, ShareKind, load_package, rebuild
from sim.invariants.base import InvariantError
from sim.invariants.sums import uploaded
from sim.notes import Notes
from sim.reading import own_statements

if TYPE_CHECKING:
    from sim.node import Node

Key = tuple[int, ShareKind, bytes]
"""A round, a kind of share, and the dealer."""


@define
class _Known:
    """What has left honest hands."""

    released: dict[Key, dict[bytes, HeldShare]] = field(factory=dict)
    packages: dict[tuple[int, bytes, bytes], bytes] = field(factory=dict)
    """Encoded share packages by (round, dealer, holder): what a corrupt holder would add."""
    mask_secrets: dict[bytes, bytes] = field(factory=dict)
    """By public key, from whatever round: a key that serves twice is known twice."""


class Privacy:
    """Both an invariant (releases) and a rule for steps (claims). Says nothing of single masks: section 9.

    `tried` counts the attempts for which enough shares were out; each that works is a violation.
    """

    def __init__(
        self, params: ProtocolParams, notes: Notes, is_honest: Callable[[bytes], bool],
        blob_of: Callable[[bytes], bytes | None],
    ) -> None:  # fmt: skip
        self._double = params.masking is Masking.DOUBLE
        self._notes = notes
        self._is_honest = is_honest
        self._blob_of = blob_of
        self._known = _Known()
        self._rounds: dict[int, tuple[RoundState, RoundContext]] = {}
        self.watched = 0

    # -- what leaves honest hands --------------------------------------------------------------------

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not self._double:
            return
        for effect in performed:
            match effect:
                case Persist(bucket, key, bytes() as value) if bucket == durable.SHARE:
                    self._known.packages[durable.round_of_key(key), key[8:], node.peer] = value
                case Broadcast(data) | Send(_, data) if node.honest:
                    for statement in own_statements(data, node.peer):
                        if statement.kind is Kind.SHARE_RELEASE:
                            assert isinstance(statement.body, ShareRelease)
                            self._release(node.peer, statement.round, statement.body)

    def _release(self, holder: bytes, round_: int, release: ShareRelease) -> None:
        if release.stage is not ReleaseStage.UNMASK:
            return
        for share in release.shares:
            kind = ShareKind(share.share_kind)
            held = self._known.released.setdefault((round_, kind, share.dealer), {})
            if holder not in held:
                held[holder] = HeldShare(0, share.share, share.proof)
                self._check(round_, share.dealer)

    def at_step(self, step: Step) -> None:
        """Claims publish mask keys; U1 and U2 become known."""
        if not self._double:
            return
        before, after = step.before, step.after
        if step.stored.block.kind is BlockKind.SETUP:
            self._forget_before(before.round - 2)
        if after.round == before.round:
            job = next(self._jobs(before.round, after.learning), None)
            if job is not None:
                self._rounds[before.round] = after.learning, job.context
        if after.learning.claim is not None:
            for entry in after.learning.claim.mask_secrets:
                advert = after.learning.advert_of(entry.peer)
                if advert is not None and advert.mask_public not in self._known.mask_secrets:
                    self._known.mask_secrets[advert.mask_public] = entry.secret
                    self._check_all()

    def _jobs(self, round_: int, learning: RoundState) -> Iterator[ContributeJob]:
        for bundle in learning.sharers:
            job = self._notes.of_peer(round_, bundle.peer)
            if job is not None:
                yield job

    def _forget_before(self, round_: int) -> None:
        """Uploads live one round past the outcome; nothing older can be unmasked, whatever becomes known."""
        known = self._known
        for key in [key for key in known.released if key[0] < round_]:
            del known.released[key]
        for place in [place for place in known.packages if place[0] < round_]:
            del known.packages[place]
        for old in [old for old in self._rounds if old < round_]:
            del self._rounds[old]

    # -- what can be made of it ----------------------------------------------------------------------

    def _check_all(self) -> None:
        for round_, (learning, _) in sorted(self._rounds.items()):
            for bundle in learning.sharers:
                self._check(round_, bundle.peer)

    def _check(self, round_: int, dealer: bytes) -> None:
        if round_ not in self._rounds or not self._is_honest(dealer):
            return
        learning, _ = self._rounds[round_]
        job = self._notes.of_peer(round_, dealer)
        if job is None or not self._hides_among_others(learning, dealer):
            return
        self.watched += 1
        self_seed = self._secret(round_, ShareKind.SELF, dealer)
        mask_secret = self._mask_secret(round_, dealer)
        if self_seed is None or mask_secret is None:
            return
        raise InvariantError(
            f"round {round_}: with T - 1 holders both secrets of peer {dealer.hex()[:12]} can be rebuilt, "
            + self._unmasked(learning, dealer, job, self_seed, mask_secret)
        )

    def _hides_among_others(self, learning: RoundState, dealer: bytes) -> bool:
        """Alone in an otherwise dishonest U2 anybody is read by subtraction: section 11.1."""
        members = learning.contributors or learning.sharers
        honest = sum(self._is_honest(member.peer) for member in members)
        return honest >= (2 if any(member.peer == dealer for member in members) else 1)

    def _mask_secret(self, round_: int, dealer: bytes) -> bytes | None:
        learning, _ = self._rounds[round_]
        advert = learning.advert_of(dealer)
        published = None if advert is None else self._known.mask_secrets.get(advert.mask_public)
        return published or self._secret(round_, ShareKind.MASK, dealer)

    def _secret(self, round_: int, kind: ShareKind, dealer: bytes) -> bytes | None:
        """What released shares and those of T - 1 corrupt holders rebuild; None where they are too few."""
        learning, context = self._rounds[round_]
        places = {peer: place for place, peer in enumerate(learning.proposers)}
        found = {
            places[peer]: HeldShare(places[peer], held.share, held.proof)
            for peer, held in self._known.released.get((round_, kind, dealer), {}).items()
            if peer in places
        }
        corrupt = learning.threshold - 1
        for peer, place in places.items():
            if corrupt == 0 or len(found) >= learning.threshold:
                break
            data = self._known.packages.get((round_, dealer, peer))
            package = None if data is None or place in found or peer == dealer else load_package(data)
            if package is not None:
                found[place] = package.held(place, kind)
                corrupt -= 1
        bundle = next((b for b in learning.sharers if b.peer == dealer), None)
        advert = learning.advert_of(dealer)
        if len(found) < learning.threshold or bundle is None or advert is None:
            return None
        pinned = advert.mask_public if kind is ShareKind.MASK else bundle.hash_self
        shares = [found[place] for place in sorted(found)]
        secret = rebuild(context, places[dealer], kind, shares, bundle.share_roots[kind], pinned)
        return secret if isinstance(secret, bytes) else None

    def _unmasked(
        self, learning: RoundState, dealer: bytes, job: ContributeJob, self_seed: bytes, mask_secret: bytes
    ) -> str:
        """Do it, on the upload that is pinned or was about to be."""
        own = job.secrets
        upload = next((c.upload_digest for c in learning.contributors if c.peer == dealer), None)
        data = None if upload is None else self._blob_of(upload)
        if (self_seed, mask_secret) != (own.self_seed, own.mask_secret):
            return "though not the right ones"
        if data is None:
            return "and its upload is still to come"
        plain = uploaded(job, data)[: scheme_of(job.context).length]
        moved = int(np.count_nonzero(plain))
        return f"and its upload is read: {moved} of {plain.size} weights are moved"
