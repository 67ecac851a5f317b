"""The end of a round: stakes, faults, transactions, the next beacon and the next roles.

docs/PROTOCOL.md section 6 (stake contract, after FLock) and section 3 (beacon).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from protocol.codec import digest
from protocol.envelope import Statement
from protocol.ledger.adaptive import tally_votes
from protocol.ledger.economy import (
    Settlement,
    round_winners,
    settle_fee,
    settle_rewards,
    settle_slash,
    settle_vote,
)
from protocol.ledger.state import (
    Fault,
    LedgerState,
    Phase,
    PinnedAdvert,
    PinnedFault,
    RoundState,
    active_validators,
)
from protocol.ledger.transactions import apply_transactions
from protocol.params import ProtocolParams
from protocol.sortition import assign_roles, threshold

MAX_SUSPICION = 16
LEAST_SURVIVORS = 3
"""With two survivors each would learn the other's update by subtracting its own."""


@frozen
class Ballot:
    """Opened votes on a trusted aggregate, and the model that it leads to."""

    votes: Mapping[bytes, int]
    candidate: bytes


def least_sharers(n_proposers: int) -> int:
    """The fewest proposers with which a round goes on: the Shamir threshold, and never below three."""
    return max(LEAST_SURVIVORS, threshold(n_proposers))


def next_beacon(state: LedgerState, check_seeds: Mapping[bytes, bytes]) -> bytes:
    """H(beacon, round, setup, rho_i for all of U1); an unknown rho_i counts as zeros.

    Before a setup is pinned: H(beacon, round, "abort"). docs/PROTOCOL.md section 3.
    """
    round_bytes = state.round.to_bytes(8, "big")
    sharers = state.learning.sharers
    if not sharers:
        return digest("beacon", state.beacon, round_bytes, b"abort")
    setup = digest("setup", *(part for bundle in sharers for part in (bundle.peer, bundle.hash_check)))
    seeds = [check_seeds.get(bundle.peer, bytes(32)) for bundle in sharers]
    return digest("beacon", state.beacon, round_bytes, setup, *seeds)


def settle(state: LedgerState, settlement: Settlement) -> LedgerState:
    """Move units; the sum over accounts, treasury and pool is unchanged."""
    deltas = dict(settlement.deltas)
    accounts = tuple(
        (peer, evolve(account, stake_units=account.stake_units + deltas.get(peer, 0)))
        for peer, account in state.accounts
    )
    after = evolve(
        state,
        accounts=accounts,
        treasury_units=state.treasury_units + settlement.treasury_delta,
        pool_units=state.pool_units + settlement.pool_delta,
    )
    if after.supply_units != state.supply_units:
        raise AssertionError("a settlement changed the supply")
    return after


def vote_gamma_units(state: LedgerState, params: ProtocolParams, opened: Mapping[bytes, int]) -> int:
    """What each loser of the vote pays that ends the round of `state`, with these votes opened."""
    if params.adaptive_gamma is None:
        return params.gamma_units
    tally = tally_votes(opened, len(state.learning.voters))
    return params.adaptive_gamma.gamma_units(state.tallies, tally)


def unopened_vote_units(params: ProtocolParams) -> int:
    """What a sealed vote costs that was not opened: the most that losing could have cost.

    Were it less, a voter that sees the other openings and is about to lose would keep its own.
    """
    return params.gamma_units if params.adaptive_gamma is None else params.adaptive_gamma.highest_units


def with_tally(state: LedgerState, params: ProtocolParams, opened: Mapping[bytes, int]) -> LedgerState:
    """The vote goes on record for the gammas of later rounds, where the network has an adaptive one."""
    if params.adaptive_gamma is None:
        return state
    tally = tally_votes(opened, len(state.learning.voters))
    return evolve(state, tallies=params.adaptive_gamma.recent(state.tallies, tally))


def settle_ballot(state: LedgerState, params: ProtocolParams, ballot: Ballot) -> LedgerState:
    """Vote settlement and rewards. Without a single opened vote nothing moves, the model stays, and no tally
    is kept.
    """
    opened = {peer: vote for peer, vote in ballot.votes.items() if vote}
    if not opened:
        return state
    proposers = [contribution.peer for contribution in state.learning.contributors]
    gamma = vote_gamma_units(state, params, opened)
    accepted, settlement = settle_vote(state.stakes, proposers, opened, gamma)
    state = with_tally(settle(state, settlement), params, opened)
    winners = round_winners(accepted, proposers, opened)
    state = settle(state, settle_rewards(state.stakes, state.pool_units, state.pool_rounds_left, winners))
    if accepted:
        state = evolve(state, model_digest=ballot.candidate, previous_model_digest=state.model_digest)
    return state


