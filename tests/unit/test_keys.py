import hashlib
import hmac
import itertools

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as OpenSSLSigner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as OpenSSLKey
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID

from protocol import keys
from protocol.codec import digest
from protocol.keys import (
    SECOND_FORM,
    WITH_TORSION,
    AgreementError,
    AgreementKey,
    Identity,
    PeerNameError,
    SealError,
    agree,
    agreement_public,
    agreement_secret,
    derive,
    open_sealed,
    peer_from_name,
    peer_name,
    possession_holds,
    prove_possession,
    seal,
    short_name,
    sodium_verifies,
    verify,
)

ALICE, BOB, EVE = (hashlib.sha256(name).digest() for name in (b"alice", b"bob", b"eve"))
SIGNER = Identity.from_seed(ALICE)
AD = b"network|round 3|self-mask|alice|bob"

# Points of low order, and their forms above the prime (RFC 7748 section 7).
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_rfc_8032_vector() -> None:
    identity = Identity.from_seed(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    assert identity.peer.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = identity.sign(b"\x72")
    assert signature.hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da")
    assert verify(identity.peer, b"\x72", signature)


def test_identity_never_shows_its_key() -> None:
    for text in (repr(SIGNER), str(SIGNER), f"{SIGNER}", repr(AgreementKey(ALICE))):
        assert ALICE.hex() not in text
        assert repr(ALICE) not in text
        assert str(ALICE) not in text
    shared = AgreementKey(ALICE).channel(agreement_public(BOB))
    assert repr(agree(ALICE, agreement_public(BOB))) not in repr(shared)
    assert short_name(SIGNER.peer) in repr(SIGNER)


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33), "x" * 32])
def test_bad_seeds(seed: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Identity.from_seed(seed)


def test_only_the_signer_and_the_message_verify() -> None:
    signature = SIGNER.sign(b"message")
    assert verify(SIGNER.peer, b"message", signature)
    assert not verify(SIGNER.peer, b"messagf", signature)
    assert not verify(Identity.from_seed(BOB).peer, b"message", signature)
    for at in range(64):
        forged = bytearray(signature)
        forged[at] ^= 1
        assert not verify(SIGNER.peer, b"message", bytes(forged))


def test_a_signature_has_no_second_form() -> None:
    # S + L is the same scalar: accepting it would give one statement two ids.
    order = 2**252 + 27742317777372353535851937790883648493
    signature = SIGNER.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not verify(SIGNER.peer, b"message", signature[:32] + scalar.to_bytes(32, "little"))


def openssl_verifies(peer: bytes, message: bytes, signature: bytes) -> bool:
    try:
        OpenSSLKey.from_public_bytes(peer).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511))
