"""The learner's jobs: from a checkpoint on the ledger to an update, or to the losses that a vote rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from flocknode.learning.task import MAX_SEED, Metrics, Scalar, Task, TaskError
from protocol.checkpoint import decode_checkpoint
from protocol.context import ReadBlob
from protocol.events import Digest
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.params import ProtocolParams
from protocol.secagg.encoding import model_to_float

REMEMBERED_EVALUATIONS = 8
"""Models whose losses are kept: the last candidates, and with them the current and the best."""


@frozen
class _Judged:
    """What the task says of a model on the validation split, or why it says nothing."""

    loss: float | None
    done: bool = False
    why: str = ""


_NOT_ASKED = _Judged(None)


@frozen
class Learner:
    """The learner's jobs, through a `Task`. Calls block; they belong on the learning thread."""

    task: Task
    params: ProtocolParams
    read_blob: ReadBlob
    hyperparameters: Mapping[str, Scalar] = field(factory=dict)
    _evaluated: dict[Digest, _Judged] = field(factory=dict, init=False, repr=False, eq=False)

    def train(self, job: TrainJob) -> TrainResult:
        """Fit from the model of the job's digest; the update is new minus old weights.

        Raises TaskError, CheckpointError, or what `read_blob` raises.
        """
        weights = self._weights(job.model_digest)
        seed = int.from_bytes(job.seed[:8], "big") & MAX_SEED
        fitted, examples, _ = self.task.fit(
            weights, {"seed": seed, "round": job.round, **self.hyperparameters}
        )
        if examples < 1:
            raise TaskError(f"{self.task.name} fit: {examples} training examples")
        update = np.subtract(fitted, weights, dtype=np.float32)
        return TrainResult(update=update, weight=min(examples, self.params.max_weight))

    def evaluate(self, job: EvaluateJob) -> EvaluateResult:
        """Return the losses of the job's models on the validation split; None for one that could not.

        No model is evaluated twice, but for one that could not be, and those that were long ago.
        """
        best = _NOT_ASKED if job.best_digest is None else self._judge(job.best_digest)
        current, candidate = self._judge(job.current_digest), self._judge(job.candidate_digest)
        why = current.why or candidate.why or best.why
        return EvaluateResult(current.loss, candidate.loss, best.loss, candidate.done, why=why)

    def test(self, digest: Digest) -> tuple[float, int, Metrics]:
        """Loss, sample count and metrics of a model on the test split; raises as `train`."""
        return self.task.evaluate(self._weights(digest), {"split": "test"})

    def _weights(self, digest: Digest) -> npt.NDArray[np.float32]:
        return model_to_float(decode_checkpoint(self.params, self.read_blob(digest)).model)

    def _judge(self, digest: Digest) -> _Judged:
        """Return the validation loss of a model, or why there is none."""
        known = self._evaluated.pop(digest, None)
        if known is None:
            try:
                loss, _, metrics = self.task.evaluate(self._weights(digest), {"split": "validation"})
                known = _Judged(float(loss), _is_done(self.task, {**metrics, "loss": float(loss)}))
            except Exception as error:
                return _Judged(None, why=f"{type(error).__name__}: {error}")
        self._evaluated[digest] = known  # the last one used stands last
        while len(self._evaluated) > REMEMBERED_EVALUATIONS:
            del self._evaluated[next(iter(self._evaluated))]
        return known


def _is_done(task: Any, metrics: Metrics) -> bool:
    """Return what the task's own `is_done` says of these validation metrics; False without it."""
    is_done = getattr(task, "is_done", None)
    return is_done is not None and bool(is_done(metrics))
