"""Push-pull repair: whatever was lost on the way arrives in the end (docs/PROTOCOL.md section 7, Repair).

Every node tells two random peers a second, and each peer that connects, its height and which
statements of the round it holds. Whoever sees that the other lacks statements sends them, at most 256 kB
at a time; whoever sees that it lacks something itself answers with its own list. Blocks are asked for
(`protocol.sync`), one reply a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from attrs import define, field

from protocol.duties import share
from protocol.duties.desk import Desk
from protocol.envelope import Slot, Statement
from protocol.events import Millis, PeerId
from protocol.messages import (
    STATEMENT_KINDS,
    Have,
    Held,
    Kind,
    StatementRequest,
    Statements,
)
from protocol.outbox import Outbox
from protocol.pool import Pool
from protocol.sync import Sync
from protocol.tally import bitmap, members_of

FANOUT = 2
REPLY_BYTES = 256 << 10

_KINDS = tuple(sorted(map(int, STATEMENT_KINDS), key=lambda kind: (kind == Kind.TRANSACTION, kind)))
"""Transactions come last: of them there may be many, and no round waits for one."""
_NEXT_ADVERTS = 0
"""In a `Have`, the kind under which the adverts of the next round stand."""

TAG_BYTES = 4
MAX_TAG_BYTES = 1 << 15


class Repair:
    """One node's half of the exchange. Blocks are `protocol.sync`'s business: nobody sends them unasked."""

    def __init__(self, desk: Desk, outbox: Outbox, sync: Sync) -> None:
        self.desk = desk
        self.outbox = outbox
        self._sync = sync
        self._told_ms: dict[PeerId, Millis] = {}
        self._round = 0
        self._of_round: dict[int, _Shelf] = {}

    # -- telling -------------------------------------------------------------------------------

    def tell(self, peer: bytes, *, reply: bool = False) -> None:
        """Say what I hold."""
        self.outbox.send(peer, self.desk.state.round, Kind.HAVE, self._have(reply))

    def tell_late(self, peer: bytes, now: Millis) -> None:
        """Tell a peer that is behind how far I am, so that it asks somebody; once in half an interval."""
        last = self._told_ms.get(peer)
        if last is None or now - last >= self.desk.rules.params.repair_interval_ms // 2:
            self._told_ms[peer] = now
            self.tell(peer, reply=True)

    def tell_some(self, peers: Iterable[bytes], draw: Callable[[int], int]) -> None:
        """Tell `FANOUT` of these peers, chosen by `draw(n)`, a number below n, all in the same words."""
        candidates = sorted(peers)
        if not candidates:
            return
        statement = self.outbox.signed(self.desk.state.round, Kind.HAVE, self._have(reply=False))
        for _ in range(min(FANOUT, len(candidates))):
            self.outbox.send_statement(candidates.pop(draw(len(candidates))), statement)

    def _have(self, reply: bool) -> Have:
        d = self.desk
        packages = bitmap(d.state.validators, set(d.memory.packages))
        return Have(d.state.height, self._told(), packages, reply)

    # -- answering -----------------------------------------------------------------------------

    def on_have(self, peer: bytes, round_: int, have: Have, now: Millis) -> None:
        """Send what the other lacks; tell it what I have if it has something that I lack."""
        d = self.desk
        if have.height > d.state.height:
            self._sync.heard(peer, have.height, now)
            return
        if have.height < d.state.height:
            if not have.reply:
                self.tell_late(peer, now)
            return
        if round_ != d.state.round:
            return
        theirs = {entry.kind: entry.bitmap for entry in have.held}
        unlike = [
            (shelf, _split_tags(theirs.get(kind, b"")))
            for kind, shelf in self._shelves().items()
            if not shelf.is_all(theirs.get(kind, b""))
        ]
        lacking = (s for shelf, tags in unlike for s in shelf.beyond(tags))
        self._send_statements(peer, lacking)
        if d.me not in members_of(d.state.validators, have.shares):
            share.send_box(d, peer)
        if not have.reply and any(tags - shelf.tags for shelf, tags in unlike):
            self.tell(peer, reply=True)

    def on_statement_request(self, peer: bytes, request: StatementRequest) -> None:
        pool = self.desk.pool
        found = (pool.by_id(statement_id) for statement_id in request.ids)
        self._send_statements(peer, (statement for statement in found if statement is not None))

    def request_statements(self, peer: bytes, ids: tuple[bytes, ...]) -> None:
        """Ask whoever cited these statements for them."""
        self.outbox.send(peer, self.desk.state.round, Kind.STATEMENT_REQUEST, StatementRequest(ids))

    # -- comparing -----------------------------------------------------------------------------

    def _shelves(self) -> dict[int, _Shelf]:
        """What I hold, by kind, as of now."""
        round_, pool = self.desk.state.round, self.desk.pool
        if self._round != round_:
            self._round = round_
            self._of_round = {_NEXT_ADVERTS: _Shelf(pool, round_ + 1, Kind.KEY_ADVERT, False)}
            self._of_round.update((kind, _Shelf(pool, round_, Kind(kind))) for kind in _KINDS)
        for shelf in self._of_round.values():
            shelf.follow()
        return self._of_round

    def _told(self) -> tuple[Held, ...]:
        """What a `Have` says of them."""
        return tuple(Held(kind, shelf.told) for kind, shelf in self._shelves().items() if shelf.tags)

    def _send_statements(self, peer: bytes, statements: Iterable[Statement]) -> None:
        batch: list[bytes] = []
        size = 0
        for statement in statements:
            if statement.kind is Kind.CONTRIBUTION and not statement.envelope.payload:
                continue
            data = statement.to_bytes()
            if batch and size + len(data) > REPLY_BYTES:
                break
            batch.append(data)
            size += len(data)
        if batch:
            self.outbox.send(peer, self.desk.state.round, Kind.STATEMENTS, Statements(tuple(batch)))


@define(eq=False)
class _Shelf:
    """The statements of one round and kind, as evidence too; of transactions, all that are held.

    `tags`: the first bytes of their ids. A statement stays in the pool until its round is over, be it as
    evidence, since a slot is pinned once; so `follow` only adds.
    """

    pool: Pool
    round: int
    kind: Kind
    evidence: bool = True
    """Of two that conflict both, or only the one that counts?"""
    tags: set[bytes] = field(factory=set, init=False)
    _changes: Sequence[Slot] = field(init=False)
    _read: int = field(default=0, init=False)
    _told: bytes | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._changes = self.pool.changes(self.round, self.kind)

    def follow(self) -> None:
        """Take up what has changed in the pool."""
        if self.kind is Kind.TRANSACTION:
            tags = {statement.id[:TAG_BYTES] for statement in self.pool.transactions()}
            if tags != self.tags:
                self.tags, self._told = tags, None
        elif len(self._changes) > self._read:
            changed = self.pool.at(self._changes[self._read :], evidence=self.evidence)
            self.tags.update([statement.id[:TAG_BYTES] for statement in changed])
            self._read, self._told = len(self._changes), None

    @property
    def told(self) -> bytes:
        """What a `Have` says of them."""
        if self._told is None:
            self._told = b"".join(sorted(self.tags))[:MAX_TAG_BYTES]
        return self._told

    def is_all(self, told: bytes) -> bool:
        """Does the other hold just the same?"""
        return told == self.told and len(told) == TAG_BYTES * len(self.tags)

    def beyond(self, tags: set[bytes]) -> list[Statement]:
        """Those without one of these tags."""
        if self.tags <= tags:
            return []
        return [statement for statement in self._held() if statement.id[:TAG_BYTES] not in tags]

    def _held(self) -> Iterator[Statement]:
        if self.kind is Kind.TRANSACTION:
            return self.pool.transactions()
        held = self.pool.of_kind(self.round, self.kind)
        return chain(held, self.pool.conflicting(self.round, self.kind) if self.evidence else ())


def _split_tags(data: bytes) -> set[bytes]:
    return {data[i : i + TAG_BYTES] for i in range(0, len(data) - TAG_BYTES + 1, TAG_BYTES)}
