"""Many histories side by side: drawn, run, counted, and shrunk where they fail."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from attrs import define, field

from protocol import jobs
from sim.founding import small_params
from sim.fuzz.draw import draw_scenario, history_seed
from sim.fuzz.history import History, run_history
from sim.fuzz.shrink import shrink
from sim.garbage import collect_seldom

AHEAD = 4
"""Histories in hand of each worker."""

Progress = Callable[["Campaign"], None]


@define
class Campaign:
    """What has come of it so far. `idle`: histories with too few rounds, or in which nothing struck."""

    seed: int
    histories: int = 0
    idle: int = 0
    rounds: int = 0
    events: int = 0
    coverage: Counter[str] = field(factory=Counter)
    failures: list[History] = field(factory=list)

    def take(self, history: History) -> None:
        if not history.counts:
            self.idle += 1
            return
        self.histories += 1
        self.rounds += history.rounds
        self.events += history.events
        self.coverage.update(dict.fromkeys(history.struck, 1))
        if history.invariant is not None:
            self.failures.append(history)

    def to_json(self, files: dict[int, str]) -> dict[str, Any]:
        """`files`: where the shrunk scenario of each failing seed was written."""
        return {
            "seed": self.seed,
            "histories": self.histories,
            "idle": self.idle,
            "failed": len(self.failures),
            "rounds": self.rounds,
            "events": self.events,
            "coverage": dict(sorted(self.coverage.items())),
            "failures": [
                {"seed": h.seed, "invariant": h.invariant, "scenario": files.get(h.seed, h.scenario.name)}
                for h in self.failures
            ],
        }


def run_campaign(
    seed: int, histories: int, workers: int, *, progress: Progress = lambda campaign: None,
    take: Callable[[History], None] = lambda history: None, most_failures: int = 20,
) -> Campaign:  # fmt: skip
    """Until `histories` have been run that count, or `most_failures` have failed; shrunk where they failed.

    `take` hears of each history. What is drawn does not depend on `workers`; which histories are the last to
    count may.
    """
    campaign = Campaign(seed)
    for history in _histories(seed, workers):
        take(history)
        campaign.take(history)
        progress(campaign)
        if campaign.histories >= histories or len(campaign.failures) >= most_failures:
            break
    return campaign


def _histories(seed: int, workers: int) -> Iterator[History]:
    """Without end, in the order in which they are done."""
    if workers == 1:
        number = 0
        while True:
            yield one_history(history_seed(seed, number))
            number += 1
    jobs.warm(small_params(4))
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=collect_seldom) as pool:
        waiting: set[Future[History]] = set()
        number = 0
        try:
            while True:
                while len(waiting) < workers * AHEAD:
                    waiting.add(pool.submit(one_history, history_seed(seed, number)))
                    number += 1
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def one_history(seed: int) -> History:
    """Draw, run, and shrink if it fails."""
    history = run_history(draw_scenario(seed), seed)
    return history if history.invariant is None else shrink(history)
