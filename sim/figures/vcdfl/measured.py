"""What the jobs gave, read by figure: medians of repeated runs, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np
from attrs import field, frozen

from sim.figures.plots import Series
from sim.figures.report import Table
from sim.figures.sweep import Result
from sim.figures.vcdfl.compression import InterpolationJob, TrainingJob
from sim.figures.vcdfl.cost import PROFILES, CostJob
from sim.figures.vcdfl.plan import Job

MEGABYTE = 1e6


@frozen(eq=False)
class Measured:
    """The result of every job of a plan."""

    results: Mapping[Job, Result] = field(repr=False)

    def seconds(self, job: CostJob, profile: str, step: str) -> float:
        """The median over the repeats."""
        runs: list[float] = self.results[job]["seconds"][profile][step]
        return median(runs)

    def traffic_mb(self, job: CostJob, profile: str) -> float:
        """All that one client sends and receives, in MB."""
        result = self.results[job]
        total = sum(result["sent"][profile].values()) + sum(result["received"][profile].values())
        return float(total) / MEGABYTE

    def upload_ratio(self, job: CostJob, profile: str) -> float:
        """Upload and commitment over the float32 update."""
        return float(self.results[job]["upload"][profile]) / (4 * job.d)

    def once(self, job: CostJob) -> bool:
        return bool(self.results[job]["once"])

    def accuracy(self, jobs: tuple[TrainingJob, ...]) -> Series:
        """float64[seeds, rounds + 1]."""
        return np.array([self.results[job]["accuracy"] for job in jobs], dtype=np.float64)

    def of_training(self, jobs: tuple[TrainingJob, ...], what: str) -> float:
        """The mean over seeds of a number of `sim.figures.vcdfl.compression.train`."""
        return float(np.mean([self.results[job][what] for job in jobs]))

    def interpolation(self, job: InterpolationJob) -> Mapping[str, Any]:
        return self.results[job]


def cost_table(measured: Measured, jobs: tuple[CostJob, ...]) -> Table:
    """A row for each job, profile and step, with the median and each run."""
    repeats = max(len(runs) for job in jobs for runs in _runs(measured, job, PROFILES[0]).values())
    rows: list[tuple[str | int | float, ...]] = []
    for job in jobs:
        for profile in PROFILES:
            traffic = measured.traffic_mb(job, profile)
            ratio = measured.upload_ratio(job, profile)
            for step, runs in _runs(measured, job, profile).items():
                padded: list[str | float] = [*runs, *[""] * (repeats - len(runs))]
                head = (job.n, job.d, job.dropouts, profile, step)
                rows.append((*head, median(runs), len(runs), traffic, ratio, *padded))
    columns = ("clients", "weights", "dropouts", "profile", "step", "median_s", "runs")
    tail = tuple(f"run_{number}_s" for number in range(1, repeats + 1))
    return Table((*columns, "client_traffic_mb", "upload_over_float32", *tail), tuple(rows))


def _runs(measured: Measured, job: CostJob, profile: str) -> Mapping[str, list[float]]:
    runs: Mapping[str, list[float]] = measured.results[job]["seconds"][profile]
    return runs
