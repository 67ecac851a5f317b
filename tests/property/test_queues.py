"""Queues and counters under any order of calls: lengths of nothing, of one byte, and of the bounds +-1."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flocknode import inbox as inbox_module
from flocknode.blobs import BlobStore
from flocknode.fetcher import Fetcher
from flocknode.inbox import Inbox
from flocknode.transport.base import FetchFailedError
from flocknode.transport.libp2p_frames import FrameReader, FrameTooLongError, Outbox
from flocknode.transport.standing import WEIGHTS, Level, Limits, Standings
from protocol.blob import blob_digest, chunked
from protocol.codec import encode
from protocol.envelope import Statement, make_statement
from protocol.events import BlobFailed, BlobReady, Event, PeerUp, Received, TimerFired
from protocol.keys import Identity
from protocol.messages import Complaint, Kind, Transaction, TransactionKind
from protocol.pool import Pool

PEERS = [bytes([number + 1]) * 32 for number in range(3)]
MOST_BYTES, MOST_MESSAGES = 10, 4
LENGTHS = st.sampled_from([0, 1, 2, MOST_BYTES - 1, MOST_BYTES, MOST_BYTES + 1])
FEW = settings(max_examples=40, stateful_step_count=40, deadline=None)


class InboxMachine(RuleBasedStateMachine):
    """What waits of a peer is bounded and counted exactly, and everything comes in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(inbox_module, "MAX_WAITING_BYTES", MOST_BYTES)
        self.patch.setattr(inbox_module, "MAX_WAITING_MESSAGES", MOST_MESSAGES)
        self.inbox = Inbox()
        self.expected: deque[tuple[str | None, Event]] = deque()

    def teardown(self) -> None:
        self.patch.undo()

    def messages(self, peer: bytes) -> list[bytes]:
        return [e.data for _, e in self.expected if isinstance(e, Received) and e.peer == peer]

    @rule(peer=st.sampled_from(PEERS), length=LENGTHS)
    def message(self, peer: bytes, length: int) -> None:
        waiting = self.messages(peer)
        fits = len(waiting) < MOST_MESSAGES and sum(map(len, waiting)) + length <= MOST_BYTES
        event = Received(peer, bytes(length))
        assert self.inbox.put_message(event) == fits
        if fits:
            self.expected.append((None, event))

    @rule(peer=st.sampled_from(PEERS))
    def other(self, peer: bytes) -> None:
        self.inbox.put(PeerUp(peer))
        self.expected.append((None, PeerUp(peer)))

    @rule(slot=st.sampled_from("tu"))
    def answer(self, slot: str) -> None:
        event = TimerFired(slot)
        self.inbox.put_answer(slot, event)
        self.revoked(slot)
        self.expected.append((slot, event))

    @rule(slot=st.sampled_from("tu"))
    def revoke(self, slot: str) -> None:
        self.inbox.revoke(slot)
        self.revoked(slot)

    def revoked(self, slot: str) -> None:
        self.expected = deque(entry for entry in self.expected if entry[0] != slot)

    @rule()
    def take(self) -> None:
        event = self.inbox.get_waiting()
        assert event == (self.expected.popleft()[1] if self.expected else None)

    @invariant()
    def what_waits_is_counted(self) -> None:
        for peer in PEERS:
            waiting = self.messages(peer)
            assert self.inbox.waiting(peer) == (len(waiting), sum(map(len, waiting)))
        assert set(self.inbox._waiting) == {peer for peer in PEERS if self.messages(peer)}
        assert len(self.inbox) >= len(self.expected)


SMALL = Limits(
    messages=4.0,
    messages_per_s=1.0,
    size_bytes=float(MOST_BYTES),
    bytes_per_s=2.0,
    repeats=2.0,
    repeats_per_s=0.5,
    remembered=3,
    refusal_s=5.0,
    longest_refusal_s=20.0,
    forgive_s=30.0,
)


