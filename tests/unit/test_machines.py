"""What can happen to a simulated machine: pauses, slow work, skewed clocks, full disks, damaged stores."""

from __future__ import annotations

import pytest
from toy_world import Toys, on, peer, silent

from protocol.events import (
    Command,
    Effect,
    Event,
    JobDone,
    Persist,
    Received,
    RunJob,
    Send,
    SetTimer,
    Start,
    TimerFired,
)
from sim.clock import Clock
from sim.errors import WorldError
from sim.network import Impairment, LinkModel, Network
from sim.node import JOURNAL, Node

WRITE = Persist("b", b"k", b"v")


def counter(event: Event) -> list[Effect]:
    """Writes one more record for each command."""
    return [Persist("b", event.order, b"v")] if isinstance(event, Command) else []


def test_a_paused_node_handles_in_order_what_came_in_the_meantime() -> None:
    toys = Toys([on(Start, SetTimer("t", 500)), on(Command, Send(peer(0), b"one"), Send(peer(0), b"two"))])
    world = toys.world
    world.run_for(300)
    world.pause(0)
    world.command(1, b"")
    world.run_for(2_000)
    assert not toys.events(0, Received)
    assert not toys.events(0, TimerFired)
    world.resume(0)
    world.run_for(1)
    assert toys.data(0) == [b"one", b"two"]
    assert toys.events(0, TimerFired) == [TimerFired("t")]
    assert world.nodes[0].life == 0


def test_a_node_that_is_killed_while_it_is_paused_forgets_what_waited() -> None:
    toys = Toys([silent, on(Command, Send(peer(0), b"lost"))])
    world = toys.world
    world.run_for(300)
    world.pause(0)
    world.command(1, b"")
    world.run_for(500)
    world.crash(0, restart_ms=100)
    world.run_for(500)
    assert not toys.data(0)
    assert not world.nodes[0].paused


def test_a_slow_machine_takes_longer_over_jobs_and_events_and_keeps_their_order() -> None:
    script = on(Command, RunJob("j", "work"))
    quick, slow = Toys([script]), Toys([script])
    slow.world.set_slowness(0, 10.0)
    for toys in (quick, slow):
        toys.world.command(0, b"")
        toys.world.run_for(5_000)
    ended = [next(at for event, at in t.seen[0] if isinstance(event, JobDone)) for t in (quick, slow)]
    began = [t.seen[0][0][1] for t in (quick, slow)]
    assert ended[0] - began[0] == 100
    assert 1_000 <= ended[1] - began[1] <= 1_030
    slow.world.command(0, b"a")
    slow.world.command(0, b"b")
    slow.world.run_for(100)
    assert [event.order for event in slow.events(0, Command)][-2:] == [b"a", b"b"]  # type: ignore[attr-defined]


def test_a_clock_that_runs_fast_fires_its_timers_early_and_never_jumps() -> None:
    toys = Toys([on(Command, SetTimer("t", 1_000))])
    world = toys.world
    world.run_for(10)
    world.set_clock_rate(0, 4.0)
    world.command(0, b"")
    world.run_for(250)
    fired = [at for event, at in toys.seen[0] if isinstance(event, TimerFired)]
    asked = [at for event, at in toys.seen[0] if isinstance(event, Command)]
    assert len(fired) == 1
    assert fired[0] - asked[0] == 1_000


def test_a_clock_is_monotonic_through_changes_of_its_rate() -> None:
    clock, shown = Clock(1_000, 50), []
    for now, rate in ((1_500, 0.25), (3_000, 3.0), (3_001, 1.0), (9_000, 0.5)):
        shown.append(clock.read(now))
        clock.set_rate(now, rate)
        assert clock.read(now) == shown[-1]
        assert clock.virtual(1_000) >= 1_000 / rate
    assert shown == sorted(shown)


def test_a_node_whose_disk_is_full_ends_at_the_first_write_and_comes_back_when_there_is_room() -> None:
    toys = Toys([on(Command, Send(peer(1), b"before"), WRITE, Send(peer(1), b"after")), silent])
    world = toys.world
    world.run_for(300)
    world.set_disk_full(0, True)
    world.command(0, b"")
    world.run_for(500)
    assert toys.data(1) == [b"before"]
    assert world.nodes[0].down
    assert world.nodes[0].records == {}
    world.set_disk_full(0, False)
    world.run_for(2_000)
    assert world.nodes[0].alive
    assert world.nodes[0].life == 1


