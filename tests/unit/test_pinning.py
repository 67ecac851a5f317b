"""What Readys pin: counted by hand in small networks (docs/PROTOCOL.md section 3)."""

from __future__ import annotations

from attrs import evolve

from protocol.ledger.settlement import open_round
from protocol.ledger.state import LedgerState, PinnedAdvert, genesis_state
from protocol.messages import Kind, Ready
from protocol.pinning import least_witnesses, sharers_pinned
from protocol.tally import Tally, held_of
from sim.casting import first_roles
from sim.founding import found, small_params

NODES = 7


def sharing() -> LedgerState:
    founding = found(NODES, 1, small_params(NODES))
    assert first_roles(founding) is not None
    state = genesis_state(founding.genesis)
    adverts = tuple(
        PinnedAdvert(peer, bytes([1, i]) * 16, bytes([2, i]) * 16) for i, peer in enumerate(state.validators)
    )
    return open_round(state, founding.genesis.params, adverts)


def tally(state: LedgerState, complaining: int) -> Tally:
    """All hold every bundle and share; the first `complaining` know of a complaint about one dealer."""
    proposers, readys = set(state.learning.proposers), []
    for index, peer in enumerate(state.validators):
        held = {Kind.SHARE_BUNDLE: proposers, Kind.SEALED_SHARES: proposers}
        if index < complaining:
            held[Kind.COMPLAINT] = {state.learning.proposers[0]}
        readys.append((peer, Ready(2, 0, held_of(state.validators, held), ())))
    return Tally(state.validators, readys)


def test_a_dealer_leaves_u1_when_more_than_a_third_know_of_an_open_complaint() -> None:
    state = sharing()
    assert sharers_pinned(state, tally(state, 0)) == state.learning.proposers
    assert sharers_pinned(state, tally(state, 2)) == state.learning.proposers
    assert sharers_pinned(state, tally(state, 3)) == state.learning.proposers[1:]


def test_shares_count_only_when_holders_attest_them() -> None:
    state = sharing()
    whole = tally(state, 0)
    outsiders = [(p, r) for p, r in whole.readys.items() if p not in state.learning.proposers]
    assert sharers_pinned(state, Tally(state.validators, outsiders)) == ()


def test_late_and_quorum_are_of_all_validators() -> None:
    state = sharing()
    readys = list(tally(state, 0).readys.items())
    late = [(peer, evolve(ready, late=1)) for peer, ready in readys]
    assert not Tally(state.validators, readys[:4]).is_quorum
    assert Tally(state.validators, readys[:5]).is_quorum
    assert not Tally(state.validators, late[:4] + readys[4:]).is_late()
    assert Tally(state.validators, late[:5]).is_late()


def test_one_voter_alone_is_no_witness_where_there_are_two() -> None:
    assert [least_witnesses(voters) for voters in (1, 2, 3, 4, 6, 9)] == [1, 2, 2, 2, 3, 4]
