"""The wire: every kind goes through, and nothing else does (docs/PROTOCOL.md section 8)."""

from __future__ import annotations

import attrs
import pytest

from protocol.codec import DecodeError, decode, encode
from protocol.envelope import (
    VERSION,
    Statement,
    WireError,
    make_statement,
    open_envelope,
    signing_digest,
)
from protocol.keys import Identity
from protocol.messages import (
    KIND_RULES,
    MAX_ROUND,
    MESSAGE_BYTES,
    STATEMENT_KINDS,
    AggregateClaim,
    BlockRequest,
    Blocks,
    Body,
    Certificate,
    CertificateNotice,
    Complaint,
    Contribution,
    DealerEvidence,
    Have,
    Held,
    KeyAdvert,
    Kind,
    NamedSecret,
    Proposal,
    Ready,
    Receipt,
    ReleasedShare,
    ReleaseStage,
    Reveal,
    SealedShares,
    SealedVote,
    ShareBundle,
    ShareOpening,
    ShareRelease,
    StatementRequest,
    Statements,
    Timeout,
    Transaction,
    TransactionKind,
    Vote,
    VoteOpening,
    VotePhase,
    Witness,
    ZReply,
    ZRequest,
)

NETWORK = bytes(range(32))
ME, OTHER = (Identity.from_seed(bytes([index]) * 32) for index in (1, 2))


def b32(value: int) -> bytes:
    return bytes([value]) * 32


VOTE = Vote(VotePhase.PREPARE, 7, 2, b32(9))
CERTIFICATE = Certificate(3, VOTE, ((b32(1), bytes(64)), (b32(2), bytes(64))))
SECRETS = (NamedSecret(b32(1), b32(2)),)
RELEASED = ReleasedShare(b32(1), 2, bytes(36), (b32(3), b32(4)))

BODIES: dict[Kind, Body] = {
    Kind.KEY_ADVERT: KeyAdvert(b32(1), b32(2), b32(1) * 3, b32(2) * 3),
    Kind.SHARE_BUNDLE: ShareBundle((b32(1), b32(2), b32(3)), b32(4), b32(5), b32(6), 1 << 16),
    Kind.CONTRIBUTION: Contribution(b32(1), b32(2), b32(3)),
    Kind.RECEIPT: Receipt(2, b32(1), b32(2)),
    Kind.WITNESS: Witness(b32(1), b32(2)),
    Kind.SHARE_RELEASE: ShareRelease(ReleaseStage.CHECK, 1, (RELEASED, RELEASED)),
    Kind.AGGREGATE_CLAIM: AggregateClaim(1, b32(1), SECRETS, ()),
    Kind.REVEAL: Reveal(b32(1), (b32(2), b32(3)), b""),
    Kind.SEALED_VOTE: SealedVote(1, b32(1)),
    Kind.VOTE_OPENING: VoteOpening(1, -1, 1 << 60, b32(1)),
    Kind.COMPLAINT: Complaint(b32(1)),
    Kind.SHARE_OPENING: ShareOpening(b32(1), bytes(100)),
    Kind.TRANSACTION: Transaction(TransactionKind.TRANSFER, 1 << 40, b32(1), 1 << 60),
    Kind.DEALER_EVIDENCE: DealerEvidence(b32(1), bytes(100)),
    Kind.SEALED_SHARES: SealedShares(bytes(300)),
    Kind.Z_REQUEST: ZRequest(b32(1)),
    Kind.Z_REPLY: ZReply(b32(1), bytes(48)),
    Kind.READY: Ready(5, 1, (Held(2, b"\x07"),), (b32(1),)),
    Kind.PROPOSAL: Proposal(7, 3, b32(9), CERTIFICATE, (bytes(200),)),
    Kind.VOTE: VOTE,
    Kind.CERTIFICATE: CertificateNotice(CERTIFICATE),
    Kind.TIMEOUT: Timeout(7, 2, CERTIFICATE),
    Kind.HAVE: Have(7, (Held(0, bytes(8)),), b"\x0f", True),
    Kind.STATEMENTS: Statements((bytes(100), bytes(200))),
    Kind.BLOCK_REQUEST: BlockRequest(1),
    Kind.BLOCKS: Blocks((bytes(100),)),
    Kind.STATEMENT_REQUEST: StatementRequest((b32(1), b32(2))),
}

each_kind = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)


def example(kind: Kind, identity: Identity = ME, round_: int = 3) -> Statement:
    payload = bytes(50) if KIND_RULES[kind].payload_bytes else b""
    return make_statement(identity, NETWORK, round_, kind, BODIES[kind], payload)