def test_a_damaged_store_is_refused_and_starting_over_costs_the_node_its_honesty() -> None:
    toys = Toys([counter])
    world, node = toys.world, toys.world.nodes[0]
    world.command(0, b"1")
    world.run_for(10)
    with pytest.raises(WorldError, match="running"):
        world.corrupt(0)
    world.crash(0)
    world.corrupt(0)
    world.start(0)
    world.run_for(10)
    assert node.down
    assert node.honest
    world.start_over(0)
    world.run_for(10)
    assert node.alive
    assert toys.events(0, Start)[-1] == Start({}, frozenset())
    assert not node.honest


def test_a_store_that_lost_its_last_writes_is_what_it_was_before_them() -> None:
    toys = Toys([counter])
    world = toys.world
    for number in range(5):
        world.command(0, bytes([number]))
    world.run_for(10)
    world.crash(0)
    world.truncate(0, 2)
    world.start(0)
    world.run_for(10)
    assert sorted(world.nodes[0].records["b"]) == [b"\0", b"\1", b"\2"]
    assert not world.nodes[0].honest


def test_the_journal_of_writes_is_bounded_and_brings_overwritten_values_back() -> None:
    node = Node(index=0, peer=peer(0), make_engine=lambda node: pytest.fail("not started"), entropy=None)  # type: ignore[arg-type]
    for number in range(JOURNAL + 10):
        node.persist(Persist("b", b"k", bytes([number])))
    node.persist(Persist("b", b"k", None))
    node.lose_last_writes(2)
    assert node.records["b"][b"k"] == bytes([JOURNAL + 8])
    node.lose_last_writes(10_000)
    assert node.records["b"][b"k"] == bytes([10])


def test_whoever_watches_may_crash_a_node_between_two_effects() -> None:
    toys = Toys([on(Command, WRITE, Send(peer(1), b"one"), Send(peer(1), b"two")), silent])
    world = toys.world
    world.run_for(300)
    world.watch = lambda node, effect: world.crash(0) if effect == Send(peer(1), b"one") else None
    world.command(0, b"")
    world.run_for(500)
    assert toys.data(1) == [b"one"]
    assert world.nodes[0].down
    assert world.nodes[0].performed == 2


# -- the network -----------------------------------------------------------------------------------


def test_partitions_stand_side_by_side_and_end_one_by_one() -> None:
    toys = Toys([silent] * 4)
    network = toys.world.network
    halves, alone = network.partition([[0, 1]]), network.partition([[0]])
    assert network.separated(0, 1)
    assert network.separated(1, 2)
    assert not network.separated(2, 3)
    network.end_partition(halves)
    assert not network.separated(1, 2)
    assert network.separated(0, 1)
    network.end_partition(alone)
    network.end_partition(alone)
    assert not network.separated(0, 1)


def test_impairments_add_up_and_end_one_by_one() -> None:
    network = Network(
        LinkModel(latency_min_ms=5, latency_max_ms=10, bytes_per_ms=1_000), Toys([]).world.schedule.random
    )
    lossy = network.impair([1], Impairment(loss=0.5))
    slow = network.impair([1, 2], Impairment(loss=0.5, delay_ms=100, bytes_per_ms=10))
    assert network.link(1, 2).loss == 0.75
    assert network.link(2, 3) == LinkModel(latency_min_ms=105, latency_max_ms=110, bytes_per_ms=10, loss=0.5)
    assert network.link(0, 3) is network.model
    network.end_impairment(lossy)
    assert network.link(1, 0).loss == 0.5
    network.end_impairment(slow)
    assert network.link(1, 2) is network.model
    network.model = LinkModel(loss=0.1)
    assert network.link(1, 2).loss == 0.1


def test_what_is_sent_behind_something_large_waits_for_it() -> None:
    model = LinkModel(latency_min_ms=1, latency_max_ms=1, bytes_per_ms=10)
    network = Network(model, Toys([]).world.schedule.random)
    assert network.arrivals(0, 1, 10_000, 0) == [1_001]
    assert network.arrivals(0, 1, 100, 0) == [1_011]
    assert network.arrivals(1, 0, 100, 0) == [11]
    assert network.arrivals(0, 1, 100, 5_000) == [5_011]
