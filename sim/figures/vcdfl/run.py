"""Doing the jobs of a plan, those that are not done yet, and making their figures."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import protocol
import sim
from sim.figures.report import Chapter
from sim.figures.sweep import Store, code_stamp, sweep
from sim.figures.vcdfl.chapter import machine, make_chapter
from sim.figures.vcdfl.measured import Measured
from sim.figures.vcdfl.plan import InTurn, Plan, execute

STORE = "measured"
LIBRARIES = ("numpy", "numba", "cryptography", "torch")


def store_at(out: Path, where: str) -> Store:
    """Results of other code, or of another machine, are not taken for ours."""
    code = [Path(protocol.__path__[0]), Path(sim.__path__[0]) / "figures" / "vcdfl"]
    return Store(out / STORE, code_stamp(code, [where, *(version(name) for name in LIBRARIES)]))


def measure(
    plan: Plan, out: Path, command: str, progress: Callable[[int], None] = lambda done: None
) -> Chapter:
    """The chapter, after all its jobs; `progress` hears of each. Errors of `sweep` and of the jobs."""
    where = machine()
    results = sweep(plan.jobs(), execute, store_at(out, where), InTurn(), progress)
    return make_chapter(plan, Measured({job: results[job] for job in plan.jobs()}), command, where)
