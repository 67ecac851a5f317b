"""Figures 4 and 5: how long malicious and honest clients stay validators, against gamma, for each eta."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sim.figures.claims import Claim
from sim.figures.flock.plan import TITLES, Outcomes, TaskSize
from sim.figures.flock.sources import FLOCK
from sim.figures.plots import Curve, Panel, band_over_seeds
from sim.figures.report import Cell, Figure, Table


def survival_figure(outcomes: Outcomes, kind: str) -> Figure:
    """`kind` is "malicious" or "honest"."""
    size = outcomes.size
    panels = tuple(
        Panel(
            f"{TITLES[task.task]}, {task.contract_rounds} rounds",
            "gamma (tokens)",
            f"mean survival (rounds), {kind}",
            tuple(_curve(outcomes, task, kind, eta, style) for style, eta in enumerate(size.etas)),
            x_log=True,
            x_ticks=tuple(float(gamma) for gamma in size.gammas),
            y_limits=(0.0, None),
        )
        for task in size.tasks
    )
    return Figure(
        name=f"flock-survival-{kind}",
        title=f"Survival time of {kind} clients",
        text=(
            "Survival is the number of rounds that a client entered with at least the minimal stake; one "
            "that is never evicted counts with all rounds of the run, so long times are underestimates."
        ),
        panels=panels,
        table=_table(outcomes, kind),
        claims=tuple(
            (_shortens if kind == "malicious" else _honest_pay)(outcomes, task) for task in size.tasks
        ),
    )


def survival(outcomes: Outcomes, task: TaskSize, kind: str, eta: int, gamma: int) -> npt.NDArray[np.float64]:
    """float64[seeds]: mean rounds of a client of this kind."""
    return outcomes.votes(task, eta, gamma, lambda result: np.mean(result[f"survival_{kind}"]))


def _curve(outcomes: Outcomes, task: TaskSize, kind: str, eta: int, style: int) -> Curve:
    gammas = outcomes.size.gammas
    values = np.stack([survival(outcomes, task, kind, eta, gamma) for gamma in gammas], axis=1)
    return Curve(f"eta = {eta} %", np.array(gammas, float), band_over_seeds(values), style)


def _means(outcomes: Outcomes, task: TaskSize, kind: str) -> dict[tuple[int, int], float]:
    size = outcomes.size
    return {
        (eta, gamma): float(survival(outcomes, task, kind, eta, gamma).mean())
        for eta in size.etas
        for gamma in size.gammas
    }


def _table(outcomes: Outcomes, kind: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task in outcomes.size.tasks:
        for eta in outcomes.size.etas:
            for gamma in outcomes.size.gammas:
                seeds = survival(outcomes, task, kind, eta, gamma)
                band = band_over_seeds(seeds[:, None])
                mean, low, high = (float(series[0]) for series in (band.mean, band.low, band.high))
                rows.append((task.task, task.contract_rounds, eta, gamma, mean, low, high, len(seeds)))
    return Table(
        ("task", "rounds", "eta_percent", "gamma", "mean_rounds", "low", "high", "seeds"), tuple(rows)
    )


def _listed(outcomes: Outcomes, means: dict[tuple[int, int], float]) -> str:
    size = outcomes.size
    rows = (
        f"eta {eta} %: {' / '.join(f'{means[eta, gamma]:.1f}' for gamma in size.gammas)}" for eta in size.etas
    )
    return f"rounds at gamma {' / '.join(map(str, size.gammas))}, {'; '.join(rows)}."


def _shortens(outcomes: Outcomes, task: TaskSize) -> Claim:
    means, size = _means(outcomes, task, "malicious"), outcomes.size
    return Claim(
        name=f"malicious-survival-shortens-{task.task}",
        statement=f"The survival time of malicious clients shortens as gamma grows ({TITLES[task.task]})",
        source=FLOCK,
        rule="the mean over seeds falls from each gamma to the next at every eta",
        holds=all(means[eta, b] < means[eta, a] for eta in size.etas for a, b in pairwise(size.gammas)),
        found=_listed(outcomes, means),
        numbers={f"eta {eta}, gamma {gamma}": value for (eta, gamma), value in means.items()},
    )


def _honest_pay(outcomes: Outcomes, task: TaskSize) -> Claim:
    means, size = _means(outcomes, task, "honest"), outcomes.size
    corner = means[size.etas[-1], size.gammas[-1]]
    return Claim(
        name=f"honest-survival-shortens-{task.task}",
        statement=(
            "The survival time of honest clients shortens when both eta and gamma are large "
            f"({TITLES[task.task]})"
        ),
        source=FLOCK,
        rule="the mean at the largest eta and gamma is below those with the least of one of them",
        holds=corner < min(means[size.etas[0], size.gammas[-1]], means[size.etas[-1], size.gammas[0]]),
        found=_listed(outcomes, means),
        numbers={f"eta {eta}, gamma {gamma}": value for (eta, gamma), value in means.items()},
    )
