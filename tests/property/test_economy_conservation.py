"""No history of settlements creates or destroys a unit, or takes more than a stake."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.ledger.economy import (
    Settlement,
    round_winners,
    settle_fee,
    settle_rewards,
    settle_slash,
    settle_vote,
)

PEERS = [bytes([number]) * 32 for number in range(8)]
amounts = st.integers(0, 30) | st.integers(0, 2**60)
peer_lists = st.lists(st.sampled_from(PEERS), max_size=8, unique=True)
ballots = st.dictionaries(st.sampled_from(PEERS), st.sampled_from([-1, 0, 1]), max_size=8)
balances = st.fixed_dictionaries(dict.fromkeys(PEERS, amounts))
steps = st.one_of(
    st.tuples(st.just("vote"), peer_lists, ballots, amounts),
    st.tuples(st.just("reward"), peer_lists, ballots, st.integers(1, 5)),
    st.tuples(st.just("fee"), peer_lists, ballots, amounts),
    st.tuples(st.just("slash"), peer_lists, ballots, amounts),
)


def reference_vote(
    stakes: dict[bytes, int], proposers: list[bytes], votes: dict[bytes, int], gamma: int
) -> tuple[bool, dict[bytes, int], int]:
    """The rule read out, coin by coin: (accepted, stakes afterwards, gain of the treasury)."""
    yes = [peer for peer in votes if votes[peer] == 1]
    no = [peer for peer in votes if votes[peer] == -1]
    accepted = len(yes) >= len(no)
    losers, winners = (no, yes) if accepted else (proposers + yes, no)
    after, pot = dict(stakes), 0
    for loser in losers:
        paid = min(gamma, after[loser])
        after[loser] -= paid
        pot += paid
    if winners:
        for winner in winners:
            after[winner] += pot // len(winners)
        pot -= pot // len(winners) * len(winners)
    return accepted, after, pot


@given(balances, peer_lists, ballots, amounts)
def test_vote_by_definition(
    stakes: dict[bytes, int], proposers: list[bytes], votes: dict[bytes, int], gamma: int
) -> None:
    accepted, settlement = settle_vote(stakes, proposers, votes, gamma)
    assert (accepted, settlement.applied(stakes), settlement.treasury_delta) == reference_vote(
        stakes, proposers, votes, gamma
    )
    assert 0 <= settlement.treasury_delta < max(1, len(votes))
    assert settlement.pool_delta == 0


@given(balances, amounts, st.integers(1, 50), peer_lists)
def test_rewards_by_definition(
    stakes: dict[bytes, int], pool: int, rounds: int, winners: list[bytes]
) -> None:
    settlement = settle_rewards(stakes, pool, rounds, winners)
    gained = dict(settlement.deltas)
    total = sum(stakes[winner] for winner in winners)
    for winner in winners:
        exact = Fraction(pool // rounds * stakes[winner], total) if total else Fraction(0)
        assert 0 <= exact - gained.get(winner, 0) < 1
    assert set(gained) <= set(winners)
    assert -settlement.pool_delta == sum(gained.values()) <= pool // rounds


@settings(max_examples=150)
@given(balances, amounts, amounts, st.lists(steps, max_size=25))
def test_supply_is_conserved(stakes: dict[bytes, int], treasury: int, pool: int, history: list) -> None:
    supply = sum(stakes.values()) + treasury + pool
    for kind, peers, votes, number in history:
        settlement = settle(kind, stakes, peers, votes, number, pool)
        before = stakes
        stakes = settlement.applied(stakes)
        treasury += settlement.treasury_delta
        pool += settlement.pool_delta
        assert sum(stakes.values()) + treasury + pool == supply
        assert min(*stakes.values(), treasury, pool) >= 0
        # Who neither proposed nor voted is never touched.
        assert {peer for peer in PEERS if stakes[peer] != before[peer]} <= {*peers, *votes}


@given(balances, peer_lists, ballots, amounts, st.sampled_from(["vote", "reward", "fee", "slash"]))
def test_order_of_the_arguments_is_irrelevant(
    stakes: dict[bytes, int], peers: list[bytes], votes: dict[bytes, int], number: int, kind: str
) -> None:
    backwards = dict(reversed(stakes.items())), peers[::-1], dict(reversed(votes.items()))
    number += 1
    assert settle(kind, stakes, peers, votes, number, 10**9) == settle(kind, *backwards, number, 10**9)


def settle(
    kind: str, stakes: dict[bytes, int], peers: list[bytes], votes: dict[bytes, int], number: int, pool: int
) -> Settlement:
    if kind == "vote":
        return settle_vote(stakes, peers, votes, number)[1]
    if kind == "reward":
        return settle_rewards(stakes, pool, number, round_winners(number % 2 == 0, peers, votes))
    return (settle_fee if kind == "fee" else settle_slash)(stakes, peers, number)
