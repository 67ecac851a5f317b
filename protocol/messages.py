"""Everything that travels: envelopes and the bodies they carry (docs/PROTOCOL.md section 8).

`Envelope` is canonical msgpack around a canonical body, signed with the sender's Ed25519 key over a
domain-separated digest. Bodies are attrs classes, one for each `Kind`; what a class does not admit
does not decode. A *statement* is an envelope of a kind that is kept, gossiped and repaired; at most
one is admitted for each (round, kind, attempt, sender, subject), its *slot*: two different ones in
one slot are evidence of equivocation.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import field, frozen

from protocol.codec import (
    LEFT_OUT,
    bounded_bytes,
    bounded_tuple,
    bytes_of,
    digest,
    encode,
    int_range,
)
from protocol.keys import PROOF_BYTES
from protocol.ledger.judgement import MAX_CHANGE, Opinion
from protocol.params import MAX_NODES, MAX_WEIGHT

MAX_ROUND = 1 << 40
MAX_HEIGHT = 1 << 44
MAX_VIEW = 1 << 20
SHARE_BYTES = 36

_peer = bytes_of(32)
_digest = bytes_of(32)
_seed = bytes_of(32)
_attempt = int_range(0, 255)
_height = int_range(0, MAX_HEIGHT)
_view = int_range(1, MAX_VIEW)


class Kind(IntEnum):
    """Below 20: statements. 20 to 29: from one peer to another. From 30: agreement and repair."""

    KEY_ADVERT = 1
    SHARE_BUNDLE = 2
    CONTRIBUTION = 3
    RECEIPT = 4
    WITNESS = 5
    SHARE_RELEASE = 6
    AGGREGATE_CLAIM = 7
    REVEAL = 8
    SEALED_VOTE = 9
    VOTE_OPENING = 10
    COMPLAINT = 11
    SHARE_OPENING = 12
    TRANSACTION = 13
    DEALER_EVIDENCE = 14
    SEALED_SHARES = 20
    Z_REQUEST = 21
    Z_REPLY = 22
    READY = 30
    PROPOSAL = 31
    VOTE = 32
    CERTIFICATE = 33
    TIMEOUT = 34
    HAVE = 40
    STATEMENTS = 41
    BLOCK_REQUEST = 42
    BLOCKS = 43
    STATEMENT_REQUEST = 44


STATEMENT_KINDS = frozenset(kind for kind in Kind if kind < 20)


# -- statements of a round ---------------------------------------------------------------------


@frozen
class KeyAdvert:
    """Fresh X25519 keys of one node for the envelope's round (phase 0), each with a proof of possession."""

    mask_public: bytes = field(validator=bytes_of(32))
    seal_public: bytes = field(validator=bytes_of(32))
    mask_proof: bytes = field(validator=bytes_of(PROOF_BYTES), repr=False)
    seal_proof: bytes = field(validator=bytes_of(PROOF_BYTES), repr=False)


@frozen
class ShareBundle:
    """The public part of a dealing (phase 1). Roots by share kind: mask, self, check."""

    share_roots: tuple[bytes, bytes, bytes] = field(validator=bounded_tuple(3, _digest))
    hash_self: bytes = field(validator=_digest)
    hash_check: bytes = field(validator=_digest)
    hash_z: bytes = field(validator=_digest)
    weight: int = field(validator=int_range(1, MAX_WEIGHT))


@frozen
class Contribution:
    """A proposer binds itself (phase 2). The commitment itself is the envelope's payload."""

    commitment_digest: bytes = field(validator=_digest)
    upload_digest: bytes = field(validator=_digest)
    hash_z: bytes = field(validator=_digest)


@frozen
class Receipt:
    """The aggregator of this attempt holds this upload whole and has checked its form."""

    attempt: int = field(validator=_attempt)
    proposer: bytes = field(validator=_peer)
    upload_digest: bytes = field(validator=_digest)


@frozen
class Witness:
    """A voter holds this upload, which the aggregator did not acknowledge."""

    proposer: bytes = field(validator=_peer)
    upload_digest: bytes = field(validator=_digest)


