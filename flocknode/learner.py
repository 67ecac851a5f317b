"""The learner's jobs: from a checkpoint on the ledger to an update, or to the losses that a vote rests on."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from flocknode.learning.task import MAX_SEED, Metrics, Scalar, Task, TaskError
from protocol.checkpoint import decode_checkpoint
from protocol.context import ReadBlob
from protocol.events import Digest
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.params import MICRO, ProtocolParams
from protocol.secagg.encoding import model_to_float

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
            weights, {"seed": seed, "round": job.round, **self.hyperparameters}
        )
        if examples < 1:
            raise TaskError(f"{self.task.name} fit: {examples} training examples")
        update = np.subtract(fitted, weights, dtype=np.float32)
        return TrainResult(update=update, weight=min(examples, self.params.max_weight))

    def evaluate(self, job: EvaluateJob) -> EvaluateResult:
        """The losses of both models on the validation split; None for one that cannot be evaluated."""
        (current, why), (candidate, why_too) = map(
            self._loss_micro, (job.current_digest, job.candidate_digest)
        )
        return EvaluateResult(current, candidate, why=why or why_too)

    def test(self, digest: Digest) -> tuple[float, int, Metrics]:
        """Loss, sample count and metrics of a model on the test split; raises as `train`."""
        return self.task.evaluate(self._weights(digest), {"split": "test"})

    def _weights(self, digest: Digest) -> npt.NDArray[np.float32]:
        return model_to_float(decode_checkpoint(self.params, self.read_blob(digest)).model)

    def _loss_micro(self, digest: Digest) -> tuple[int | None, str]:
        """Return the loss of a model on the validation split, or None and why there is none."""
        try:
            loss, _, _ = self.task.evaluate(self._weights(digest), {"split": "validation"})
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"
        return loss_micro(loss), ""


def loss_micro(loss: float) -> int:
    """A loss in micro-units, as votes carry it.

    A model too wild for a finite loss is the worst there is, not one that cannot be judged: if its voters
    abstained, an aggregate that overflows would be accepted with no vote against it.
    """
    if isnan(loss) or loss * MICRO >= MAX_LOSS_MICRO:
        return MAX_LOSS_MICRO
    return round(max(0.0, loss * MICRO))