def test_signatures_are_those_of_openssl(seed: bytes, message: bytes, at: int) -> None:
    identity, key = Identity.from_seed(seed), OpenSSLSigner.from_private_bytes(seed)
    signature = identity.sign(message)
    assert identity.peer == key.public_key().public_bytes_raw()
    assert signature == key.sign(message)
    flipped = bytearray(signature)
    flipped[at // 8] ^= 1 << at % 8
    for tried in (signature, bytes(flipped)):
        assert verify(identity.peer, message, tried) == openssl_verifies(identity.peer, message, tried)


NEUTRAL = (1).to_bytes(32, "little")
"""The neutral point; with a scalar of zero, what a key of small order may sign anything by."""
ORDER_TWO = (2**255 - 20).to_bytes(32, "little")
NOT_CANONICAL = (2**255 - 18).to_bytes(32, "little")
"""The neutral point again, written as p + 1."""


@pytest.mark.parametrize(
    ("peer", "message", "signature"),
    [
        WITH_TORSION,
        SECOND_FORM,
        *(
            (peer, message, r + bytes(32))
            for peer in (NEUTRAL, ORDER_TWO, NOT_CANONICAL)
            for r in (NEUTRAL, ORDER_TWO, NOT_CANONICAL)
            for message in (b"pay", b"pay more", b"pay all")
        ),
        (SIGNER.peer, b"pay", NEUTRAL + bytes(32)),
        (SIGNER.peer, b"pay", NOT_CANONICAL + bytes(32)),
    ],
)
def test_where_libraries_differ_openssl_decides(peer: bytes, message: bytes, signature: bytes) -> None:
    assert verify(peer, message, signature) == openssl_verifies(peer, message, signature)
    assert not sodium_verifies(peer, message, signature)


def test_a_library_with_other_rules_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SODIUM_IS_STRICTER", False)
    monkeypatch.setattr(keys, "sodium_verifies", lambda *_: pytest.fail("asked"))
    message = b"for OpenSSL alone"
    assert verify(SIGNER.peer, message, SIGNER.sign(message))
    assert not verify(SIGNER.peer, message + b"?", SIGNER.sign(message))


def test_some_of_these_are_accepted() -> None:
    assert verify(NEUTRAL, b"pay", NEUTRAL + bytes(32))
    assert not verify(*WITH_TORSION)


@given(st.binary(max_size=40), st.binary(max_size=70))
def test_malformed_keys_and_signatures_are_false(peer: bytes, signature: bytes) -> None:
    assert not verify(peer, b"m", signature)
    assert not verify(SIGNER.peer, b"m", signature)
    assert not verify((peer + bytes(32))[:32], b"m", (signature + bytes(64))[:64][:-1] + b"\xff")


@given(st.binary(min_size=32, max_size=32))
def test_names_are_libp2p_names(seed: bytes) -> None:
    peer = Identity.from_seed(seed).peer
    name = peer_name(peer)
    assert name == str(ID.from_pubkey(Ed25519PublicKey.from_bytes(peer)))
    assert name.startswith("12D3Koo")
    assert peer_from_name(name) == peer
    assert short_name(peer) == name[-6:]


@pytest.mark.parametrize("peer", [bytes(32), b"\xff" * 32])
def test_extreme_names(peer: bytes) -> None:
    assert len(peer_name(peer)) == 52
    assert peer_from_name(peer_name(peer)) == peer


@pytest.mark.parametrize(
    "name",
    [
        "",
        "12D3Koo",
        peer_name(ALICE) + "1",
        "1" + peer_name(ALICE),
        peer_name(ALICE)[:-1] + "0",
        peer_name(ALICE)[:-1] + "é",
        "2" + peer_name(ALICE)[1:],
        "1" + "z" * 51,
        "1" * 52,
        "12E" + peer_name(ALICE)[3:],
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    ],
)
def test_other_strings_name_no_peer(name: str) -> None:
    with pytest.raises(PeerNameError):
        peer_from_name(name)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_other_sizes_have_no_name(size: int) -> None:
    with pytest.raises(PeerNameError):
        peer_name(bytes(size))


def test_rfc_7748_vector() -> None:
    secret = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert (
        agreement_public(secret).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )
    assert agree(secret, public) == AgreementKey(secret).agree(public) == shared


def test_both_sides_agree() -> None:
    assert agree(ALICE, agreement_public(BOB)) == agree(BOB, agreement_public(ALICE))
    assert agree(ALICE, agreement_public(BOB)) != agree(ALICE, agreement_public(EVE))


@pytest.mark.parametrize("public", LOW_ORDER)
def test_low_order_keys_agree_on_nothing(public: str) -> None:
    with pytest.raises(AgreementError, match="zero"):
        agree(ALICE, bytes.fromhex(public))
    with pytest.raises(SealError):
        open_sealed(ALICE, bytes.fromhex(public), bytes(48), AD)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_agreement_key_sizes(size: int) -> None:
    with pytest.raises(AgreementError, match="public key is 32 bytes"):
        agree(ALICE, bytes(size))
    with pytest.raises(AgreementError, match="secret is 32 bytes"):
        agree(bytes(size), agreement_public(BOB))
    with pytest.raises(AgreementError):
        agreement_public(bytes(size))


def reference_hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 for one block of SHA-256, without salt."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@given(st.binary(max_size=50), st.lists(st.binary(max_size=20), max_size=4))
def test_derive_by_definition(secret: bytes, labels: list[bytes]) -> None:
    info = b"".join(len(label).to_bytes(8, "big") + label for label in labels)
    assert derive(secret, *labels) == reference_hkdf(secret, info)


def test_derive_keeps_labels_apart() -> None:
    labels = [(), (b"",), (b"", b""), (b"ab",), (b"a", b"b"), (b"ab", b""), (b"", b"ab")]
    assert len({derive(ALICE, *label) for label in labels}) == len(labels)


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_seal_opens_for_the_recipient(plaintext: bytes, associated: bytes) -> None:
    box = seal(ALICE, agreement_public(BOB), plaintext, associated)
    assert len(box) == len(plaintext) + 16
    assert open_sealed(BOB, agreement_public(ALICE), box, associated) == plaintext


def test_a_channel_seals_like_the_functions() -> None:
    alice = AgreementKey(ALICE).channel(agreement_public(BOB))
    bob = AgreementKey(BOB).channel(agreement_public(ALICE))
    assert alice.seal(b"share", AD) == seal(ALICE, agreement_public(BOB), b"share", AD)
    assert bob.open(alice.seal(b"share", AD), AD) == b"share"
    assert alice.open(bob.seal(b"share", AD), AD) == b"share"


def test_a_box_opens_in_no_other_place() -> None:
    box = seal(ALICE, agreement_public(BOB), b"share", AD)
    attempts = [
        (EVE, agreement_public(ALICE), AD),  # another holder
        (BOB, agreement_public(EVE), AD),  # replayed by another dealer as its own
        (ALICE, agreement_public(BOB), AD),  # sent back to its sender
        (BOB, agreement_public(BOB), AD),
        (BOB, agreement_public(ALICE), AD.replace(b"3", b"4")),  # another round
        (BOB, agreement_public(ALICE), AD.replace(b"self-mask", b"mask-key")),  # another kind
        (BOB, agreement_public(ALICE), b""),
    ]
    for secret, public, associated in attempts:
        with pytest.raises(SealError):
            open_sealed(secret, public, box, associated)


def test_a_changed_box_does_not_open() -> None:
    box = seal(ALICE, agreement_public(BOB), b"share", AD)
    broken = [box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :] for at in range(len(box))]
    for changed in [*broken, *(box[:size] for size in range(len(box))), box + b"\0"]:
        with pytest.raises(SealError):
            open_sealed(BOB, agreement_public(ALICE), changed, AD)


