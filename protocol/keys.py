"""Identities, key agreement and sealing (docs/PROTOCOL.md sections 3, 4 and 8).

A peer is its 32-byte Ed25519 public key. Mask and seal keys are X25519 keys that live for one round. Private
keys and randomness are arguments: nothing here draws any.
"""

import functools
import hashlib
import hmac
from collections.abc import MutableMapping

import attrs
from attrs import frozen
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

PeerId = bytes
"""A 32-byte Ed25519 public key."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_OVERHEAD_BYTES = 16

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE = {character: value for value, character in enumerate(_BASE58)}
# libp2p peer id of an Ed25519 key: identity multihash (0x00) of 36 bytes (0x24), the protobuf PublicKey with
# field 1, key type Ed25519 (08 01), and field 2, 32 bytes of key (12 20).
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_PEER_NAME_CHARACTERS = 52
_ZERO_NONCE = bytes(12)


Agreed = MutableMapping[tuple[bytes, bytes], bytes]
"""Shared secrets by the two public keys, in ascending order."""


class PeerNameError(ValueError):
    """A string is not the libp2p name of an Ed25519 peer."""


class AgreementError(ValueError):
    """A key has the wrong length, or the agreement with it yields the all-zero secret (a low-order point)."""


class SealError(ValueError):
    """A sealed box was not made by this sender for this recipient and these associated data."""


@frozen
class Identity:
    """A peer's long-term signing key. Its text form shows the peer, never the key."""

    private: bytes = attrs.field(repr=False)
    peer: PeerId = attrs.field(init=False, repr=lambda peer: short_name(peer))
    _expanded: bytes = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if type(self.private) is not bytes or len(self.private) != KEY_BYTES:
            raise ValueError(f"an Ed25519 private key is {KEY_BYTES} bytes, got {len(self.private)}")
        peer, expanded = crypto_sign_seed_keypair(self.private)
        object.__setattr__(self, "_expanded", expanded)
        object.__setattr__(self, "peer", peer)

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """The identity whose Ed25519 private key is the 32-byte `seed` (RFC 8032); else ValueError."""
        return cls(seed)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return crypto_sign(message, self._expanded)[:SIGNATURE_BYTES]


