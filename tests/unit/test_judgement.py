"""The interim rule of judgement: what a voter says of its losses, and what the ledger makes of it."""

from __future__ import annotations

from math import inf, nan

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.duties.vote import judge, largest_loss
from protocol.jobs import EvaluateResult
from protocol.ledger.economy import EconomyError
from protocol.ledger.judgement import Judgement, Losses, Opinion, grade_of, is_improvement
from protocol.params import MICRO, ParamsError, hardened

RULE = Judgement()
FLOCK = hardened(dimension=8, n_proposers=4, n_voters=2)
INTERIM = evolve(FLOCK, judgement=RULE)
LOSSES = st.floats(-1e6, 1e6, allow_nan=False).map(lambda loss: round(loss, 3))


def opinion(
    current: float | None, candidate: float | None, best: float | None = None, largest: float = 0.0
) -> tuple[int, Opinion]:
    return RULE.form_opinion(Losses(current, candidate, best, largest))


# -- a voter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "candidate", "vote"),
    [
        (2.0, 2.19, 1),
        (2.0, 2.21, -1),
        (-2.0, -1.81, 1),
        (-2.0, -1.79, -1),
        (-2.0, -3.0, 1),
        (3.0, -3.0, 1),
        (-3.0, 3.0, -1),
    ],
)
def test_the_tolerance_is_relative_and_negative_losses_are_told_apart(
    current: float, candidate: float, vote: int
) -> None:
    assert opinion(current, candidate)[0] == vote
    assert opinion(0.25 * current, 0.25 * candidate)[0] == vote


@given(LOSSES, LOSSES, LOSSES, LOSSES, st.integers(-9, 9))
@example(0.0, 0.0, 0.0, 0.0, 3)
def test_votes_do_not_depend_on_the_unit_of_the_loss(
    current: float, candidate: float, best: float, largest: float, power: int
) -> None:
    """Powers of two are exact in floating point; of ten they are so but at the very edge of a step."""
    largest = max(abs(largest), abs(current), abs(best))
    plain = RULE.form_opinion(Losses(current, candidate, best, largest))
    for unit in (2.0**power, 10.0**power):
        scaled = RULE.form_opinion(Losses(current * unit, candidate * unit, best * unit, largest * unit))
        if unit == 2.0**power:
            assert scaled == plain
        else:
            assert abs(scaled[1].change - plain[1].change) <= 1
            nudged = {
                RULE.form_opinion(Losses(current, near, best, largest))[0]
                for near in (candidate - 1e-6, candidate, candidate + 1e-6)
            }
            assert scaled[0] in nudged


def test_near_zero_the_largest_loss_sets_the_scale() -> None:
    assert opinion(1e-9, 1e-6)[0] == -1
    assert opinion(1e-9, 1e-6, largest=2.0)[0] == 1
    assert opinion(0.0, 0.0) == (1, Opinion(0))
    assert opinion(0.0, 1e-300)[0] == -1


def test_the_ratchet_holds_a_candidate_to_the_best_model_too() -> None:
    assert opinion(2.0, 2.1)[0] == 1
    assert opinion(2.0, 2.1, best=1.0) == (-1, Opinion(16))
    assert opinion(2.0, 0.9, best=1.0)[1].improves
    assert not opinion(2.0, 1.0, best=1.0)[1].improves


@pytest.mark.parametrize(
    ("current", "candidate", "vote"),
    [
        (nan, nan, 0),
        (inf, inf, 0),
        (None, 1.0, 0),
        (1.0, None, 0),
        (nan, 1.0, 0),
        (1.0, inf, -1),
        (1.0, nan, -1),
        (inf, 1.0, 1),
    ],
)
def test_who_cannot_judge_abstains_and_a_model_too_wild_is_refused(
    current: float | None, candidate: float | None, vote: int
) -> None:
    found, said = opinion(current, candidate, best=1.5)
    assert found == vote
    assert RULE.is_sound(found, said)


def test_a_poison_that_nobody_accepted_does_not_widen_the_scale() -> None:
    result = EvaluateResult(1.0, 1e30, 2.0)
    assert largest_loss(result, 0.5) == 2.0
    assert largest_loss(EvaluateResult(inf, 3.0, nan), 0.5) == 0.5
    assert judge(INTERIM, result, 2.0)[0] == -1


def test_raw_losses_stay_with_the_voter_and_flocks_opening_is_what_it_was() -> None:
    assert judge(INTERIM, EvaluateResult(1.0, 0.5, 0.75, True), 1.0) == (1, 0, Opinion(-6, True, True))
    assert judge(FLOCK, EvaluateResult(1.0, 0.5, 0.75, True), 1.0) == (1, MICRO // 2, Opinion())
    assert judge(FLOCK, EvaluateResult(1.0, 1.1000001), 1.0)[0] == 1  # whole micro-units
    assert judge(FLOCK, EvaluateResult(1.0, 1.1000006), 1.0)[0] == -1


# -- the ledger ------------------------------------------------------------------------------------


def test_a_refusal_costs_next_to_nothing_near_the_tolerance_and_gamma_far_from_it() -> None:
    prices = [RULE.member_price(grade, 8 * MICRO) for grade in range(-16, 17)]
    assert prices == sorted(prices)
    assert RULE.member_price(RULE.steps, 8 * MICRO) == 0
    assert 0 < RULE.member_price(RULE.steps + 1, 8 * MICRO) < MICRO // 8
    assert RULE.member_price(16, 8 * MICRO) == 8 * MICRO


def test_a_contrary_vote_costs_nothing_while_the_margin_is_small() -> None:
    assert RULE.contrary_price(2, 1, 8 * MICRO) == 0
    assert 0 < RULE.contrary_price(3, 1, 8 * MICRO) <= MICRO // 4


def test_one_liar_of_three_moves_no_grade() -> None:
    assert [grade_of(changes) for changes in ([1, 2, 16], [1, 2, -16], [5, 9])] == [2, 1, 5]
    with pytest.raises(EconomyError, match="no votes"):
        grade_of([])


def test_an_improvement_needs_more_than_half_of_the_opened_votes() -> None:
    said = {bytes([i]): Opinion(0, i < 2) for i in range(4)}
    assert not is_improvement(said)
    assert is_improvement({**said, bytes([3]): Opinion(0, True)})
    assert not is_improvement({})


def test_the_options_numbers_fit_together() -> None:
    with pytest.raises(EconomyError, match="full_step 4 is not above steps 4"):
        Judgement(steps=4, full_step=4)
    with pytest.raises(ParamsError, match="tolerance_micro: judgement has a tolerance of its own"):
        evolve(FLOCK, tolerance_micro=1, judgement=RULE)
