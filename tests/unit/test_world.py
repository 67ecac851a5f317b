"""The simulator's kernel, driven by an engine small enough to see through: time, crashes, jobs, goals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_world import Toys, on, peer, silent

from protocol.events import (
    BlobFailed,
    Broadcast,
    CancelJob,
    CancelTimer,
    Command,
    Effect,
    Event,
    Fetch,
    JobDone,
    JobFailed,
    Notify,
    Persist,
    RunJob,
    Send,
    SetTimer,
    Start,
    TimerFired,
)
from sim.errors import BrokenInvariantError, EngineRaisedError, SimulationStalled, WorldError
from sim.filters import Filter
from sim.invariants.agreement import Agreement
from sim.invariants.supply import Supply
from sim.network import LinkModel
from sim.world import World


class Ticker:
    """Counts its timer's firings durably and tells everyone."""

    def __init__(self) -> None:
        self.ticks = 0

    def __call__(self, event: Event) -> list[Effect]:
        match event:
            case Start(records, _):
                self.ticks = int.from_bytes(records.get("count", {}).get(b"", b""), "big")
                return [Notify("started", {"count": self.ticks}), SetTimer("tick", 50)]
            case TimerFired("tick"):
                self.ticks += 1
                count = self.ticks.to_bytes(8, "big")
                return [Persist("count", b"", count), Broadcast(count), SetTimer("tick", 50)]
        return []


def busy_history(seed: int) -> World:
    """Everything that can happen, at once."""
    lossy = LinkModel(loss=0.1, duplicate=0.1, reorder=0.2, late_ms=300)
    world = Toys([Ticker() for _ in range(5)], seed, model=lossy).world
    world.at(500, lambda: world.partition([[0, 1], [2]]))
    world.at(900, lambda: world.crash(4, after_effects=1, restart_ms=400))
    world.at(1_500, world.heal)
    world.at(1_600, lambda: world.cut(3, 0))
    world.at(2_500, lambda: world.mend(3, 0))
    world.crash_at_effect(1, 60, restart_ms=100)
    world.run_for(4_000)
    return world


# -- determinism -----------------------------------------------------------------------------------


def test_a_run_is_a_function_of_its_seed() -> None:
    first, again, other = busy_history(7), busy_history(7), busy_history(8)
    assert first.trace_digest() == again.trace_digest()
    assert list(first.trace.lines) == list(again.trace.lines)
    assert first.trace_digest() != other.trace_digest()
    assert [node.life for node in first.nodes] == [0, 1, 0, 0, 1]


def test_a_run_does_not_depend_on_the_hash_seed() -> None:
    code = "from test_world import busy_history; print(busy_history(3).trace_digest())"
    digests = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "4242")
    ]
    assert digests[0] == digests[1] == busy_history(3).trace_digest() + "\n"


def test_the_trace_digest_covers_lines_that_are_no_longer_kept() -> None:
    long, short = (Toys([Ticker()], keep_trace=keep) for keep in (1_000, 5))
    for toys in (long, short):
        toys.world.run_for(1_000)
    assert len(short.world.trace.lines) == 5
    assert long.world.trace_digest() == short.world.trace_digest()


# -- crashes and what survives them ----------------------------------------------------------------


