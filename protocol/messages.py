"""Everything that travels: envelopes and the bodies they carry (docs/PROTOCOL.md section 8).

`Envelope` is canonical msgpack around a canonical body, signed with the sender's Ed25519 key over a
domain-separated digest. Bodies are attrs classes, one for each `Kind`; what a class does not admit
does not decode. A *statement* is an envelope of a kind that is kept, gossiped and repaired; at most
one is admitted for each (round, kind, attempt, sender, subject), its *slot*: two different ones in
one slot are evidence of equivocation.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum

from attrs import field, frozen

from protocol import keys
from protocol.codec import (
    DecodeError,
    bounded_bytes,
    bounded_tuple,
    bytes_of,
    decode,
    digest,
    encode,
    int_range,
)
from protocol.params import MAX_NODES

VERSION = 1
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


class WireError(ValueError):
    """A message was refused; `reason` is a short stable word to count by, the text says the rest."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(f"{reason}: {what}")
        self.reason = reason


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
    """Fresh X25519 keys of one node for the envelope's round (phase 0)."""

    mask_public: bytes = field(validator=bytes_of(32))
    seal_public: bytes = field(validator=bytes_of(32))


@frozen
class ShareBundle:
    """The public part of a dealing (phase 1). Roots by share kind: mask, self, check."""

    share_roots: tuple[bytes, bytes, bytes] = field(validator=bounded_tuple(3, _digest))
    hash_self: bytes = field(validator=_digest)
    hash_check: bytes = field(validator=_digest)
    hash_z: bytes = field(validator=_digest)
    weight: int = field(validator=int_range(1, 1 << 16))


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
    """Vote +1, 0 (abstained) or -1, and the loss that the voter measured, in micro-units."""

    ballot: int = field(validator=int_range(0, 1))
    vote: int = field(validator=int_range(-1, 1))
    loss_micro: int = field(validator=int_range(0, 1 << 60))
    salt: bytes = field(validator=_seed)


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


@frozen
class Transaction:
    """`nonce`: the sender's transactions so far. `peer`: recipient of a transfer, else the sender."""

    kind: TransactionKind
    nonce: int = field(validator=int_range(0, 1 << 40))
    peer: bytes = field(validator=_peer)
    amount_units: int = field(validator=int_range(0, 1 << 60))


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
    held: tuple[Held, ...] = field(validator=bounded_tuple(16))
    blobs: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_NODES, _digest))


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


@frozen
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
MESSAGE_BYTES = 9 * _MB // 8
"""The most bytes of one encoded envelope."""