@frozen
class ReleasedShare:
    """One Shamir share, and its path to the dealer's root."""

    dealer: bytes = field(validator=_peer)
    share_kind: int = field(validator=int_range(0, 2))
    share: bytes = field(validator=bytes_of(SHARE_BYTES))
    proof: tuple[bytes, ...] = field(validator=bounded_tuple(12, _digest))


class ReleaseStage(IntEnum):
    """Why shares are released: to unmask the sum, or to rebuild a check seed that was not revealed."""

    UNMASK = 0
    CHECK = 1


@frozen
class ShareRelease:
    """What a holder gives away at one stage; `attempt` counts releases of the stage CHECK."""

    stage: ReleaseStage
    attempt: int = field(validator=_attempt)
    shares: tuple[ReleasedShare, ...] = field(validator=bounded_tuple(2 * MAX_NODES))


@frozen
class NamedSecret:
    """A 32-byte secret of `peer`, made public."""

    peer: bytes = field(validator=_peer)
    secret: bytes = field(validator=_seed)


@frozen
class AggregateClaim:
    """The aggregator's result (phase 3): digest of B, and what unmasks it."""

    attempt: int = field(validator=_attempt)
    sum_digest: bytes = field(validator=_digest)
    self_seeds: tuple[NamedSecret, ...] = field(validator=bounded_tuple(MAX_NODES))
    mask_secrets: tuple[NamedSecret, ...] = field(validator=bounded_tuple(MAX_NODES))


@frozen
class Reveal:
    """A proposer opens its check seed, and every z_i of U1 in order (phase 4); a challenge if it is clear."""

    check_seed: bytes = field(validator=_seed)
    zs: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES, _seed))
    challenge_seed: bytes = field(validator=bounded_bytes(32))


@frozen
class SealedVote:
    """Hash of a vote that is opened after all are in; `ballot` 1 is the vote on a repaired aggregate."""

    ballot: int = field(validator=int_range(0, 1))
    digest: bytes = field(validator=_digest)


@frozen
class VoteOpening:
    """Vote +1, 0 (abstained) or -1, and the loss that the voter measured, in micro-units.

    Under the interim rule of judgement the loss stays with the voter (`loss_micro` is 0), and the opening
    carries its `protocol.ledger.judgement.Opinion` instead.
    """

    ballot: int = field(validator=int_range(0, 1))
    vote: int = field(validator=int_range(-1, 1))
    loss_micro: int = field(validator=int_range(0, 1 << 60))
    salt: bytes = field(validator=_seed)
    change: int = field(default=0, validator=int_range(-MAX_CHANGE, MAX_CHANGE), metadata=LEFT_OUT)
    improves: bool = field(default=False, metadata=LEFT_OUT)
    done: bool = field(default=False, metadata=LEFT_OUT)

    @property
    def opinion(self) -> Opinion:
        """Return what it says beyond the vote."""
        return Opinion(self.change, self.improves, self.done)


@frozen
class Complaint:
    """A holder got no valid share from `dealer`; the dealer publishes that one share, or is left out."""

    dealer: bytes = field(validator=_peer)


@frozen
class ShareOpening:
    """A dealer answers a complaint: `package` is the encoded `protocol.sharing.SharePackage` of `holder`."""

    holder: bytes = field(validator=_peer)
    package: bytes = field(validator=bounded_bytes(4096))


class TransactionKind(IntEnum):
    """What a member asks of the stake contract."""

    TRANSFER = 0
    JOIN = 1
    LEAVE = 2
    FUND = 3
    CANCEL = 4
    """Nothing: it takes the place of a transaction that waits, and frees those behind it."""


MAX_NONCE = 1 << 40
MAX_AMOUNT_UNITS = 1 << 60
MAX_REVISION = 255


