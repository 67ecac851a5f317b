import pytest

from protocol.ledger.economy import (
    UNITS,
    EconomyError,
    Settlement,
    is_accepted,
    round_winners,
    settle_fee,
    settle_rewards,
    settle_slash,
    settle_vote,
)

A, B, C, D, E, F = (bytes([number]) * 32 for number in range(6))
STAKES = dict.fromkeys((A, B, C, D, E, F), 64 * UNITS)
GAMMA = 8 * UNITS


def deltas(settlement: Settlement) -> dict[bytes, int]:
    assert list(settlement.deltas) == sorted(settlement.deltas)
    return dict(settlement.deltas)


def test_accepted() -> None:
    accepted, settlement = settle_vote(STAKES, [A, B], {C: 1, D: 1, E: -1}, GAMMA)
    assert accepted
    assert deltas(settlement) == {C: 4 * UNITS, D: 4 * UNITS, E: -GAMMA}
    assert (settlement.treasury_delta, settlement.pool_delta) == (0, 0)


def test_rejected() -> None:
    accepted, settlement = settle_vote(STAKES, [A, B], {C: 1, D: -1, E: -1}, GAMMA)
    assert not accepted
    assert deltas(settlement) == {A: -GAMMA, B: -GAMMA, C: -GAMMA, D: 12 * UNITS, E: 12 * UNITS}
    assert settlement.treasury_delta == 0


@pytest.mark.parametrize(
    ("votes", "accepted"),
    [
        ({}, True),
        ({C: 0}, True),
        ({C: 1, D: -1}, True),  # a tie
        ({C: 0, D: 0, E: -1}, False),
        ({C: 1, D: 0, E: -1}, True),
        ({C: 1, D: -1, E: -1}, False),
    ],
)
def test_majority_is_by_heads_of_those_who_voted(votes: dict[bytes, int], accepted: bool) -> None:
    rich = STAKES | {C: 10**6 * UNITS}
    assert is_accepted(votes) is accepted
    assert settle_vote(rich, [A], votes, GAMMA)[0] is accepted


def test_abstaining_costs_and_wins_nothing() -> None:
    for votes in ({C: 1, D: -1, E: 0}, {C: -1, D: -1, E: 0}):
        settlement = settle_vote(STAKES, [A, B], votes, GAMMA)[1]
        assert E not in deltas(settlement)
        without = {voter: vote for voter, vote in votes.items() if vote}
        assert settle_vote(STAKES, [A, B], without, GAMMA)[1] == settlement


def test_nobody_votes() -> None:
    assert settle_vote(STAKES, [A, B], {}, GAMMA) == (True, Settlement((), 0, 0))


def test_remainder_goes_to_the_treasury() -> None:
    settlement = settle_vote(STAKES, [A, B], {C: 1, D: 1, E: 1, F: -1}, 8)[1]
    assert deltas(settlement) == {C: 2, D: 2, E: 2, F: -8}
    assert settlement.treasury_delta == 2
    rejected = settle_vote(STAKES, [A, B], {D: -1, E: -1, F: -1}, 5)[1]
    assert deltas(rejected) == {A: -5, B: -5, D: 3, E: 3, F: 3}
    assert rejected.treasury_delta == 1


def test_a_loss_is_at_most_the_stake() -> None:
    poor = STAKES | {A: 3, C: 0, E: 5}
    settlement = settle_vote(poor, [A, B], {C: 1, D: -1, F: -1}, 10)[1]
    assert deltas(settlement) == {A: -3, B: -10, D: 6, F: 6}
    assert settlement.treasury_delta == 1
    assert settlement.applied(poor)[A] == 0
    accepted = settle_vote(poor, [A], {D: 1, E: -1}, 10)[1]
    assert deltas(accepted) == {D: 5, E: -5}