def test_the_zero_nonce_never_meets_a_key_twice() -> None:
    # Equal plaintexts under a repeated key would give equal boxes.
    parties = list(itertools.permutations((ALICE, BOB, EVE), 2))
    boxes = {seal(a, agreement_public(b), bytes(32), kind) for a, b in parties for kind in (b"x", b"y", b"z")}
    assert len(boxes) == 18


def test_possession_is_proven_by_the_edwards_twin_of_the_key() -> None:
    seed, message = digest("possession seed"), b"this key is mine"
    public = agreement_public(agreement_secret(seed))
    proof = prove_possession(seed, message)
    assert possession_holds(public, proof, message)
    assert not possession_holds(public, proof, b"this key is yours")
    assert not possession_holds(public, proof[:-1], message)
    other = prove_possession(digest("another seed"), message)
    assert not possession_holds(public, other, message)
    assert not possession_holds(public, proof[:32] + other[32:], message)
    assert not possession_holds(public, bytes([1]) + bytes(31) + proof[32:], message)


@pytest.mark.parametrize("number", range(20))
def test_the_twin_maps_to_the_very_key_that_x25519_computes(number: int) -> None:
    seed = digest("twin", bytes([number]))
    proof = prove_possession(seed, b"")
    assert possession_holds(agreement_public(agreement_secret(seed)), proof, b"")
