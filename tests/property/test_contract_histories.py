"""Random histories of the stake contract, round by round, against a ledger kept by hand.

docs/PROTOCOL.md section 6; the hand-kept ledger is `contract_book.Book`.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import attrs
import pytest
from attrs import evolve
from contract_book import FOUNDERS, GENESIS, IDENTITIES, PARAMS, PEERS, STAKE, SUPPLY, Book, Row
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import digest
from protocol.envelope import Statement, make_statement
from protocol.keys import Identity
from protocol.ledger.settlement import (
    LEAST_SURVIVORS,
    MAX_SUSPICION,
    Ballot,
    end_round,
    open_round,
)
from protocol.ledger.state import (
    Fault,
    LedgerState,
    Phase,
    PinnedAdvert,
    PinnedContribution,
    PinnedFault,
    genesis_state,
)
from protocol.ledger.transactions import apply_transaction
from protocol.messages import Kind, Transaction, TransactionKind
from protocol.sortition import threshold

# -- one random round --------------------------------------------------------------------------------


def adverts(peers: list[bytes], round_: int, copied: bool) -> list[PinnedAdvert]:
    """Fresh keys for everyone; `copied`: the second advertises the mask key of the first."""
    entries = [
        PinnedAdvert(peer, digest("mask", peer, bytes([round_])), digest("seal", peer, bytes([round_])))
        for peer in peers
    ]
    if copied and len(entries) > 1:
        entries[1] = evolve(entries[1], mask_public=entries[0].mask_public)
    return entries


def transactions(draw: Random, book: Book) -> list[tuple[bytes, Transaction, Statement]]:
    """Some that apply, some with a wrong nonce, more than there is, or from nobody."""
    made = []
    nonces = {peer: row.nonce for peer, row in book.rows.items()}
    for _ in range(draw.randrange(7)):
        identity = draw.choice(IDENTITIES)
        stake = book.rows[identity.peer].stake if identity.peer in book.rows else 0
        body = Transaction(
            draw.choice(list(TransactionKind)),
            max(0, nonces.get(identity.peer, 0) + draw.choice([0, 0, 0, 0, 1, -1])),
            draw.choice(PEERS),
            draw.choice([0, 1, STAKE // 3, stake, stake + 1, max(0, stake - PARAMS.min_stake_units + 1)]),
        )
        statement = make_statement(identity, GENESIS.network, 0, Kind.TRANSACTION, body)
        made.append((identity.peer, body, statement))
        nonces[identity.peer] = body.nonce + 1
    return made


def contribution(peer: bytes) -> PinnedContribution:
    return PinnedContribution(peer, bytes(32), bytes(32), bytes(32), bytes(32), True)


def play(draw: Random, state: LedgerState, book: Book) -> LedgerState:
    """One round of the contract and of the book; the outcome is anything a block may say."""
    learning, faults = state.learning, []
    proposers, voters = list(learning.proposers), list(learning.voters)
    contributors = sorted(draw.sample(proposers, draw.randrange(len(proposers) + 1)))
    if proposers and draw.random() < 0.3:
        everyone = [*proposers, *voters, *(learning.roles.aggregators if learning.roles else ())]
        faults = [
            PinnedFault(draw.choice(everyone), draw.choice(list(Fault))) for _ in range(draw.randrange(1, 4))
        ]
    void = draw.random() < 0.2
    votes = {peer: draw.choice([-1, 0, 1, 1]) for peer in voters if draw.random() < 0.9}
    candidate = draw.randbytes(32)
    voted = not void and draw.random() < 0.8
    state = evolve(
        state,
        learning=evolve(learning, contributors=tuple(map(contribution, contributors)), void=void),
    )
    moved = transactions(draw, book)
    advertisers = sorted(draw.sample(PEERS, draw.randrange(4, len(PEERS) + 1)))
    after = end_round(
        state,
        PARAMS,
        ballot=Ballot(votes, candidate) if voted else None,
        faults=faults,
        check_seeds={},
        adverts=adverts(advertisers, state.round % 256, copied=draw.random() < 0.3),
        transactions=[statement for _, _, statement in moved],
    )
    if voted:
        book.vote(contributors, votes, candidate)
    book.blame(faults)
    for peer in contributors:
        row = book.rows[peer]
        if voted:
            row.suspicion = max(0, row.suspicion - 1)
        elif void and not faults:
            book.treasury += book.pay(peer, PARAMS.void_fee_units)
            row.suspicion = min(MAX_SUSPICION, row.suspicion + 1)
    book.freeze()
    for sender, body, _ in moved:
        book.transact(sender, body)
    book.rounds_left = max(1, book.rounds_left - 1)
    return after


def assert_the_book_agrees(state: LedgerState, book: Book) -> None:
    rows = {peer: Row(a.stake_units, a.member, a.nonce, a.suspicion) for peer, a in state.accounts}
    assert rows == book.rows
    assert [peer for peer, _ in state.accounts] == sorted(rows)
    assert (state.treasury_units, state.pool_units, state.pool_rounds_left, state.model_digest) == (
        book.treasury,
        book.pool,
        book.rounds_left,
        book.model,
    )
    assert state.supply_units == SUPPLY
    assert all(account.stake_units >= 0 for _, account in state.accounts)
    assert list(state.validators) == book.validators


def assert_roles_are_fair(state: LedgerState) -> None:
    """Advertisers with keys of their own only; aggregators beside proposers; voters too, if nodes suffice."""
    learning = state.learning
    if learning.roles is None:
        assert learning.phase is Phase.ADVERT
        return
    roles, eligible = learning.roles, {advert.peer for advert in learning.adverts}
    keys = Counter(key for a in learning.adverts for key in (a.mask_public, a.seal_public))
    assert set(keys.values()) == {1}
    assert eligible <= set(state.validators)
    assert len(eligible) >= LEAST_SURVIVORS + 1
    assert roles.round == state.round
    assert len(roles.proposers) == min(PARAMS.n_proposers, len(eligible) - 1)
    assert {*roles.proposers, *roles.aggregators} == eligible
    assert not set(roles.proposers) & set(roles.aggregators)
    assert set(roles.voters) <= eligible - {roles.aggregators[0]}
    assert len(roles.voters) == len(set(roles.voters)) == min(PARAMS.n_voters, len(eligible) - 1)
    others = len(eligible) - len(roles.proposers) - 1
    assert len(set(roles.voters) & set(roles.proposers)) == max(0, PARAMS.n_voters - others)
    assert learning.threshold == threshold(len(roles.proposers))


def opened() -> LedgerState:
    return open_round(genesis_state(GENESIS), PARAMS, adverts(PEERS[:FOUNDERS], 1, copied=False))


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**64 - 1).map(Random))
def test_random_histories_agree_with_the_book(draw: Random) -> None:
    state, book = opened(), Book()
    assert_the_book_agrees(state, book)
    for _ in range(12):
        before = state
        state = play(draw, state, book)
        assert_the_book_agrees(state, book)
        assert_roles_are_fair(state)
        assert state.round == before.round + 1
        assert state.beacon != before.beacon


# -- single rules ------------------------------------------------------------------------------------


def end(state: LedgerState, **changes: object) -> LedgerState:
    """A round that ends with nothing, but for what is given."""
    settings: dict[str, object] = {
        "ballot": None,
        "faults": (),
        "check_seeds": {},
        "adverts": adverts(PEERS[:FOUNDERS], 2, copied=False),
        "transactions": (),
    }
    return end_round(state, PARAMS, **{**settings, **changes})  # type: ignore[arg-type]


def transaction(
    identity: Identity, kind: TransactionKind, nonce: int = 0, peer: bytes = PEERS[0], amount: int = 0
) -> Statement:
    body = Transaction(kind, nonce, peer, amount)
    return make_statement(identity, GENESIS.network, 0, Kind.TRANSACTION, body)


def with_contributors(state: LedgerState, peers: list[bytes], void: bool = False) -> LedgerState:
    entries = tuple(contribution(peer) for peer in sorted(peers))
    return evolve(state, learning=evolve(state.learning, contributors=entries, void=void))


def test_who_falls_below_the_minimum_leaves_the_validators_and_comes_back_with_the_money() -> None:
    state = opened()
    victim = state.learning.proposers[0]
    faults = [PinnedFault(victim, fault) for fault in (Fault.FORGED_AGGREGATE, Fault.BAD_DEALING)]
    poor = end(state, faults=faults)
    account = poor.account(victim)
    assert account is not None
    assert account.stake_units == STAKE - 2 * PARAMS.fault_penalty_units < PARAMS.min_stake_units
    assert account.member
    assert victim not in poor.validators
    assert victim not in {advert.peer for advert in poor.learning.adverts}
    donor = next(identity for identity in IDENTITIES[:FOUNDERS] if identity.peer != victim)
    gift = transaction(donor, TransactionKind.TRANSFER, 0, victim, PARAMS.min_stake_units)
    richer = end(poor, transactions=[gift])
    assert victim not in richer.validators
    assert victim in end(richer).validators


def test_joining_takes_a_stake_and_another_round() -> None:
    newcomer = IDENTITIES[-1]
    state = opened()
    early = transaction(newcomer, TransactionKind.JOIN)
    assert end(state, transactions=[early]).account(newcomer.peer) is None
    least = PARAMS.min_stake_units
    short = transaction(IDENTITIES[0], TransactionKind.TRANSFER, 0, newcomer.peer, least - 1)
    top_up = transaction(IDENTITIES[0], TransactionKind.TRANSFER, 1, newcomer.peer, 1)
    poor = end(state, transactions=[short, early])
    assert newcomer.peer not in poor.validators
    joined = end(poor, transactions=[top_up, early])
    assert newcomer.peer not in joined.validators
    joined = end(joined)
    assert newcomer.peer in joined.validators
    assert joined.validators == tuple(sorted({*PEERS[:FOUNDERS], newcomer.peer}))


def test_leaving_keeps_the_money_and_ends_the_vote() -> None:
    leaver = IDENTITIES[0]
    leaving = end(opened(), transactions=[transaction(leaver, TransactionKind.LEAVE)])
    assert leaver.peer in leaving.validators
    state = end(leaving)
    assert leaver.peer not in state.validators
    assert state.stakes[leaver.peer] == STAKE
    assert end(state, transactions=[transaction(leaver, TransactionKind.LEAVE, 1)]) == end(state)
    back = end(end(state, transactions=[transaction(leaver, TransactionKind.JOIN, 1)]))
    assert leaver.peer in back.validators


def test_a_fault_is_paid_before_the_money_can_be_moved_away() -> None:
    thief = IDENTITIES[0]
    away = transaction(thief, TransactionKind.TRANSFER, 0, PEERS[1], STAKE)
    state = end(opened(), faults=[PinnedFault(thief.peer, Fault.FORGED_AGGREGATE)], transactions=[away])
    assert state.stakes[thief.peer] == STAKE - PARAMS.fault_penalty_units
    assert state.stakes[PEERS[1]] == STAKE
    assert state.treasury_units == PARAMS.fault_penalty_units


@pytest.mark.parametrize("kind", [TransactionKind.TRANSFER, TransactionKind.FUND])
def test_a_validator_keeps_what_a_fault_in_the_round_that_begins_would_cost(kind: TransactionKind) -> None:
    """Its roles are drawn before its transactions apply; who has left is free a round later."""
    thief, spendable = IDENTITIES[0], STAKE - PARAMS.fault_penalty_units
    state = opened()
    too_much = transaction(thief, kind, 0, PEERS[1], spendable + 1)
    assert end(state, transactions=[too_much]).stakes[thief.peer] == STAKE
    rest = end(state, transactions=[transaction(thief, kind, 0, PEERS[1], spendable)])
    assert rest.stakes[thief.peer] == PARAMS.fault_penalty_units
    leave, away = transaction(thief, TransactionKind.LEAVE), transaction(thief, kind, 1, PEERS[1], STAKE)
    leaving = end(state, transactions=[leave, away])
    assert thief.peer in leaving.validators
    assert leaving.stakes[thief.peer] == STAKE
    assert end(leaving, transactions=[away]).stakes[thief.peer] == 0


def test_funding_the_pool_pays_later_winners() -> None:
    state = opened()
    funded = end(state, transactions=[transaction(IDENTITIES[0], TransactionKind.FUND, amount=STAKE // 2)])
    assert funded.pool_units == GENESIS.pool_units + STAKE // 2
    proposers = list(funded.learning.proposers)
    votes = dict.fromkeys(funded.learning.voters, 1)
    paid = end(with_contributors(funded, proposers), ballot=Ballot(votes, bytes(32)))
    spent = funded.pool_units - paid.pool_units
    assert funded.pool_units // funded.pool_rounds_left - FOUNDERS < spent
    assert spent <= funded.pool_units // funded.pool_rounds_left


def test_a_void_round_costs_a_fee_that_goes_to_nobody() -> None:
    state = opened()
    members = list(state.learning.proposers[:3])
    after = end(with_contributors(state, members, void=True))
    for peer, account in after.accounts:
        assert account.stake_units == STAKE - PARAMS.void_fee_units * (peer in members)
        assert account.suspicion == (peer in members)
    assert after.treasury_units == 3 * PARAMS.void_fee_units


def test_a_void_round_with_a_guilty_party_costs_the_others_nothing() -> None:
    state = opened()
    members = list(state.learning.proposers[:3])
    after = end(
        with_contributors(state, members, void=True), faults=[PinnedFault(members[0], Fault.BROKEN_CHECK)]
    )
    assert after.stakes[members[0]] == STAKE - PARAMS.fault_penalty_units
    assert all(after.stakes[peer] == STAKE for peer in members[1:])
    assert not any(account.suspicion for _, account in after.accounts)


def test_suspicion_makes_a_node_rare_and_has_an_end() -> None:
    state = opened()
    suspect = state.learning.proposers[0]
    for _ in range(MAX_SUSPICION + 2):
        state = end(with_contributors(state, [suspect], void=True))
    account = state.account(suspect)
    assert account is not None
    assert account.suspicion == MAX_SUSPICION
    chosen = 0
    for number in range(40):
        drawn = open_round(evolve(state, beacon=bytes([number]) * 32), PARAMS, adverts(PEERS[:7], 2, False))
        chosen += suspect in drawn.learning.proposers
    assert chosen == 0
    votes = dict.fromkeys([p for p in PEERS[:FOUNDERS] if p != suspect][:2], 1)
    for _ in range(MAX_SUSPICION):
        state = end(with_contributors(state, [suspect]), ballot=Ballot(votes, bytes(32)))
    account = state.account(suspect)
    assert account is not None
    assert account.suspicion == 0


def test_a_vote_that_nobody_opens_moves_nothing() -> None:
    state = with_contributors(opened(), list(opened().learning.proposers))
    for votes in ({}, dict.fromkeys(state.learning.voters, 0)):
        after = end(state, ballot=Ballot(votes, bytes(32)))
        assert after.stakes == state.stakes
        assert after.model_digest == GENESIS.model_digest


def test_too_few_adverts_leave_the_next_round_without_roles() -> None:
    after = end(opened(), adverts=adverts(PEERS[:LEAST_SURVIVORS], 2, copied=False))
    assert (after.learning.phase, after.learning.roles) == (Phase.ADVERT, None)


def test_adverts_of_strangers_count_for_nothing() -> None:
    """A node outside the validators cannot disqualify one inside by advertising its key either."""
    stranger = evolve(adverts(PEERS[:1], 2, copied=False)[0], peer=PEERS[-1])
    after = end(opened(), adverts=[*adverts(PEERS[:FOUNDERS], 2, copied=False), stranger])
    assert {advert.peer for advert in after.learning.adverts} == set(PEERS[:FOUNDERS])


@pytest.mark.parametrize("kind", list(TransactionKind))
def test_a_transaction_applies_once(kind: TransactionKind) -> None:
    state = opened()
    if kind is TransactionKind.JOIN:
        state = end(state, transactions=[transaction(IDENTITIES[1], TransactionKind.LEAVE)])
    nonce = int(kind is TransactionKind.JOIN)
    body = Transaction(kind, nonce, PEERS[0], 5)
    once = apply_transaction(state, PARAMS, PEERS[1], body)
    assert once is not None
    assert once.supply_units == SUPPLY
    assert apply_transaction(once, PARAMS, PEERS[1], body) is None
    assert apply_transaction(state, PARAMS, PEERS[1], attrs.evolve(body, nonce=nonce + 1)) is None
    assert apply_transaction(state, PARAMS, PEERS[-1], attrs.evolve(body, nonce=0)) is None
