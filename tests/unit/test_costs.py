"""What a simulated processor takes: events wait for each other in order, and nothing costs by default."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from toy_world import Toy, ToyWorker, silent

from protocol import durable
from protocol.events import BlocksRead, Broadcast, Effect, Event, Persist, Received, Send, Start, TimerFired
from sim.costs import Costs
from sim.network import LinkModel
from sim.world import World

PEERS = [bytes([number]) * 32 for number in range(2)]


def a_world(costs: Costs | None, script: Callable[[Event], list[Effect]]) -> tuple[World, list[Toy]]:
    """Two nodes; the first acts by the script, the second is silent."""
    world = World(1, ToyWorker(), model=LinkModel(latency_min_ms=5, latency_max_ms=5), costs=costs)  # type: ignore
    toys: list[Toy] = []
    for peer, its in zip(PEERS, (script, silent), strict=True):
        toys.append(Toy(its, []))
        world.add_node(peer, lambda node, toy=toys[-1]: toy)  # type: ignore[misc]
    world.start_all()
    world.run_for(1_000)
    return world, toys


def taken(world: World, toy: Toy, count: int) -> list[int]:
    """When each of so many messages that arrive together was taken in, from the first on."""
    before = len(toy.seen)
    for number in range(count):
        world._deliver(world.nodes[1], Received(PEERS[0], bytes([number]) * 1_000))
    world.run_for(60_000)
    messages = [(e.data[0], at) for e, at in toy.seen[before:] if isinstance(e, Received)]
    assert [number for number, _ in messages] == list(range(count))
    return [at - messages[0][1] for _, at in messages]


@pytest.mark.parametrize(
    ("costs", "times"),
    [
        (None, [0, 0, 0, 0]),
        (Costs(message_us=3_000), [0, 3, 6, 9]),
        (Costs(message_us=500, kilobyte_us=1_000), [0, 1, 3, 4]),
        (Costs(block_us=9_000, read_us=9_000), [0, 0, 0, 0]),
    ],
)
def test_messages_wait_until_the_processor_is_free(costs: Costs | None, times: list[int]) -> None:
    world, toys = a_world(costs, silent)
    assert taken(world, toys[1], 4) == times


def test_what_is_done_is_charged_by_its_kind() -> None:
    costs = Costs(message_us=1, kilobyte_us=10, block_us=1_000, read_us=100)
    block = Persist(durable.BLOCK, durable.height_key(1), b"x")
    other = Persist(durable.SAFETY, b"", b"x")
    assert costs.of(Received(PEERS[0], bytes(2_000)), [], 3) == 1 + 20
    assert costs.of(TimerFired("x"), [block, other, block], 3) == 2_000
    assert costs.of(BlocksRead(PEERS[0], 1, (b"a", b"b")), [Send(PEERS[0], bytes(5_000))], 3) == 200 + 50
    assert costs.of(TimerFired("x"), [Broadcast(bytes(1_000))], 3) == 30


def test_a_crash_forgets_what_waited_and_a_pause_does_not() -> None:
    world, toys = a_world(Costs(message_us=1_000), silent)
    for number in range(4):
        world._deliver(world.nodes[1], Received(PEERS[0], bytes([number])))
    world.run_for(1)
    world.pause(1)
    world._deliver(world.nodes[1], Received(PEERS[0], bytes([4])))
    world.run_for(50)
    assert [e.data[0] for e, _ in toys[1].seen if isinstance(e, Received)] == [0, 1]
    world.resume(1)
    world.run_for(50)
    assert [e.data[0] for e, _ in toys[1].seen if isinstance(e, Received)] == [0, 1, 2, 3, 4]
    world._deliver(world.nodes[1], Received(PEERS[0], bytes([5])))
    world._deliver(world.nodes[1], Received(PEERS[0], bytes([6])))
    world.crash(1)
    world.run_for(50)
    assert not world.nodes[1].queue
    assert [e.data[0] for e, _ in toys[1].seen if isinstance(e, Received)] == [0, 1, 2, 3, 4]


def test_a_start_comes_first_whatever_it_takes() -> None:
    world, toys = a_world(Costs(message_us=10_000), silent)
    assert isinstance(toys[1].seen[0][0], Start)
    world.crash(1)
    world.nodes[1].make_engine = lambda node: toys[1]
    toys[1].started = False
    toys[1].up.clear()
    world.start(1)
    world.run_for(1_000)
    assert any(isinstance(event, Start) for event, _ in toys[1].seen[1:])