class StandingMachine(RuleBasedStateMachine):
    """A score is never above 0, an allowance never overdrawn, a refusal kept to its end, memory bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.standings, self.now_s = Standings(SMALL), 0.0

    @rule(seconds=st.sampled_from([0.0, 0.01, 1.0, 5.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(peer=st.sampled_from(PEERS), length=LENGTHS, byte=st.integers(0, 3))
    def message(self, peer: bytes, length: int, byte: int) -> None:
        refused = self.standings.level(peer, self.now_s) is Level.REFUSED
        before = self.standings.standing(peer, self.now_s)
        admitted = self.standings.admits(peer, bytes([byte]) * length, self.now_s)
        after = self.standings.standing(peer, self.now_s)
        assert not (refused and admitted)
        assert after.dropped == before.dropped + (not admitted)

    @rule(peer=st.sampled_from(PEERS), reason=st.sampled_from([*sorted(WEIGHTS), "unheard of"]))
    def offend(self, peer: bytes, reason: str) -> None:
        before = self.standings.standing(peer, self.now_s)
        level = self.standings.offend(peer, reason, self.now_s)
        after = self.standings.standing(peer, self.now_s)
        assert after.level is level
        assert after.score <= before.score
        if WEIGHTS.get(reason) == 0.0:
            assert after == before

    @invariant()
    def bounds_hold(self) -> None:
        for peer, known in self.standings._peers.items():
            assert known.score <= 0.0
            for bucket in (known.messages, known.sizes, known.repeats):
                # A single message larger than the allowance may pass, and is owed for.
                assert 0.0 <= bucket.taken <= max(bucket.size, MOST_BYTES + 1)
            assert len(known.heard) <= SMALL.remembered
            refused_s = self.standings.refused_for_s(peer, self.now_s)
            assert 0.0 <= refused_s <= SMALL.longest_refusal_s
            assert (refused_s > 0.0) == (self.standings.level(peer, self.now_s) is Level.REFUSED)


class LinkMachine(RuleBasedStateMachine):
    """What goes into an outbox comes out of a frame reader, in order, however the stream is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox, self.reader = Outbox(MOST_BYTES), FrameReader(MOST_BYTES)
        self.waiting: deque[bytes] = deque()
        self.stream = bytearray()
        self.sent: deque[bytes] = deque()

    @rule(length=LENGTHS, byte=st.integers(0, 255))
    def put(self, length: int, byte: int) -> None:
        message = bytes([byte]) * length
        fits = sum(map(len, self.waiting)) + length <= MOST_BYTES
        assert self.outbox.put(message) == fits
        if fits:
            self.waiting.append(message)

    @rule()
    def take(self) -> None:
        sizes, pieces = self.outbox.take()
        assert sizes == [len(self.waiting[index]) for index in range(len(sizes))]
        assert bool(sizes) == bool(self.waiting)
        for piece in pieces:
            self.stream += piece
        self.sent.extend(self.waiting.popleft() for _ in sizes)

    @rule(count=st.integers(0, 20))
    def feed(self, count: int) -> None:
        data, self.stream = bytes(self.stream[:count]), self.stream[count:]
        for message in self.reader.feed(data):
            assert message == self.sent.popleft()

    @precondition(lambda self: not self.stream and not self.sent)
    @rule(length=st.sampled_from([MOST_BYTES, MOST_BYTES + 1, 2**32 - 2]))
    def boast(self, length: int) -> None:
        """A frame is announced on a stream of its own: refused beyond the limit before it costs anything."""
        reader, announced = FrameReader(MOST_BYTES), length.to_bytes(4, "big")
        if length > MOST_BYTES:
            with pytest.raises(FrameTooLongError):
                list(reader.feed(announced))
        else:
            assert list(reader.feed(announced)) == []

    @invariant()
    def what_waits_is_counted(self) -> None:
        assert self.outbox._bytes == sum(map(len, self.waiting))
        assert bool(self.outbox) == bool(self.waiting)
        assert len(self.reader._buffer) <= MOST_BYTES + 4


IDENTITIES = [Identity.from_seed(bytes([number + 1]) * 32) for number in range(2)]
NETWORK = bytes(32)


