"""What goes into the engine and what comes out of it (docs/PROTOCOL.md section 1).

The engine is a function of events; the shell, the tests and the simulator perform its effects in
the order in which they stand. A `Persist` is durable before the next effect is performed.
Times are in milliseconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from protocol.jobs import Job, JobResult
    from protocol.ledger.resume import LedgerPosition

PeerId: TypeAlias = bytes
Digest: TypeAlias = bytes
Millis: TypeAlias = int


# -- events ------------------------------------------------------------------------------------


@frozen
class Start:
    """The first event of a life: all records that survived, by bucket and key, and the blobs held.

    `ledger`: where the stored chain ends, as `protocol.ledger.resume` finds it; None where nothing is stored.
    Its buckets, `block` and `snapshot`, are not among the records.
    """

    records: Mapping[str, Mapping[bytes, bytes]]
    blobs: frozenset[Digest] = frozenset()
    ledger: LedgerPosition | None = field(default=None, repr=False)


@frozen
class Received:
    """A message from a connected member, as bytes that nobody has looked at yet."""

    peer: PeerId
    data: bytes = field(repr=False)


@frozen
class TimerFired:
    key: str


@frozen
class JobDone:
    key: str
    result: JobResult = field(repr=False)


@frozen
class JobFailed:
    """A job raised; `why` is for the log."""

    key: str
    why: str


@frozen
class BlobReady:
    """A blob that was fetched is now held, and matches its digest."""

    digest: Digest


@frozen
class BlobFailed:
    """No holder that was named could give the blob; the engine decides whom to ask next."""

    digest: Digest


@frozen
class BlocksRead:
    """Answer a `ReadBlocks`: encoded stored blocks of consecutive heights from `first_height`, maybe none."""

    peer: PeerId
    first_height: int
    blocks: tuple[bytes, ...] = field(repr=False)


@frozen
class PeerUp:
    peer: PeerId


@frozen
class PeerDown:
    peer: PeerId


@frozen
class Command:
    """The operator's wish for a ledger transaction, canonically encoded (`protocol.order.Order`)."""

    order: bytes


Event: TypeAlias = (
    Start
    | Received
    | TimerFired
    | JobDone
    | JobFailed
    | BlobReady
    | BlobFailed
    | BlocksRead
    | PeerUp
    | PeerDown
    | Command
)


# -- effects -----------------------------------------------------------------------------------


@frozen
class Persist:
    """Write one record durably; `value` None deletes it. Buckets: see `protocol.durable`."""

    bucket: str
    key: bytes
    value: bytes | None = field(repr=False)


@frozen
class Send:
    peer: PeerId
    data: bytes = field(repr=False)


@frozen
class Broadcast:
    """To every connected member."""

    data: bytes = field(repr=False)


@frozen
class Fetch:
    """Fetch the blob from any of the holders, in chunks; answers `BlobReady` or `BlobFailed`.

    `reserves` are asked too once one of the holders fails or lets the node wait, or where there is none.
    """

    digest: Digest
    holders: tuple[PeerId, ...]
    reserves: tuple[PeerId, ...] = ()


@frozen
class PutBlob:
    """Keep a blob durably and serve it to members."""

    digest: Digest
    data: bytes = field(repr=False)


@frozen
class DropBlob:
    digest: Digest


@frozen
class ReadBlocks:
    """Read the stored blocks `first_height` to `last_height` for `peer`; answers `BlocksRead`, always.

    The answer may hold fewer: it ends where the next block would make it longer than `max_bytes`. Its first
    block is in it whatever its size.
    """

    peer: PeerId
    first_height: int
    last_height: int
    max_bytes: int


@frozen
class SetTimer:
    """(Re)start the timer of this key."""

    key: str
    delay_ms: Millis


@frozen
class CancelTimer:
    key: str


@frozen
class RunJob:
    """Heavy or learning work, for a worker; answers `JobDone` or `JobFailed` under the same key."""

    key: str
    job: Job


@frozen
class CancelJob:
    key: str


@frozen
class Penalise:
    """A peer sent what no honest node sends; the transport decides what that costs it."""

    peer: PeerId
    why: str


@frozen
class Notify:
    """Something an operator or a report wants to know; values are JSON-ready."""

    kind: str
    fields: Mapping[str, object]


@frozen
class ShowOrders:
    """Show the operator what waits and what became of orders: `view`, JSON-ready (`protocol.orders`).

    What is known of the orders `taken` is durable by now: they need not be kept for the next life.
    """

    taken: tuple[bytes, ...]
    view: Mapping[str, object] = field(repr=False)


Effect: TypeAlias = (
    Persist
    | Send
    | Broadcast
    | Fetch
    | PutBlob
    | DropBlob
    | ReadBlocks
    | SetTimer
    | CancelTimer
    | RunJob
    | CancelJob
    | Penalise
    | Notify
    | ShowOrders
)
