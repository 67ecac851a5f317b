"""Figure 6: who pays for a round that a malicious proposer spoiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sim.figures.claims import Claim
from sim.figures.flock.plan import TITLES, Outcomes, TaskSize
from sim.figures.flock.sources import FLOCK
from sim.figures.plots import Curve, Panel, band_over_seeds
from sim.figures.report import Cell, Figure, Table
from sim.figures.sweep import Result

MEASURES = ("honest proposers slashed per spoiled round", "honest share of what proposers paid")


def honest_slashed(result: Result) -> float:
    """Honest proposers who lost tokens, per rejected round that had a malicious proposer; 0 without any."""
    rounds = _spoiled_rounds(result)
    return float(np.mean([result["slashed_honest"][r] for r in rounds])) if rounds else 0.0


def honest_share(result: Result) -> float:
    """What honest proposers paid in such rounds, as a share of what all proposers paid; 0 if nobody did."""
    rounds = _spoiled_rounds(result)
    honest, malicious = (sum(result[f"paid_{kind}"][r] for r in rounds) for kind in ("honest", "malicious"))
    return float(honest / (honest + malicious)) if honest + malicious else 0.0


def payers_figure(outcomes: Outcomes) -> Figure:
    """Both measures, against gamma, for each eta."""
    size = outcomes.size
    measures: tuple[Callable[[Result], float], ...] = (honest_slashed, honest_share)
    panels = tuple(
        Panel(
            TITLES[task.task],
            "gamma (tokens)",
            label,
            tuple(
                Curve(
                    f"eta = {eta} %",
                    np.array(size.gammas, float),
                    band_over_seeds(_by_gamma(outcomes, task, eta, measure)),
                    style,
                )
                for style, eta in enumerate(size.etas)
            ),
            x_log=True,
            x_ticks=tuple(float(gamma) for gamma in size.gammas),
            y_limits=(0.0, None),
        )
        for task in size.tasks
        for label, measure in zip(MEASURES, measures, strict=True)
    )
    return Figure(
        name="flock-who-pays",
        title="Who pays for a spoiled round",
        text=(
            "A rejected round costs every proposer gamma, whoever poisoned it: the sum is masked, and the "
            "vote is on the aggregate. Counted are rejected rounds with at least one malicious proposer, and "
            "the proposers in them that had no vote of their own to settle in the same round."
        ),
        panels=panels,
        table=_table(outcomes, measures),
        claims=tuple(_claim(outcomes, task) for task in size.tasks),
    )


def _spoiled_rounds(result: Result) -> list[int]:
    return [
        r
        for r, (accepted, malicious) in enumerate(
            zip(result["accepted"], result["malicious_proposers"], strict=True)
        )
        if not accepted and malicious
    ]


def _by_gamma(
    outcomes: Outcomes, task: TaskSize, eta: int, measure: Callable[[Result], float]
) -> npt.NDArray[np.float64]:
    return np.stack([outcomes.votes(task, eta, gamma, measure) for gamma in outcomes.size.gammas], axis=1)


def _table(outcomes: Outcomes, measures: tuple[Callable[[Result], float], ...]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task in outcomes.size.tasks:
        for eta in outcomes.size.etas:
            for label, measure in zip(MEASURES, measures, strict=True):
                band = band_over_seeds(_by_gamma(outcomes, task, eta, measure))
                bounds = zip(band.mean.tolist(), band.low.tolist(), band.high.tolist(), strict=True)
                rows += [
                    (task.task, eta, gamma, label, *values)
                    for gamma, values in zip(outcomes.size.gammas, bounds, strict=True)
                ]
    return Table(("task", "eta_percent", "gamma", "measure", "mean", "low", "high"), tuple(rows))


def _claim(outcomes: Outcomes, task: TaskSize) -> Claim:
    size = outcomes.size
    slashed = {eta: float(_by_gamma(outcomes, task, eta, honest_slashed).mean()) for eta in size.etas}
    share = {eta: float(_by_gamma(outcomes, task, eta, honest_share).mean()) for eta in size.etas}
    return Claim(
        name=f"honest-proposers-pay-{task.task}",
        statement=(
            "Honest clients that are drawn as proposers beside a malicious one are slashed with it, because "
            f"roles are random ({TITLES[task.task]})"
        ),
        source=FLOCK,
        rule="honest proposers lost tokens in spoiled rounds at every eta",
        holds=all(value > 0 for value in slashed.values()),
        found=(
            "a spoiled round slashes "
            + " / ".join(f"{slashed[eta]:.1f}" for eta in size.etas)
            + " honest proposers, who pay "
            + " / ".join(f"{100 * share[eta]:.0f}" for eta in size.etas)
            + f" % of what proposers pay, at eta {' / '.join(map(str, size.etas))} %."
        ),
        numbers={f"eta {eta}, slashed": slashed[eta] for eta in size.etas}
        | {f"eta {eta}, share": share[eta] for eta in size.etas},
    )