KIND_RULES: dict[Kind, KindRule] = {
    Kind.KEY_ADVERT: KindRule(KeyAdvert, 128),
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
    Kind.READY: KindRule(Ready, 160 * _KB),
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


# -- envelopes ---------------------------------------------------------------------------------


@frozen
class Envelope:
    """One signed message. `payload` is bulk that the body binds by digest; it is not signed itself."""

    version: int = field(validator=int_range(0, 255))
    network: bytes = field(validator=bytes_of(32))
    round: int = field(validator=int_range(0, MAX_ROUND))
    kind: int = field(validator=int_range(0, 255))
    sender: bytes = field(validator=bytes_of(32))
    body: bytes = field(repr=False)
    signature: bytes = field(validator=bytes_of(64), repr=False)
    payload: bytes = field(default=b"", repr=False)


def signing_digest(network: bytes, round_: int, kind: int, sender: bytes, body: bytes) -> bytes:
    """What a signature covers; also the statement's id."""
    return digest("statement", network, round_.to_bytes(8, "big"), bytes((kind,)), sender, body)


@frozen
class Statement:
    """An envelope whose form and signature hold, its decoded body, and its id (the signing digest)."""

    envelope: Envelope
    body: Body
    id: bytes

    @property
    def kind(self) -> Kind:
        return Kind(self.envelope.kind)

    @property
    def sender(self) -> bytes:
        return self.envelope.sender

    @property
    def round(self) -> int:
        return self.envelope.round

    @property
    def slot(self) -> Slot:
        return slot_of(self)

    def to_bytes(self) -> bytes:
        """As it travels, payload included."""
        return encode(self.envelope)

    def cited(self) -> bytes:
        """As it stands in a block: without the payload."""
        if not self.envelope.payload:
            return encode(self.envelope)
        e = self.envelope
        return encode(Envelope(e.version, e.network, e.round, e.kind, e.sender, e.body, e.signature))


@frozen(order=True)
class Slot:
    """Where at most one statement of a sender belongs."""

    round: int
    kind: int
    attempt: int
    sender: bytes
    subject: bytes


def slot_of(statement: Statement) -> Slot:
    """The slot that a statement fills (docs/PROTOCOL.md section 8)."""
    body = statement.body
    attempt, subject = 0, b""
    match body:
        case Receipt():
            attempt, subject = body.attempt, body.proposer
        case Witness():
            subject = body.proposer
        case ShareRelease():
            attempt = body.stage * 128 + body.attempt
        case AggregateClaim():
            attempt = body.attempt
        case SealedVote() | VoteOpening():
            attempt = body.ballot
        case Complaint() | DealerEvidence():
            subject = body.dealer
        case ShareOpening():
            subject = body.holder
        case Transaction():
            subject = body.nonce.to_bytes(8, "big")
        case _:
            pass
    return Slot(statement.round, statement.envelope.kind, attempt, statement.sender, subject)


def make_statement(
    identity: keys.Identity, network: bytes, round_: int, kind: Kind, body: Body, payload: bytes = b""
) -> Statement:
    """Encode and sign."""
    encoded = encode(body)
    digest_ = signing_digest(network, round_, kind, identity.peer, encoded)
    envelope = Envelope(
        VERSION, network, round_, int(kind), identity.peer, encoded, identity.sign(digest_), payload
    )
    return Statement(envelope, body, digest_)


def open_envelope(data: bytes, network: bytes, *, stripped: bool = False) -> Statement:
    """Decode, check and verify one envelope; raises `WireError`, and nothing else, for anything else.

    `stripped`: the envelope stands in a block, where the payload is left out.
    """
    try:
        envelope = decode(Envelope, data, MESSAGE_BYTES)
    except DecodeError as error:
        raise WireError("malformed", str(error)) from None
    if envelope.version != VERSION:
        raise WireError("version", f"version {envelope.version}, this node speaks {VERSION}")
    if envelope.network != network:
        raise WireError("network", f"for network {envelope.network.hex()[:16]}")
    try:
        kind = Kind(envelope.kind)
    except ValueError:
        raise WireError("kind", f"unknown kind {envelope.kind}") from None
    rule = KIND_RULES[kind]
    if len(envelope.payload) > (0 if stripped else rule.payload_bytes):
        raise WireError("oversized", f"{kind.name} with a payload of {len(envelope.payload)} bytes")
    try:
        body: Body = decode(rule.body, envelope.body, rule.body_bytes)
    except DecodeError as error:
        raise WireError("malformed", f"{kind.name}: {error}") from None
    digest_ = signing_digest(network, envelope.round, envelope.kind, envelope.sender, envelope.body)
    if not keys.verify(envelope.sender, digest_, envelope.signature):
        raise WireError("signature", f"{kind.name} from {keys.short_name(envelope.sender)}")
    return Statement(envelope, body, digest_)


def vote_hash(network: bytes, round_: int, voter: bytes, opening: VoteOpening) -> bytes:
    """What a `SealedVote` carries for this opening."""
    return digest("sealed-vote", network, round_.to_bytes(8, "big"), voter, encode(opening))


def certificate_holds(certificate: Certificate, network: bytes, validators: tuple[bytes, ...]) -> bool:
    """Distinct validators, more than 2/3 of all, each with a valid signature on the very vote."""
    voters = [voter for voter, _ in certificate.signatures]
    if sorted(set(voters)) != voters or not set(voters) <= set(validators):
        return False
    if len(voters) < quorum(len(validators)):
        return False
    body = encode(certificate.vote)
    return all(
        keys.verify(voter, signing_digest(network, certificate.round, Kind.VOTE, voter, body), signature)
        for voter, signature in certificate.signatures
    )


def quorum(n: int) -> int:
    """The least count that is more than 2/3 of n."""
    return 2 * n // 3 + 1


def more_than_third(n: int) -> int:
    """The least count that is more than 1/3 of n."""
    return n // 3 + 1


RejectCounts = Counter[str]
