"""`flocknode sim honest`: which runs there are, and what they say, as a text and a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import mean, median

from attrs import field, frozen

import flocknode.learning
import protocol.ledger
from flocknode.learning.task import PARTITIONS, TASK_NAMES
from protocol.duties import vote
from protocol.params import MICRO
from sim.figures import flock as flock_figures
from sim.figures.machine import describe_machine
from sim.figures.markdown import table
from sim.figures.sweep import Engine, Progress, Result, Store, code_stamp, sweep
from sim.honest import experiment
from sim.honest.experiment import FLOCK, INTERIM, NO_POISON, POISONS, HonestRun, execute, least_share

RUNS = "honest-runs"
"""Under the output directory: one file for each run that is done."""
LEAST_SHARE = 0.75
"""No honest node may ever have less of its first stake."""
POISON_ROUNDS = 30
POISON_NODES, POISONERS = 7, 2
FLOCK_SHARE = 0.5
"""What poison that turns a model around has to pay, of what FLock's contract takes for it."""
FLOCK_COLUMNS = ("FLock: least stake", "rounds", "accuracy, last")
PAID_COLUMNS = ("poisoner lost", "honest lost", "accuracy, last")
CLEAR_POISONS = ("sign-x10", "scale-x1000")


@frozen(kw_only=True)
class Plan:
    """How much is run. FLock's contract is shown on the first seed of each cell only."""

    tasks: tuple[str, ...] = TASK_NAMES
    partitions: tuple[str, ...] = PARTITIONS
    sizes: tuple[int, ...] = (5, 7)
    seeds: tuple[int, ...] = (7, 8, 9)
    rounds: int = 1_000
    poison_rounds: int = POISON_ROUNDS

    def cells(self) -> list[tuple[str, str, int]]:
        return list(product(self.tasks, self.partitions, self.sizes))

    def honest(self, cell: tuple[str, str, int], contract: str, seed: int) -> HonestRun:
        task, partition, nodes = cell
        return HonestRun(
            task=task, partition=partition, nodes=nodes, seed=seed, rounds=self.rounds, contract=contract
        )

    def poisoned(self, task: str, partition: str, poison: str, contract: str, seed: int) -> HonestRun:
        return HonestRun(
            task=task,
            partition=partition,
            nodes=POISON_NODES,
            seed=seed,
            rounds=self.poison_rounds,
            contract=contract,
            poison=poison,
            poisoners=POISONERS,
        )

    def runs(self) -> list[HonestRun]:
        """Every run, the long ones first: none is left over for one processor."""
        every = list(self._runs())
        return sorted(every, key=lambda run: (-run.rounds, TASK_NAMES.index(run.task), run.seed))

    def _runs(self) -> Iterator[HonestRun]:
        for cell in self.cells():
            yield from (self.honest(cell, INTERIM, seed) for seed in self.seeds)
            yield self.honest(cell, FLOCK, self.seeds[0])
        for task, partition, poison in product(self.tasks, self.partitions, POISONS):
            if poison != NO_POISON:
                for contract, seed in product((INTERIM, FLOCK), self.seeds):
                    yield self.poisoned(task, partition, poison, contract, seed)


@frozen(eq=False)
class Findings:
    """What all runs of `plan` gave."""

    plan: Plan
    results: Mapping[HonestRun, Result] = field(repr=False)

    def failures(self) -> list[str]:
        """Return what does not hold, one line each: honest nodes that lost much, poison that did not."""
        failures = []
        for cell in self.plan.cells():
            for seed in self.plan.seeds:
                run = self.plan.honest(cell, INTERIM, seed)
                share = least_share(self.results[run], run.nodes)
                if share < LEAST_SHARE:
                    failures.append(
                        f"{' '.join(map(str, cell))} nodes, seed {seed}: a stake fell to {share:.2f}"
                    )
        for poison in CLEAR_POISONS:
            interim, flock = (self._poison_paid(poison, contract) for contract in (INTERIM, FLOCK))
            if interim < FLOCK_SHARE * flock:
                failures.append(
                    f"{poison}: poisoners paid {interim:.1f} tokens, {flock:.1f} under FLock's contract"
                )
        return failures

    def honest_rows(self) -> list[list[str]]:
        rows = []
        for cell in self.plan.cells():
            interim = [self.results[self.plan.honest(cell, INTERIM, seed)] for seed in self.plan.seeds]
            flock = self.results[self.plan.honest(cell, FLOCK, self.plan.seeds[0])]
            task, partition, nodes = cell
            rows.append(
                [
                    f"{task}, {partition}, {nodes} nodes",
                    " ".join(f"{least_share(result, nodes):.3f}" for result in interim),
                    " ".join(str(result["accepted"]) for result in interim),
                    " ".join(str(result["best_round"]) for result in interim),
                    " ".join(f"{result['accuracy']['best']:.3f}" for result in interim),
                    " ".join(f"{result['accuracy']['last']:.3f}" for result in interim),
                    f"{least_share(flock, nodes):.3f}",
                    str(flock["rounds"]),
                    f"{flock['accuracy']['last']:.3f}",
                ]
            )
        return rows

    def poison_rows(self) -> list[list[str]]:
        rows = []
        for task, partition, poison in product(self.plan.tasks, self.plan.partitions, POISONS):
            if poison == NO_POISON:
                continue
            row = [f"{task}, {partition}, {poison}"]
            for contract in (INTERIM, FLOCK):
                results = [
                    self.results[self.plan.poisoned(task, partition, poison, contract, seed)]
                    for seed in self.plan.seeds
                ]
                row += [
                    f"{mean(_paid(result, poisoners=True) for result in results):.1f}",
                    f"{mean(_paid(result, poisoners=False) for result in results):.1f}",
                    f"{median(result['accuracy']['last'] for result in results):.3f}",
                ]
                if contract == INTERIM:
                    row.append(f"{median(result['accuracy']['best'] for result in results):.3f}")
            rows.append(row)
        return rows

    def _poison_paid(self, poison: str, contract: str) -> float:
        """Return what a poisoner lost, in tokens, on average over tasks, partitions and seeds."""
        return mean(
            _paid(self.results[self.plan.poisoned(task, partition, poison, contract, seed)], poisoners=True)
            for task, partition, seed in product(self.plan.tasks, self.plan.partitions, self.plan.seeds)
        )


