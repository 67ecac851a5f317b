"""The simulator's benchmark runs whole rounds, and what it says of them adds up."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sim.bench.histories import PARTS, BenchError, bench_simulator, render, rounds_ended
from sim.founding import build_world, small_params


def test_every_node_ends_the_rounds_and_the_parts_make_up_the_whole() -> None:
    heard: list[int] = []
    result = bench_simulator(5, 2, 32, "hardened", seed=3, progress=heard.append)
    assert heard == [1, 2]
    assert (result.nodes, result.rounds, result.dimension, result.profile) == (5, 2, 32, "hardened")
    assert result.events > 5 * 5 * 2  # at the least each node hears a vote of each other in both rounds
    assert result.virtual_ms > 0
    assert set(result.shares) == set(PARTS)
    assert sum(result.shares.values()) == pytest.approx(1.0)
    assert result.shares["engines"] > result.shares["verifying signatures"] > 0
    text = render(result)
    assert f"{result.events}" in text
    assert all(part in text for part in PARTS)


def test_measuring_changes_nothing_that_happens() -> None:
    world = build_world(4, 7, params=small_params(4, dimension=32), keep_trace=0)
    world.run(rounds_ended(world, 1))
    measured = bench_simulator(4, 1, 32, "hardened", seed=7)
    assert (measured.events, measured.virtual_ms) == (world.schedule.happened, world.now)


@pytest.mark.parametrize(
    ("nodes", "rounds", "dimension", "named"),
    [(4, 0, 32, "at least one round"), (4, 1, 0, "one weight"), (1, 1, 32, "4 nodes")],
)
def test_what_cannot_be_simulated_is_refused(nodes: int, rounds: int, dimension: int, named: str) -> None:
    with pytest.raises(BenchError, match=named):
        bench_simulator(nodes, rounds, dimension, "hardened")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flocknode.cli.main", "bench", "sim", "--nodes", "4", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_the_figures() -> None:
    done = bench("--rounds", "1", "--dimension", "32")
    assert done.returncode == 0, done.stderr
    assert re.search(r"rounds +1 ", done.stdout)


def test_the_command_names_a_mistake() -> None:
    done = bench("--rounds", "0")
    assert done.returncode == 1
    assert "at least one round" in done.stderr
