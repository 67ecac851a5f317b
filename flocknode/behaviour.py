"""How a node misbehaves when it is told to, for demos and experiments; the protocol knows nothing of it."""

from __future__ import annotations

import time
from math import inf

from attrs import evolve, field, frozen

from flocknode.config import Behaviour
from flocknode.learner import Learner
from protocol.duties.vote import ABSTAIN, VOTE_AGAINST, judge
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.ledger.judgement import Yardstick
from protocol.params import ProtocolParams


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
        return contrary(result, self.params)


def contrary(result: EvaluateResult, params: ProtocolParams) -> EvaluateResult:
    """Return losses that lead to the opposite vote under the voting rule (docs/PROTOCOL.md section 6)."""
    vote, _, _ = judge(params, result, Yardstick())
    if vote == ABSTAIN:
        return result
    if vote == VOTE_AGAINST:
        return evolve(result, candidate_loss=result.current_loss, best_loss=None)
    return evolve(result, candidate_loss=inf)
