"""The operator's orders: numbered, checked, signed once, followed until a block carries them (§6, §7.7).

An `Order` is what the operator wants; the node makes a `Transaction` of it, or says why it does not. An order
is known by its id for good, so that hearing it again, after a crash or from a copied file, does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from protocol import durable, keys
from protocol.admission import NONCE_WINDOW
from protocol.codec import DecodeError, bounded_bytes, decode, encode, int_range
from protocol.duties.desk import Desk
from protocol.envelope import Statement
from protocol.events import Millis, ShowOrders
from protocol.ledger.state import LedgerState
from protocol.ledger.transactions import Cause, Obstacle, apply_transaction, bond_units, obstacle_to
from protocol.messages import (
    MAX_HEIGHT,
    MAX_REVISION,
    Kind,
    Transaction,
    TransactionKind,
)
from protocol.order import ORDER_BYTES, Order, Status
from protocol.params import ProtocolParams
from protocol.pool import Pool

RECORD_BYTES = 4096
WHY_BYTES = 512
ORDERS_KEPT = 1024
"""Of how many orders the node remembers what became of them. An order with a lower id than all of these is
refused: it may have been heard before."""
ORDERS_SHOWN = 64
"""How many of the last orders the operator is shown, beside those that wait."""
STUCK_ROUNDS = 3
"""For how many rounds a transaction may stand in the way of later ones without applying."""
STUCK_MS = 600_000
"""And for how long where no round ends, because training rests."""


@frozen
class OrderRecord:
    """What a node remembers of an order, durably.

    `transaction`: what the order became, or would have become. `statement`: the id of its envelope, empty
    where the order was refused. `why`: of a refusal, of an expiry that is under way, or of an end that the
    operator did not ask for. `since_height`: the ledger's when the order was heard. `height`: of the block
    that used the number, and `stake_units` of this node after that block; 0 before.
    """

    transaction: Transaction
    statement: bytes = field(validator=bounded_bytes(32))
    status: Status
    why: str
    since_height: int = field(validator=int_range(0, MAX_HEIGHT))
    height: int = field(default=0, validator=int_range(0, MAX_HEIGHT))
    stake_units: int = field(default=0, validator=int_range(0, 1 << 63))


# -- numbering and checking: functions of the ledger's state and of what waits ---------------------


def own_waiting(pool: Pool, state: LedgerState, peer: bytes) -> dict[int, Statement]:
    """Return the transactions of `peer` that the pool holds and the ledger may still carry, by number."""
    account = state.account(peer)
    if account is None:
        return {}
    found = {
        nonce: pool.get(0, Kind.TRANSACTION, peer, 0, nonce.to_bytes(8, "big"))
        for nonce in range(account.nonce, account.nonce + NONCE_WINDOW)
    }
    return {nonce: statement for nonce, statement in found.items() if statement is not None}


def number_order(
    state: LedgerState, params: ProtocolParams, peer: bytes, waiting: Mapping[int, Transaction], order: Order
) -> tuple[Transaction, Obstacle | None]:
    """§6. Return the transaction that an order becomes, and why it must not be signed, if so.

    It gets the lowest number that is free, or that of the one it replaces. What waits counts as carried as
    far as it applies, and as cancelled otherwise.
    """
    account = state.account(peer)
    recipient = order.peer if order.kind is TransactionKind.TRANSFER else peer
    wanted = Transaction(order.kind, order.replaces or 0, recipient, order.amount_units)
    if account is None:
        return wanted, Obstacle(Cause.NO_ACCOUNT)
    if order.replaces is not None:
        old = waiting.get(order.replaces)
        if old is None:
            return wanted, Obstacle(Cause.NOTHING_WAITS, number=order.replaces)
        # The last revision is kept for a cancel, which must outrank all.
        if old.revision >= MAX_REVISION - (wanted.kind is not TransactionKind.CANCEL):
            return wanted, Obstacle(Cause.REPLACED_TOO_OFTEN, number=order.replaces)
        wanted = evolve(wanted, revision=old.revision + 1)
    elif order.kind is TransactionKind.CANCEL:
        return wanted, Obstacle(Cause.NOTHING_WAITS, number=account.nonce)
    else:
        free = [n for n in range(account.nonce, account.nonce + NONCE_WINDOW) if n not in waiting]
        if not free:
            return wanted, Obstacle(Cause.TOO_MANY_WAIT, number=len(waiting))
        wanted = evolve(wanted, nonce=free[0])
    others = [waiting[number] for number in sorted(waiting) if number != order.replaces]
    after = _after(state, params, peer, others)
    obstacle = obstacle_to(_at_number(after, peer, wanted.nonce), params, peer, wanted)
    if obstacle is not None and obstacle.cause is Cause.BEYOND_STAKE:
        moved = account.stake_units - obstacle.stake_units
        obstacle = evolve(obstacle, stake_units=account.stake_units, waiting_units=moved)
    return wanted, obstacle


def reasons_to_wait(
    state: LedgerState, params: ProtocolParams, peer: bytes, waiting: Mapping[int, Transaction]
) -> dict[int, Obstacle]:
    """§6. Return why each waiting transaction that the next block could not carry must wait, by number."""
    account = state.account(peer)
    if account is None:
        return {number: Obstacle(Cause.NO_ACCOUNT) for number in waiting}
    reasons: dict[int, Obstacle] = {}
    for number in sorted(waiting):
        obstacle = obstacle_to(state, params, peer, waiting[number])
        if obstacle is not None:
            reasons[number] = obstacle
        else:
            state = apply_transaction(state, params, peer, waiting[number]) or state
    return reasons


def _after(
    state: LedgerState, params: ProtocolParams, peer: bytes, transactions: Iterable[Transaction]
) -> LedgerState:
    """Return the state after those that apply; the others count as cancelled."""
    for transaction in transactions:
        state = _at_number(state, peer, transaction.nonce)
        state = apply_transaction(state, params, peer, transaction) or state
    return state


def _at_number(state: LedgerState, peer: bytes, number: int) -> LedgerState:
    """Return the state in which it is this number's turn."""
    accounts = tuple(
        (each, evolve(account, nonce=number) if each == peer else account) for each, account in state.accounts
    )
    return evolve(state, accounts=accounts)