def read(data: bytes) -> Statement | str:
    """The statement, or the reason why there is none."""
    try:
        return open_envelope(data, NETWORK)
    except WireError as error:
        return error.reason


def refusal(data: bytes, *, stripped: bool = False) -> str:
    """The reason for which bytes are refused; every other exception is a failure."""
    with pytest.raises(WireError) as refused:
        open_envelope(data, NETWORK, stripped=stripped)
    return refused.value.reason


def altered(statement: Statement, **changes: object) -> bytes:
    """The envelope with other fields and the old signature."""
    return encode(attrs.evolve(statement.envelope, **changes))


def resigned(statement: Statement, **changes: object) -> bytes:
    """The envelope with other fields, signed anew."""
    envelope = attrs.evolve(statement.envelope, **changes)
    signed = signing_digest(envelope.network, envelope.round, envelope.kind, envelope.sender, envelope.body)
    return encode(attrs.evolve(envelope, signature=ME.sign(signed)))


# -- every kind --------------------------------------------------------------------------------------


@each_kind
def test_round_trip(kind: Kind) -> None:
    statement = example(kind)
    data = statement.to_bytes()
    opened = open_envelope(data, NETWORK)
    assert opened == statement
    assert (opened.kind, opened.sender, opened.round, opened.to_bytes()) == (kind, ME.peer, 3, data)
    cited = open_envelope(statement.cited(), NETWORK, stripped=True)
    assert (cited.id, cited.body, cited.envelope.payload) == (statement.id, statement.body, b"")
    assert cited.slot == statement.slot


@each_kind
def test_every_truncation_is_malformed(kind: Kind) -> None:
    data = example(kind).to_bytes()
    assert {refusal(data[:size]) for size in range(len(data))} == {"malformed"}
    assert refusal(data + b"\x00") == "malformed"


@each_kind
def test_a_body_over_its_limit_is_refused_before_it_is_read(kind: Kind) -> None:
    limit = KIND_RULES[kind].body_bytes
    assert refusal(resigned(example(kind), body=bytes(limit + 1))) == "malformed"
    with pytest.raises(DecodeError, match=f"exceed the limit of {limit}"):
        decode(KIND_RULES[kind].body, bytes(limit + 1), limit)


@each_kind
def test_a_payload_over_its_limit_is_refused(kind: Kind) -> None:
    limit = KIND_RULES[kind].payload_bytes
    assert refusal(altered(example(kind), payload=bytes(limit + 1))) == "oversized"
    assert refusal(altered(example(kind), payload=b"x"), stripped=True) == "oversized"


@each_kind
def test_the_body_of_another_kind_is_refused(kind: Kind) -> None:
    statement = example(kind)
    for other in Kind:
        if KIND_RULES[other].body is not KIND_RULES[kind].body:
            opened = read(resigned(statement, kind=int(other), payload=b""))
            if isinstance(opened, Statement):  # two kinds may have one form, never one meaning
                assert (opened.kind, type(opened.body)) == (other, KIND_RULES[other].body)
                assert opened.id != statement.id
            else:
                assert opened == "malformed"


@each_kind
def test_what_is_signed_cannot_be_changed(kind: Kind) -> None:
    statement = example(kind)
    signature = statement.envelope.signature
    assert refusal(altered(statement, sender=OTHER.peer)) == "signature"
    assert refusal(altered(statement, round=4)) == "signature"
    assert refusal(altered(statement, signature=signature[:-1] + bytes([signature[-1] ^ 1]))) == "signature"
    assert refusal(altered(statement, signature=bytes(64))) == "signature"


def test_limits_fit_one_into_the_other() -> None:
    overhead = len(example(Kind.Z_REQUEST).to_bytes()) - len(encode(BODIES[Kind.Z_REQUEST])) + 16
    for kind in Kind:
        rule = KIND_RULES[kind]
        assert rule.body_bytes + rule.payload_bytes + overhead <= MESSAGE_BYTES, kind
        assert len(encode(BODIES[kind])) <= rule.body_bytes
    assert set(BODIES) == set(Kind) == set(KIND_RULES)
    assert {kind for kind in Kind if kind < 20} == STATEMENT_KINDS


def test_fixed_bodies_fit_their_limits_at_their_largest() -> None:
    """Field by field the longest that validators admit; a tighter limit would refuse an honest message."""
    largest: dict[Kind, Body] = {
        Kind.RECEIPT: Receipt(255, b32(255), b32(255)),
        Kind.SEALED_SHARES: SealedShares(bytes(4096)),
        Kind.SHARE_OPENING: ShareOpening(b32(1), bytes(4096)),
        Kind.Z_REPLY: ZReply(b32(1), bytes(256)),
        Kind.TRANSACTION: Transaction(TransactionKind.FUND, 1 << 40, b32(1), 1 << 60),
        Kind.VOTE_OPENING: VoteOpening(1, -1, 1 << 60, b32(1)),
        Kind.VOTE: Vote(VotePhase.COMMIT, 1 << 44, 1 << 20, b32(1)),
        Kind.BLOCK_REQUEST: BlockRequest(1 << 44),
    }
    for kind, body in largest.items():
        open_envelope(make_statement(ME, NETWORK, MAX_ROUND, kind, body).to_bytes(), NETWORK)


