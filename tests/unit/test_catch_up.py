"""The invariant of catching up, tested by breaking each of its rules."""

from __future__ import annotations

import pytest
from toy_world import ToyWorker, silent

from protocol.codec import encode
from protocol.envelope import make_statement
from protocol.events import Broadcast, Send
from protocol.keys import Identity
from protocol.ledger.block import Block, BlockKind, StoredBlock
from protocol.messages import BlockRequest, Blocks, Body, Certificate, Kind, Vote, VotePhase
from sim.invariants.base import InvariantError
from sim.invariants.catch_up import CatchUp
from sim.node import Node
from sim.world import World

NETWORK = bytes(32)
INTERVAL_MS = 1_000
ME, OTHER, THIRD = (Identity.from_seed(bytes([index]) * 32) for index in (1, 2, 3))


class Watched:
    """Three connected nodes, watched by the invariant."""

    def __init__(self) -> None:
        world = World(0, ToyWorker())
        self.nodes: list[Node] = [world.add_node(identity.peer, silent) for identity in (ME, OTHER, THIRD)]
        for node in self.nodes:
            node.connections = {other: 1 for other in range(3) if other != node.index}
        self.now = 0
        self.invariant = CatchUp(INTERVAL_MS, lambda: self.now, self.nodes)

    def say(self, source: Identity, to: Identity | None, kind: Kind, body: Body) -> None:
        data = make_statement(source, NETWORK, 1, kind, body).to_bytes()
        effect = Broadcast(data) if to is None else Send(to.peer, data)
        self.invariant(next(n for n in self.nodes if n.peer == source.peer), [effect])

    def ask(self, source: Identity, to: Identity | None, height: int = 1) -> None:
        self.say(source, to, Kind.BLOCK_REQUEST, BlockRequest(height))

    def give(self, source: Identity, to: Identity, *heights: int, size: int = 10) -> None:
        self.say(source, to, Kind.BLOCKS, Blocks(tuple(stored(height, size) for height in heights)))


def stored(height: int, size: int = 10) -> bytes:
    block = Block(height, 1, BlockKind.OPEN, bytes(32), bytes(32), bytes(32), 1, (), bytes(size))
    return encode(StoredBlock(block, Certificate(1, Vote(VotePhase.COMMIT, height, 1, block.hash), ())))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_one_request_after_the_other_is_fine(watched: Watched) -> None:
    for height in range(1, 50):
        watched.ask(ME, OTHER if height % 2 else THIRD, height)
        watched.give(OTHER if height % 2 else THIRD, ME, height)


def test_two_requests_at_once_are_found(watched: Watched) -> None:
    watched.ask(ME, OTHER)
    with pytest.raises(InvariantError, match="outstanding"):
        watched.ask(ME, THIRD)


@pytest.mark.parametrize("why", ["time", "connection", "life"])
def test_a_request_ends_with_its_time_its_connection_or_its_life(watched: Watched, why: str) -> None:
    watched.ask(ME, OTHER)
    match why:
        case "time":
            watched.now = INTERVAL_MS
        case "connection":
            watched.nodes[0].connections[1] = 2
        case _:
            watched.nodes[0].life += 1
    watched.ask(ME, THIRD)


def test_a_reply_of_somebody_else_ends_no_request(watched: Watched) -> None:
    watched.ask(ME, OTHER)
    watched.ask(OTHER, THIRD)
    watched.give(THIRD, OTHER, 1)
    with pytest.raises(InvariantError, match="outstanding"):
        watched.ask(ME, THIRD)


def test_blocks_that_nobody_asked_for_are_found(watched: Watched) -> None:
    watched.ask(ME, OTHER, 5)
    with pytest.raises(InvariantError, match="nobody asked"):
        watched.give(OTHER, ME, 4)
    with pytest.raises(InvariantError, match="nobody asked"):
        watched.give(THIRD, ME, 5)


def test_a_block_twice_at_once_is_found(watched: Watched) -> None:
    watched.ask(ME, OTHER, 1)
    watched.give(OTHER, ME, 1, 2, 3)
    watched.ask(ME, OTHER, 3)
    with pytest.raises(InvariantError, match="twice"):
        watched.give(OTHER, ME, 3)
    watched.now += INTERVAL_MS // 2
    watched.give(OTHER, ME, 3)


@pytest.mark.parametrize(("count", "size"), [(65, 10), (3, 100_000)])
def test_a_reply_that_is_too_large_is_found(watched: Watched, count: int, size: int) -> None:
    watched.ask(ME, OTHER)
    with pytest.raises(InvariantError, match="in one reply"):
        watched.give(OTHER, ME, *range(1, count + 1), size=size)


def test_more_replies_than_two_windows_have_are_found(watched: Watched) -> None:
    def serve(number: int) -> None:
        watched.ask(ME, OTHER, number)
        watched.give(OTHER, ME, number)

    for number in range(1, 33):
        serve(number)
    with pytest.raises(InvariantError, match="replies at once"):
        serve(33)


def test_a_dishonest_node_is_not_held_to_it(watched: Watched) -> None:
    watched.nodes[0].honest = False
    watched.ask(ME, OTHER)
    watched.ask(ME, THIRD)
    watched.ask(ME, None)
    watched.give(ME, OTHER, 7)
