"""The end of a round: stakes, faults, transactions, the next beacon and the next roles.

docs/PROTOCOL.md section 6 (stake contract, after FLock) and section 3 (beacon).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from protocol.codec import digest
from protocol.envelope import Statement
from protocol.ledger.adaptive import tally_votes
from protocol.ledger.economy import (
    Settlement,
    is_accepted,
    round_winners,
    settle_fee,
    settle_judged,
    settle_rewards,
    settle_slash,
    settle_vote,
)
from protocol.ledger.judgement import BestModel, Judgement, Opinion, grade_of, is_improvement
from protocol.ledger.pace import Training
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
LEAST_VALIDATORS = 4
"""With fewer no round is opened (section 11.5)."""
LEAST_SURVIVORS = 3
"""With two survivors each would learn the other's update by subtracting its own."""


@frozen
class Ballot:
    """Opened votes on a trusted aggregate, and the model that it leads to.

    `opinions`: what the same openings say beyond +1 and -1; only the interim rule of judgement reads them.
    """

    votes: Mapping[bytes, int]
    candidate: bytes
    opinions: Mapping[bytes, Opinion] = field(factory=dict)


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
    if params.judgement is not None:
        return settle_judgement(state, params, params.judgement, ballot)
    proposers = [contribution.peer for contribution in state.learning.contributors]
    gamma = vote_gamma_units(state, params, opened)
    accepted, settlement = settle_vote(state.stakes, proposers, opened, gamma)
    state = with_tally(settle(state, settlement), params, opened)
    winners = round_winners(accepted, proposers, opened)
    state = settle(state, settle_rewards(state.stakes, state.pool_units, state.pool_rounds_left, winners))
    if accepted:
        state = evolve(state, model_digest=ballot.candidate, previous_model_digest=state.model_digest)
    return state


def settle_judgement(
    state: LedgerState, params: ProtocolParams, rule: Judgement, ballot: Ballot
) -> LedgerState:
    """§6. Return the state after a judged vote under the interim rule: prices, tally, reward, models.

    At least one opened vote is +1 or -1.
    """
    opened = {peer: vote for peer, vote in ballot.votes.items() if vote}
    members = [contribution.peer for contribution in state.learning.contributors]
    accepted, gamma = is_accepted(opened), vote_gamma_units(state, params, opened)
    contrary = [peer for peer, vote in opened.items() if vote == (-1 if accepted else 1)]
    grade = grade_of(ballot.opinions[peer].change for peer in opened)
    age = state.round - (0 if state.best is None else state.best.round)
    alert = rule.alert_after(state.alert, accepted, grade)
    prices = (
        0 if accepted else rule.member_price(grade, gamma, age, alert),
        rule.contrary_price(len(opened) - len(contrary), len(contrary), gamma),
    )
    settlement = settle_judged(state.stakes, members, contrary, prices)
    state = with_tally(settle(state, spared(state, params, settlement)), params, opened)
    state = evolve(state, alert=alert)
    if not accepted:
        return state
    winners = round_winners(True, members, opened)
    state = settle(state, settle_rewards(state.stakes, state.pool_units, state.pool_rounds_left, winners))
    best = state.best
    if is_improvement(ballot.opinions):
        best = BestModel(state.round, ballot.candidate)
    return evolve(state, model_digest=ballot.candidate, previous_model_digest=state.model_digest, best=best)


def spared(state: LedgerState, params: ProtocolParams, settlement: Settlement) -> Settlement:
    """§6. Return a settlement to the treasury that leaves four validators, where the interim rule holds.

    Payers stand in the order of peers. One whose payment would take it below `min_stake` pays it only while
    at least `LEAST_VALIDATORS` would remain; after that nobody is taken below `min_stake`.
    """
    if params.judgement is None:
        return settlement
    least = params.min_stake_units
    remaining = len(active_validators(state.accounts, least))
    deltas = []
    for peer, delta in settlement.deltas:
        account = state.account(peer)
        assert account is not None
        stake = account.stake_units
        if stake >= least > stake + delta:
            if account.member and remaining <= LEAST_VALIDATORS:
                delta = least - stake
            else:
                remaining -= account.member
        if delta:
            deltas.append((peer, delta))
    return Settlement(tuple(deltas), -sum(delta for _, delta in deltas), 0)


def settle_faults(state: LedgerState, params: ProtocolParams, faults: Iterable[PinnedFault]) -> LedgerState:
    """Provable faults cost `fault_penalty`; a sealed vote not opened, `unopened_vote_units`.

    An unopened vote proves no ill will, so that of it the last four validators are spared as of a lost one.
    """
    for entry in sorted(set(faults), key=lambda fault: (fault.peer, fault.fault)):
        unopened = entry.fault is Fault.UNOPENED_VOTE
        penalty = unopened_vote_units(params) if unopened else params.fault_penalty_units
        settlement = settle_slash(state.stakes, [entry.peer], penalty)
        state = settle(state, spared(state, params, settlement) if unopened else settlement)
    return state