# -- one node's orders -----------------------------------------------------------------------------


@frozen
class _Blocked:
    """A transaction, or a number that nobody gave, that stands in the way of this account's transactions."""

    key: bytes
    round: int
    since_ms: Millis


class Orders:
    """One node's orders, and its own transactions that wait. `sweep` forgets durable ones that do not."""

    def __init__(self, desk: Desk, sweep: Callable[[], None]) -> None:
        self.desk = desk
        self.records: dict[bytes, OrderRecord] = {}
        self._open: set[bytes] = set()
        """The orders whose number is not used yet."""
        self._sweep = sweep
        self._unrecorded: dict[bytes, OrderRecord] = {}
        self._blocked: _Blocked | None = None
        self._shown: Mapping[str, object] | None = None
        self._changed = False

    # -- a life begins -------------------------------------------------------------------------------

    def load(self, records: Mapping[bytes, bytes]) -> None:
        """Read what a life before remembered; a record that is damaged is told of and left out."""
        for key, data in sorted(records.items()):
            try:
                self._note(key, decode(OrderRecord, data, RECORD_BYTES))
            except DecodeError as error:
                self.desk.outbox.notify("damaged_record", bucket=durable.ORDER, why=str(error))

    def resume(self) -> None:
        """Sign again what was promised and is not there, byte for byte the same, and show what waits."""
        account = self.desk.state.account(self.desk.me)
        self.note_block(self.desk.state, [])
        waiting = [self.records[order] for order in sorted(self._open)]
        for record in sorted(waiting, key=lambda record: -record.transaction.revision):
            if account is None:
                continue
            if record.transaction.nonce >= account.nonce and not self._is_held(record):
                self._publish(record.transaction)
        self._changed = True
        self.show()

    def _is_held(self, record: OrderRecord) -> bool:
        """Return whether the pool holds the record's transaction, or one that has taken its place."""
        wanted = record.transaction
        held = own_waiting(self.desk.pool, self.desk.state, self.desk.me).get(wanted.nonce)
        return held is not None and _transaction(held).revision >= wanted.revision

    # -- orders --------------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Number, check, sign and spread an order, or refuse it; the answer is in what is shown next."""
        try:
            order = decode(Order, data, ORDER_BYTES)
        except DecodeError as error:
            self.desk.outbox.notify("bad_command", why=str(error))
            return
        self._changed = True
        if order.id in self.records:
            self.show(taken=(order.id,))
            return
        desk = self.desk
        waiting = self._waiting()
        transaction, obstacle = number_order(desk.state, desk.rules.params, desk.me, waiting, order)
        forgotten = len(self.records) >= ORDERS_KEPT and order.id < min(self.records)
        if forgotten:
            obstacle = Obstacle(Cause.FORGOTTEN, number=ORDERS_KEPT)
        height = desk.state.height
        if obstacle is not None:
            record = OrderRecord(transaction, b"", Status.REFUSED, str(obstacle), height)
            if forgotten:
                self._unrecorded[order.id] = record
            else:
                self._keep(order.id, record)
            desk.outbox.notify("order_refused", **_row(order.id, record), cause=obstacle.cause)
        else:
            statement = desk.outbox.signed(0, Kind.TRANSACTION, transaction)
            record = OrderRecord(transaction, statement.id, Status.WAITING, "", height)
            self._keep(order.id, record)  # which is enough to sign it again after a crash
            desk.outbox.spread(statement)
            self._sweep()
            desk.outbox.notify("order_taken", **_row(order.id, record))
        self.show(taken=(order.id,))

    def _publish(self, transaction: Transaction) -> Statement:
        return self.desk.outbox.publish(0, Kind.TRANSACTION, transaction)

    def _waiting(self) -> dict[int, Transaction]:
        waiting = own_waiting(self.desk.pool, self.desk.state, self.desk.me)
        return {number: _transaction(statement) for number, statement in waiting.items()}

    def _keep(self, order: bytes, record: OrderRecord) -> None:
        """Remember, and forget the oldest beyond `ORDERS_KEPT`."""
        self._note(order, record)
        self.desk.outbox.persist(durable.ORDER, order, encode(record))
        while len(self.records) > ORDERS_KEPT:
            oldest = min(self.records)
            del self.records[oldest]
            self._open.discard(oldest)
            self.desk.outbox.persist(durable.ORDER, oldest, None)

    def _note(self, order: bytes, record: OrderRecord) -> None:
        self.records[order] = record
        if record.status is Status.WAITING:
            self._open.add(order)
        else:
            self._open.discard(order)

    # -- what becomes of them ------------------------------------------------------------------------

    def note_block(self, after: LedgerState, applied: Sequence[Statement]) -> None:
        """A final block leads to `after`; `applied`: this node's transactions that it carried out."""
        account = after.account(self.desk.me)
        if account is None or not self._open:
            return
        carried = {_transaction(statement).nonce: statement for statement in applied}
        orders = {record.statement: record for record in self.records.values() if record.statement}
        for order in sorted(self._open):
            record = self.records[order]
            if record.transaction.nonce < account.nonce:
                status, why = _ending(record, carried.get(record.transaction.nonce), orders)
                ended = evolve(
                    record, status=status, why=why, height=after.height, stake_units=account.stake_units
                )
                self._keep(order, ended)
                self._changed = True
                self.desk.outbox.notify("order_ended", **_row(order, ended))

    def follow(self, now: Millis) -> None:
        """Cancel what has stood in the way for too long, and show what has changed."""
        waiting = own_waiting(self.desk.pool, self.desk.state, self.desk.me)
        if waiting or self._blocked is not None:
            self._changed = True
            self._free(waiting, now)
        self.show()

    def _free(self, waiting: Mapping[int, Statement], now: Millis) -> None:
        """§6. Replace the first transaction by a `CANCEL` where it has not applied for too long."""
        desk = self.desk
        state, params = desk.state, desk.rules.params
        account = state.account(desk.me)
        if not waiting or account is None:
            self._blocked = None
            return
        number = account.nonce
        first = waiting.get(number)
        obstacle: Obstacle | None = Obstacle(Cause.NUMBER_AHEAD, number=number)
        if first is not None:
            obstacle = obstacle_to(state, params, desk.me, _transaction(first))
        if obstacle is None:
            self._blocked = None
            return
        key = first.id if first is not None else number.to_bytes(8, "big")
        if self._blocked is None or self._blocked.key != key:
            self._blocked = _Blocked(key, state.round, now)
        blocked = self._blocked
        if state.round - blocked.round < STUCK_ROUNDS and now - blocked.since_ms < STUCK_MS:
            return
        self._blocked = None
        revision = 0 if first is None else min(MAX_REVISION, _transaction(first).revision + 1)
        for order in sorted(self._open):
            record = self.records[order]
            if first is not None and record.statement == first.id:
                self._keep(order, evolve(record, why=f"it did not apply for too long: {obstacle}"))
        self._publish(Transaction(TransactionKind.CANCEL, number, desk.me, 0, revision))
        self._sweep()
        desk.outbox.notify("order_expires", number=number, why=str(obstacle))

    # -- what the operator sees ----------------------------------------------------------------------

    def show(self, taken: tuple[bytes, ...] = ()) -> None:
        """Show what waits and what became of orders, if it has changed; `taken`: orders just heard."""
        if not self._changed and not taken:
            return
        self._changed = False
        view = self._view()
        if view != self._shown or taken:
            self._shown = view
            self.desk.outbox.add(ShowOrders(taken, {"height": self.desk.state.height, **view}))

    def _view(self) -> dict[str, object]:
        desk = self.desk
        state, params = desk.state, desk.rules.params
        account = state.account(desk.me)
        waiting = own_waiting(desk.pool, state, desk.me)
        reasons = reasons_to_wait(
            state, params, desk.me, {number: _transaction(s) for number, s in waiting.items()}
        )
        orders = {record.statement: order for order, record in self.records.items() if record.statement}
        rows = []
        for number, statement in sorted(waiting.items()):
            order = orders.get(statement.id)
            rows.append(
                {
                    **_transaction_row(_transaction(statement)),
                    "order": None if order is None else order.hex(),
                    "since_height": None if order is None else self.records[order].since_height,
                    "why": str(reasons[number]) if number in reasons else None,
                }
            )
        latest = sorted(self.records)[-ORDERS_SHOWN:]
        shown = [(order, self.records[order]) for order in sorted({*latest, *self._open})]
        shown += sorted(self._unrecorded.items())[-ORDERS_SHOWN:]
        return {
            "stake_units": 0 if account is None else account.stake_units,
            "bond_units": 0 if account is None else bond_units(state, params, desk.me),
            "member": account is not None and account.member,
            "waiting": rows,
            "orders": [_row(order, record) for order, record in shown],
        }