@frozen
class Transaction:
    """`nonce`: the sender's transactions so far. `peer`: recipient of a transfer, else the sender.

    `revision`: how many of the sender's transactions with this nonce it replaces (section 6).
    """

    kind: TransactionKind
    nonce: int = field(validator=int_range(0, MAX_NONCE))
    peer: bytes = field(validator=_peer)
    amount_units: int = field(validator=int_range(0, MAX_AMOUNT_UNITS))
    revision: int = field(default=0, validator=int_range(0, MAX_REVISION), metadata=LEFT_OUT)


@frozen
class DealerEvidence:
    """Shares of `dealer` that do not give back what it pinned: an encoded `protocol.sharing.DealerFault`."""

    dealer: bytes = field(validator=_peer)
    fault: bytes = field(validator=bounded_bytes(1 << 20))


# -- from one peer to another ------------------------------------------------------------------


@frozen
class SealedShares:
    """One holder's shares from the sender, sealed to the holder's one-round key."""

    box: bytes = field(validator=bounded_bytes(4096))


@frozen
class ZRequest:
    """A proposer whose box held a wrong z_i asks another proposer for the one that matches H(z_i)."""

    dealer: bytes = field(validator=_peer)


@frozen
class ZReply:
    dealer: bytes = field(validator=_peer)
    box: bytes = field(validator=bounded_bytes(256))


# -- agreement ---------------------------------------------------------------------------------


@frozen
class Held:
    """Which statements of one kind a node has verified: bit i is roster entry i, little-endian bytes.

    In a `Have`, kinds of which a sender may have several carry 4-byte tags of statement ids instead.
    """

    kind: int = field(validator=int_range(0, 255))
    bitmap: bytes = field(validator=bounded_bytes(1 << 15))


@frozen
class Ready:
    """A node's view of a phase, for the leader; a later one replaces an earlier one.

    `late`: 1 once the hard deadline passed at this node, 2 once it gave up.
    `blobs`: digests of blobs held, as far as the phase asks.
    """

    height: int = field(validator=_height)
    late: int = field(validator=int_range(0, 2))
    held: tuple[Held, ...] = field(validator=bounded_tuple(5))
    blobs: tuple[bytes, ...] = field(validator=bounded_tuple(1, _digest))


class VotePhase(IntEnum):
    PREPARE = 1
    COMMIT = 2


@frozen
class Vote:
    """An agreement vote; its envelope signature is what a certificate collects."""

    phase: VotePhase
    height: int = field(validator=_height)
    view: int = field(validator=_view)
    block_hash: bytes = field(validator=_digest)


@frozen(cache_hash=True)
class Certificate:
    """More than 2/3 of the validators signed the same `Vote`. `round` is that of the vote envelopes."""

    round: int = field(validator=int_range(0, MAX_ROUND))
    vote: Vote
    signatures: tuple[tuple[bytes, bytes], ...] = field(validator=bounded_tuple(MAX_NODES))


@frozen
class CertificateNotice:
    certificate: Certificate


@frozen
class Timeout:
    """A node gives up on a view. The block that `high_qc` certifies, if any, is the envelope's payload."""

    height: int = field(validator=_height)
    view: int = field(validator=_view)
    high_qc: Certificate | None


@frozen
class Proposal:
    """A leader's block for a view (the envelope's payload), and why it may propose it.

    `qc`: the highest prepare certificate the leader knows for this height. `timeouts`: encoded
    `Timeout` envelopes of view - 1, a time-out certificate, unless view is 1 or qc is of view - 1.
    """

    height: int = field(validator=_height)
    view: int = field(validator=_view)
    block_hash: bytes = field(validator=_digest)
    qc: Certificate | None
    timeouts: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES))


# -- repair ------------------------------------------------------------------------------------