def settle_void(state: LedgerState, params: ProtocolParams) -> LedgerState:
    """A void round that proves nobody guilty: a flat fee from each of U2, and suspicion."""
    members = [contribution.peer for contribution in state.learning.contributors]
    settlement = settle_fee(state.stakes, members, params.void_fee_units)
    state = settle(state, spared(state, params, settlement))
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


def reform(
    state: LedgerState, params: ProtocolParams, transactions: Iterable[Statement]
) -> LedgerState | None:
    """§3.9. Return the state after an OPEN block without roles, or None if no transaction applies.

    The round stays; who is a validator counts from the next block on. Where training rested and has been paid
    for, the round opens instead, with the roles that were pinned before its beacon was known.
    """
    after = _transact(state, params, transactions)
    if after.accounts == state.accounts:
        return None
    if state.rests and not after.rests and after.learning.phase is Phase.SHARE:
        return after
    return evolve(
        after,
        validators=active_validators(after.accounts, params.min_stake_units),
        learning=evolve(after.learning, reformed=True),
    )


def _transact(state: LedgerState, params: ProtocolParams, transactions: Iterable[Statement]) -> LedgerState:
    """Return the state after these transactions; a FUND that pays for rounds ends the rest of training."""
    after = apply_transactions(state, params, transactions)
    if not state.rests or params.pace is None or state.training is None:
        return after
    brought = after.pool_units - state.pool_units
    training = state.training.after_funding(params.pace, round_=state.round, units=brought)
    after = evolve(after, training=training)
    return after if after.rests else _wake(after, params, training)


def _wake(state: LedgerState, params: ProtocolParams, training: Training) -> LedgerState:
    """Return the state in which training goes on; its roles were pinned before the beacon was known."""
    assert params.pace is not None
    if params.pace.rounds:
        paid = training.last_round - state.round + 1
        state = evolve(state, pool_rounds_left=max(state.pool_rounds_left, paid))
    reformed = state.learning.reformed
    state = open_round(state, params, state.learning.next_adverts, state.learning.next_weights)
    if state.learning.phase is Phase.ADVERT:
        return evolve(state, learning=evolve(state.learning, reformed=reformed))
    return state


def equal_weights(state: LedgerState, adverts: Iterable[PinnedAdvert]) -> tuple[tuple[bytes, int], ...]:
    """§3.1. Return the weights of a reformed round: what moves while the beacon is known counts nothing."""
    return tuple((advert.peer, 1) for advert in eligible_adverts(adverts, state.validators))


def draw_now(state: LedgerState, params: ProtocolParams, adverts: Iterable[PinnedAdvert]) -> LedgerState:
    """§3.1. Return the state after a draw of this round's roles from these adverts, if they suffice."""
    adverts = tuple(adverts)
    weights = equal_weights(state, adverts) if state.learning.reformed else None
    return open_round(state, params, adverts, weights)


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
    before = state
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
        pool_rounds_left=_pool_rounds_left(state, params),
        validators=active_validators(state.accounts, params.min_stake_units),
        training=training_after(before, state, params, ballot),
        learning=RoundState(Phase.ADVERT),
    )
    if not state.rests:
        return apply_transactions(open_round(state, params, adverts, weights), params, transactions)
    pinned = RoundState(
        Phase.ADVERT, next_pinned=True, next_adverts=tuple(adverts), next_weights=tuple(weights or ())
    )
    state = evolve(state, learning=pinned)
    # A FUND in the very block that ends training pays for more of it.
    return _transact(state, params, transactions)


def _pool_rounds_left(state: LedgerState, params: ProtocolParams) -> int:
    """§6. Return over how many rounds the pool is paid out: without an end the share stays the same."""
    if params.pace is not None and not params.pace.rounds:
        return state.pool_rounds_left
    return max(1, state.pool_rounds_left - 1)


def training_after(
    before: LedgerState, settled: LedgerState, params: ProtocolParams, ballot: Ballot | None
) -> Training | None:
    """§3.9. Return the training state after the round of `before`, which the vote settled as in `settled`."""
    if params.pace is None or before.training is None:
        return before.training
    judged = ballot is not None and any(ballot.votes.values())
    return before.training.after_round(
        params.pace,
        ended=before.round,
        judged=judged,
        better=is_better(before, settled),
        done=ballot is not None and says_done(before, ballot),
    )


def is_better(before: LedgerState, settled: LedgerState) -> bool:
    """§3.9. Return whether the vote found a better model than any before."""
    if before.best is None:
        return settled.model_digest != before.model_digest
    return settled.best != before.best


def says_done(state: LedgerState, ballot: Ballot) -> bool:
    """§3.9. Return whether more than half of all voters of the round said that the task is done."""
    return 2 * sum(opinion.done for opinion in ballot.opinions.values()) > len(state.learning.voters)
