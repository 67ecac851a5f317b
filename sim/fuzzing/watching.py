"""A target under watch: executions counted, memory measured, and a file that replays what failed."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from sim.fuzzing.targets import Crash, Target

WARM_EXECUTIONS = 10_000
"""By then every node has been made, and most have lived once; memory should not grow after that."""
REPORT_S = 0.5


class MemoryGrowthError(AssertionError):
    """The process takes more memory than it was given."""


@define(eq=False)
class Watch:
    """Calls a target. `report(executions)` now and then; `max_rss_mb` bounds the whole process."""

    name: str
    target: Target
    max_rss_mb: int
    crashes: Path
    report: Callable[[int], None] = lambda _: None
    executions: int = field(default=0, init=False)
    warm_rss_mb: int | None = field(default=None, init=False)
    _reported_s: float = field(default=0.0, init=False)

    def __call__(self, data: bytes) -> None:
        """One execution. A failure is raised once its file is written."""
        self.executions += 1
        try:
            self.target(data)
            self._look()
        except Exception as error:
            path = self.save()
            error.add_note(f"after {self.executions} executions; replay: {path}")
            raise

    def save(self) -> Path:
        """The file that replays the last execution."""
        crash = Crash(self.name, tuple(self.target.history()))
        name = hashlib.sha256(b"".join(crash.inputs)).hexdigest()[:12]
        path = self.crashes / f"{self.name}-{name}.crash"
        crash.write(path)
        return path

    @property
    def growth_mb(self) -> int:
        """Of the peak memory, since the target was warm; 0 before that."""
        return 0 if self.warm_rss_mb is None else peak_rss_mb() - self.warm_rss_mb

    def _look(self) -> None:
        now = time.monotonic()
        if self.executions == WARM_EXECUTIONS:
            self.warm_rss_mb = peak_rss_mb()
        if now - self._reported_s < REPORT_S:
            return
        self._reported_s = now
        self.report(self.executions)
        if peak_rss_mb() > self.max_rss_mb:
            raise MemoryGrowthError(f"{peak_rss_mb()} MB, at most {self.max_rss_mb} MB were allowed")


def peak_rss_mb() -> int:
    """Of this process since it began."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)
