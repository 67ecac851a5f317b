"""Blocks and what they may contain (docs/PROTOCOL.md sections 3 and 7).

A block's body repeats nothing that its parent's state fixes. Signed statements stand in it as
encoded envelopes without their payloads, so that a ledger can be checked from genesis by anyone.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property, lru_cache

from attrs import field, frozen

from protocol.codec import bounded_bytes, bounded_tuple, bytes_of, decode, digest, encode, int_range
from protocol.messages import MAX_HEIGHT, MAX_ROUND, MAX_VIEW, Certificate, NamedSecret
from protocol.params import MAX_NODES

BLOCK_BYTES = 512 << 10
STORED_BLOCK_BYTES = 1 << 20
MAX_TRANSACTIONS = 256
MAX_EVIDENCE = 16

_entries = bounded_tuple(MAX_NODES)


class BlockKind(IntEnum):
    """What a block closes. OPEN, OUTCOME and ABORT end a round or start the first one."""

    OPEN = 1
    SETUP = 2
    CONTRIBUTION = 3
    AGGREGATE = 4
    TIMEOUT = 5
    BALLOT = 6
    DISPUTE = 7
    OUTCOME = 8
    ABANDON = 9
    ABORT = 10


class Reason(IntEnum):
    """Why a round is given up."""

    TOO_FEW_SHARERS = 1
    TOO_FEW_CONTRIBUTORS = 2
    NO_AGGREGATE = 3
    DEALER_FAULT = 4
    CHECK_SEED_LOST = 5
    NO_PROGRESS = 6


@frozen
class Closing:
    """What every round-ending block adds: adverts (if none are pinned yet), transactions, evidence.

    `equivocations`: pairs of envelopes of one sender that contradict each other, in the order of senders.
    """

    adverts: tuple[bytes, ...] = field(default=(), validator=_entries)
    transactions: tuple[bytes, ...] = field(default=(), validator=bounded_tuple(MAX_TRANSACTIONS))
    equivocations: tuple[tuple[bytes, bytes], ...] = field(default=(), validator=bounded_tuple(MAX_EVIDENCE))


@frozen
class OpenBody:
    """Adverts of the current round: whoever is among them can be chosen."""

    closing: Closing


@frozen
class SetupBody:
    """`ShareBundle` envelopes of U1, in the order of peers."""

    bundles: tuple[bytes, ...] = field(validator=_entries)


@frozen
class ContributionBody:
    """`Contribution` envelopes of U2 in the order of peers, and receipts or witnesses for each of them."""

    contributions: tuple[bytes, ...] = field(validator=_entries)
    receipts: tuple[bytes, ...] = field(validator=_entries)


@frozen
class AggregateBody:
    """The `AggregateClaim` envelope, and the adverts of the next round: the last moment to pin them.

    From the next block on check seeds are known, and with them the beacon.
    """

    claim: bytes
    adverts: tuple[bytes, ...] = field(validator=_entries)


@frozen
class TimeoutBody:
    """The aggregator of this attempt is replaced by the next one."""

    attempt: int = field(validator=int_range(0, 255))


@frozen
class BallotBody:
    """What opens the checks, what they say, and the sealed votes.

    `check_seeds`: of U1 in order; 32 zero bytes for a member of U1 \\ U2 whose seed is not to be had.
    `zs`: z_i of U1 in order (dealer networks: the one z root). `reveals`: `Reveal` envelopes, clear
    challenge only. `candidate`: digest of the model that the aggregate leads to.
    """

    check_seeds: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES, bytes_of(32)))
    zs: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES, bytes_of(32)))
    reveals: tuple[bytes, ...] = field(validator=_entries)
    verdict: int = field(validator=int_range(0, 4))
    candidate: bytes = field(validator=bytes_of(32))
    sealed_votes: tuple[bytes, ...] = field(validator=_entries)


@frozen
class DisputeBody:
    """Who is guilty. `missing`: members of U2 whose upload nobody could show by the deadline."""

    missing: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES, bytes_of(32)))
    sum_matches: bool
    sum_digest: bytes = field(validator=bounded_bytes(32))
    guilty_checks: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES, bytes_of(32)))
    verdict: int = field(validator=int_range(0, 4))
    candidate: bytes = field(validator=bounded_bytes(32))


@frozen
class OutcomeBody:
    """`VoteOpening` envelopes, and the close of the round."""

    openings: tuple[bytes, ...] = field(validator=_entries)
    closing: Closing


@frozen
class AbandonBody:
    """The round cannot end well; check seeds are yet to be rebuilt for the beacon. `evidence`: envelopes."""

    reason: Reason
    evidence: tuple[bytes, ...] = field(validator=bounded_tuple(64))
    adverts: tuple[bytes, ...] = field(validator=_entries)


@frozen
class AbortBody:
    """The end of a round without a result. `check_seeds` names those members of U1 whose seed is known."""

    reason: Reason
    check_seeds: tuple[NamedSecret, ...] = field(validator=_entries)
    closing: Closing


BlockBody = (
    OpenBody
    | SetupBody
    | ContributionBody
    | AggregateBody
    | TimeoutBody
    | BallotBody
    | DisputeBody
    | OutcomeBody
    | AbandonBody
    | AbortBody
)

BODIES: dict[BlockKind, type] = {
    BlockKind.OPEN: OpenBody,
    BlockKind.SETUP: SetupBody,
    BlockKind.CONTRIBUTION: ContributionBody,
    BlockKind.AGGREGATE: AggregateBody,
    BlockKind.TIMEOUT: TimeoutBody,
    BlockKind.BALLOT: BallotBody,
    BlockKind.DISPUTE: DisputeBody,
    BlockKind.OUTCOME: OutcomeBody,
    BlockKind.ABANDON: AbandonBody,
    BlockKind.ABORT: AbortBody,
}
KIND_OF_BODY: dict[type, BlockKind] = {body: kind for kind, body in BODIES.items()}


@frozen
class Block:
    """One entry of the ledger. `readys`: envelopes of more than 2/3 of the validators, in the order of peers.

    `state_root` is the digest of the state that this block leads to.
    """

    height: int = field(validator=int_range(1, MAX_HEIGHT))
    round: int = field(validator=int_range(1, MAX_ROUND))
    kind: BlockKind
    parent: bytes = field(validator=bytes_of(32))
    state_root: bytes = field(validator=bytes_of(32))
    leader: bytes = field(validator=bytes_of(32))
    view: int = field(validator=int_range(1, MAX_VIEW))
    readys: tuple[bytes, ...] = field(validator=_entries)
    body: bytes = field(repr=False)

    @cached_property
    def encoded(self) -> bytes:
        """Its canonical bytes."""
        return encode(self)

    @cached_property
    def hash(self) -> bytes:
        """The block's name: 32 bytes."""
        return digest("block", self.encoded)

    @cached_property
    def content(self) -> BlockBody:
        """The typed body; raises `DecodeError`."""
        body: BlockBody = decode(BODIES[self.kind], self.body, BLOCK_BYTES)
        return body


@frozen
class StoredBlock:
    """A block with the COMMIT certificate that made it final."""

    block: Block
    certificate: Certificate


def decode_body(block: Block) -> BlockBody:
    """The typed body; raises `DecodeError`."""
    return block.content


@lru_cache(maxsize=8)
def decode_block(data: bytes) -> Block:
    """Raises `DecodeError`. The last few are remembered: proposals and time-outs carry them again."""
    return decode(Block, data, BLOCK_BYTES)


@lru_cache(maxsize=8)
def decode_stored_block(data: bytes) -> StoredBlock:
    """Raises `DecodeError`. The last few are remembered: peers that catch up ask for the same."""
    return decode(StoredBlock, data, STORED_BLOCK_BYTES)


@lru_cache(maxsize=8)
def encode_stored_block(stored: StoredBlock) -> bytes:
    """The last few are remembered: a block is written down and then asked for."""
    return encode(stored)


def stored_block_id(data: bytes) -> bytes:
    """The hash of the block inside an encoded `StoredBlock`; certificates of one block may differ."""
    return decode_stored_block(data).block.hash
