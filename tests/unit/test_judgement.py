"""The interim rule of judgement: what a voter says of its losses, and what the ledger makes of it."""

from __future__ import annotations

from math import inf, nan

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.codec import DecodeError
from protocol.duties.vote import judge, measure
from protocol.jobs import EvaluateResult
from protocol.ledger.economy import EconomyError
from protocol.ledger.judgement import Judgement, Losses, Opinion, Yardstick, grade_of, is_improvement
from protocol.params import MICRO, ParamsError, hardened

RULE = Judgement()
FLOCK = hardened(dimension=8, n_proposers=4, n_voters=2)
INTERIM = evolve(FLOCK, judgement=RULE)
LOSSES = st.floats(-1e6, 1e6, allow_nan=False).map(lambda loss: round(loss, 3))


def opinion(
    current: float | None, candidate: float | None, best: float | None = None, largest: float = 0.0
) -> tuple[int, Opinion]:
    return RULE.form_opinion(Losses(current, candidate, best), Yardstick(largest))


def calm(spread: float, largest: float = 0.0) -> Yardstick:
    """A voter whose accepted sums moved its loss by so much, up or down."""
    return Yardstick(largest, (spread, -spread) * 8)


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
    plain = RULE.form_opinion(Losses(current, candidate, best), calm(0.05, largest))
    for unit in (2.0**power, 10.0**power):
        losses = Losses(current * unit, candidate * unit, best * unit)
        scaled = RULE.form_opinion(losses, calm(0.05, largest * unit))
        if unit == 2.0**power:
            assert scaled == plain
        else:
            assert abs(scaled[1].change - plain[1].change) <= 1
            nudged = {
                RULE.form_opinion(Losses(current, near, best), calm(0.05, largest))[0]
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
    assert opinion(2.0, 2.1, best=1.0) == (-1, Opinion(3))
    assert opinion(2.0, 0.9, best=1.0)[1].improves
    assert not opinion(2.0, 1.0, best=1.0)[1].improves


def test_a_step_back_from_an_accepted_poison_is_good() -> None:
    """Else a network would keep a poison for ever: whatever is better is still worse than the best model."""
    assert opinion(30.0, 8.0, best=1.0)[0] == 1
    assert opinion(30.0, 8.0, best=1.0)[1].change < 0
    assert not opinion(30.0, 8.0, best=1.0)[1].improves
    # Within the tolerance better: no step back, and the ratchet holds.
    assert opinion(2.0, 1.9, best=1.0)[0] == -1
    assert opinion(2.0, 1.7, best=1.0)[0] == 1


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


def test_a_change_is_counted_in_what_the_voter_cannot_tell_from_noise() -> None:
    losses = Losses(1.0, 1.79)
    assert RULE.form_opinion(losses, calm(0.0)) == (-1, Opinion(6))  # of 8 tolerances
    assert RULE.form_opinion(losses, calm(0.2)) == (-1, Opinion(2))  # of twice a noise of 0.4
    assert RULE.form_opinion(losses, calm(0.5)) == (-1, Opinion(0))
    assert RULE.form_opinion(losses, Yardstick(0.0, (0.0,) * 3)) == (-1, Opinion(2))  # too few yet


def test_a_poison_that_was_accepted_once_does_not_hide_the_next_one() -> None:
    yardstick = calm(0.02)
    for round_ in range(1, 4):
        losses = Losses(1.0, 30.0)
        yardstick = yardstick.measured(losses, round_, RULE.relative_change(losses, yardstick))
        yardstick = yardstick.ended(round_, accepted=True)
    assert yardstick.changes[-3:] == (4.0,) * 3
    assert RULE.form_opinion(Losses(1.0, 70.0), yardstick)[1].change >= 8


def test_only_accepted_sums_and_accepted_models_count() -> None:
    losses = Losses(1.0, 1e30, 2.0)
    after = Yardstick(0.5).measured(losses, 7, RULE.relative_change(losses, Yardstick()))
    assert after.largest == 2.0
    assert after.ended(7, accepted=False).changes == ()
    assert after.ended(6, accepted=True) == after
    assert after.ended(7, accepted=True).changes == (4.0,)
    assert Yardstick(0.5).measured(Losses(inf, 3.0, nan), 1, None).largest == 0.5
    long = Yardstick(1.0, tuple(map(float, range(16))), 3, -9.0).ended(3, accepted=True)
    assert long.changes == (*map(float, range(1, 16)), -4.0)


@pytest.mark.parametrize(
    "yardstick", [Yardstick(), Yardstick(2.5, (0.1, -0.2), 9, 0.25), Yardstick(1.0, (0.0,) * 16, 1 << 40)]
)
def test_a_yardstick_survives_a_restart(yardstick: Yardstick) -> None:
    assert Yardstick.from_bytes(yardstick.to_bytes()) == yardstick


@pytest.mark.parametrize("damage", [b"", b"x" * 23, bytes(8 * 20), b"\xff" * 24])
def test_a_damaged_yardstick_is_told(damage: bytes) -> None:
    with pytest.raises(DecodeError, match="yardstick"):
        Yardstick.from_bytes(damage)


def test_raw_losses_stay_with_the_voter_and_flocks_opening_is_what_it_was() -> None:
    result, used = EvaluateResult(1.0, 0.5, 0.75, True), calm(0.0)
    assert judge(INTERIM, result, used) == (1, 0, Opinion(-5, True, True))
    assert judge(FLOCK, result, used) == (1, MICRO // 2, Opinion())
    assert measure(FLOCK, result, Yardstick(), 1) == Yardstick()
    assert judge(FLOCK, EvaluateResult(1.0, 1.1000001), used)[0] == 1  # whole micro-units
    assert judge(FLOCK, EvaluateResult(1.0, 1.1000006), used)[0] == -1


# -- the ledger ------------------------------------------------------------------------------------


WHOLE = RULE.strikes * RULE.forgive


def test_a_refusal_costs_next_to_nothing_near_the_tolerance_and_gamma_far_from_it() -> None:
    prices = [RULE.member_price(grade, 8 * MICRO, 0, WHOLE) for grade in range(-16, 17)]
    assert prices == sorted(prices)
    assert RULE.member_price(RULE.free_step, 8 * MICRO, 0, WHOLE) == 0
    assert 0 < RULE.member_price(RULE.free_step + 1, 8 * MICRO, 0, WHOLE) < 3 * MICRO
    assert RULE.member_price(16, 8 * MICRO, 0, WHOLE) == 8 * MICRO


def test_a_refusal_costs_less_the_longer_no_better_model_was_found() -> None:
    prices = [RULE.member_price(16, 8 * MICRO, age, WHOLE) for age in (0, 32, 96, 1_000)]
    assert prices[:3] == [8 * MICRO, 4 * MICRO, 2 * MICRO]
    assert 0 < prices[3] < MICRO // 2
    assert sum(RULE.member_price(16, 8 * MICRO, age, WHOLE) for age in range(1_000)) < 1_000 * MICRO


def test_a_refusal_that_stands_alone_costs_a_part() -> None:
    """An honest sum on odd data may look like poison once; poison does so again and again."""
    alert, paid = 0, []
    for _ in range(9):
        alert = RULE.alert_after(alert, False, 16)
        paid.append(RULE.member_price(16, 8 * MICRO, 0, alert))
    assert paid == [tokens * MICRO for tokens in (1, 2, 3, 4, 5, 6, 7, 8, 8)]
    for _ in range(RULE.forgive):
        alert = RULE.alert_after(alert, True, -3)
    assert alert == WHOLE - RULE.forgive
    for _ in range(WHOLE):
        alert = RULE.alert_after(alert, False, RULE.free_step)  # refused within the noise: no strike
    assert alert == RULE.alert_after(0, True, 0) == 0


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
    with pytest.raises(EconomyError, match="full_step 4 is not above free_step 4"):
        Judgement(free_step=4, full_step=4)
    with pytest.raises(ParamsError, match="tolerance_micro: judgement has a tolerance of its own"):
        evolve(FLOCK, tolerance_micro=1, judgement=RULE)
