"""Heavy work beside the event loop: one thread for aggregation jobs, one for learning (DESIGN section 1).

Two threads, because a round's small jobs must not wait for an epoch of training. The kernels of `protocol` and
of torch release the interpreter lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import isnan
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from flocknode.learning.task import MAX_SEED, Metrics, Scalar, Task, TaskError
from flocknode.observe.log import Logger
from protocol.checkpoint import decode_checkpoint
from protocol.events import Digest, JobDone, JobFailed
from protocol.jobs import (
    AggregationJob,
    EvaluateJob,
    EvaluateResult,
    Job,
    JobResult,
    TrainJob,
    TrainResult,
)
from protocol.params import MICRO, ProtocolParams
from protocol.secagg.encoding import model_to_float

ReadBlob: TypeAlias = Callable[[Digest], bytes]
RunAggregation: TypeAlias = Callable[[AggregationJob, ReadBlob], JobResult]

MAX_LOSS_MICRO = 1 << 60
"""The highest loss that a vote carries; one beyond it, or none that is a number, counts as this."""


@frozen
class Learner:
    """The learner's jobs, through a `Task`. Calls block; they belong on the learning thread."""

    task: Task
    params: ProtocolParams
    read_blob: ReadBlob
    hyperparameters: Mapping[str, Scalar] = field(factory=dict)

    def train(self, job: TrainJob) -> TrainResult:
        """Fit from the model of the job's digest; the update is new minus old weights.

        Raises TaskError, CheckpointError, or what `read_blob` raises.
        """
        weights = self._weights(job.model_digest)
        seed = int.from_bytes(job.seed[:8], "big") & MAX_SEED
        fitted, examples, _ = self.task.fit(
            weights, {**self.hyperparameters, "seed": seed, "round": job.round}
        )
        if examples < 1:
            raise TaskError(f"{self.task.name} fit: {examples} training examples")
        update = np.subtract(fitted, weights, dtype=np.float32)
        return TrainResult(update=update, weight=min(examples, self.params.max_weight))

    def evaluate(self, job: EvaluateJob) -> EvaluateResult:
        """The losses of both models on the validation split; None for one that cannot be evaluated."""
        return EvaluateResult(
            current_loss_micro=self._loss_micro(job.current_digest),
            candidate_loss_micro=self._loss_micro(job.candidate_digest),
        )

    def test(self, digest: Digest) -> tuple[float, int, Metrics]:
        """Loss, sample count and metrics of a model on the test split; raises as `train`."""
        return self.task.evaluate(self._weights(digest), {"split": "test"})

    def _weights(self, digest: Digest) -> npt.NDArray[np.float32]:
        return model_to_float(decode_checkpoint(self.params, self.read_blob(digest)).model)

    def _loss_micro(self, digest: Digest) -> int | None:
        try:
            loss, _, _ = self.task.evaluate(self._weights(digest), {"split": "validation"})
        except Exception:
            return None
        return loss_micro(loss)


def loss_micro(loss: float) -> int:
    """A loss in micro-units, as votes carry it.

    A model too wild for a finite loss is the worst there is, not one that cannot be judged: if its voters
    abstained, an aggregate that overflows would be accepted with no vote against it.
    """
    if isnan(loss) or loss * MICRO >= MAX_LOSS_MICRO:
        return MAX_LOSS_MICRO
    return max(0, round(loss * MICRO))


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
        self._aggregation = ThreadPoolExecutor(1, thread_name_prefix="aggregation")
        self._learning = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._running: dict[str, asyncio.Future[JobResult]] = {}

    def run(self, key: str, job: Job) -> None:
        """Queue a job; one of the same key is cancelled."""
        self.cancel(key)
        future = asyncio.get_running_loop().run_in_executor(*self._work(job))
        self._running[key] = future
        future.add_done_callback(lambda done: self._finished(key, done))

    def cancel(self, key: str) -> None:
        """The job's result will not be delivered; if it has not begun, it does not run."""
        future = self._running.pop(key, None)
        if future is not None:
            future.cancel()

    async def learn(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run other blocking work on the learning thread, after what is queued there."""
        return await asyncio.get_running_loop().run_in_executor(self._learning, work, *arguments)

    def close(self) -> None:
        """Deliver nothing more. A job that runs cannot be stopped; its thread ends with it."""
        for key in list(self._running):
            self.cancel(key)
        for threads in (self._aggregation, self._learning):
            threads.shutdown(wait=False, cancel_futures=True)

    def _work(self, job: Job) -> tuple[ThreadPoolExecutor, Callable[[], JobResult]]:
        if isinstance(job, TrainJob):
            return self._learning, lambda: self._learner.train(job)
        if isinstance(job, EvaluateJob):
            return self._learning, lambda: self._learner.evaluate(job)
        return self._aggregation, lambda: self._run_aggregation(job, self._learner.read_blob)

    def _finished(self, key: str, future: asyncio.Future[JobResult]) -> None:
        if future.cancelled() or self._running.get(key) is not future:
            return
        del self._running[key]
        error = future.exception()
        if error is None:
            self._deliver(key, JobDone(key, future.result()))
        else:
            self._log.warning("job_failed", job=key, exc_info=error)
            self._deliver(key, JobFailed(key, f"{type(error).__name__}: {error}"))