def _ending(
    record: OrderRecord, carried: Statement | None, orders: Mapping[bytes, OrderRecord]
) -> tuple[Status, str]:
    """Return what became of a waiting order whose number is used, by the transaction `carried` if known."""
    number = record.transaction.nonce
    if carried is not None and carried.id == record.statement:
        return Status.CARRIED, ""
    other = None if carried is None else orders.get(carried.id)
    if record.transaction.kind is TransactionKind.CANCEL:
        return Status.OVERTAKEN, f"number {number} was carried before it could be dropped"
    if other is None:
        if record.why:
            return Status.EXPIRED, record.why
        return Status.OVERTAKEN, f"another transaction of this key has used number {number}"
    if other.transaction.kind is TransactionKind.CANCEL:
        return Status.DROPPED, f"number {number} was dropped"
    if other.transaction.revision > record.transaction.revision:
        return Status.REPLACED, f"number {number} was replaced"
    return Status.OVERTAKEN, f"number {number} was carried as it was before it was replaced"


def _transaction(statement: Statement) -> Transaction:
    assert isinstance(statement.body, Transaction)
    return statement.body


def _transaction_row(transaction: Transaction) -> dict[str, object]:
    is_transfer = transaction.kind is TransactionKind.TRANSFER
    return {
        "number": transaction.nonce,
        "kind": transaction.kind.name.lower(),
        "peer": keys.peer_name(transaction.peer) if is_transfer else None,
        "amount_units": transaction.amount_units,
        "revision": transaction.revision,
    }


def _row(order: bytes, record: OrderRecord) -> dict[str, object]:
    """Return an order as JSON-ready values, for the log and for the operator."""
    return {
        "order": order.hex(),
        **_transaction_row(record.transaction),
        "status": record.status.name.lower(),
        "why": record.why,
        "since_height": record.since_height,
        "height": record.height,
        "stake_units": record.stake_units,
    }
