"""Bugs in the interim rule of judgement: docs/PROTOCOL.md section 6."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from protocol import pinning
from protocol.duties import vote
from protocol.ledger import economy, judgement, settlement
from protocol.ledger.economy import Settlement
from protocol.ledger.judgement import Judgement, Losses
from sim.mutants.planting import Hunter, Mutant, Swap


def _whole_gamma(right: Any) -> Any:
    def member_price(self: Judgement, grade: int, gamma: int, age: int, alert: int) -> int:
        return gamma

    return member_price


def _whole_at_once(right: Callable[..., int]) -> Any:
    def member_price(self: Judgement, grade: int, gamma: int, age: int, alert: int) -> int:
        return right(self, grade, gamma, age, self.strikes * self.forgive)

    return member_price


def _unforgiving(right: Callable[..., int]) -> Any:
    def alert_after(self: Judgement, alert: int, accepted: bool, grade: int) -> int:
        return max(alert, right(self, alert, accepted, grade))

    return alert_after


def _mildest(right: Any) -> Any:
    def grade_of(changes: Iterable[int]) -> int:
        return min(changes)

    return grade_of


def _to_somebody(right: Callable[..., Settlement]) -> Any:
    def settle_judged(stakes: Any, members: Any, contrary: Any, prices: Any) -> Settlement:
        settled = right(stakes, members, contrary, prices)
        first = min(stakes)
        deltas = dict(settled.deltas)
        deltas[first] = deltas.get(first, 0) + settled.treasury_delta
        return Settlement(tuple(sorted((p, d) for p, d in deltas.items() if d)), 0, 0)

    return settle_judged


def _spares_nobody(right: Any) -> Any:
    def spared(state: Any, params: Any, settled: Settlement) -> Settlement:
        return settled

    return spared


def _current_only(right: Callable[..., Any]) -> Any:
    def worse(self: Judgement, losses: Losses, yardstick: Any) -> Any:
        return right(self, evolve(losses, best=None), yardstick)

    return worse


def _no_way_back(right: Callable[..., Any]) -> Any:
    def worse(self: Judgement, losses: Losses, yardstick: Any) -> Any:
        against_current = right(self, evolve(losses, best=None), yardstick)
        if against_current is None or losses.best is None:
            return against_current
        against_best = right(self, evolve(losses, current=losses.best, best=None), yardstick)
        return max(against_current, against_best)

    return worse


def _absolute(right: Callable[..., Any]) -> Any:
    def change(candidate: float, reference: float, least: Any) -> Any:
        return right(candidate - reference + 1.0, 1.0, least)

    return change


def _never(right: Any) -> Any:
    def is_improvement(opinions: Any) -> bool:
        return False

    return is_improvement


def _best_unasked(right: Callable[..., Any]) -> Any:
    def evaluation(desk: Any, candidate: bytes) -> Any:
        job = right(desk, candidate)
        return None if job is None else evolve(job, best_digest=None)

    return evaluation


def _anything(right: Any) -> Any:
    def opening_is_sound(params: Any, opening: Any) -> bool:
        return True

    return opening_is_sound


JUDGEMENT = (
    Mutant(
        name="whole-gamma-for-any-refusal",
        about="each member of a refused sum pays the whole gamma, however little worse the sum was",
        breaks='6: "nothing up to the grade free_step"',
        caught_by="contract",
        swaps=(Swap(Judgement, "member_price", _whole_gamma),),
        hunters=(Hunter(manifest="interim-refusal"),),
    ),
    Mutant(
        name="grade-by-the-mildest",
        about="one voter alone makes a refusal cheap",
        breaks='6: "the lower median of the changes of the votes"',
        caught_by="contract",
        swaps=(Swap(judgement, "grade_of", _mildest),),
        hunters=(Hunter(manifest="interim-refusal"),),
    ),
    Mutant(
        name="first-refusal-whole",
        about="a first refusal costs as much as one of many",
        breaks='6: "the first costs a part"',
        caught_by="contract",
        swaps=(Swap(Judgement, "member_price", _whole_at_once),),
        hunters=(Hunter(manifest="interim-refusal"),),
    ),
    Mutant(
        name="refusals-never-forgiven",
        about="good sums take no refusal back",
        breaks='6: "any other judged sum: max(0, alert - 1)"',
        caught_by="contract",
        swaps=(Swap(Judgement, "alert_after", _unforgiving),),
        hunters=(Hunter(manifest="interim-forgiven"),),
    ),
    Mutant(
        name="refusal-pays-somebody",
        about="what a refusal costs goes to an account",
        breaks='6: "All of it goes to the treasury"',
        caught_by="contract",
        swaps=(Swap(economy, "settle_judged", _to_somebody),),
        hunters=(Hunter(manifest="interim-refusal"),),
    ),
    Mutant(
        name="last-four-not-spared",
        about="a refusal takes the last four validators below the least stake",
        breaks='6: "nobody is taken below min_stake while fewer than four validators would remain"',
        caught_by="contract",
        swaps=(Swap(settlement, "spared", _spares_nobody),),
        hunters=(Hunter(manifest="interim-floor"),),
    ),
    Mutant(
        name="ratchet-left-out",
        about="a candidate is compared with the current model only",
        breaks='6: "worse than neither the current nor the best model by more than the tolerance"',
        caught_by="votes",
        swaps=(Swap(Judgement, "_worse", _current_only),),
        hunters=(Hunter(manifest="interim-ratchet"),),
    ),
    Mutant(
        name="no-way-back",
        about="a step back from a worse model is refused while the best model is better still",
        breaks='6: "it is better than the current model by more than the tolerance"',
        caught_by="votes",
        swaps=(Swap(Judgement, "_worse", _no_way_back),),
        hunters=(Hunter(manifest="interim-way-back"),),
    ),
    Mutant(
        name="tolerance-absolute",
        about="the tolerance is an amount of loss",
        breaks='6: "by more than the tolerance, relative to it"',
        caught_by="votes",
        swaps=(Swap(judgement, "_change", _absolute),),
        hunters=(Hunter(manifest="interim-ratchet"),),
    ),
    Mutant(
        name="best-never-moves",
        about="the best model is the initial one for ever",
        breaks='6: "becomes the best model if more than half of the opened votes say that it improves on it"',
        caught_by="contract",
        swaps=(Swap(judgement, "is_improvement", _never),),
        hunters=(Hunter(manifest="interim-calm"),),
    ),
    Mutant(
        name="best-not-measured",
        about="a voter does not ask for the best model",
        breaks='6: "A voter measures the best model, the current one and the candidate"',
        caught_by="votes",
        swaps=(Swap(vote, "evaluation", _best_unasked),),
        hunters=(Hunter(manifest="interim-calm"),),
    ),
    Mutant(
        name="openings-unread",
        about="an opening may say something else than its vote",
        breaks='6: "An opening whose vote and change do not fit opens nothing"',
        caught_by="contract",
        swaps=(Swap(pinning, "opening_is_sound", _anything),),
        hunters=(Hunter(manifest="interim-unsound", seed=2),),
    ),
)
