"""Looking for what finds a planted bug: scenarios that are aimed at it, then scenarios drawn at random."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from attrs import frozen

from protocol import jobs
from sim.founding import small_params
from sim.fuzz.draw import draw_scenario, history_seed
from sim.garbage import collect_seldom
from sim.mutants.planting import Hunter, Mutant
from sim.scenario.manifest import Scenario, load_scenario
from sim.scenario.run import Run, run_scenario

MANIFESTS = Path(__file__).parent / "manifests"
DRAWN = "drawn at random"
EXPECTATION = "expectation"
TRACE_LINES = 32
CAMPAIGN = 1
"""Seed of the campaign that scenarios are drawn from."""

Progress = Callable[["Found"], None]


@frozen(kw_only=True)
class Found:
    """What came of the hunt for one mutant.

    `invariant`: what was violated, `EXPECTATION` for what a manifest expects, None where the mutant survived.
    `scenario` and `seed`: with what; `tried`: histories run with the mutant. `innocent`: what is violated by
    the same scenario and seed without the mutant, which is nothing if all is well.
    """

    mutant: str
    invariant: str | None
    scenario: str
    seed: int
    tried: int
    innocent: str | None
    what: str

    @property
    def is_clean(self) -> bool:
        """Whether the bug was found, and nothing where there is none."""
        return self.invariant is not None and self.innocent is None


def hunt(mutant: Mutant, budget: int) -> Found:
    """Run the mutant's hunters, then `budget` drawn scenarios, until something is violated."""
    tried = 0
    for name, scenario, seed in _scenarios(mutant, budget):
        tried += 1
        with mutant.plant():
            invariant, what = violated(run_scenario(scenario, seed, keep_trace=TRACE_LINES))
        if invariant is not None:
            innocent, _ = violated(run_scenario(scenario, seed, keep_trace=TRACE_LINES))
            return Found(
                mutant=mutant.name,
                invariant=invariant,
                scenario=name,
                seed=seed,
                tried=tried,
                innocent=innocent,
                what=what,
            )
    return Found(
        mutant=mutant.name,
        invariant=None,
        scenario="",
        seed=0,
        tried=tried,
        innocent=None,
        what="it survived",
    )


def violated(run: Run) -> tuple[str | None, str]:
    """The invariant that a run violated, or `EXPECTATION`, and how; None where it passed."""
    if run.violation is not None:
        return run.violation.invariant, run.violation.what
    return (EXPECTATION, "; ".join(run.failures)) if run.failures else (None, "")


def manifest_of(hunter: Hunter) -> Scenario:
    """Raises `ScenarioError` for a manifest that there is not."""
    return load_scenario(MANIFESTS / f"{hunter.manifest}.toml")


def _scenarios(mutant: Mutant, budget: int) -> Iterator[tuple[str, Scenario, int]]:
    for hunter in mutant.hunters:
        yield hunter.manifest, manifest_of(hunter), hunter.seed
    for number in range(budget):
        seed = history_seed(CAMPAIGN, number)
        yield DRAWN, draw_scenario(seed), seed


def hunt_all(
    mutants: Sequence[Mutant], budget: int, workers: int, progress: Progress = lambda found: None
) -> list[Found]:
    """In the order of `mutants`; each process plants one bug at a time. `progress` hears of each in turn."""
    jobs.warm(small_params(4))
    if workers == 1:
        found = []
        for mutant in mutants:
            found.append(hunt(mutant, budget))
            progress(found[-1])
        return found
    by_name: dict[str, Found] = {}
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=collect_seldom) as pool:
        try:
            for future in as_completed([pool.submit(_hunt_named, m.name, budget) for m in mutants]):
                result = future.result()
                by_name[result.mutant] = result
                progress(result)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [by_name[mutant.name] for mutant in mutants]


def _hunt_named(name: str, budget: int) -> Found:
    """In a process of its own: what a mutant swaps cannot be sent there, its name can."""
    from sim.mutants.catalogue import MUTANTS

    return hunt(MUTANTS[name], budget)
