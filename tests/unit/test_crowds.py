"""Crowds of accounts and extreme amounts: nobody is kept out, nothing outgrows its record (section 6)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from protocol import durable
from protocol.compose import applicable_transactions
from protocol.envelope import Statement, make_statement
from protocol.keys import Identity
from protocol.ledger import transactions
from protocol.ledger.block import MAX_TRANSACTIONS, Closing
from protocol.ledger.pace import Pace, Rest, Training
from protocol.ledger.resume import _decode_snapshot, encode_snapshot
from protocol.ledger.settlement import reform
from protocol.ledger.state import Account, LedgerState, Phase, PinnedAdvert, RoundState, genesis_state
from protocol.messages import Kind, Transaction, TransactionKind
from protocol.params import (
    MAX_SUPPLY_UNITS,
    Genesis,
    GenesisMember,
    ParamsError,
    ProtocolParams,
    sort_members,
)
from protocol.pool import Pool
from protocol.round import BlockError, _transactions

MEMBERS = [Identity.from_seed(bytes([number + 1]) * 32) for number in range(8)]
PEERS = sorted(member.peer for member in MEMBERS)
PARAMS = ProtocolParams(dimension=16, n_proposers=4, n_voters=2, pace=Pace(rounds=1))
NETWORK = bytes(32)


def genesis(stake_units: int = 64 * 10**6, params: ProtocolParams = PARAMS, pool_units: int = 0) -> Genesis:
    members = sort_members([GenesisMember(peer, stake_units) for peer in PEERS])
    return Genesis(
        name="crowd",
        task="none",
        params=params,
        members=members,
        beacon=bytes(32),
        model_digest=bytes(32),
        pool_units=pool_units,
    )


def signed(who: Identity, body: Transaction, round_: int = 0) -> Statement:
    return make_statement(who, NETWORK, round_, Kind.TRANSACTION, body)


def crowd(size: int) -> list[Identity]:
    return [Identity.from_seed(number.to_bytes(32, "big")) for number in range(1000, 1000 + size)]


def with_accounts(state: LedgerState, peers: list[bytes]) -> LedgerState:
    accounts = (*state.accounts, *((peer, Account(1, False)) for peer in peers))
    return evolve(state, accounts=tuple(sorted(accounts)))


RULES: Any = SimpleNamespace(params=PARAMS)


def test_a_crowd_of_accounts_does_not_keep_anybody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lowest number first, an honest LEAVE of number 3 never came before a crowd's first three."""
    others, honest = crowd(130), MEMBERS[0]
    state = with_accounts(genesis_state(genesis()), [who.peer for who in others])
    used = evolve(state.account(honest.peer), nonce=3)
    state = evolve(state, accounts=tuple((p, used if p == honest.peer else a) for p, a in state.accounts))
    pool = Pool()
    for who in others:
        for nonce in range(3):
            pool.add(signed(who, Transaction(TransactionKind.CANCEL, nonce, who.peer, 0)))
    leaving = signed(honest, Transaction(TransactionKind.LEAVE, 3, honest.peer, 0))
    pool.add(leaving)
    chosen = applicable_transactions(state, RULES, pool)
    assert len(chosen) == MAX_TRANSACTIONS
    assert leaving in chosen
    # What does not fit is not even tried: the work of a leader is bounded by a block's fill.
    tried: list[bytes] = []
    applies = transactions.Book.apply

    def counted(book: transactions.Book, sender: bytes, transaction: Transaction) -> bool:
        tried.append(sender)
        return applies(book, sender, transaction)

    monkeypatch.setattr(transactions.Book, "apply", counted)
    assert len(applicable_transactions(state, RULES, pool)) == len(tried) == MAX_TRANSACTIONS
    tried.clear()
    assert len(applicable_transactions(state, RULES, pool, most=1)) == len(tried) == 1


def test_turns_begin_with_another_sender_at_each_height() -> None:
    state = genesis_state(genesis())
    pool = Pool()
    for who in MEMBERS:
        pool.add(signed(who, Transaction(TransactionKind.CANCEL, 0, who.peer, 0)))
    first = {
        applicable_transactions(evolve(state, height=height), RULES, pool, most=1)[0].sender
        for height in range(40)
    }
    assert len(first) > 4


def test_each_senders_transactions_come_in_the_order_of_their_numbers() -> None:
    state = genesis_state(genesis())
    pool = Pool()
    for nonce in (2, 0, 1):
        for who in MEMBERS[:3]:
            pool.add(signed(who, Transaction(TransactionKind.CANCEL, nonce, who.peer, 0)))
    chosen = applicable_transactions(state, RULES, pool)
    assert len(chosen) == 9
    for who in MEMBERS[:3]:
        numbers = [s.body.nonce for s in chosen if s.sender == who.peer and isinstance(s.body, Transaction)]
        assert numbers == [0, 1, 2]


def test_a_snapshot_of_many_accounts_is_read_again() -> None:
    """It was written at any length, and refused at the next start beyond 4 MiB."""
    peers = [number.to_bytes(32, "big") for number in range(1, 110_000)]
    state = with_accounts(genesis_state(genesis()), peers)
    record = encode_snapshot(bytes(32), state)
    assert len(record) > durable.RECORD_BYTES
    assert _decode_snapshot(record).state == state


def test_a_supply_beyond_what_a_record_carries_is_no_genesis() -> None:
    each = MAX_SUPPLY_UNITS // len(PEERS)
    assert genesis(each).members[0].stake_units == each
    with pytest.raises(ParamsError, match="units in all"):
        genesis(each, pool_units=1)


def test_a_block_carries_no_transaction_that_is_signed_with_a_round() -> None:
    cancel = Transaction(TransactionKind.CANCEL, 0, PEERS[0], 0)
    opened = {round_: signed(MEMBERS[0], cancel, round_) for round_ in (0, 7)}

    def read(round_: int) -> list[Statement]:
        return _transactions(Closing((), (b"entry",)), lambda entry: opened[round_])

    assert read(0) == [opened[0]]
    with pytest.raises(BlockError, match="signed with a round"):
        read(7)


def test_a_wake_without_roles_counts_who_is_a_validator_by_the_block() -> None:
    """Amounts that were moved with the beacon known must not weigh in the draw that follows."""
    adverts = tuple(PinnedAdvert(peer, peer[::-1], bytes([peer[0] ^ 1, *peer[1:]])) for peer in PEERS[:3])
    state = evolve(
        genesis_state(genesis(pool_units=10**8)),
        round=2,
        training=Training(last_round=1, rest=Rest.ROUNDS),
        learning=RoundState(
            Phase.ADVERT,
            next_pinned=True,
            next_adverts=adverts,
            next_weights=tuple((advert.peer, 64) for advert in adverts),
        ),
    )
    by_peer = {member.peer: member for member in MEMBERS}
    moves = [
        signed(by_peer[PEERS[7]], Transaction(TransactionKind.FUND, 0, PEERS[7], 10 * 10**6)),
        signed(by_peer[PEERS[0]], Transaction(TransactionKind.LEAVE, 0, PEERS[0], 0)),
    ]
    after = reform(state, PARAMS, moves)
    assert after is not None
    assert (after.learning.phase, after.rests) == (Phase.ADVERT, False)
    assert after.learning.reformed
    assert PEERS[0] not in after.validators
