"""Runs on a Ray cluster (the extra `ray`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen

from sim.figures.sweep import R, Result, SweepError

IN_FLIGHT_PER_PROCESSOR = 2
"""Enough that no processor waits for the driver, few enough that an interrupt has little to cancel."""


@frozen
class RayEngine:
    """`address` as ray.init takes it: None starts Ray here or joins RAY_ADDRESS, "auto" joins this cluster.

    The cluster's machines need this package and, for images, the same paths. They should have the same
    processors: another BLAS kernel may round a product the other way.
    """

    address: str | None = None

    def results(self, execute: Callable[[R], Result], runs: Sequence[R]) -> Iterator[tuple[int, Result]]:
        """See `Engine`. SweepError without Ray, or for a run that failed there."""
        ray = _import_ray()
        if not runs:
            return
        started = not ray.is_initialized()
        try:
            if started:
                ray.init(address=self.address, include_dashboard=False, log_to_driver=False)
            yield from _collect(ray, execute, runs)
        except ConnectionError as error:
            raise SweepError(f"Ray: no cluster at {self.address!r}: {error}") from error
        except ray.exceptions.RayError as error:
            raise SweepError(f"Ray: {error}") from error
        finally:
            if started:
                ray.shutdown()


def _collect(ray: Any, execute: Callable[[R], Result], runs: Sequence[R]) -> Iterator[tuple[int, Result]]:
    remote = ray.remote(num_cpus=1)(execute)
    limit = max(1, IN_FLIGHT_PER_PROCESSOR * int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(enumerate(runs))
    pending: dict[Any, int] = {}
    while True:
        while len(pending) < limit and (following := next(waiting, None)) is not None:
            number, run = following
            pending[remote.remote(run)] = number
        if not pending:
            return
        (done, *_), _ = ray.wait(list(pending), num_returns=1)
        yield pending.pop(done), ray.get(done)


def _import_ray() -> Any:
    # Ray reports its use to its makers unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SweepError("--engine ray needs Ray: pip install 'flocknode[ray]'") from error
    return ray
