"""Figure 8: the contract alone, over more seeds than training affords, with voters who err and who do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

import protocol.ledger
from sim.figures.claims import Claim
from sim.figures.flock.adaptive_gamma import HONEST_GOAL, adaptive_claims
from sim.figures.flock.contract_alone import ContractRun, execute_alone
from sim.figures.flock.plan import Size, gamma_label, told_seeds
from sim.figures.plots import Band, Curve, Panel, band_over_seeds
from sim.figures.report import Cell, Figure, Table
from sim.figures.sweep import Engine, Progress, Result, Store, code_stamp, sweep

MISTAKEN = (0, 10)
"""Percent of the honest votes."""
SEED_OFFSET = 1000
"""The adaptive gamma was chosen on runs with smaller seeds."""
MEASURES = {
    "alive_honest": "honest validators at the end",
    "survival_malicious": "mean survival (rounds), malicious",
}


@frozen(eq=False)
class AloneOutcomes:
    """The results of all cells of `size`."""

    size: Size
    results: Mapping[ContractRun, Result] = field(repr=False)

    def values(self, mistaken: int, gamma: int, measure: str) -> npt.NDArray[np.float64]:
        """float64[seeds, etas]."""
        size = self.size
        cells = [self.results[_cell(size, eta, mistaken, gamma)][measure] for eta in size.etas]
        return np.array(cells, np.float64).T


def alone_runs(size: Size) -> list[ContractRun]:
    """Every cell of the figure."""
    return [
        _cell(size, eta, mistaken, gamma)
        for mistaken in MISTAKEN
        for eta in size.etas
        for gamma in size.all_gammas
    ]


def run_alone(
    size: Size, directory: Path, engine: Engine, progress: Progress = lambda done: None
) -> AloneOutcomes:
    """Every cell that `directory` does not hold yet. SweepError, OSError."""
    sources = [Path(__file__).with_name(f"{name}.py") for name in ("contract", "contract_alone")]
    store = Store(directory, code_stamp([*sources, Path(protocol.ledger.__path__[0])], []))
    return AloneOutcomes(size, sweep(alone_runs(size), execute_alone, store, engine, progress))


def _cell(size: Size, eta: int, mistaken: int, gamma: int) -> ContractRun:
    return ContractRun(
        malicious_percent=eta,
        mistaken_percent=mistaken,
        gamma=gamma,
        rounds=size.alone_rounds,
        first_seed=size.first_seed + SEED_OFFSET,
        seeds=size.alone_seeds,
        clients=size.clients,
    )


def contract_figure(outcomes: AloneOutcomes) -> Figure:
    """Both measures against eta, without mistakes and with."""
    size = outcomes.size
    etas = np.array(size.etas, float)
    panels = tuple(
        Panel(
            f"contract alone, {mistaken} % of honest votes wrong",
            "eta (%)",
            label,
            tuple(
                Curve(
                    gamma_label(gamma),
                    etas,
                    _band(outcomes, mistaken, gamma, measure),
                    style,
                )
                for style, gamma in enumerate(size.all_gammas)
            ),
            x_ticks=tuple(float(eta) for eta in size.etas),
            y_limits=(None, 1.02) if measure == "alive_honest" else (0.0, None),
            reference=(HONEST_GOAL, f"{100 * HONEST_GOAL:.0f} %") if measure == "alive_honest" else None,
        )
        for mistaken in MISTAKEN
        for measure, label in MEASURES.items()
    )
    return Figure(
        name="flock-contract-alone",
        title="The contract alone",
        text=(
            f"No training: {size.alone_seeds} seeds and {size.alone_rounds} rounds a point. An aggregate is "
            "bad iff a malicious client proposed; honest voters see it, or err with the probability above "
            "the panel. "
            "The adaptive gamma was chosen on such runs, with other seeds than these."
        ),
        panels=panels,
        table=_table(outcomes),
        claims=tuple(claim for mistaken in MISTAKEN for claim in _claims(outcomes, mistaken)),
        seeds=told_seeds(
            range(size.first_seed + SEED_OFFSET, size.first_seed + SEED_OFFSET + size.alone_seeds)
        ),
    )


def _band(outcomes: AloneOutcomes, mistaken: int, gamma: int, measure: str) -> Band:
    band = band_over_seeds(outcomes.values(mistaken, gamma, measure))
    return band.within(0, 1) if measure == "alive_honest" else band


def _table(outcomes: AloneOutcomes) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for mistaken in MISTAKEN:
        for gamma in outcomes.size.all_gammas:
            for measure in MEASURES:
                band = band_over_seeds(outcomes.values(mistaken, gamma, measure))
                bounds = zip(band.mean.tolist(), band.low.tolist(), band.high.tolist(), strict=True)
                rows += [
                    (mistaken, gamma_label(gamma), eta, measure, *values)
                    for eta, values in zip(outcomes.size.etas, bounds, strict=True)
                ]
    return Table(("mistaken_percent", "gamma", "eta_percent", "measure", "mean", "low", "high"), tuple(rows))


def _claims(outcomes: AloneOutcomes, mistaken: int) -> tuple[Claim, ...]:
    size = outcomes.size
    kept, rounds = (
        {g: outcomes.values(mistaken, g, measure).mean(axis=0).tolist() for g in size.all_gammas}
        for measure in MEASURES
    )
    where = f"the contract alone, {mistaken} % of honest votes wrong"
    return adaptive_claims(size, kept, rounds, f"alone-{mistaken}", where)