def settle_faults(state: LedgerState, params: ProtocolParams, faults: Iterable[PinnedFault]) -> LedgerState:
    """Provable faults cost `fault_penalty`; a sealed vote not opened, `unopened_vote_units`."""
    for entry in sorted(set(faults), key=lambda fault: (fault.peer, fault.fault)):
        unopened = entry.fault is Fault.UNOPENED_VOTE
        penalty = unopened_vote_units(params) if unopened else params.fault_penalty_units
        state = settle(state, settle_slash(state.stakes, [entry.peer], penalty))
    return state


def settle_void(state: LedgerState, params: ProtocolParams) -> LedgerState:
    """A void round that proves nobody guilty: a flat fee from each of U2, and suspicion."""
    members = [contribution.peer for contribution in state.learning.contributors]
    state = settle(state, settle_fee(state.stakes, members, params.void_fee_units))
    return _with_suspicion(state, members, 1)


def _with_suspicion(state: LedgerState, peers: Sequence[bytes], change: int) -> LedgerState:
    accounts = tuple(
        (
            peer,
            evolve(account, suspicion=min(MAX_SUSPICION, max(0, account.suspicion + change)))
            if peer in peers
            else account,
        )
        for peer, account in state.accounts
    )
    return evolve(state, accounts=accounts)


def eligible_adverts(
    adverts: Iterable[PinnedAdvert], validators: tuple[bytes, ...]
) -> tuple[PinnedAdvert, ...]:
    """Adverts of validators whose keys are nobody else's: a copied key disqualifies all who share it."""
    known = [advert for advert in adverts if advert.peer in validators]
    uses = Counter(key for advert in known for key in (advert.mask_public, advert.seal_public))
    return tuple(
        sorted(
            (a for a in known if uses[a.mask_public] == 1 and uses[a.seal_public] == 1),
            key=lambda advert: advert.peer,
        )
    )


def sortition_weights(state: LedgerState, adverts: Iterable[PinnedAdvert]) -> tuple[tuple[bytes, int], ...]:
    """Stake, halved for every point of suspicion, of each validator among those who advertised."""
    return tuple(
        (advert.peer, max(1, account.stake_units >> account.suspicion))
        for advert in eligible_adverts(adverts, state.validators)
        if (account := state.account(advert.peer)) is not None
    )


def open_round(
    state: LedgerState,
    params: ProtocolParams,
    adverts: Iterable[PinnedAdvert],
    weights: Sequence[tuple[bytes, int]] | None = None,
) -> LedgerState:
    """Assign roles by the pinned weights, or by those of now; too few nodes wait for more adverts."""
    adverts = tuple(adverts)
    if weights is None:
        weights = sortition_weights(state, adverts)
    eligible = eligible_adverts(adverts, state.validators)
    peers = {advert.peer for advert in eligible}
    roles = assign_roles(
        state.beacon,
        state.round,
        {peer: weight for peer, weight in weights if peer in peers},
        params.n_proposers,
        params.n_voters,
        LEAST_SURVIVORS,
    )
    if roles is None:
        return evolve(state, learning=RoundState(Phase.ADVERT))
    learning = RoundState(
        Phase.SHARE, adverts=eligible, roles=roles, threshold=threshold(len(roles.proposers))
    )
    return evolve(state, learning=learning)


def end_round(
    state: LedgerState,
    params: ProtocolParams,
    *,
    ballot: Ballot | None,
    faults: Sequence[PinnedFault],
    check_seeds: Mapping[bytes, bytes],
    adverts: Iterable[PinnedAdvert],
    transactions: Iterable[Statement],
    weights: Sequence[tuple[bytes, int]] | None = None,
) -> LedgerState:
    """Everything a round-ending block does, in order: votes, faults, fee, beacon, roles, transactions.

    `ballot` None: the round ended without a vote. The height is the caller's to move. Transactions come
    last: they show in the validators and weights of the round after the next, whose beacon nobody knows.
    """
    contributors = [contribution.peer for contribution in state.learning.contributors]
    if ballot is not None:
        state = settle_ballot(state, params, ballot)
        state = _with_suspicion(state, contributors, -1)
    state = settle_faults(state, params, faults)
    if state.learning.void and not faults:
        state = settle_void(state, params)
    state = evolve(
        state,
        beacon=next_beacon(state, check_seeds),
        round=state.round + 1,
        pool_rounds_left=max(1, state.pool_rounds_left - 1),
        validators=active_validators(state.accounts, params.min_stake_units),
        learning=RoundState(Phase.ADVERT),
    )
    state = open_round(state, params, adverts, weights)
    return apply_transactions(state, params, transactions)
