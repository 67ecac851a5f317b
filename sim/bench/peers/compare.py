"""The whole comparison: all runs in turn, then what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

from attrs import asdict, frozen

from sim.bench.peers.charts import byte_bars, client_bars, draw_bars, round_bars
from sim.bench.peers.plan import Plan, RunPlan
from sim.bench.peers.render import to_markdown
from sim.bench.peers.runs import Run, perform
from sim.bench.peers.summary import ClientRow, RoundRow, client_rows, goals, round_rows
from sim.bench.peers.systems import P2PFL, Interpreters
from sim.bench.peers.virtual_environment import VirtualEnvironmentError, ensure
from sim.figures.claims import Claim
from sim.figures.machine import describe_machine

RESULTS = "results.json"
TABLE = "results.md"


@frozen(eq=False)
class Comparison:
    """Every run, and what follows from them."""

    runs: tuple[Run, ...]
    clients: tuple[ClientRow, ...]
    rounds: tuple[RoundRow, ...]
    goals: tuple[Claim, ...]


def compare(
    plan: Plan,
    peers: Collection[str],
    interpreters: Interpreters,
    out: Path,
    progress: Callable[[RunPlan, Run], None] = lambda run, done: None,
) -> Comparison:
    """Make the runs that are not stored under `out` yet; OSError from writing there."""
    runs: list[Run] = []
    for run in plan.runs(peers):
        done = perform(run, plan, interpreters, out)
        runs.append(done)
        progress(run, done)
    clients, rounds = client_rows(runs), round_rows(runs)
    return Comparison(tuple(runs), tuple(clients), tuple(rounds), tuple(goals(clients, rounds)))


def write_comparison(comparison: Comparison, out: Path, command: str) -> None:
    """results.json, results.md and the charts. OSError; FigureError without matplotlib."""
    where = describe_machine()
    results = {
        "machine": where,
        "command": command,
        "clients": [asdict(row) for row in comparison.clients],
        "rounds": [asdict(row) for row in comparison.rounds],
        "goals": [goal.to_json() for goal in comparison.goals],
        "runs": [run.to_json() for run in comparison.runs],
    }
    (out / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    text = to_markdown(
        comparison.clients, comparison.rounds, comparison.goals, comparison.runs, where, command
    )
    (out / TABLE).write_text(text)
    draw_bars(client_bars(comparison.clients), out / "peers-client")
    draw_bars(round_bars(comparison.rounds), out / "peers-round")
    draw_bars(byte_bars(comparison.rounds), out / "peers-bytes")


def prepare_interpreters(peers: Collection[str], p2pfl: Path, log: Path) -> Interpreters:
    """p2pfl's environment, made if it is wanted and not there; where that fails, everything else goes on."""
    if P2PFL not in peers:
        return Interpreters()
    try:
        ensure(p2pfl, log)
    except (VirtualEnvironmentError, OSError) as error:
        return Interpreters(without={P2PFL: str(error)})
    return Interpreters(p2pfl=p2pfl)
