"""All figures of FLock's experiments, from the runs to the chapter that is written."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import flocknode.learning
import protocol.ledger
from protocol.sortition import default_roles
from sim.figures.flock.accuracy import accuracy_figure
from sim.figures.flock.adaptive_gamma import adaptive_figure
from sim.figures.flock.contract_figure import AloneOutcomes, alone_runs, contract_figure, run_alone
from sim.figures.flock.experiment import BOOST, FlockRun, execute
from sim.figures.flock.payers import payers_figure
from sim.figures.flock.plan import TITLES, Outcomes, Size, told_seeds
from sim.figures.flock.problem import ALPHA, IMAGES, LENDING_CLUB
from sim.figures.flock.survival import survival_figure
from sim.figures.flock.tokens import tokens_figure
from sim.figures.machine import describe_machine
from sim.figures.report import Chapter, write_chapter
from sim.figures.sweep import Engine, Progress, Store, code_stamp, sweep

NAME = "flock"
RUN_MODULES = (
    "aggregation",
    "contract",
    "experiment",
    "history",
    "images",
    "networks",
    "problem",
    "training",
)
"""Those of this package that decide what a run gives: the others only draw it."""

RUNS = "flock-runs"
"""Under the output directory: one file for each run that is done."""


def run_store(out: Path) -> Store:
    """Where the runs of a chapter under `out` are kept, for the code as it is now."""
    packages = [Path(package.__path__[0]) for package in (flocknode.learning, protocol.ledger)]
    modules = [Path(__file__).with_name(f"{name}.py") for name in RUN_MODULES]
    versions = [version("torch"), version("numpy")]
    return Store(out / RUNS, code_stamp([*packages, *modules], versions))


def count_runs(size: Size) -> int:
    """How many runs `make_chapter` needs, trained ones and those of the contract alone."""
    return len(set(size.runs())) + len(alone_runs(size))


def make_chapter(
    size: Size, out: Path, engine: Engine, command: str, progress: Progress = lambda done: None
) -> Chapter:
    """Run what `out` does not hold yet, and write the figures there; `command` is what the text quotes.

    SweepError, FigureError, OSError, ImageError, DatasetError, PartitionError.
    """
    outcomes = run_all(size, out, engine, progress)
    chapter = flock_chapter(outcomes, run_alone(size, out / RUNS, engine, progress), command)
    write_chapter(chapter, out)
    return chapter


def run_all(size: Size, out: Path, engine: Engine, progress: Progress = lambda done: None) -> Outcomes:
    """Every run that `out` does not hold yet. SweepError, OSError, ImageError, DatasetError."""
    runs: list[FlockRun] = size.runs()
    return Outcomes(size, sweep(runs, execute, run_store(out), engine, progress))


def flock_chapter(outcomes: Outcomes, alone: AloneOutcomes, command: str) -> Chapter:
    """The figures and their claims; nothing is computed but from `outcomes` and `alone`."""
    tasks = outcomes.size.tasks
    figures = [
        *(accuracy_figure(outcomes, task) for task in tasks),
        *(tokens_figure(outcomes, task, kind) for kind in ("malicious", "honest") for task in tasks),
        *(survival_figure(outcomes, kind) for kind in ("malicious", "honest")),
        payers_figure(outcomes),
        adaptive_figure(outcomes),
        contract_figure(alone),
    ]
    return Chapter(
        name=NAME,
        title="FLock's experiments",
        command=command,
        text=_how(outcomes.size),
        figures=tuple(figures),
        seeds="; ".join(f"{TITLES[task.task]} {told_seeds(outcomes.size.seeds(task))}" for task in tasks),
        machine=describe_machine(),
    )


def _how(size: Size) -> str:
    n_proposers, n_voters = default_roles(size.clients)
    seeds = ", ".join(
        f"{TITLES[task.task]} {task.seeds} (from {size.first_seed}; {task.accuracy_rounds} rounds of "
        f"learning curves, {task.contract_rounds} of the contract)"
        for task in size.tasks
    )
    names = {task.task for task in size.tasks}
    parts = [
        f"{size.clients} clients with 64 tokens each; {n_proposers} proposers and {n_voters} voters a round, "
        "drawn by stake, as the ledger draws them (the articles give no numbers). Malicious clients learn "
        f"flipped labels and multiply their update by {BOOST:g} when they propose, and vote the opposite of "
        "what they find when they vote. A vote is PROTOCOL.md section 6's: the loss on the voter's own "
        "validation split, with the ledger's tolerance of 0.1. Settlement, eviction below 8 tokens and "
        "sortition are the ledger's functions. Updates are clipped as on the network, and summed in the "
        "clear. "
        f"Bands are 95 % confidence intervals of the mean over seeds: {seeds}.",
    ]
    if LENDING_CLUB in names:
        parts.append("Lending Club: 9,857 loans, IID shards, the 3-layer perceptron of the task.")
    if names - {LENDING_CLUB, IMAGES}:
        parts.append(
            "FLock's second data set, ChestX-ray14, cannot be had without the internet: 5,000 digits of "
            f"MNIST stand in for it, with Dirichlet shards (concentration {ALPHA:g}) and a small "
            "convolutional network. Its figures therefore test the claims, not the paper's numbers. Who has "
            "the X-rays runs the same with --images DIR --labels Data_Entry_2017.csv."
        )
    if IMAGES in names:
        parts.append(
            f"Pictures of a folder, scaled down, with their findings as labels; Dirichlet shards "
            f"(concentration {ALPHA:g}) by first finding, a small convolutional network."
        )
    return " ".join(parts)
