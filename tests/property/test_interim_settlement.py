"""The interim rule on the ledger: whatever honest voters say, money is kept and four validators are left."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.ledger.judgement import Judgement, Opinion
from protocol.ledger.settlement import Ballot, settle_ballot, settle_faults, settle_void
from protocol.ledger.state import (
    NO_DIGEST,
    Fault,
    LedgerState,
    PinnedContribution,
    PinnedFault,
    active_validators,
    genesis_state,
)
from protocol.params import MICRO, Genesis, GenesisMember, ProtocolParams, hardened

RULE = Judgement(free_step=0, full_step=1, contrary_permille=1000)
PARAMS = evolve(hardened(dimension=8, n_proposers=4, n_voters=3), judgement=RULE)
PEERS = [bytes([number]) * 32 for number in range(1, 7)]
CANDIDATE = bytes(range(32))
OPINIONS = st.builds(Opinion, st.integers(-16, 16), st.booleans(), st.booleans())
VOTES = st.dictionaries(st.sampled_from(PEERS), st.tuples(st.sampled_from((-1, 0, 1)), OPINIONS), min_size=1)


def state_of(tokens: list[int], contributors: list[bytes], params: ProtocolParams = PARAMS) -> LedgerState:
    members = tuple(GenesisMember(p, t * MICRO) for p, t in zip(PEERS, tokens, strict=False))
    genesis = Genesis(
        name="x", task="x", params=params, members=members, beacon=bytes(32), model_digest=bytes(32),
        pool_units=1000 * MICRO,
    )  # fmt: skip
    state = genesis_state(genesis)
    pinned = tuple(
        PinnedContribution(peer, NO_DIGEST, NO_DIGEST, NO_DIGEST, NO_DIGEST, True) for peer in contributors
    )
    return evolve(state, learning=evolve(state.learning, contributors=pinned))


def standing(state: LedgerState) -> int:
    return len(active_validators(state.accounts, PARAMS.min_stake_units))


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 30), min_size=6, max_size=6),
    st.sets(st.sampled_from(PEERS), min_size=3),
    VOTES,
)
def test_no_vote_void_or_silence_leaves_fewer_than_four(
    tokens: list[int], members: set[bytes], said: dict[bytes, tuple[int, Opinion]]
) -> None:
    state = state_of(tokens, sorted(members))
    votes = {peer: vote for peer, (vote, _) in said.items()}
    ballot = Ballot(votes, CANDIDATE, {peer: opinion for peer, (_, opinion) in said.items()})
    silent = [PinnedFault(peer, Fault.UNOPENED_VOTE) for peer in members]
    for after in (
        settle_ballot(state, PARAMS, ballot),
        settle_void(state, PARAMS),
        settle_faults(state, PARAMS, silent),
    ):
        assert after.supply_units == state.supply_units
        assert after.treasury_units >= state.treasury_units
        assert standing(after) >= min(4, standing(state))
        for peer, stake in state.stakes.items():
            fell = after.stakes[peer] < PARAMS.min_stake_units <= stake
            assert not fell or standing(after) >= 4


@given(VOTES)
def test_nobody_gains_by_a_refusal_and_the_best_model_needs_a_majority(
    said: dict[bytes, tuple[int, Opinion]],
) -> None:
    state = state_of([64] * 6, PEERS[:4])
    votes = {peer: vote for peer, (vote, _) in said.items()}
    opinions = {peer: opinion for peer, (_, opinion) in said.items()}
    after = settle_ballot(state, PARAMS, Ballot(votes, CANDIDATE, opinions))
    if not any(votes.values()):
        assert after == state
        return
    accepted = sum(votes.values()) >= 0
    assert (after.model_digest == CANDIDATE) is accepted
    improved = accepted and 2 * sum(o.improves for o in opinions.values()) > len(opinions)
    assert after.best is not None
    assert (after.best.round, after.best.digest) == ((1, CANDIDATE) if improved else (0, bytes(32)))
    if not accepted:
        assert after.pool_units == state.pool_units
        assert all(after.stakes[peer] <= stake for peer, stake in state.stakes.items())


def test_proven_faults_are_paid_whatever_remains() -> None:
    state = state_of([20, 20, 20, 20], PEERS[:3])
    forger = [PinnedFault(PEERS[0], Fault.FORGED_AGGREGATE)]
    assert settle_faults(state, PARAMS, forger).stakes[PEERS[0]] == 0


def test_flocks_contract_spares_nobody() -> None:
    flock = evolve(PARAMS, judgement=None)
    state = state_of([9, 9, 9, 9], PEERS[:3], flock)
    after = settle_ballot(state, flock, Ballot({PEERS[3]: -1}, CANDIDATE))
    assert standing(after) == 1
    assert after.stakes[PEERS[3]] == (9 + 3 * 8 + 10) * MICRO  # its own, three times gamma, the reward
