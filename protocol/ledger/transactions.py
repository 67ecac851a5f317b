"""Transactions of the stake contract: what each does, and why one does not apply (PROTOCOL.md section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from attrs import define, evolve, field, frozen

from protocol.envelope import Statement
from protocol.ledger.economy import UNITS
from protocol.ledger.state import Account, LedgerState
from protocol.messages import Transaction, TransactionKind
from protocol.params import ProtocolParams


class Cause(StrEnum):
    """Why a transaction does not apply, or why an order for one is refused; stable words to count by."""

    NO_ACCOUNT = "no-account"
    NUMBER_USED = "number-used"
    NUMBER_AHEAD = "number-ahead"
    NO_AMOUNT = "no-amount"
    TO_ITSELF = "to-itself"
    BEYOND_STAKE = "beyond-stake"
    IS_MEMBER = "is-member"
    IS_NO_MEMBER = "is-no-member"
    STAKE_TOO_SMALL = "stake-too-small"
    NOTHING_WAITS = "nothing-waits"
    TOO_MANY_WAIT = "too-many-wait"
    REPLACED_TOO_OFTEN = "replaced-too-often"
    FORGOTTEN = "forgotten"


@frozen
class Obstacle:
    """A cause with its figures, all in units but `number`; `str` says it in words.

    `stake_units`, `bond_units`, `waiting_units`: of the sender, what it must keep, and what its waiting
    transactions move. `needed_units`: what the transaction takes. `number`: a transaction's, or a count.
    """

    cause: Cause
    stake_units: int = 0
    bond_units: int = 0
    waiting_units: int = 0
    needed_units: int = 0
    number: int = 0

    @property
    def movable_units(self) -> int:
        """Return how much the sender could move."""
        return max(0, self.stake_units - self.bond_units - self.waiting_units)

    def __str__(self) -> str:
        return _WORDS[self.cause](self)


def tokens_text(units: int) -> str:
    """Return units as tokens, exactly: at most six decimals, no trailing zeros."""
    whole, rest = divmod(abs(units), UNITS)
    decimals = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if units < 0 else ''}{whole:,}{decimals}"


def _beyond_stake(obstacle: Obstacle) -> str:
    parts = [f"the bond of {tokens_text(obstacle.bond_units)}"] if obstacle.bond_units else []
    if obstacle.waiting_units:
        parts.append(f"{tokens_text(obstacle.waiting_units)} that waiting transactions move")
    less = f" less {' and '.join(parts)}" if parts else ""
    most, stake = tokens_text(obstacle.movable_units), tokens_text(obstacle.stake_units)
    return f"at most {most} tokens can be moved: {stake} stake{less}"


_WORDS: Mapping[Cause, Callable[[Obstacle], str]] = {
    Cause.NO_ACCOUNT: lambda o: "the ledger knows no account of this node",
    Cause.NUMBER_USED: lambda o: f"number {o.number} is used already",
    Cause.NUMBER_AHEAD: lambda o: f"number {o.number} comes first, and is not there",
    Cause.NO_AMOUNT: lambda o: "the amount must be more than nothing",
    Cause.TO_ITSELF: lambda o: "a transfer goes to another peer, not to its sender",
    Cause.BEYOND_STAKE: _beyond_stake,
    Cause.IS_MEMBER: lambda o: "it is a member already",
    Cause.IS_NO_MEMBER: lambda o: "it is no member",
    Cause.STAKE_TOO_SMALL: lambda o: (
        f"a member needs a stake of {tokens_text(o.needed_units)} tokens, "
        f"and it has {tokens_text(o.stake_units)}"
    ),
    Cause.NOTHING_WAITS: lambda o: f"no transaction of number {o.number} waits",
    Cause.TOO_MANY_WAIT: lambda o: f"{o.number} transactions wait already, as many as may",
    Cause.REPLACED_TOO_OFTEN: lambda o: f"number {o.number} was replaced as often as it may be",
    Cause.FORGOTTEN: lambda o: f"it is older than the last {o.number} orders, and may have been heard before",
}


def bond_units(state: LedgerState, params: ProtocolParams, peer: bytes) -> int:
    """§6. Return what `peer` may not move away, in units.

    A validator may have a role in the round that begins, and must be able to pay for a fault in it.
    """
    return params.fault_penalty_units if peer in state.validator_set else 0


def obstacle_to(
    state: LedgerState, params: ProtocolParams, sender: bytes, transaction: Transaction
) -> Obstacle | None:
    """§6. Return why a transaction does not apply to `state`; None if it does."""
    return _obstacle(state.account(sender), bond_units(state, params, sender), params, sender, transaction)


def _obstacle(
    account: Account | None, bond: int, params: ProtocolParams, sender: bytes, transaction: Transaction
) -> Obstacle | None:
    if account is None:
        return Obstacle(Cause.NO_ACCOUNT)
    if transaction.nonce < account.nonce:
        return Obstacle(Cause.NUMBER_USED, number=transaction.nonce)
    if transaction.nonce > account.nonce:
        return Obstacle(Cause.NUMBER_AHEAD, number=account.nonce)
    stake = account.stake_units
    match transaction.kind:
        case TransactionKind.TRANSFER | TransactionKind.FUND:
            if transaction.kind is TransactionKind.TRANSFER and transaction.peer == sender:
                return Obstacle(Cause.TO_ITSELF)
            if transaction.amount_units == 0:
                return Obstacle(Cause.NO_AMOUNT)
            if transaction.amount_units > stake - bond:
                return Obstacle(Cause.BEYOND_STAKE, stake, bond, needed_units=transaction.amount_units)
        case TransactionKind.JOIN:
            # A vote costs as much as a founder's: a stake that splits does not multiply its votes.
            least = max(params.join_stake_units, params.min_stake_units)
            if account.member:
                return Obstacle(Cause.IS_MEMBER)
            if stake < least:
                return Obstacle(Cause.STAKE_TOO_SMALL, stake, needed_units=least)
        case TransactionKind.LEAVE:
            if not account.member:
                return Obstacle(Cause.IS_NO_MEMBER)
        case TransactionKind.CANCEL:
            pass
    return None


@define(eq=False)
class Book:
    """Apply transactions one after the other; the accounts are put in order once, by `close`."""

    state: LedgerState
    params: ProtocolParams
    _accounts: dict[bytes, Account] = field(init=False)
    _pool_units: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._accounts, self._pool_units = dict(self.state.accounts), self.state.pool_units

    def apply(self, sender: bytes, transaction: Transaction) -> bool:
        """§6. Apply a transaction; return False, and change nothing, where it does not apply."""
        accounts = self._accounts
        bond = bond_units(self.state, self.params, sender)
        account = accounts.get(sender)
        if account is None or _obstacle(account, bond, self.params, sender, transaction) is not None:
            return False
        account = evolve(account, nonce=account.nonce + 1)
        amount = transaction.amount_units
        match transaction.kind:
            case TransactionKind.TRANSFER:
                account = evolve(account, stake_units=account.stake_units - amount)
                recipient = accounts.get(transaction.peer, Account(0, False))
                accounts[transaction.peer] = evolve(recipient, stake_units=recipient.stake_units + amount)
            case TransactionKind.FUND:
                account = evolve(account, stake_units=account.stake_units - amount)
                self._pool_units += amount
            case TransactionKind.JOIN:
                account = evolve(account, member=True)
            case TransactionKind.LEAVE:
                account = evolve(account, member=False)
            case TransactionKind.CANCEL:
                pass
        accounts[sender] = account
        return True

    def close(self) -> LedgerState:
        """Return the state after all that applied."""
        accounts = tuple(sorted(self._accounts.items()))
        return evolve(self.state, accounts=accounts, pool_units=self._pool_units)


def apply_transaction(
    state: LedgerState, params: ProtocolParams, sender: bytes, transaction: Transaction
) -> LedgerState | None:
    """§6. Return the state after a transaction, or None where it does not apply."""
    book = Book(state, params)
    return book.close() if book.apply(sender, transaction) else None


def apply_transactions(
    state: LedgerState, params: ProtocolParams, transactions: Iterable[Statement]
) -> LedgerState:
    """§6. Return the state after each in turn; one that does not apply is passed over."""
    book, applied = Book(state, params), False
    for statement in transactions:
        assert isinstance(statement.body, Transaction)
        applied |= book.apply(statement.sender, statement.body)
    return book.close() if applied else state
