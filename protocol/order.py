"""What an operator tells a node to do with its stake, and how that may end (docs/PROTOCOL.md section 6)."""

from __future__ import annotations

from enum import IntEnum

from attrs import field, frozen
from attrs.validators import optional

from protocol.codec import bytes_of, int_range
from protocol.messages import MAX_AMOUNT_UNITS, MAX_NONCE, TransactionKind

ORDER_BYTES = 128


class Status(IntEnum):
    """What became of an order."""

    WAITING = 0
    CARRIED = 1
    REFUSED = 2
    REPLACED = 3
    """Another order's transaction took its number."""
    DROPPED = 4
    """The operator had it cancelled."""
    EXPIRED = 5
    """It did not apply for too long, and the node cancelled it."""
    OVERTAKEN = 6
    """Its number was used by a transaction that came from none of this node's orders, or came earlier."""


@frozen
class Order:
    """What the operator wants. `replaces`: the number of the waiting transaction whose place it takes.

    `id`: 16 bytes, no two alike; orders given later have higher ones. `peer`: the recipient of a transfer.
    A `CANCEL` drops the transaction that it replaces.
    """

    id: bytes = field(validator=bytes_of(16))
    kind: TransactionKind
    peer: bytes = field(validator=bytes_of(32))
    amount_units: int = field(validator=int_range(0, MAX_AMOUNT_UNITS))
    replaces: int | None = field(default=None, validator=optional(int_range(0, MAX_NONCE)))