def statements() -> list[Statement]:
    """Two members' complaints about two dealers in three rounds, and contradicting transactions."""
    made = [
        make_statement(who, NETWORK, round_, Kind.COMPLAINT, Complaint(dealer))
        for who in IDENTITIES
        for round_ in (1, 2, 3)
        for dealer in PEERS[:2]
    ]
    transfers = [
        make_statement(
            who, NETWORK, 0, Kind.TRANSACTION, Transaction(TransactionKind.TRANSFER, nonce, PEERS[0], amount)
        )
        for who in IDENTITIES
        for nonce in (0, 1)
        for amount in (1, 2, 3)
    ]
    return made + transfers


STATEMENTS = statements()


class PoolMachine(RuleBasedStateMachine):
    """Whatever is added, pinned and forgotten: each index of the pool tells the same."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()

    @rule(statement=st.sampled_from(STATEMENTS))
    def add(self, statement: Statement) -> None:
        before = self.versions(statement)
        new = self.pool.add(statement)
        after = self.versions(statement)
        assert new == (after != before)
        assert (statement.id in before) <= (not new)
        if statement.kind is Kind.TRANSACTION:  # of one number only the one that counts is held
            assert len(after) == 1
            assert after == {statement.id} if new else after == before
        else:
            assert before <= after

    @rule(statement=st.sampled_from([s for s in STATEMENTS if s.kind is not Kind.TRANSACTION]))
    def pin(self, statement: Statement) -> None:
        """Blocks pin statements of their round; transactions stand in them, and nothing pins those."""
        self.pool.replace_by_cited(statement.slot, statement)
        held = self.pool.get_slot(statement.slot)
        assert held is not None
        assert held.id == statement.id

    @rule(round_=st.integers(0, 4))
    def forget_before(self, round_: int) -> None:
        self.pool.forget_before(round_)
        assert all(slot.kind == Kind.TRANSACTION or slot.round >= round_ for slot in self.slots())

    @rule(statement=st.sampled_from(STATEMENTS))
    def forget(self, statement: Statement) -> None:
        if statement.kind is Kind.TRANSACTION:
            self.pool.forget(statement.slot)
            assert self.pool.get_slot(statement.slot) is None

    def versions(self, of: Statement) -> set[bytes]:
        round_, kind, attempt, sender, subject = of.slot
        return {held.id for held in self.pool.versions(round_, Kind(kind), sender, attempt, subject)}

    def slots(self) -> list[Any]:
        rows = [(round_, kind) for round_ in range(4) for kind in (Kind.COMPLAINT, Kind.TRANSACTION)]
        return [held.slot for round_, kind in rows for held in self.pool.of_kind(round_, kind)]

    @invariant()
    def indices_agree(self) -> None:
        slots = self.slots()
        assert len(set(slots)) == len(slots) == len(self.pool._by_slot)
        for slot in slots:
            held = self.pool.get_slot(slot)
            assert held is not None
            assert self.pool.by_id(held.id) is not None
        assert set(self.pool._by_id) == {held.id for held in self.pool._by_slot.values()}
        for slot, (first, second) in self.pool.conflicts.items():
            assert first.id != second.id
            assert first.slot == second.slot == slot
            assert {first.id, second.id} <= set(self.pool._conflicting_by_id)
        assert len(self.pool._conflicting_by_id) <= 2 * len(self.pool.conflicts)
        counted = list(self.pool.kept())
        assert all(size > 0 for _, size in counted)
        assert len(counted) >= len(slots)


ANSWERS = ["good", "none", "empty", "byte", "other", "lost", "bug"]
BLOBS = [b"", b"x", b"y" * 1000]


@define(eq=False)
class Wire:
    """A chunk source that answers when it is told to, and what it is told to."""

    asked: dict[tuple[bytes, bytes], asyncio.Future[bytes | None]] = field(factory=dict)
    penalties: list[tuple[bytes, str]] = field(factory=list)

    async def fetch_chunk(self, peer: bytes, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        assert index == 0
        assert 0 < timeout_s <= 10
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        assert (peer, digest) not in self.asked
        self.asked[peer, digest] = future
        try:
            return await future
        finally:
            del self.asked[peer, digest]

    def penalise(self, peer: bytes, why: str) -> None:
        self.penalties.append((peer, why))


def _good(data: bytes) -> bytes:
    return encode(chunked(data).chunk(0))


class FetcherMachine(RuleBasedStateMachine):
    """Each fetch that has begun ends in one answer, whatever holders say, raise or keep back."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="flocknode-test-"))
        self.loop = asyncio.new_event_loop()
        self.wire, self.blobs = Wire(), BlobStore(self.directory)
        self.answers: list[BlobReady | BlobFailed] = []
        self.begun: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.fetcher = Fetcher(
            blobs=self.blobs,
            source=self.wire,
            deliver=lambda event, why: self.answers.append(event),
            spawn=lambda work: self.tasks.append(self.loop.create_task(work)),
            threads=self.at_once,
            max_bytes=999,
            random=Random(1),
        )

    async def at_once(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    def settle(self) -> None:
        async def some_turns() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(some_turns())

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for _ in range(50):
            for future in list(self.wire.asked.values()):
                future.set_result(None)
            self.settle()
        assert not self.wire.asked
        assert not self.fetcher._pulls
        assert sorted(self.begun) == sorted(answer.digest for answer in self.answers)
        assert all(task.done() and task.exception() is None for task in self.tasks)
        self.loop.close()
        shutil.rmtree(self.directory)

    @rule(data=st.sampled_from(BLOBS), holders=st.sets(st.sampled_from(PEERS)), spare=st.booleans())
    def fetch(self, data: bytes, holders: set[bytes], spare: bool) -> None:
        digest = blob_digest(data)
        if digest not in self.fetcher._pulls:
            self.begun.append(digest)
        reserves = tuple(PEERS) if spare else ()
        self.loop.run_until_complete(
            self.call(lambda: self.fetcher.fetch(digest, (*sorted(holders),), reserves))
        )
        self.settle()

    async def call(self, work: Callable[[], None]) -> None:
        work()

    @rule(data=st.sampled_from(BLOBS))
    def abandon(self, data: bytes) -> None:
        self.fetcher.abandon(blob_digest(data))

    @rule(data=st.sampled_from(BLOBS))
    def drop(self, data: bytes) -> None:
        self.fetcher.abandon(blob_digest(data))
        self.blobs.drop(blob_digest(data))

    @precondition(lambda self: self.wire.asked)
    @rule(
        which=st.integers(0, 8),
        how=st.sampled_from(["good", "none", "empty", "byte", "other", "lost", "bug"]),
    )
    def answer(self, which: int, how: str) -> None:
        (peer, digest), future = sorted(self.wire.asked.items(), key=lambda item: item[0])[
            which % len(self.wire.asked)
        ]
        data = next(data for data in BLOBS if blob_digest(data) == digest)
        penalties = len(self.wire.penalties)
        match how:
            case "good":
                future.set_result(_good(data))
            case "none":
                future.set_result(None)
            case "empty" | "byte" | "other":
                future.set_result({"empty": b"", "byte": b"\x93", "other": _good(b"another")}[how])
            case "lost":
                future.set_exception(FetchFailedError(peer, digest, 0, "the link was lost"))
            case _:
                future.set_exception(IndexError("pop from an empty deque"))
        self.settle()
        if how in ("empty", "byte", "other", "bug"):
            expected = "fault" if how == "bug" else "bad-chunk"
            assert self.wire.penalties[penalties:] == [(peer, expected)]
        else:
            assert len(self.wire.penalties) == penalties

    @invariant()
    def slots_are_given_back(self) -> None:
        if hasattr(self, "loop"):
            assert self.fetcher._slots._value == 16 - len(self.wire.asked)


MACHINES = [InboxMachine, StandingMachine, LinkMachine, PoolMachine, FetcherMachine]


@pytest.mark.parametrize("machine", MACHINES)
def test_queues_and_counters_hold(machine: type[RuleBasedStateMachine]) -> None:
    case = machine.TestCase
    case.settings = FEW
    case().runTest()