def _paid(result: Result, *, poisoners: bool) -> float:
    """Return what one of the last `POISONERS` nodes, or one of the others, lost on average, in tokens."""
    last: Sequence[int] = result["last"]
    chosen = last[len(last) - POISONERS :] if poisoners else last[: len(last) - POISONERS]
    return mean(64 - units / MICRO for units in chosen)


def run_store(out: Path) -> Store:
    """Return where the runs are kept, for the code as it is now."""
    packages = [Path(package.__path__[0]) for package in (flocknode.learning, protocol.ledger)]
    shared = Path(flock_figures.__path__[0])
    modules = [shared / f"{name}.py" for name in ("aggregation", "contract", "networks", "training")]
    modules += [Path(str(module.__file__)) for module in (experiment, vote)]
    return Store(out / RUNS, code_stamp([*packages, *modules], [version("torch"), version("numpy")]))


def run_all(plan: Plan, out: Path, engine: Engine, progress: Progress = lambda done: None) -> Findings:
    """Run what `out` does not hold yet. SweepError, OSError, DatasetError, PartitionError."""
    return Findings(plan, sweep(plan.runs(), execute, run_store(out), engine, progress))


def write_report(findings: Findings, out: Path, command: str) -> Path:
    """Write OUT/honest.md and OUT/honest.csv, and return the text's path. OSError."""
    out.mkdir(parents=True, exist_ok=True)
    text = out / "honest.md"
    text.write_text(_markdown(findings, command))
    with (out / "honest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "contract",
                "task",
                "partition",
                "nodes",
                "seed",
                "poison",
                "rounds",
                "accepted",
                "best_round",
                "least_share",
                "accuracy_last",
                "accuracy_best",
                "stakes_tokens",
            ]
        )
        for run in findings.plan.runs():
            result = findings.results[run]
            writer.writerow(
                [run.contract, run.task, run.partition, run.nodes, run.seed, run.poison, result["rounds"]]
                + [result["accepted"], result["best_round"]]
                + [f"{least_share(result, run.nodes - run.poisoners):.4f}"]
                + [f"{result['accuracy'][name]:.4f}" for name in ("last", "best")]
                + [" ".join(f"{units / MICRO:.2f}" for units in result["last"])]
            )
    return text


def _markdown(findings: Findings, command: str) -> str:
    plan, failures = findings.plan, findings.failures()
    seeds = ", ".join(map(str, plan.seeds))
    honest = table(
        ("cell", "least stake", "accepted", "best round", "accuracy, best", "last", *FLOCK_COLUMNS),
        findings.honest_rows(),
    )
    poisoned = table(
        ("cell", *PAID_COLUMNS, "best", "FLock: poisoner lost", *PAID_COLUMNS[1:]),
        findings.poison_rows(),
    )
    parts = [
        "# Does an honest network live?",
        f"    {command}",
        f"{plan.rounds:,} rounds of each built-in task with honest nodes, training on and on: real training "
        "and real votes, the ledger's own settlement (PROTOCOL.md section 6), no masks, no reward pool. "
        f"Seeds {seeds}, in this order in each field; FLock's contract on the first. A stake is the lowest "
        "that any node ever had, as a share of its first one; FLock's rounds end where fewer than four "
        "validators are left.",
        honest,
        f"**Poison.** {POISONERS} of {POISON_NODES} nodes send poison for {plan.poison_rounds} rounds and "
        "vote against what they find; tokens that one lost, mean over the seeds; accuracies are medians.",
        poisoned,
        "**What does not hold:** " + "; ".join(failures) + "."
        if failures
        else "All of it holds: no honest "
        f"node was ever below {LEAST_SHARE:.0%} of its stake, and who turns a model around "
        f"({', '.join(CLEAR_POISONS)}) pays at least {FLOCK_SHARE:.0%} of what FLock's contract takes.",
        f"Machine: {describe_machine()}.",
    ]
    return "\n\n".join(parts) + "\n"
