"""Doing the jobs of a plan, those that are not done yet, and making their figures."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import flocknode.learning
import protocol
import protocol.algebra
import protocol.secagg
import sim.bench
from sim.figures.machine import describe_machine
from sim.figures.report import Chapter
from sim.figures.sweep import Progress, Store, code_stamp, sweep
from sim.figures.vcdfl.chapter import make_chapter
from sim.figures.vcdfl.measured import Measured
from sim.figures.vcdfl.plan import InTurn, Plan, execute

RUNS = "vcdfl-runs"
"""Under the output directory: one file for each job that is done."""

LIBRARIES = ("numpy", "numba", "cryptography", "torch")
PROTOCOL_MODULES = (
    "checkpoint",
    "codec",
    "context",
    "jobs",
    "judge",
    "keys",
    "params",
    "secrets",
    "sharing",
)
"""Those of `protocol` that a job runs, beside algebra and secagg."""
BENCH_MODULES = ("growth", "protocol", "rehearsal")
OWN_MODULES = ("compression", "cost")
"""Those of this package that decide what a job gives: the others only draw it."""


def store_at(out: Path, where: str) -> Store:
    """Results of other code, of other libraries or of another machine are not taken for ours."""
    packages = [protocol.algebra, protocol.secagg, flocknode.learning]
    modules = [
        *(Path(protocol.__path__[0]) / f"{name}.py" for name in PROTOCOL_MODULES),
        *(Path(sim.bench.__path__[0]) / f"{name}.py" for name in BENCH_MODULES),
        *(Path(__file__).with_name(f"{name}.py") for name in OWN_MODULES),
    ]
    code = [*(Path(package.__path__[0]) for package in packages), *modules]
    return Store(out / RUNS, code_stamp(code, [where, *(version(name) for name in LIBRARIES)]))


def measure(plan: Plan, out: Path, command: str, progress: Progress = lambda done: None) -> Chapter:
    """The chapter, after all its jobs; `progress` hears of each. Errors of `sweep` and of the jobs."""
    where = describe_machine()
    results = sweep(plan.jobs(), execute, store_at(out, where), InTurn(), progress)
    return make_chapter(plan, Measured({job: results[job] for job in plan.jobs()}), command, where)