def test_a_crash_between_two_effects_keeps_exactly_what_was_performed() -> None:
    steps = [Persist("b", b"1", b"x"), Send(peer(1), b"one"), Persist("b", b"2", b"y"), Send(peer(1), b"two")]
    for performed in range(5):
        toys = Toys([on(Command, *steps), silent])
        world = toys.world
        world.run_for(300)
        world.crash(0, after_effects=performed, restart_ms=100)
        world.command(0, b"")
        world.run_for(1_000)
        restarted = toys.events(0, Start)[1]
        assert sorted(restarted.records.get("b", {})) == [b"1", b"2"][: (performed + 1) // 2]
        assert toys.data(1) == [b"one", b"two"][: performed // 2]


def test_crash_at_each_effect_over_all_lives() -> None:
    total = 40
    for ordinal in range(total):
        toys = Toys([Ticker()])
        toys.world.crash_at_effect(0, ordinal, restart_ms=10)
        toys.world.run(lambda world: world.nodes[0].performed >= total + 5, max_virtual_ms=60_000)
        lines = [line for line in toys.world.trace.lines if " 0 " in line]
        at = lines.index(next(line for line in lines if line.endswith("crash")))
        effects = ("notify", "persist", ">", "timer")
        assert sum(line.split()[2].startswith(effects) for line in lines[:at]) == ordinal
        assert toys.world.nodes[0].life == 1


def test_deleting_a_record_is_durable_too_and_start_shows_copies() -> None:
    script = on(Command, Persist("b", b"k", b"v"), Persist("b", b"gone", b"v"), Persist("b", b"gone", None))
    toys = Toys([script])
    toys.world.command(0, b"")
    toys.world.run_for(10)
    toys.world.crash(0)
    toys.world.restart(0)
    toys.world.run_for(10)
    shown = toys.events(0, Start)[1].records
    assert shown == {"b": {b"k": b"v"}}
    shown["b"].clear()
    assert toys.world.nodes[0].records == {"b": {b"k": b"v"}}


def test_nothing_of_an_earlier_life_reaches_the_next() -> None:
    script = on(Command, SetTimer("t", 500), RunJob("j", "work"), Fetch(bytes(32), (peer(1),)))
    toys = Toys([script, silent])
    toys.world.command(0, b"")
    toys.world.run_for(20)
    toys.world.crash(0, restart_ms=1)
    toys.world.run_for(5_000)
    for kind in (TimerFired, JobDone, BlobFailed):
        assert not toys.events(0, kind)


def test_a_restart_gets_a_new_clock() -> None:
    toys = Toys([silent])
    toys.world.run_for(10)
    toys.world.crash(0, restart_ms=10)
    toys.world.run_for(100)
    first, second = (now for event, now in toys.seen[0] if isinstance(event, Start))
    assert first != second - 20


def test_crash_and_restart_refuse_what_cannot_be() -> None:
    world = Toys([silent]).world
    with pytest.raises(WorldError):
        world.start(0)
    world.crash(0)
    with pytest.raises(WorldError):
        world.crash(0)
    world.run_for(10)
    with pytest.raises(WorldError):
        world.at(5, world.heal)


# -- timers and jobs -------------------------------------------------------------------------------


def test_timers_restart_and_cancel() -> None:
    script = on(Start, SetTimer("a", 100), SetTimer("b", 100), SetTimer("a", 300), CancelTimer("b"))
    toys = Toys([script])
    toys.world.run_for(1_000)
    start = toys.seen[0][0][1]
    assert [(event, now - start) for event, now in toys.seen[0][1:]] == [(TimerFired("a"), 300)]


def test_jobs_end_in_one_event_unless_cancelled() -> None:
    script = on(
        Start, RunJob("good", "work"), RunJob("bad", "fail"), RunJob("gone", "work"), CancelJob("gone"),
        RunJob("lacks", bytes(32)), RunJob("twice", "old"), RunJob("twice", "new"),
    )  # fmt: skip
    toys = Toys([script])
    toys.world.run_for(1_000)
    assert toys.events(0, JobDone) == [JobDone("good", "WORK"), JobDone("twice", "NEW")]
    assert [event.key for event in toys.events(0, JobFailed)] == ["bad", "lacks"]
    assert [failed.key for failed in toys.world.failed_jobs] == ["bad", "lacks"]


# -- goals and invariants --------------------------------------------------------------------------


def test_a_stalled_run_says_so() -> None:
    world = Toys([silent, Ticker()], seed=99).world
    with pytest.raises(SimulationStalled, match=r"seed 99 .*not there after 1000 virtual ms") as stalled:
        world.run(lambda world: False, max_virtual_ms=1_000)
    assert stalled.value.seed == 99
    assert "node 1: life 0" in stalled.value.summary
    with pytest.raises(SimulationStalled, match="10 events"):
        world.run(lambda world: False, max_events=10)
    with pytest.raises(SimulationStalled, match="nothing is left"):
        Toys([silent]).world.run(lambda world: False)


def test_an_engine_that_raises_is_named() -> None:
    def broken(event: Event) -> list[Effect]:
        raise KeyError("oh")

    with pytest.raises(EngineRaisedError, match=r"seed 5 .*node 0 raised KeyError"):
        Toys([broken], seed=5).world.run_for(1)


def block(height: int, value: bytes | None) -> Persist:
    return Persist("block", height.to_bytes(8, "big"), value)


def test_agreement_compares_blocks_and_not_certificates() -> None:
    agreement = Agreement(lambda value: value[:1])
    same = [on(Start, block(1, b"A one")), on(Start, block(1, b"A two")), on(Start, block(2, b"B"))]
    Toys(same, invariants=[agreement]).world.run_for(1)
    with pytest.raises(BrokenInvariantError, match="height 1"):
        Toys([on(Start, block(1, b"C"))], invariants=[agreement]).world.run_for(1)
    with pytest.raises(BrokenInvariantError, match="deleted"):
        Toys([on(Start, block(1, None))], invariants=[agreement]).world.run_for(1)


def test_the_dishonest_may_keep_what_blocks_they_like() -> None:
    scripts = [on(Start, block(1, b"A")), on(Start, block(1, b"B"))]
    Toys(scripts, invariants=[Agreement(bytes)], filters={1: Filter()}).world.run_for(1)


def test_supply_is_checked_after_each_block() -> None:
    supply = Supply(lambda node: 100 - node.height, 99)
    toys = Toys([on(Command, block(1, b"A")), on(Command, block(2, b"B"))], invariants=[supply])
    toys.world.run_for(1)
    toys.world.command(0, b"")
    toys.world.run_for(1)
    toys.world.command(1, b"")
    with pytest.raises(BrokenInvariantError, match="supply is 98, not 99"):
        toys.world.run_for(1)