@frozen
class Have:
    """Push-pull repair: my height, statements of the round that I hold, dealers whose `shares` I hold.

    `reply`: this answers another `Have` and wants no further one.
    """

    height: int = field(validator=_height)
    held: tuple[Held, ...] = field(validator=bounded_tuple(32))
    shares: bytes = field(validator=bounded_bytes(MAX_NODES // 8))
    reply: bool


@frozen
class Statements:
    """Encoded envelopes, payloads included; at most 256 kB in one reply."""

    envelopes: tuple[bytes, ...] = field(validator=bounded_tuple(4096))


@frozen
class BlockRequest:
    first_height: int = field(validator=int_range(1, MAX_HEIGHT))


@frozen
class Blocks:
    """Consecutive stored blocks (`protocol.ledger.block.StoredBlock`), encoded."""

    blocks: tuple[bytes, ...] = field(validator=bounded_tuple(1024))


@frozen
class StatementRequest:
    """Ids of statements that a block cites and the sender lacks."""

    ids: tuple[bytes, ...] = field(validator=bounded_tuple(4096, _digest))


Body = (
    KeyAdvert | ShareBundle | Contribution | Receipt | Witness | ShareRelease | AggregateClaim | Reveal
    | SealedVote | VoteOpening | Complaint | ShareOpening | Transaction | DealerEvidence
    | SealedShares | ZRequest | ZReply
    | Ready | Proposal | Vote | CertificateNotice | Timeout
    | Have | Statements | BlockRequest | Blocks | StatementRequest
)  # fmt: skip


@frozen
class KindRule:
    """The body class of a kind, and the most bytes its body and its payload may have."""

    body: type
    body_bytes: int
    payload_bytes: int = 0


_KB = 1 << 10
_MB = 1 << 20
MESSAGE_BYTES = 17 * _MB // 16
"""The most bytes of one encoded envelope, and of one message on the transport."""

KIND_RULES: dict[Kind, KindRule] = {
    Kind.KEY_ADVERT: KindRule(KeyAdvert, 320),
    Kind.SHARE_BUNDLE: KindRule(ShareBundle, 512),
    Kind.CONTRIBUTION: KindRule(Contribution, 256, 512 * _KB),
    Kind.RECEIPT: KindRule(Receipt, 128),
    Kind.WITNESS: KindRule(Witness, 128),
    Kind.SHARE_RELEASE: KindRule(ShareRelease, 768 * _KB),
    Kind.AGGREGATE_CLAIM: KindRule(AggregateClaim, 512 * _KB),
    Kind.REVEAL: KindRule(Reveal, 160 * _KB),
    Kind.SEALED_VOTE: KindRule(SealedVote, 64),
    Kind.VOTE_OPENING: KindRule(VoteOpening, 64),
    Kind.COMPLAINT: KindRule(Complaint, 64),
    Kind.SHARE_OPENING: KindRule(ShareOpening, 5 * _KB),
    Kind.TRANSACTION: KindRule(Transaction, 128),
    Kind.DEALER_EVIDENCE: KindRule(DealerEvidence, 768 * _KB),
    Kind.SEALED_SHARES: KindRule(SealedShares, 5 * _KB),
    Kind.Z_REQUEST: KindRule(ZRequest, 64),
    Kind.Z_REPLY: KindRule(ZReply, 512),
    Kind.READY: KindRule(Ready, 4 * _KB),
    Kind.PROPOSAL: KindRule(Proposal, 512 * _KB, 512 * _KB),
    Kind.VOTE: KindRule(Vote, 128),
    Kind.CERTIFICATE: KindRule(CertificateNotice, 512 * _KB),
    Kind.TIMEOUT: KindRule(Timeout, 512 * _KB, 512 * _KB),
    Kind.HAVE: KindRule(Have, 512 * _KB),
    Kind.STATEMENTS: KindRule(Statements, _MB),
    Kind.BLOCK_REQUEST: KindRule(BlockRequest, 32),
    Kind.BLOCKS: KindRule(Blocks, _MB),
    Kind.STATEMENT_REQUEST: KindRule(StatementRequest, 160 * _KB),
}


def vote_hash(network: bytes, round_: int, voter: bytes, opening: VoteOpening) -> bytes:
    """What a `SealedVote` carries for this opening."""
    return digest("sealed-vote", network, round_.to_bytes(8, "big"), voter, encode(opening))
