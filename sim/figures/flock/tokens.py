"""Figures 2 and 3: the mean tokens of malicious and of honest clients over rounds, for each gamma."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sim.figures.claims import Claim
from sim.figures.flock.contract import STAKE_TOKENS
from sim.figures.flock.plan import TITLES, Outcomes, TaskSize, gamma_label
from sim.figures.flock.sources import FLOCK
from sim.figures.plots import Curve, Panel, band_over_seeds
from sim.figures.report import Cell, Figure, Table

FIRST_ROUNDS = 20
"""How fast tokens move is read off their mean over the first rounds; later all malicious clients are gone."""


def tokens_figure(outcomes: Outcomes, task: TaskSize, kind: str) -> Figure:
    """`kind` is "malicious" or "honest"."""
    size = outcomes.size
    panels = tuple(
        Panel(
            f"{TITLES[task.task]}, eta = {eta} %",
            "round",
            f"mean tokens, {kind}",
            tuple(
                Curve(
                    gamma_label(gamma),
                    np.arange(values.shape[1], dtype=float),
                    band_over_seeds(values),
                    style,
                )
                for style, gamma in enumerate(size.all_gammas)
                for values in (tokens(outcomes, task, kind, eta, gamma),)
            ),
            y_limits=(0.0, None),
            reference=(STAKE_TOKENS, "start"),
        )
        for eta in size.etas
    )
    return Figure(
        name=f"flock-tokens-{kind}-{task.task}",
        title=f"Mean tokens of {kind} clients, {TITLES[task.task]}",
        text=(
            f"All {kind} clients count, those that fell below the minimal stake with what they have left. "
            "The contract is the ledger's: a penalty is at most what a client has, remainders go to the "
            "treasury, and there is no reward pool."
        ),
        panels=panels,
        table=_table(outcomes, task, kind),
        claims=(_claim(outcomes, task, kind),),
    )


def tokens(outcomes: Outcomes, task: TaskSize, kind: str, eta: int, gamma: int) -> npt.NDArray[np.float64]:
    """float64[seeds, contract_rounds + 1]."""
    return outcomes.votes(task, eta, gamma, lambda result: result[f"tokens_{kind}"])


def _table(outcomes: Outcomes, task: TaskSize, kind: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for eta in outcomes.size.etas:
        for gamma in outcomes.size.all_gammas:
            band = band_over_seeds(tokens(outcomes, task, kind, eta, gamma))
            rows += [
                (eta, gamma_label(gamma), round_, mean, low, high)
                for round_, (mean, low, high) in enumerate(
                    zip(band.mean.tolist(), band.low.tolist(), band.high.tolist(), strict=True)
                )
            ]
    return Table(("eta_percent", "gamma", "round", "mean_tokens", "low", "high"), tuple(rows))


def _claim(outcomes: Outcomes, task: TaskSize, kind: str) -> Claim:
    size = outcomes.size
    direction, verb = (-1, "fall") if kind == "malicious" else (1, "rise")
    early, last = {}, {}
    for eta in size.etas:
        for gamma in size.gammas:
            values = tokens(outcomes, task, kind, eta, gamma)
            early[eta, gamma] = float(values[:, 1 : FIRST_ROUNDS + 1].mean())
            last[eta, gamma] = float(values[:, -1].mean())
    moves = all(direction * (value - STAKE_TOKENS) > 0 for value in last.values())
    ordered = {
        eta: all(direction * (early[eta, b] - early[eta, a]) > 0 for a, b in pairwise(size.gammas))
        for eta in size.etas
    }
    listed = "; ".join(
        f"eta {eta} %: {' / '.join(f'{early[eta, gamma]:.1f}' for gamma in size.gammas)}"
        f"{'' if ordered[eta] else ' (out of order)'}"
        for eta in size.etas
    )
    wrong = [f"eta {e} %, gamma {g}" for (e, g), v in last.items() if direction * (v - STAKE_TOKENS) <= 0]
    return Claim(
        name=f"{kind}-tokens-{verb}-{task.task}",
        statement=f"The mean tokens of {kind} clients {verb} over the rounds, the faster the larger gamma is",
        source=FLOCK,
        rule=(
            f"the mean over seeds ends {'below' if direction < 0 else 'above'} {STAKE_TOKENS} for every eta "
            f"and gamma, and its mean over rounds 1 to {FIRST_ROUNDS} is ordered by gamma at every eta"
        ),
        holds=moves and all(ordered.values()),
        found=(
            f"mean of rounds 1 to {FIRST_ROUNDS} at gamma {' / '.join(map(str, size.gammas))}, {listed}"
            f"{'; ends on the wrong side at ' + ', '.join(wrong) if wrong else ''}."
        ),
        numbers={f"eta {e}, gamma {g}, early": v for (e, g), v in early.items()}
        | {f"eta {e}, gamma {g}, last": v for (e, g), v in last.items()},
    )
