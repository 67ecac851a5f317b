"""Members that contradict themselves, pad what they sign, or choose the moment to say it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import define, evolve, field

from protocol.codec import decode, encode
from protocol.envelope import Envelope, Statement
from protocol.events import Broadcast, Effect, Event, RunJob, Send
from protocol.jobs import DealJob
from protocol.keys import CURVE25519_P, Identity, agreement_secret
from protocol.messages import (
    MESSAGE_BYTES,
    Body,
    Held,
    KeyAdvert,
    Kind,
    Ready,
    ReleasedShare,
    ReleaseStage,
    Reveal,
    SealedShares,
    ShareBundle,
    ShareRelease,
    Transaction,
)
from protocol.secrets import possession_message
from protocol.sharing import SHARE_BYTES, Dealing, deal
from sim.adversaries.tampering import StatementTampering, heard
from sim.filters import Filter
from sim.reading import read_statement

LOW_ORDER_KEY = bytes(32)
"""A point of small order: an agreement with it is all zero, whatever the other's secret."""
LOW_ORDER_TWIN = (CURVE25519_P - 1).to_bytes(32, "little")
"""The same point on the Edwards curve, (0, -1)."""
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the Ed25519 base point."""


@define(eq=False)
class TwoFaced(StatementTampering):
    """Signs a second statement of one kind for each slot, and shows it to the peers in `misled` instead."""

    kind: Kind
    misled: tuple[bytes, ...]
    others: tuple[bytes, ...]
    lie: Callable[[Body], Body]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [shown for effect in super().effects(effects) for shown in self._two_faced(effect)]

    def _two_faced(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast):
            return [effect]
        statement = read_statement(effect.data)
        if statement.kind is not self.kind or statement.sender != self.identity.peer:
            return [effect]
        payload = statement.envelope.payload
        lie = self.signed(statement.round, self.kind, self.lie(statement.body), payload).to_bytes()
        return [
            *(Send(peer, effect.data) for peer in self.others),
            *(Send(peer, lie) for peer in self.misled),
        ]


@define(eq=False)
class TwoFacedDealer(StatementTampering):
    """Deals twice in its first round: each half of the network sees one bundle, with the shares to it."""

    misled: tuple[bytes, ...]
    others: tuple[bytes, ...]
    _job: DealJob | None = field(default=None, init=False)
    _second: Dealing | None = field(default=None, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, RunJob) and isinstance(effect.job, DealJob) and self._job is None:
                job = self._job = effect.job
                self._second = deal(job.context, job.dealer, evolve(job.secrets, self_seed=bytes([7]) * 32))
        return [shown for effect in effects for shown in self._two_faced(effect)]

    def _two_faced(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast | Send) or self._job is None or self._second is None:
            return [effect]
        statement, context = read_statement(effect.data), self._job.context
        if statement.round != context.round:
            return [effect]
        if isinstance(effect, Broadcast) and isinstance(statement.body, ShareBundle):
            body = ShareBundle(self._second.roots, *self._second.hashes, statement.body.weight)
            lie = self.signed(statement.round, Kind.SHARE_BUNDLE, body).to_bytes()
            return [
                *(Send(peer, effect.data) for peer in self.others),
                *(Send(peer, lie) for peer in self.misled),
            ]
        if (
            isinstance(effect, Send)
            and isinstance(statement.body, SealedShares)
            and effect.peer in self.misled
            and effect.peer in context.proposers
        ):
            box = SealedShares(self._second.boxes[context.proposers.index(effect.peer)])
            return [Send(effect.peer, self.signed(statement.round, Kind.SEALED_SHARES, box).to_bytes())]
        return [effect]


@define(eq=False)
class LowOrderAdvertiser(StatementTampering):
    """Advertises a key of small order as its key called `name`, with a proof of possession that holds."""

    name: str

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, KeyAdvert):
            return statement
        message = possession_message(self.network, statement.round, statement.sender, self.name)
        forged = {f"{self.name}_public": LOW_ORDER_KEY, f"{self.name}_proof": low_order_proof(message)}
        return self.signed(statement.round, Kind.KEY_ADVERT, evolve(statement.body, **forged))


def low_order_proof(message: bytes) -> bytes:
    """A valid signature under the point (0, -1) of order two: S B = R + h A holds for any even h."""
    for attempt in range(256):
        seed = bytes([attempt]) * 32
        scalar = int.from_bytes(agreement_secret(seed), "little") & ((1 << 254) - 8) | 1 << 254
        commitment = Identity.from_seed(seed).peer
        signature = commitment + (scalar % GROUP_ORDER).to_bytes(32, "little")
        h = int.from_bytes(hashlib.sha512(commitment + LOW_ORDER_TWIN + message).digest(), "little")
        if h % GROUP_ORDER % 2 == 0:
            return LOW_ORDER_TWIN + signature
    raise AssertionError("256 odd hashes in a row")


@define(eq=False)
class FatEquivocator(StatementTampering):
    """Contradicts itself in a round at such length that no block has room for the evidence."""

    round: int
    shares: int
    _done: bool = field(default=False, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        if not self._done and any(_is_broadcast(effect, KeyAdvert, self.round + 1) for effect in performed):
            self._done = True
            performed += [Broadcast(self._release(tag).to_bytes()) for tag in (1, 2)]
        return performed

    def _release(self, tag: int) -> Statement:
        proof = tuple(bytes([level]) * 32 for level in range(12))
        shares = (ReleasedShare(bytes([tag]) * 32, 0, bytes(SHARE_BYTES), proof),) * self.shares
        return self.signed(self.round, Kind.SHARE_RELEASE, ShareRelease(ReleaseStage.CHECK, 2, shares))


@define(eq=False)
class ReadyPadder(StatementTampering):
    """Says in its Readys that it holds statements of kinds and peers that there are none of."""

    padding_bytes: int

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, Ready):
            return statement
        held = (*statement.body.held, Held(200, b"\xff" * self.padding_bytes))
        return self.signed(statement.round, Kind.READY, evolve(statement.body, held=held))


@define(eq=False)
class StakeShifter(StatementTampering):
    """Asks for transactions once it knows the check seeds, and so the beacon, of its first round."""

    transactions: tuple[Transaction, ...]
    _done: bool = field(default=False, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        if not self._done and any(_is_broadcast(effect, Reveal, 1) for effect in performed):
            self._done = True
            performed += [
                Broadcast(self.signed(0, Kind.TRANSACTION, body).to_bytes()) for body in self.transactions
            ]
        return performed


@define(eq=False)
class LateAdvertiser(StatementTampering):
    """Holds its advert for each round back until somebody has revealed a check seed of the round before.

    For round 1, which has no round before, it advertises in time.
    """

    _held: dict[int, Statement] = field(factory=dict, init=False)
    _revealed: set[int] = field(factory=set, init=False)

    def events(self, event: Event) -> list[Event]:
        self._revealed.update(s.round for s in heard(event) if isinstance(s.body, Reveal))
        return [event]

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        before = statement.round - 1
        if not isinstance(statement.body, KeyAdvert) or before == 0 or before in self._revealed:
            return statement
        self._held[statement.round] = statement
        return None

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        due = [round_ for round_ in sorted(self._held) if round_ - 1 in self._revealed]
        return performed + [Broadcast(self._held.pop(round_).to_bytes()) for round_ in due]


@define(eq=False)
class DeafTo(Filter):
    """Not dishonest: one kind of one peer's statements, payload and all, gets lost on the way to it."""

    kind: Kind
    sender: bytes

    def events(self, event: Event) -> list[Event]:
        lost = any(
            s.kind is self.kind and s.sender == self.sender and s.envelope.payload for s in heard(event)
        )
        return [] if lost else [event]


def _is_broadcast(effect: Effect, body: type, round_: int) -> bool:
    if not isinstance(effect, Broadcast):
        return False
    statement = read_statement(effect.data)
    return isinstance(statement.body, body) and statement.round == round_


@define(eq=False)
class ForeignSpeaker(Filter):
    """Speaks as a node with another genesis, a newer version, or kinds to come would, in turn.

    Nothing of this is a lie, and nobody may hold it against the node.
    """

    said: int = field(default=0, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        """Return the effects with every message made foreign."""
        return [
            self._spoken(effect) if isinstance(effect, Broadcast | Send) else effect for effect in effects
        ]

    def _spoken(self, effect: Broadcast | Send) -> Effect:
        envelope = decode(Envelope, effect.data, MESSAGE_BYTES)
        self.said += 1
        match self.said % 3:
            case 0:
                envelope = evolve(envelope, network=bytes(b ^ 0xFF for b in envelope.network))
            case 1:
                envelope = evolve(envelope, version=envelope.version + 1)
            case _:
                envelope = evolve(envelope, kind=255)
        return evolve(effect, data=encode(envelope))
