"""Heavy work beside the event loop: a thread for aggregation, one for learning (docs/PROTOCOL.md section 1).

Two threads, because a round's small jobs must not wait for an epoch of training. The kernels of `protocol`
and of torch release the interpreter lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeAlias, TypeVar

from flocknode.faults import describe_error
from flocknode.learner import Learner
from flocknode.observe.log import Logger
from protocol.context import ReadBlob
from protocol.events import JobDone, JobFailed
from protocol.jobs import AggregationJob, EvaluateJob, Job, JobResult, TrainJob

RunAggregation: TypeAlias = Callable[[AggregationJob, ReadBlob], JobResult]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_REMEMBERED = 16


class LearningTimes:
    """How long the learner's work takes, by the key of its job.

    Written by the learning thread alone, read by the event loop: each step of either is one assignment.
    """

    def __init__(self) -> None:
        self._running: tuple[str, float] | None = None
        self._took_s: dict[str, float] = {}

    @property
    def running(self) -> tuple[str, float] | None:
        """The work that runs, and since when, in seconds of the monotonic clock."""
        return self._running

    def took_s(self, key: str) -> float | None:
        """Return how long work that has ended took; None for other work, and for what ended long ago."""
        return self._took_s.get(key)

    def timed(self, key: str, work: Callable[[], Result]) -> Callable[[], Result]:
        """Return `work` with its time taken."""

        def run() -> Result:
            began_s = time.monotonic()
            self._running = key, began_s
            try:
                return work()
            finally:
                took = {**self._took_s, key: time.monotonic() - began_s}
                self._took_s = dict(list(took.items())[-_REMEMBERED:])
                self._running = None

        return run


class JobError(Exception):
    """A job raised what no future carries: an end of an iteration, or of a process."""


class JobRunner:
    """Performs `RunJob` and `CancelJob`: each job ends in one `JobDone` or `JobFailed`, unless cancelled.

    `deliver(key, event)` is called on the event loop. `run_aggregation` is `protocol.jobs.run`.
    """

    def __init__(
        self,
        *,
        learner: Learner,
        run_aggregation: RunAggregation,
        deliver: Callable[[str, JobDone | JobFailed], None],
        log: Logger,
    ) -> None:
        self._learner = learner
        self._run_aggregation = run_aggregation
        self._deliver = deliver
        self._log = log
        self.times = LearningTimes()
        self._aggregation = ThreadPoolExecutor(1, thread_name_prefix="aggregation")
        self._learning = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._running: dict[str, asyncio.Future[JobResult]] = {}

    def run(self, key: str, job: Job) -> None:
        """Queue a job; one of the same key is cancelled."""
        self.cancel(key)
        threads, work = self._work(key, job)
        future = asyncio.get_running_loop().run_in_executor(threads, lambda: _carried(work))
        self._running[key] = future
        future.add_done_callback(lambda done: self._finished(key, done))

    def cancel(self, key: str) -> None:
        """The job's result will not be delivered; if it has not begun, it does not run."""
        future = self._running.pop(key, None)
        if future is not None:
            future.cancel()

    def cancel_all(self) -> None:
        """As `cancel`, of every job."""
        for key in list(self._running):
            self.cancel(key)

    async def learn(
        self, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Run other blocking work on the learning thread, after what is queued there.

        Raises what `work` does; `JobError` in place of what is no `Exception`, or a `StopIteration`.
        """
        call = partial(_carried, self.times.timed("other", partial(work, *arguments, **named)))
        return await asyncio.get_running_loop().run_in_executor(self._learning, call)

    def close(self) -> None:
        """Deliver nothing more. A job that runs cannot be stopped; its thread ends with it."""
        self.cancel_all()
        for threads in (self._aggregation, self._learning):
            threads.shutdown(wait=False, cancel_futures=True)

    def _work(self, key: str, job: Job) -> tuple[ThreadPoolExecutor, Callable[[], JobResult]]:
        if isinstance(job, TrainJob):
            return self._learning, self.times.timed(key, lambda: self._learner.train(job))
        if isinstance(job, EvaluateJob):
            return self._learning, self.times.timed(key, lambda: self._learner.evaluate(job))
        return self._aggregation, lambda: self._run_aggregation(job, self._learner.read_blob)

    def _finished(self, key: str, future: asyncio.Future[JobResult]) -> None:
        if future.cancelled() or self._running.get(key) is not future:
            return
        del self._running[key]
        error = future.exception()
        if error is None:
            self._deliver(key, JobDone(key, future.result()))
        else:
            self._log.info("job_raised", job=key, exc_info=error)
            self._deliver(key, JobFailed(key, describe_error(error)))


def _carried(work: Callable[[], Result]) -> Result:
    """Return what `work` does. A user's code must not end the node, nor leave a future without an answer.

    asyncio ends the process for a SystemExit, and loses a StopIteration, which a loader of data raises that
    is used up: its job would never be answered.
    """
    try:
        return work()
    except StopIteration as error:
        raise JobError(describe_error(error)) from error
    except Exception:
        raise
    except BaseException as error:
        raise JobError(describe_error(error)) from error