@functools.lru_cache(maxsize=8192)
def verify(peer: PeerId, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `peer`'s on `message`. Malformed keys and signatures are False, no exception.

    The rules are OpenSSL's (docs/PROTOCOL.md section 8.3). libsodium takes half as long and is asked first:
    it accepts nothing that OpenSSL refuses, but refuses keys of small order; what it refuses is asked again.
    """
    if len(peer) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    if _SODIUM_IS_STRICTER and sodium_verifies(peer, message, signature):
        return True
    try:
        Ed25519PublicKey.from_public_bytes(peer).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def sodium_verifies(peer: PeerId, message: bytes, signature: bytes) -> bool:
    """Whether libsodium accepts this signature of 64 bytes under this key of 32."""
    try:
        crypto_sign_open(signature + message, peer)
    except BadSignatureError:
        return False
    return True


_PEER = bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
WITH_TORSION = (
    _PEER,
    b"torsion",
    bytes.fromhex(
        "6a84d583f06569edb3f5ed77df65544b27d6948b4f0b2cb76f33dd8413b20719"
        "dd34063152ed1d9e4e133c15506c661841836bab3fc6e930f9c6e8285aeac40d"
    ),
)
"""Key, message, and a signature whose R is off by a point of order 8: what accepts it multiplies by the
cofactor."""
SECOND_FORM = (
    _PEER,
    b"second form",
    bytes.fromhex(
        "50b8261df8b4c3f7374b74bbad2d7493b879b95b37ff257e9ec5bd2183c26fc3"
        "7dcfa424e7ec8efd9b7afe4d172f4d790c3c40d104e102a2c04021c8bcaf9018"
    ),
)
"""Key, message, and a signature with the group order added to S."""
_SODIUM_IS_STRICTER = not (sodium_verifies(*WITH_TORSION) or sodium_verifies(*SECOND_FORM))
"""Another libsodium may multiply by the cofactor, as RFC 8032 permits, or not bound S: it would split the
network."""


@functools.lru_cache(maxsize=4096)
def peer_name(peer: PeerId) -> str:
    """The libp2p peer id in base58 ("12D3Koo...", 52 characters). PeerNameError unless `peer` is 32 bytes."""
    if len(peer) != KEY_BYTES:
        raise PeerNameError(f"a peer is {KEY_BYTES} bytes, got {len(peer)}")
    rest = int.from_bytes(_PEER_ID_PREFIX + peer, "big")
    characters = []
    while rest:
        rest, value = divmod(rest, 58)
        characters.append(_BASE58[value])
    # Base58 writes one "1" for each leading zero byte; the prefix has exactly one.
    return "1" + "".join(reversed(characters))


def peer_from_name(name: str) -> PeerId:
    """The peer of a libp2p peer id in base58. PeerNameError for every string `peer_name` does not return."""
    if len(name) != _PEER_NAME_CHARACTERS:
        raise PeerNameError(f"a peer name has {_PEER_NAME_CHARACTERS} characters, got {len(name)}")
    number = 0
    for position, character in enumerate(name):
        if character not in _BASE58_VALUE:
            raise PeerNameError(f"character {position} of a peer name, {character!r}, is not base58")
        number = number * 58 + _BASE58_VALUE[character]
    size = len(_PEER_ID_PREFIX) + KEY_BYTES
    if name[0] != "1" or number >> (8 * (size - 1)):
        raise PeerNameError("not an identity multihash")
    encoded = number.to_bytes(size, "big")
    if not encoded.startswith(_PEER_ID_PREFIX):
        raise PeerNameError("not the identity multihash of an Ed25519 key")
    return encoded[len(_PEER_ID_PREFIX) :]


def short_name(peer: PeerId) -> str:
    """The last 6 characters of `peer_name`: for people, never for decisions."""
    return peer_name(peer)[-6:]


@frozen
class AgreementKey:
    """An X25519 key pair (RFC 7748), loaded once for many agreements: half the work of `agree` each.

    AgreementError unless `secret` is 32 bytes. Its text form shows the public key only. `agreed` is what it
    remembers: a node seals to the others and opens what they sealed to it.
    """

    secret: bytes = attrs.field(repr=False)
    public: bytes = attrs.field(init=False, repr=lambda public: public.hex())
    _key: X25519PrivateKey = attrs.field(init=False, repr=False, eq=False)
    agreed: Agreed = attrs.field(factory=dict, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise AgreementError(f"an X25519 secret is {KEY_BYTES} bytes, got {len(self.secret)}")
        key = X25519PrivateKey.from_private_bytes(self.secret)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public", key.public_key().public_bytes_raw())

    def agree(self, public: bytes) -> bytes:
        """The 32-byte shared secret with the holder of `public`.

        AgreementError on a bad length, and on an all-zero result: a low-order public key would make the
        secret known to everyone (RFC 7748 section 6.1).
        """
        if len(public) != KEY_BYTES:
            raise AgreementError(f"an X25519 public key is {KEY_BYTES} bytes, got {len(public)}")
        pair = (self.public, public) if self.public < public else (public, self.public)
        known = self.agreed.get(pair)
        if known is None:
            try:
                known = self._key.exchange(X25519PublicKey.from_public_bytes(public))
            except ValueError as error:
                raise AgreementError("the X25519 shared secret is all zero") from error
            self.agreed[pair] = known
        return known

    def channel(self, public: bytes) -> "Channel":
        """Sealing to and from the holder of `public`, for one agreement. AgreementError as in `agree`."""
        return Channel(self.agree(public), self.public, public)

    def open(self, sender_public: bytes, box: bytes, associated: bytes) -> bytes:
        """The plaintext of a box from `seal`. SealError unless keys, direction, `associated` are its own."""
        try:
            channel = self.channel(sender_public)
        except AgreementError as error:
            raise SealError(f"no key with this sender: {error}") from error
        return channel.open(box, associated)


@frozen
class Channel:
    """What two holders of X25519 keys seal for each other; made by `AgreementKey.channel`.

    `associated` must name network, round, kind, dealer and holder. It enters the key together with both
    public keys in the order sender, recipient, so every (pair, direction, kind) of a round has a key of its
    own. Only because each such key encrypts one message ever (the key pairs live for one round) is the zero
    nonce sound: never seal two plaintexts under the same keys and `associated`.
    """

    shared: bytes = attrs.field(repr=False)
    own_public: bytes
    peer_public: bytes

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """ChaCha20-Poly1305 box of `plaintext`, 16 bytes longer, that only the other side opens."""
        key = derive(self.shared, b"seal", self.own_public, self.peer_public, associated)
        return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plaintext, associated)

    def open(self, box: bytes, associated: bytes) -> bytes:
        """The plaintext of a box the other side sealed to this one with `associated`. SealError otherwise."""
        key = derive(self.shared, b"seal", self.peer_public, self.own_public, associated)
        try:
            return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, box, associated)
        except InvalidTag as error:
            raise SealError("the box is not from this sender, to this recipient, with these data") from error


_PROBE = X25519PrivateKey.from_private_bytes(bytes(31) + b"\x40")


def has_low_order(public: bytes) -> bool:
    """Does every agreement with this 32-byte X25519 key yield the all-zero secret (RFC 7748 section 6.1)?"""
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return True
    return False


def agreement_public(secret: bytes) -> bytes:
    """The 32-byte X25519 public key of a 32-byte secret. AgreementError on a bad length."""
    return AgreementKey(secret).public


def agree(secret: bytes, public: bytes) -> bytes:
    """The 32-byte X25519 shared secret; errors as in `AgreementKey.agree`."""
    return AgreementKey(secret).agree(public)


def seal(sender_secret: bytes, recipient_public: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """One box of `Channel.seal`, under its rules. AgreementError on a bad key."""
    return AgreementKey(sender_secret).channel(recipient_public).seal(plaintext, associated)


def open_sealed(recipient_secret: bytes, sender_public: bytes, box: bytes, associated: bytes) -> bytes:
    """`AgreementKey.open` with a key that is loaded for this box alone. AgreementError on a bad length."""
    return AgreementKey(recipient_secret).open(sender_public, box, associated)


CURVE25519_P = 2**255 - 19
PROOF_BYTES = 96


def agreement_secret(seed: bytes) -> bytes:
    """The X25519 secret that goes with the Ed25519 key of the same 32-byte seed: both have one scalar.

    RFC 8032 section 5.1.5 hashes the seed; RFC 7748 section 5 clamps the scalar the same way.
    """
    return hashlib.sha512(seed).digest()[:32]


def prove_possession(seed: bytes, message: bytes) -> bytes:
    """Proof that the signer of `message` holds `agreement_secret(seed)`: Ed25519 key, signature; 96 bytes.

    X25519 keys cannot sign, so a copied one would be as good as an own one; this is its Edwards twin.
    """
    identity = Identity(seed)
    return identity.peer + identity.sign(message)


def possession_holds(public: bytes, proof: bytes, message: bytes) -> bool:
    """Is the proof by the Edwards twin of this X25519 public key, over this message?"""
    if len(proof) != PROOF_BYTES:
        return False
    twin, signature = proof[:32], proof[32:]
    return _montgomery(twin) == public and verify(twin, message, signature)


def _montgomery(twin: bytes) -> bytes:
    """u = (1 + y) / (1 - y), RFC 7748 section 4.1; y = 1 has no image and gives zeros."""
    y = int.from_bytes(twin, "little") & (2**255 - 1)
    denominator = (1 - y) % CURVE25519_P
    u = (1 + y) * pow(denominator, -1, CURVE25519_P) % CURVE25519_P if denominator else 0
    return u.to_bytes(32, "little")


def derive(secret: bytes, *labels: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869) of `secret`, no salt; info = every label after its 8-byte length.

    For 32 bytes that is two HMACs.
    """
    info = b"".join([len(label).to_bytes(8, "big") + label for label in labels])
    extracting = _EXTRACT.copy()
    extracting.update(secret)
    return hmac.digest(extracting.digest(), info + b"\x01", "sha256")


_EXTRACT = hmac.new(bytes(32), digestmod="sha256")
"""HKDF's first step, before its secret: "no salt" is a key of zeros, prepared once."""
