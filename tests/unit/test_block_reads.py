"""Blocks for a peer that is behind are read by the shell: nothing of the ledger stays in an engine."""

from __future__ import annotations

import gc

import pytest

from protocol import durable
from protocol.engine import Engine
from protocol.envelope import make_statement, open_envelope
from protocol.events import BlocksRead, PeerUp, ReadBlocks, Received, Send
from protocol.ledger.block import decode_stored_block
from protocol.messages import BlockRequest, Blocks, Body, Have, Kind
from protocol.sync import MAX_BLOCKS, REPLY_BYTES
from sim.scenes import Scene


class Reading:
    """A node that has ended two rounds, and what member 1 asks it for."""

    def __init__(self) -> None:
        self.passed_ms = 0
        self.scene = Scene(nodes=4, seed=5)
        self.scene.end_round(1)
        self.scene.end_round(2)
        self.engine: Engine = self.scene.engine(0)
        self.blocks = self.scene.world.nodes[0].records[durable.BLOCK]

    def say(self, kind: Kind, body: Body, who: int = 1) -> list[ReadBlocks]:
        """The reads that a message leads to."""
        identity = self.scene.founding.identities[who]
        statement = make_statement(identity, self.engine.network, self.engine.state.round, kind, body)
        effects = self.engine.handle(Received(identity.peer, statement.to_bytes()), self.now)
        return [effect for effect in effects if isinstance(effect, ReadBlocks)]

    def answer(self, asked: ReadBlocks, *blocks: bytes) -> list[bytes]:
        """The blocks that the node sends when these were read; by default those that it has stored."""
        event = durable.read_blocks(self.blocks, asked)
        if blocks:
            event = BlocksRead(asked.peer, asked.first_height, blocks)
        sent = []
        for effect in self.engine.handle(event, self.now):
            assert isinstance(effect, Send)
            assert effect.peer == asked.peer
            statement = open_envelope(effect.data, self.engine.network)
            assert isinstance(statement.body, Blocks)
            sent += statement.body.blocks
        return sent

    @property
    def now(self) -> int:
        return self.scene.world.nodes[0].clock.read(self.scene.world.now) + self.passed_ms


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_a_request_is_answered_with_the_stored_blocks_once_they_are_read(reading: Reading) -> None:
    height = reading.engine.height
    (asked,) = reading.say(Kind.BLOCK_REQUEST, BlockRequest(3))
    assert asked == ReadBlocks(reading.scene.peer(1), 3, min(height, 2 + MAX_BLOCKS), REPLY_BYTES)
    heights = [decode_stored_block(data).block.height for data in reading.answer(asked)]
    assert heights == list(range(3, height + 1))


def test_what_a_have_lacks_is_not_read_until_it_is_asked_for(reading: Reading) -> None:
    assert reading.say(Kind.HAVE, Have(1, (), b"", False)) == []


def test_a_peer_has_one_read_at_a_time_and_others_have_theirs(reading: Reading) -> None:
    (first,) = reading.say(Kind.BLOCK_REQUEST, BlockRequest(1))
    for height in range(1, 100):
        assert reading.say(Kind.BLOCK_REQUEST, BlockRequest(height)) == []
    (other,) = reading.say(Kind.BLOCK_REQUEST, BlockRequest(2), who=2)
    assert other.peer == reading.scene.peer(2)
    assert reading.answer(first)
    assert reading.say(Kind.BLOCK_REQUEST, BlockRequest(4)) == []  # it was sent that just now
    reading.passed_ms += reading.engine.genesis.params.repair_interval_ms
    (again,) = reading.say(Kind.BLOCK_REQUEST, BlockRequest(4))
    assert again.first_height == 4


def test_a_peer_that_is_not_behind_costs_no_read(reading: Reading) -> None:
    height = reading.engine.height
    assert reading.say(Kind.BLOCK_REQUEST, BlockRequest(height + 1)) == []
    assert reading.say(Kind.BLOCK_REQUEST, BlockRequest(2**40)) == []


def test_a_read_that_finds_nothing_sends_nothing_and_the_peer_may_ask_again(reading: Reading) -> None:
    (asked,) = reading.say(Kind.BLOCK_REQUEST, BlockRequest(1))
    reading.blocks = {}
    assert reading.answer(asked) == []
    assert reading.say(Kind.BLOCK_REQUEST, BlockRequest(1)) == [asked]


def test_an_answer_for_a_peer_that_left_and_came_again_ends_the_wait(reading: Reading) -> None:
    (asked,) = reading.say(Kind.BLOCK_REQUEST, BlockRequest(1))
    reading.engine.handle(PeerUp(asked.peer), reading.now)
    assert reading.answer(asked)
    reading.passed_ms += reading.engine.genesis.params.repair_interval_ms
    assert reading.say(Kind.BLOCK_REQUEST, BlockRequest(1)) == [asked]


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [((), 10, 0), ((11,), 10, 1), ((10,), 10, 1), ((5, 5), 10, 2), ((5, 6), 10, 1), ((0, 0, 0), 0, 3)],
)
def test_a_reply_is_bounded_but_for_its_first_block(
    sizes: tuple[int, ...], limit: int, expected: int
) -> None:
    assert len(durable.first_blocks(map(bytes, sizes), limit)) == expected


def test_a_read_ends_before_a_gap() -> None:
    stored = {durable.height_key(height): bytes([height]) for height in (1, 2, 4)}
    asked = ReadBlocks(bytes(32), 1, 9, 100)
    assert durable.read_blocks(stored, asked) == BlocksRead(bytes(32), 1, (b"\1", b"\2"))


def test_an_engine_keeps_no_block_that_it_has_stored(reading: Reading) -> None:
    """All but the last few, which caches of a fixed size remember."""
    stored = set(reading.blocks.values())
    assert len(stored) > 10
    state = reading.engine.__dict__
    found = {data for data in _reachable(list(state.values()), bytes) if data in stored}
    assert len(found) <= 2


def _reachable(roots: list[object], kind: type[bytes]) -> set[bytes]:
    """Every object of a kind that can be reached from `roots` without entering the simulator or a module."""
    found: set[bytes] = set()
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        at = waiting.pop()
        if id(at) in seen or isinstance(at, type) or type(at).__name__ in {"module", "function"}:
            continue
        seen.add(id(at))
        if isinstance(at, kind):
            found.add(at)
        elif type(at).__module__.split(".")[0] not in {"sim", "_pytest"}:
            waiting += gc.get_referents(at)
    return found