# -- envelopes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("version", {"version": VERSION + 1}),
        ("version", {"version": 0}),
        ("network", {"network": bytes(32)}),
        ("kind", {"kind": 0}),
        ("kind", {"kind": 15}),
        ("kind", {"kind": 255}),
        ("malformed", {"body": b""}),
        ("malformed", {"body": b"\x90"}),
        ("malformed", {"body": b"\xc0"}),
    ],
)
def test_envelopes_that_are_refused_whatever_is_signed(reason: str, changes: dict[str, object]) -> None:
    assert refusal(resigned(example(Kind.WITNESS), **changes)) == reason


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x90", b"\xc0", b"\xff" * 100, bytes(MESSAGE_BYTES + 1)])
def test_what_is_no_envelope_at_all(data: bytes) -> None:
    assert refusal(data) == "malformed"


def test_an_envelope_over_the_limit_is_refused_unread() -> None:
    statement = example(Kind.STATEMENTS)
    assert refusal(altered(statement, payload=bytes(MESSAGE_BYTES))) == "malformed"


def test_one_statement_has_one_encoding() -> None:
    """A second msgpack form of the same values would be a second message with the same meaning."""
    data = example(Kind.SEALED_VOTE).to_bytes()
    assert data[1] == VERSION
    assert refusal(data[:1] + b"\xcc" + data[1:]) == "malformed"


def test_slots_tell_statements_apart() -> None:
    first = {kind: make_statement(ME, NETWORK, 3, kind, body).slot for kind, body in BODIES.items()}
    assert len(set(first.values())) == len(first)

    def slot(kind: Kind, body: Body, identity: Identity = ME, round_: int = 3) -> object:
        return make_statement(identity, NETWORK, round_, kind, body).slot

    advert = KeyAdvert(b32(1), b32(2), b32(1) * 3, b32(2) * 3)
    assert slot(Kind.KEY_ADVERT, advert) == slot(
        Kind.KEY_ADVERT, KeyAdvert(b32(3), b32(4), b32(3) * 3, b32(4) * 3)
    )
    assert slot(Kind.KEY_ADVERT, advert) != slot(Kind.KEY_ADVERT, advert, OTHER)
    assert slot(Kind.KEY_ADVERT, advert) != slot(Kind.KEY_ADVERT, advert, round_=4)
    apart: list[tuple[Kind, Body, Body]] = [
        (Kind.RECEIPT, Receipt(0, b32(1), b32(2)), Receipt(0, b32(3), b32(2))),
        (Kind.RECEIPT, Receipt(0, b32(1), b32(2)), Receipt(1, b32(1), b32(2))),
        (Kind.WITNESS, Witness(b32(1), b32(2)), Witness(b32(3), b32(2))),
        (Kind.SEALED_VOTE, SealedVote(0, b32(1)), SealedVote(1, b32(1))),
        (Kind.COMPLAINT, Complaint(b32(1)), Complaint(b32(2))),
        (Kind.SHARE_OPENING, ShareOpening(b32(1), b""), ShareOpening(b32(2), b"")),
        (
            Kind.SHARE_RELEASE,
            ShareRelease(ReleaseStage.UNMASK, 0, ()),
            ShareRelease(ReleaseStage.CHECK, 0, ()),
        ),
        (
            Kind.TRANSACTION,
            Transaction(TransactionKind.LEAVE, 0, b32(1), 0),
            Transaction(TransactionKind.LEAVE, 1, b32(1), 0),
        ),
    ]
    for kind, left, right in apart:
        assert slot(kind, left) != slot(kind, right)
    together: list[tuple[Kind, Body, Body]] = [
        (Kind.RECEIPT, Receipt(0, b32(1), b32(2)), Receipt(0, b32(1), b32(3))),
        (Kind.SEALED_VOTE, SealedVote(0, b32(1)), SealedVote(0, b32(2))),
        (Kind.VOTE_OPENING, VoteOpening(0, 1, 5, b32(1)), VoteOpening(0, -1, 5, b32(1))),
        (Kind.VOTE, VOTE, attrs.evolve(VOTE, block_hash=b32(1))),
    ]
    for kind, left, right in together:
        assert slot(kind, left) == slot(kind, right)