def test_a_proposer_that_also_votes_answers_for_both() -> None:
    rejected = settle_vote(STAKES, [A, B], {A: 1, B: -1, C: -1, D: -1}, 9)[1]
    # A pays twice, B pays as a proposer and shares as a voter: 27 collected, 9 each.
    assert deltas(rejected) == {A: -18, C: 9, D: 9}
    poor = STAKES | {A: 12}
    assert deltas(settle_vote(poor, [A], {A: 1, B: -1, C: -1}, 9)[1])[A] == -12
    accepted = settle_vote(STAKES, [A, B], {A: -1, B: 1}, 9)[1]
    assert deltas(accepted) == {A: -9, B: 9}


def test_a_proposer_listed_twice_pays_once() -> None:
    once = settle_vote(STAKES, [A], {C: -1}, GAMMA)
    assert settle_vote(STAKES, [A, A], {C: -1}, GAMMA) == once


def test_fee_and_slash_go_to_the_treasury() -> None:
    for settle in (settle_fee, settle_slash):
        settlement = settle(STAKES | {B: 3}, [C, B, A, A], 10)
        assert deltas(settlement) == {A: -10, B: -3, C: -10}
        assert (settlement.treasury_delta, settlement.pool_delta) == (23, 0)
        assert settle(STAKES, [], 10) == Settlement((), 0, 0)


def test_rewards_follow_the_stake() -> None:
    settlement = settle_rewards({A: 1, B: 2, C: 4, D: 9}, 1003, 10, [C, A, B])
    # 100 for this round: 100/7, 200/7 and 400/7 rounded down, 1 of it and the rest stay.
    assert deltas(settlement) == {A: 14, B: 28, C: 57}
    assert (settlement.treasury_delta, settlement.pool_delta) == (0, -99)


def test_rewards_that_nobody_can_take_stay_in_the_pool() -> None:
    nothing = Settlement((), 0, 0)
    assert settle_rewards(STAKES, 1000, 10, []) == nothing
    assert settle_rewards({A: 0}, 1000, 10, [A]) == nothing
    assert settle_rewards(STAKES, 0, 10, [A]) == nothing
    assert settle_rewards(STAKES, 9, 10, [A]) == nothing
    assert deltas(settle_rewards(STAKES, 9, 1, [A])) == {A: 9}


def test_round_winners() -> None:
    votes = {C: 1, D: -1, E: 0, B: 1}
    assert round_winners(True, [B, A], votes) == (A, B, C)
    assert round_winners(False, [B, A], votes) == (D,)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: settle_vote(STAKES, [A], {C: 2}, GAMMA), "not -1, 0 or \\+1"),
        (lambda: settle_vote(STAKES, [A], {C: 1}, -1), "gamma is -1"),
        (lambda: settle_vote(STAKES, [bytes(2)], {C: -1}, 1), "peer 0000 has no stake"),
        (lambda: settle_vote(STAKES, [A], {C: 1, D: -1, b"xx": 1}, 1), "peer 7878 has no stake"),
        (lambda: settle_vote({A: -1, C: 1}, [A], {C: -1}, 1), "is -1 units"),
        (lambda: settle_fee(STAKES, [A], -1), "fee is -1"),
        (lambda: settle_slash(STAKES, [A], -1), "penalty is -1"),
        (lambda: settle_slash(STAKES, [b"xx"], 1), "peer 7878 has no stake"),
        (lambda: settle_rewards(STAKES, -1, 1, [A]), "pool is -1"),
        (lambda: settle_rewards(STAKES, 1, 0, [A]), "rounds_left is 0"),
        (lambda: settle_rewards(STAKES, 1, 1, [b"xx"]), "no stake account"),
        (lambda: Settlement(((A, 1),), 0, 0), "creates 1 units"),
        (lambda: Settlement((), -1, 0), "creates -1 units"),
        (lambda: Settlement(((A, -2),), 2, 0).applied({A: 1}), "would be -1"),
        (lambda: Settlement(((A, -2),), 2, 0).applied({}), "no stake account"),
    ],
)
def test_bad_arguments(call, what: str) -> None:
    with pytest.raises(EconomyError, match=what):
        call()
