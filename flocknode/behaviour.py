"""How a node misbehaves when it is told to, for demos and experiments; the protocol knows nothing of it."""

from __future__ import annotations

import time

from attrs import field, frozen

from flocknode.config import Behaviour
from flocknode.learner import Learner
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult


@frozen
class MisbehavingLearner(Learner):
    """A learner that takes its time, and, where it poisons, reports losses that turn its own vote around.

    Poisoned updates come from its task (`flocknode.learning.poisoning`).
    """

    behaviour: Behaviour = field(kw_only=True)

    def train(self, job: TrainJob) -> TrainResult:
        """See `Learner.train`."""
        if job.round % self.behaviour.delay_every == 0:
            time.sleep(self.behaviour.train_delay_ms / 1000)
        return super().train(job)

    def evaluate(self, job: EvaluateJob) -> EvaluateResult:
        """See `Learner.evaluate`."""
        result = super().evaluate(job)
        if self.behaviour.kind != "poison":
            return result
        return contrary(result, self.params.tolerance_micro)


def contrary(result: EvaluateResult, tolerance_micro: int) -> EvaluateResult:
    """Losses that lead to the opposite vote under the voting rule (docs/PROTOCOL.md section 6)."""
    current, candidate = result.current_loss_micro, result.candidate_loss_micro
    if current is None or candidate is None:
        return result
    if candidate <= current + tolerance_micro:
        return EvaluateResult(current, current + tolerance_micro + 1)
    return EvaluateResult(current, current)
