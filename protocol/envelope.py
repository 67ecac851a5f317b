"""Signed envelopes, and the statements inside them (docs/PROTOCOL.md section 8)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from attrs import Factory, evolve, field, frozen

from protocol import keys
from protocol.codec import DecodeError, bytes_of, decode, digest, encode, int_range
from protocol.messages import (
    KIND_RULES,
    MAX_ROUND,
    MESSAGE_BYTES,
    AggregateClaim,
    Body,
    Complaint,
    DealerEvidence,
    Kind,
    Proposal,
    Receipt,
    SealedVote,
    ShareOpening,
    ShareRelease,
    Transaction,
    Vote,
    VoteOpening,
    Witness,
)

VERSION = 1


class WireError(ValueError):
    """A message was refused; `reason` is a short stable word to count by, the text says the rest.

    `theirs`: the network id in hex, the version or the kind, where the sender's is not this node's; else "".
    """

    def __init__(self, reason: str, what: str, theirs: str = "") -> None:
        super().__init__(f"{reason}: {what}")
        self.reason = reason
        self.theirs = theirs


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
    """An envelope whose form and signature hold, its decoded body, and its id (the signing digest).

    What is derived from them is worked out once: statements are looked at again after every event.
    """

    envelope: Envelope
    body: Body
    id: bytes
    encoded: bytes = field(
        default=Factory(lambda self: encode(self.envelope), takes_self=True), eq=False, repr=False
    )
    """The envelope's bytes: as it travels, payload included."""
    kind: Kind = field(init=False, eq=False, repr=False)
    sender: bytes = field(init=False, eq=False, repr=False)
    round: int = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.envelope.kind))
        object.__setattr__(self, "sender", self.envelope.sender)
        object.__setattr__(self, "round", self.envelope.round)

    @cached_property
    def slot(self) -> Slot:
        return slot_of(self)

    @cached_property
    def bare(self) -> Statement:
        """As it stands in a block: without the payload."""
        if not self.envelope.payload:
            return self
        return Statement(evolve(self.envelope, payload=b""), self.body, self.id)

    @property
    def kept_bytes(self) -> int:
        """Of body and payload: what it takes to keep it."""
        return len(self.envelope.body) + len(self.envelope.payload)

    def to_bytes(self) -> bytes:
        """As it travels, payload included."""
        return self.encoded

    def cited(self) -> bytes:
        """The bytes of `bare`."""
        return self.bare.encoded


class Slot(NamedTuple):
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
        case Vote():
            attempt, subject = int(body.phase), encode_place(body.height, body.view)
        case Proposal():
            subject = encode_place(body.height, body.view)
        case _:
            pass
    return Slot(statement.round, statement.envelope.kind, attempt, statement.sender, subject)


def encode_place(height: int, view: int) -> bytes:
    """A place in the agreement, of which a node has one say a phase."""
    return height.to_bytes(8, "big") + view.to_bytes(8, "big")


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


def open_envelope(
    data: bytes,
    network: bytes,
    *,
    stripped: bool = False,
    verify: Callable[[bytes, bytes, bytes], bool] = keys.verify,
) -> Statement:
    """Decode, check and verify one envelope; raises `WireError`, and nothing else, for anything else.

    `stripped`: the envelope stands in a block, where the payload is left out. `verify` is asked as
    `protocol.keys.verify` would be.
    """
    try:
        envelope = decode(Envelope, data, MESSAGE_BYTES)
    except DecodeError as error:
        raise WireError("malformed", str(error)) from None
    if envelope.version != VERSION:
        raise WireError(
            "version", f"version {envelope.version}, this node speaks {VERSION}", str(envelope.version)
        )
    if envelope.network != network:
        theirs = envelope.network.hex()
        raise WireError("network", f"for network {theirs[:16]}", theirs)
    try:
        kind = Kind(envelope.kind)
    except ValueError:
        raise WireError("kind", f"unknown kind {envelope.kind}", str(envelope.kind)) from None
    rule = KIND_RULES[kind]
    if len(envelope.payload) > (0 if stripped else rule.payload_bytes):
        raise WireError("oversized", f"{kind.name} with a payload of {len(envelope.payload)} bytes")
    try:
        body: Body = decode(rule.body, envelope.body, rule.body_bytes)
    except DecodeError as error:
        raise WireError("malformed", f"{kind.name}: {error}") from None
    digest_ = signing_digest(network, envelope.round, envelope.kind, envelope.sender, envelope.body)
    if not verify(envelope.sender, digest_, envelope.signature):
        raise WireError("signature", f"{kind.name} from {keys.short_name(envelope.sender)}")
    return Statement(envelope, body, digest_, data)
