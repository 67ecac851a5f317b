"""Which sizes are measured: one list of jobs, done in turn because their times are what counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve, frozen

from sim.figures.sweep import Result
from sim.figures.vcdfl.compression import (
    MODES,
    InterpolationJob,
    TrainingJob,
    time_interpolation,
    train,
)
from sim.figures.vcdfl.cost import CostJob, measure_cost

Job = CostJob | TrainingJob | InterpolationJob


@frozen(kw_only=True)
class Plan:
    """Dimensions at `n` clients, clients at `d` weights, dropouts at both; then past the paper's range.

    `permilles` are the compressions, the last one all coordinates; `task` trains among `nodes` for `rounds`,
    once for each of `seeds`.
    """

    n: int
    d: int
    dimensions: tuple[int, ...]
    clients: tuple[int, ...]
    dropouts: tuple[float, ...]
    repeats: int
    few: int
    far_dimensions: tuple[int, ...]
    far_clients: tuple[int, ...]
    permilles: tuple[int, ...]
    task: str
    nodes: int
    rounds: int
    seeds: tuple[int, ...]
    interpolated: int
    group_size: int = 16

    def by_dimension(self) -> tuple[CostJob, ...]:
        return tuple(self._cost(self.n, d) for d in self.dimensions)

    def by_clients(self) -> tuple[CostJob, ...]:
        return tuple(self._cost(n, self.d) for n in self.clients)

    def by_dropouts(self) -> tuple[CostJob, ...]:
        return tuple(CostJob(self.n, self.d, share, self.repeats, aggregator=True) for share in self.dropouts)

    def far_by_dimension(self) -> tuple[CostJob, ...]:
        """At `few` clients."""
        return tuple(self._cost(self.few, d) for d in self.far_dimensions)

    def far_by_clients(self) -> tuple[CostJob, ...]:
        """At `d` weights."""
        return tuple(self._cost(n, self.d) for n in self.far_clients)

    def training(self) -> dict[tuple[str, int], tuple[TrainingJob, ...]]:
        """By mode and permille: one job a seed."""
        return {
            (mode.value, permille): tuple(
                TrainingJob(self.task, self.nodes, self.rounds, mode.value, permille, seed)
                for seed in self.seeds
            )
            for mode in MODES
            for permille in self.permilles
        }

    def interpolation(self) -> tuple[InterpolationJob, ...]:
        return tuple(
            InterpolationJob(self.interpolated, permille, self.group_size, self.repeats)
            for permille in self.permilles
        )

    def jobs(self) -> list[Job]:
        """All of them, the quick ones first; a size in two figures is measured once."""
        costs = [
            *self.by_dimension(),
            *self.by_clients(),
            *self.by_dropouts(),
            *self.far_by_dimension(),
            *self.far_by_clients(),
        ]
        trained = [job for jobs in self.training().values() for job in jobs]
        ordered = sorted(costs, key=lambda job: job.n * job.d)
        return list(dict.fromkeys([*self.interpolation(), *ordered, *trained]))

    def _cost(self, n: int, d: int) -> CostJob:
        return CostJob(n, d, 0.0, self.repeats)


PAPER = Plan(
    n=100,
    d=100_000,
    dimensions=(20_000, 40_000, 60_000, 80_000, 100_000),
    clients=(20, 40, 60, 80, 100),
    dropouts=(0.0, 0.1, 0.2),
    repeats=7,
    few=20,
    far_dimensions=(100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
    far_clients=(20, 50, 100, 200, 500, 1_000),
    permilles=(10, 100, 500, 1_000),
    task="mnist",
    nodes=8,
    rounds=20,
    seeds=(1, 2, 3),
    interpolated=100_000,
)
"""The sizes of the paper's figures, and what lies beyond them."""

QUICK = evolve(
    PAPER,
    n=10,
    d=4_000,
    dimensions=(1_000, 2_000, 4_000),
    clients=(5, 7, 10),
    repeats=2,
    few=5,
    far_dimensions=(4_000, 8_000),
    far_clients=(5, 12),
    task="digits",
    nodes=4,
    rounds=3,
    seeds=(1, 2),
    interpolated=4_000,
)
"""The same figures at sizes that take seconds: for a first look and for tests; nothing to quote."""


def execute(job: Job) -> Result:
    """Measure or train one job."""
    match job:
        case CostJob():
            return measure_cost(job)
        case TrainingJob():
            return train(job)
        case InterpolationJob():
            return time_interpolation(job)


class InTurn:
    """A `sim.figures.sweep.Engine` that does one job at a time, in this process: what it does is timed."""

    def results(self, execute: Any, runs: Any) -> Iterator[tuple[int, Result]]:
        for number, run in enumerate(runs):
            yield number, execute(run)
