"""Making a failing scenario smaller while it goes on failing in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from attrs import evolve

from sim.fuzz.history import History, run_history
from sim.scenario.manifest import LinkTable, Scenario

Progress = Callable[[], None]
Entry = TypeVar("Entry")


def shrink(history: History, most_runs: int = 80, progress: Progress = lambda: None) -> History:
    """The smallest history found that violates the same invariant with the same seed; greedy, bounded."""
    best, runs = history, 0
    improved = True
    while improved and runs < most_runs:
        improved = False
        for smaller in _smaller(best.scenario):
            if runs >= most_runs:
                break
            runs += 1
            progress()
            tried = run_history(smaller, best.seed)
            if tried.invariant == history.invariant:
                best, improved = tried, True
                break
    return best


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Simpler scenarios, the greatest simplifications first."""
    for kept in _without_one(scenario.faults):
        yield evolve(scenario, faults=kept)
    for cast in _without_one(scenario.nodes):
        yield evolve(scenario, nodes=cast)
    if scenario.link != LinkTable():
        yield evolve(scenario, link=LinkTable())
        calmer = (
            evolve(scenario.link, loss=0.0),
            evolve(scenario.link, duplicate=0.0),
            evolve(scenario.link, reorder=0.0),
        )
        for link in calmer:
            if link != scenario.link:
                yield evolve(scenario, link=link)
    rounds = scenario.network.rounds
    last = max((f.place.round for f in scenario.faults if f.place is not None), default=1)
    if rounds > max(1, last):
        yield evolve(scenario, network=evolve(scenario.network, rounds=max(1, last)))
    for number, fault in enumerate(scenario.faults):
        if fault.after_s:
            faults = list(scenario.faults)
            faults[number] = evolve(fault, after_s=0.0)
            yield evolve(scenario, faults=tuple(faults))


def _without_one(entries: tuple[Entry, ...]) -> Iterator[tuple[Entry, ...]]:
    for number in range(len(entries)):
        yield entries[:number] + entries[number + 1 :]
