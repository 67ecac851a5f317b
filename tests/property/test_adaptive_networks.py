"""A network whose gamma follows the votes (docs/PROTOCOL.md section 6): its books, its bounds, its bytes."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from attrs import evolve
from contract_book import FOUNDERS, GENESIS, PARAMS, PEERS, STAKE, SUPPLY
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import DecodeError, decode, digest, encode
from protocol.ledger.adaptive import AdaptiveGamma, Tally, tally_votes
from protocol.ledger.economy import EconomyError
from protocol.ledger.settlement import Ballot, end_round, open_round
from protocol.ledger.state import (
    Fault,
    LedgerState,
    PinnedAdvert,
    PinnedContribution,
    PinnedFault,
    genesis_state,
)
from protocol.params import MICRO, ParamsError, ProtocolParams, hardened, vcdfl

RULE = AdaptiveGamma(window=3)
ADAPTIVE = evolve(PARAMS, n_voters=3, adaptive_gamma=RULE)
ADVERTS = [PinnedAdvert(peer, digest("mask", peer), digest("seal", peer)) for peer in PEERS[:FOUNDERS]]

rules = st.builds(
    lambda bounds, slope, window, prior, rounds: AdaptiveGamma(
        lowest_units=bounds[0],
        calm_units=bounds[1],
        highest_units=bounds[2],
        slope_units=slope,
        window=window,
        prior_margin_permille=prior,
        prior_rounds=rounds,
    ),
    st.lists(st.integers(0, 1 << 50), min_size=3, max_size=3).map(sorted),
    st.integers(0, 1 << 50),
    st.integers(1, 12),
    st.integers(0, 1000),
    st.integers(1, 12),
)
tallies = st.integers(1, 40).flatmap(
    lambda seats: st.builds(Tally, winning=st.integers(0, seats), seats=st.just(seats))
)


# -- the rule ----------------------------------------------------------------------------------------


def gamma_by_definition(rule: AdaptiveGamma, past: list[Tally], tally: Tally) -> int:
    """Section 6 with exact fractions, rounded where it says so."""

    def margin(entry: Tally) -> int:
        return max(0, floor(1000 * (Fraction(2 * entry.winning, entry.seats) - 1)))

    margins = [margin(entry) for entry in past[-rule.window :]]
    margins += [rule.prior_margin_permille] * rule.prior_rounds
    split = max(0, 1000 - floor(Fraction(2 * sum(margins), len(margins))))
    ceiling = rule.calm_units + floor(Fraction((rule.highest_units - rule.calm_units) * split, 1000))
    return min(ceiling, max(rule.lowest_units, floor(Fraction(rule.slope_units * margin(tally), 1000))))


@given(rules, st.lists(tallies, max_size=20), tallies)
def test_gamma_is_what_the_formula_says_and_within_its_bounds(
    rule: AdaptiveGamma, past: list[Tally], tally: Tally
) -> None:
    gamma = rule.gamma_units(past, tally)
    assert gamma == gamma_by_definition(rule, past, tally)
    assert rule.lowest_units <= gamma <= rule.ceiling_units(past) <= rule.highest_units
    assert rule.recent(past, tally) == tuple([*past, tally][-rule.window :])
    assert rule.gamma_units(past[-rule.window :], tally) == gamma


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=30), st.data())
def test_one_voter_moves_the_margin_by_two_seats_at_most(votes: list[int], data: st.DataObject) -> None:
    who = data.draw(st.integers(0, len(votes) - 1))
    cast = {bytes([seat]): vote for seat, vote in enumerate(votes)}
    margins = []
    for vote in (-1, 0, 1, None):
        others = {peer: own for peer, own in cast.items() if peer != bytes([who])}
        changed = others if vote is None else {**others, bytes([who]): vote}
        margins.append(tally_votes(changed, len(votes)).margin_permille)
    assert max(margins) - min(margins) <= 2000 // len(votes) + 1
    # To abstain and to keep silent are the same.
    assert margins[1] == margins[3]


def test_a_tally_of_more_votes_than_seats_is_none() -> None:
    with pytest.raises(EconomyError, match="3 of 2 votes"):
        Tally(3, 2)


# -- the network -------------------------------------------------------------------------------------


def opened(params: ProtocolParams) -> LedgerState:
    return open_round(genesis_state(GENESIS), params, ADVERTS)


def end(
    state: LedgerState, params: ProtocolParams, votes: dict[bytes, int] | None, *faults: PinnedFault
) -> LedgerState:
    members = tuple(
        PinnedContribution(peer, bytes(32), bytes(32), bytes(32), bytes(32), True)
        for peer in state.learning.proposers
    )
    return end_round(
        evolve(state, learning=evolve(state.learning, contributors=members)),
        params,
        ballot=None if votes is None else Ballot(votes, bytes(32)),
        faults=faults,
        check_seeds={},
        adverts=ADVERTS,
        transactions=(),
    )


def without_pool(state: LedgerState) -> LedgerState:
    return evolve(state, pool_units=0)


rounds_of_votes = st.lists(
    st.none() | st.lists(st.sampled_from([-1, 0, 1, None]), min_size=3, max_size=3), max_size=12
)


@settings(max_examples=80, deadline=None)
@given(rounds_of_votes)
def test_histories_keep_the_supply_and_the_last_tallies(history: list[list[int | None] | None]) -> None:
    state, kept = opened(ADAPTIVE), list[Tally]()
    for row in history:
        votes = None
        if row is not None:
            pairs = zip(state.learning.voters, row, strict=False)
            votes = {peer: vote for peer, vote in pairs if vote is not None}
            ayes, noes = list(votes.values()).count(1), list(votes.values()).count(-1)
            if ayes or noes:
                kept.append(Tally(ayes if ayes >= noes else noes, len(state.learning.voters)))
        state = end(state, ADAPTIVE, votes)
        assert state.supply_units == SUPPLY
        assert state.tallies == tuple(kept[-RULE.window :])
        assert decode(LedgerState, encode(state), 1 << 20) == state


def test_the_losers_pay_the_gamma_of_the_vote() -> None:
    state = without_pool(opened(ADAPTIVE))
    no, yes, also = state.learning.voters
    after = end(state, ADAPTIVE, {no: -1, yes: 1, also: 1})
    gamma = RULE.gamma_units((), Tally(2, 3))
    assert gamma == 8_400_000  # the ceiling after no vote; 333 thousandths of a margin would be 13.3 tokens
    assert after.stakes[no] == STAKE - gamma
    assert after.tallies == (Tally(2, 3),)


def test_an_unopened_vote_costs_the_most_that_gamma_can_be() -> None:
    state = opened(ADAPTIVE)
    silent = state.learning.voters[0]
    after = end(state, ADAPTIVE, None, PinnedFault(silent, Fault.UNOPENED_VOTE))
    assert after.stakes[silent] == STAKE - RULE.highest_units
    assert after.tallies == ()


def test_without_the_option_no_tally_is_kept() -> None:
    state = opened(PARAMS)
    after = end(state, PARAMS, dict.fromkeys(state.learning.voters, 1))
    assert after.tallies == ()


# -- the bytes ---------------------------------------------------------------------------------------


def test_ids_and_roots_of_networks_without_the_option_are_those_from_before_it() -> None:
    # Computed by the code that knew no such option.
    assert GENESIS.network.hex() == "2dcf04d559f7f64c11d23dedade5a1c6c9cbbdc59c95f75d96dced8a5670ac92"
    assert (
        genesis_state(GENESIS).root.hex()
        == "88e04b5d4ab5be1c8af17ec4e23e63dc42ac528b647365a27bb09535739f9c4e"
    )
    for make, known in (
        (hardened, "562761b0ccc22ba7afdf5b481b7f65ca"),
        (vcdfl, "4b19c299697f0a424e3a1c4d6f84a78c"),
    ):
        params = make(dimension=100, n_proposers=4, n_voters=2)
        assert digest("pinned", encode(params)).hex()[:32] == known


def test_the_option_is_part_of_the_networks_id() -> None:
    other = evolve(GENESIS, params=evolve(PARAMS, adaptive_gamma=AdaptiveGamma()))
    assert decode(ProtocolParams, encode(ADAPTIVE), 1 << 20) == ADAPTIVE
    assert len({GENESIS.network, other.network, evolve(GENESIS, params=ADAPTIVE).network}) == 3


def test_an_option_that_is_spelled_out_as_none_is_refused() -> None:
    plain = encode(PARAMS)
    count = int.from_bytes(plain[1:3], "big")
    assert plain[0] == 0xDC
    longer = plain[:1] + (count + 1).to_bytes(2, "big") + plain[3:] + b"\xc0"
    with pytest.raises(DecodeError, match="not the canonical encoding"):
        decode(ProtocolParams, longer, 1 << 20)


def test_two_gammas_are_refused() -> None:
    with pytest.raises(ParamsError, match="gamma_units: adaptive_gamma sets gamma"):
        evolve(PARAMS, gamma_units=4 * MICRO, adaptive_gamma=AdaptiveGamma())
