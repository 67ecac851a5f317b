"""Figure 1: how good the model is over rounds, with and without poison, votes, and robust aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from attrs import frozen

from sim.figures.claims import Claim
from sim.figures.flock.experiment import VOTE
from sim.figures.flock.plan import CLEAN, PAPER_GAMMA, TITLES, Outcomes, TaskSize
from sim.figures.flock.problem import LENDING_CLUB
from sim.figures.flock.sources import FLOCK, OURS
from sim.figures.plots import Curve, Panel, band_over_seeds
from sim.figures.report import Cell, Figure, Table
from sim.figures.sweep import Result

COLLAPSE = 0.05
"""AUROC below that without malicious clients by more than this is a collapse."""
STAYS = 0.02
"""And by no more than this it stays."""
IMBALANCE = (
    "One loan in twenty is bad, so plain accuracy (in the CSV) praises a model that calls every loan good: "
    "shown is the mean recall of the two classes."
)
LAST_SHARE = 10
"""Final scores are means over the last tenth of the rounds: one round's poison is no verdict."""

LEEWAY = 0.02
"""Above the highest value that is shown, for its marker."""


@frozen
class Method:
    """One curve: `rule` and `eta` of its runs; eta None is that of the panel."""

    label: str
    rule: str
    style: int
    eta: int | None = None


METHODS = (
    Method("FedAvg, no malicious clients", "fedavg", 6, CLEAN),
    Method("FedAvg", "fedavg", 1),
    Method("FedAvg with voting", VOTE, 0),
    Method("coordinate median", "median", 2),
    Method("trimmed mean", "trimmed", 3),
    Method("Krum", "krum", 4),
    Method("multi-Krum", "multikrum", 5),
)
CLEAN_METHOD, PLAIN, VOTING, *ROBUST = METHODS

METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
}


def accuracy_figure(outcomes: Outcomes, task: TaskSize) -> Figure:
    """Curves of every method at every eta, with the claims about them."""
    metrics = ("balanced_accuracy" if task.task == LENDING_CLUB else "accuracy", "auroc")
    bands = [
        _curve(outcomes, task, eta, method, metric).band
        for eta in outcomes.size.etas
        for method in METHODS
        for metric in metrics
    ]
    lowest = max(0.0, floor(10 * min(band.low.min() for band in bands)) / 10)
    highest = min(1.0, ceil(10 * max(band.high.max() for band in bands)) / 10)
    panels = tuple(
        Panel(
            f"{TITLES[task.task]}, eta = {eta} %",
            "round",
            METRICS[metric],
            tuple(_curve(outcomes, task, eta, method, metric) for method in METHODS),
            y_limits=(lowest, highest + LEEWAY),
        )
        for eta in outcomes.size.etas
        for metric in metrics
    )
    return Figure(
        name=f"flock-accuracy-{task.task}",
        title=f"Scores over rounds, {TITLES[task.task]}",
        text=(
            "Scores of the global model on all clients' test samples. All methods see the same draw of "
            "proposers, the same shards and the same batch orders; only voting evicts. Voting uses "
            f"gamma = {PAPER_GAMMA}. Trimmed mean, Krum and multi-Krum are told eta, which nobody knows in "
            "practice: they assume the share eta of the proposals to be malicious. "
            f"{IMBALANCE if task.task == LENDING_CLUB else ''}"
        ).rstrip(),
        panels=panels,
        table=_table(outcomes, task),
        claims=_claims(outcomes, task),
    )


def scores(
    outcomes: Outcomes, task: TaskSize, eta: int, method: Method, metric: str
) -> npt.NDArray[np.float64]:
    """float64[seeds, accuracy_rounds + 1]."""
    eta = eta if method.eta is None else method.eta
    read = _reader(metric, task.accuracy_rounds)
    return outcomes.over_seeds(task, method.rule, eta, PAPER_GAMMA, read)


def final_score(outcomes: Outcomes, task: TaskSize, eta: int, method: Method, metric: str = "auroc") -> float:
    """The mean over seeds and over the last tenth of the rounds."""
    last = max(1, task.accuracy_rounds // LAST_SHARE)
    return float(scores(outcomes, task, eta, method, metric)[:, -last:].mean())


def _reader(metric: str, rounds: int) -> Callable[[Result], list[float]]:
    return lambda result: [entry[metric] for entry in result["scores"][: rounds + 1]]


def _curve(outcomes: Outcomes, task: TaskSize, eta: int, method: Method, metric: str) -> Curve:
    values = scores(outcomes, task, eta, method, metric)
    band = band_over_seeds(values)
    return Curve(method.label, np.arange(values.shape[1], dtype=float), band.within(0, 1), method.style)


def _table(outcomes: Outcomes, task: TaskSize) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for eta in outcomes.size.etas:
        for method in METHODS:
            for metric in METRICS:
                band = band_over_seeds(scores(outcomes, task, eta, method, metric))
                rows += [
                    (eta, method.label, metric, round_, mean, low, high)
                    for round_, (mean, low, high) in enumerate(
                        zip(band.mean.tolist(), band.low.tolist(), band.high.tolist(), strict=True)
                    )
                ]
    return Table(("eta_percent", "method", "score", "round", "mean", "low", "high"), tuple(rows))


def _claims(outcomes: Outcomes, task: TaskSize) -> tuple[Claim, ...]:
    etas = outcomes.size.etas
    final = {
        (eta, method.label): final_score(outcomes, task, eta, method) for eta in etas for method in METHODS
    }
    clean, plain, voting = (
        [final[eta, method.label] for eta in etas] for method in (CLEAN_METHOD, PLAIN, VOTING)
    )
    best = [max((final[eta, method.label], method.label) for method in ROBUST) for eta in etas]
    last = f"AUROC, mean of seeds and of the last {100 // LAST_SHARE} % of rounds"
    beside = f"{clean[0]:.3f} without malicious clients"
    numbers = {f"eta {eta}, {label}": value for (eta, label), value in final.items()}
    return (
        Claim(
            name=f"fedavg-collapses-{task.task}",
            statement="Under poisoning, plain FedAvg collapses",
            source=FLOCK,
            rule=f"{last}: below FedAvg without malicious clients by more than {COLLAPSE} at every eta",
            holds=all(p < c - COLLAPSE for p, c in zip(plain, clean, strict=True)),
            found=f"{_by_eta(etas, plain)}; {beside}.",
            numbers=numbers,
        ),
        Claim(
            name=f"voting-stays-{task.task}",
            statement="FedAvg with voting keeps its performance at every share of malicious clients",
            source=FLOCK,
            rule=f"{last}: below FedAvg without malicious clients by at most {STAYS} at every eta",
            holds=all(v >= c - STAYS for v, c in zip(voting, clean, strict=True)),
            found=f"{_by_eta(etas, voting)}; {beside}.",
            numbers=numbers,
        ),
        Claim(
            name=f"voting-beats-robust-{task.task}",
            statement="Voting ends at least as high as the best robust aggregation, which is told eta",
            source=OURS,
            rule=f"{last}: voting no lower than the best of the four by more than {STAYS} at every eta",
            holds=all(v >= b - STAYS for v, (b, _) in zip(voting, best, strict=True)),
            found=f"voting {_by_eta(etas, voting)}; best of the others "
            f"{', '.join(f'{b:.3f} ({name})' for b, name in best)}.",
            numbers=numbers,
        ),
    )


def _by_eta(etas: tuple[int, ...], values: list[float]) -> str:
    listed = " / ".join(f"{value:.3f}" for value in values)
    return f"{listed} at eta {' / '.join(map(str, etas))} %"
