"""Runs on this machine, in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool

from attrs import frozen

from sim.figures.sweep import R, Result, SweepError


@frozen
class LocalEngine:
    """`jobs` processes; with one, the runs are computed here, one after the other."""

    jobs: int = 1

    def results(self, execute: Callable[[R], Result], runs: Sequence[R]) -> Iterator[tuple[int, Result]]:
        """See `Engine`. When it is interrupted, runs under way are finished and yielded, none is begun."""
        workers = min(self.jobs, len(runs))
        if workers <= 1:
            yield from ((number, execute(run)) for number, run in enumerate(runs))
            return
        # spawn: a fork would copy the parent's torch in whatever state its threads are.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent)
        try:
            waiting = {pool.submit(execute, run): number for number, run in enumerate(runs)}
            try:
                for future in as_completed(tuple(waiting)):
                    yield waiting.pop(future), future.result()
            except KeyboardInterrupt:
                begun = [future for future in waiting if not future.cancel()]
                for future in wait(begun).done:
                    yield waiting.pop(future), future.result()
                raise
        except BrokenProcessPool as error:
            raise SweepError("a process of the sweep was killed; what it had finished is kept") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
