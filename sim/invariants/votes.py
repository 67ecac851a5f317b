"""Votes: what an honest voter seals is what it measured, under the contract of its network.

docs/PROTOCOL.md section 6: under FLock's contract "+1 if the candidate's loss is at most the current loss
plus tolerance"; under the interim rule +1 iff the candidate "is better than the current model by more than
the tolerance, or worse than neither the current nor the best model by more than the tolerance". Worked out
here in whole numbers, as products.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING

from protocol import durable
from protocol.codec import decode
from protocol.engine import Engine
from protocol.events import Effect, Persist
from protocol.jobs import EvaluateJob, EvaluateResult
from protocol.messages import VoteOpening
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.notes import Notes

if TYPE_CHECKING:
    from sim.node import Node

Measured = tuple[EvaluateJob, EvaluateResult]


class Votes:
    """Follows the openings that honest nodes write down, before their sealed votes leave."""

    def __init__(self, params: ProtocolParams, notes: Notes) -> None:
        self._params = params
        self._notes = notes

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        for effect in performed:
            if isinstance(effect, Persist) and effect.bucket == durable.OPENING and effect.value is not None:
                round_ = durable.round_of_key(effect.key)
                self._check(node, round_, decode(VoteOpening, effect.value, 128))

    def _check(self, node: Node, round_: int, opening: VoteOpening) -> None:
        measured = self._notes.measured_by(node.index)
        if not measured or measured[-1][0].round != round_ or opening.vote == 0:
            return
        job, result = measured[-1]
        where = f"node {node.index}, round {round_}"
        if opening.vote != self._due(measured):
            raise InvariantError(f"{where}: it seals {opening.vote:+d} for {result}")
        if self._params.judgement is None or node.engine is None:
            return
        engine = node.engine
        assert isinstance(engine, Engine)
        state = engine.state
        if state.round == round_ and state.best is not None and job.best_digest != state.best.digest:
            raise InvariantError(f"{where}: it votes without having measured the best model")
        better = result.best_loss is not None and _known(result.candidate_loss) < result.best_loss
        if opening.improves != better:
            raise InvariantError(f"{where}: it says improves {opening.improves} for {result}")

    def _due(self, measured: Sequence[Measured]) -> int:
        """The vote that the last of these evaluations asks for."""
        _, result = measured[-1]
        rule = self._params.judgement
        current, candidate = _known(result.current_loss), _known(result.candidate_loss)
        if not isfinite(candidate):
            return -1
        if rule is None:
            before, after = (round(loss * 10**6) for loss in (current, candidate))
            return 1 if after <= before + self._params.tolerance_micro else -1
        losses = [loss for _, seen in measured for loss in (seen.current_loss, seen.best_loss)]
        largest = max(abs(Fraction(loss)) for loss in losses if loss is not None and isfinite(loss))
        if not isfinite(current):
            return 1
        scale = max(abs(Fraction(current)) * 1000, largest * rule.floor_permille)
        if 10**6 * (Fraction(current) - Fraction(candidate)) > scale * rule.tolerance_permille:
            return 1  # a step back from a worse model
        for loss in (current, result.best_loss):
            if loss is None or not isfinite(loss):
                continue
            scale = max(abs(Fraction(loss)) * 1000, largest * rule.floor_permille)
            if 10**6 * (Fraction(candidate) - Fraction(loss)) > scale * rule.tolerance_permille:
                return -1
        return 1


def _known(loss: float | None) -> float:
    if loss is None:
        raise InvariantError("a vote without a loss")
    return loss
