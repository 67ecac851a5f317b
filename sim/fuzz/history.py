"""One history of a fuzzing campaign: a scenario, what struck in it, and what was violated."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from attrs import frozen

from sim.scenario.manifest import Scenario, ScenarioError
from sim.scenario.run import Run, run_scenario

LEAST_ROUNDS = 3
TRACE_LINES = 64
TWIN = "twin"
SIMULATOR = "the simulator raises nothing"


@frozen(kw_only=True)
class History:
    """`counts`: it had at least three rounds, and a fault or an adversary that really struck."""

    seed: int
    scenario: Scenario
    rounds: int
    events: int
    struck: Mapping[str, int]
    invariant: str | None
    what: str

    @property
    def counts(self) -> bool:
        return self.invariant is not None or (self.rounds >= LEAST_ROUNDS and bool(self.struck))


def run_history(scenario: Scenario, seed: int) -> History:
    """Run it. One that fails is run again with a trace.

    A mistake of the simulator's own fails the history, and not the campaign. Raises `ScenarioError` only, for
    a cast that cannot be.
    """
    try:
        history = _run(scenario, seed, 0)
        return history if history.invariant is None else _run(scenario, seed, TRACE_LINES)
    except ScenarioError:
        raise
    except Exception:
        return History(
            seed=seed,
            scenario=scenario,
            rounds=0,
            events=0,
            struck={},
            invariant=SIMULATOR,
            what=traceback.format_exc(),
        )


def _run(scenario: Scenario, seed: int, keep_trace: int) -> History:
    run = run_scenario(scenario, seed, check_ledgers=False, keep_trace=keep_trace)
    steps = run.ending.longest.steps
    invariant = run.violation.invariant if run.violation else ("expectation" if run.failures else None)
    return History(
        seed=seed,
        scenario=scenario,
        rounds=steps[-1].after.round - 1 if steps else 0,
        events=run.events,
        struck=what_struck(run),
        invariant=invariant,
        what=run.violation.what if run.violation else "; ".join(run.failures),
    )


def what_struck(run: Run) -> dict[str, int]:
    """How often each fault and behaviour really struck; those that never did are left out."""
    struck = {name: count for name, count in run.struck.items() if count}
    for strike in run.strikes:
        struck[strike.kind.value] = struck.get(strike.kind.value, 0) + 1
    if run.stage.scenario.twins:
        struck[TWIN] = len(run.stage.scenario.twins)
    link = run.stage.scenario.link
    for name in ("loss", "duplicate", "reorder"):
        if getattr(link, name):
            struck[f"link {name}"] = 1
    return struck
