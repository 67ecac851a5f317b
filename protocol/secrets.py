"""What one node keeps to itself for one round, all of it from one seed (docs/PROTOCOL.md section 3).

In a network without a dealer the seed is the node's own randomness. The trusted dealer of VCD-FL is
the other choice: before the first round it hands each client a `DealerPackage` and is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from attrs import field, frozen

from protocol.codec import bytes_of, digest
from protocol.keys import Agreed, AgreementKey, agreement_secret, derive, prove_possession

SECRET_BYTES = 32


def round_bytes(round_: int) -> bytes:
    """A round number as it enters hashes and associated data: 8 bytes, big endian."""
    return round_.to_bytes(8, "big")


_secret = bytes_of(SECRET_BYTES)


@frozen
class RoundSecrets:
    """The secrets of one node in one round, 32 bytes each. The text form shows none.

    `mask_secret` and `seal_secret` are X25519 keys, `self_seed` is b_i, `check_seed` rho_i and `z` z_i
    of docs/PROTOCOL.md section 3; the others never leave the node. `agreed` is where its keys remember what
    they agreed on; None: each for itself.
    """

    mask_secret: bytes = field(repr=False, validator=_secret)
    self_seed: bytes = field(repr=False, validator=_secret)
    check_seed: bytes = field(repr=False, validator=_secret)
    z: bytes = field(repr=False, validator=_secret)
    rounding_seed: bytes = field(repr=False, validator=_secret)
    commitment_seed: bytes = field(repr=False, validator=_secret)
    challenge_seed: bytes = field(repr=False, validator=_secret)
    vote_salt: bytes = field(repr=False, validator=_secret)
    training_seed: bytes = field(repr=False, validator=_secret)
    seal_secret: bytes = field(repr=False, validator=_secret)
    agreed: Agreed | None = field(default=None, init=False, repr=False, eq=False)

    @staticmethod
    def derive(round_seed: bytes, network: bytes, round_: int, agreed: Agreed | None = None) -> RoundSecrets:
        """All secrets of the round from `round_seed` (32 bytes), each under its own label."""

        def secret(name: str) -> bytes:
            return _round_secret(round_seed, network, round_, name)

        secrets = RoundSecrets(
            mask_secret=agreement_secret(secret("mask")),
            self_seed=secret("self"),
            check_seed=secret("check"),
            z=secret("z"),
            rounding_seed=secret("rounding"),
            commitment_seed=secret("commitment"),
            challenge_seed=secret("challenge"),
            vote_salt=secret("vote salt"),
            training_seed=secret("training"),
            seal_secret=agreement_secret(secret("seal")),
        )
        object.__setattr__(secrets, "agreed", agreed)
        return secrets

    @cached_property
    def mask_key(self) -> AgreementKey:
        """The key pair that agrees on pairwise masks, loaded once."""
        return self._key(self.mask_secret)

    @cached_property
    def seal_key(self) -> AgreementKey:
        """The key pair that shares are sealed with, loaded once."""
        return self._key(self.seal_secret)

    def _key(self, secret: bytes) -> AgreementKey:
        return AgreementKey(secret) if self.agreed is None else AgreementKey(secret, self.agreed)

    @property
    def mask_public(self) -> bytes:
        """X25519 public key of `mask_secret`, for the key advert."""
        return self.mask_key.public

    @property
    def seal_public(self) -> bytes:
        """X25519 public key of `seal_secret`, for the key advert."""
        return self.seal_key.public


def _round_secret(round_seed: bytes, network: bytes, round_: int, name: str) -> bytes:
    return derive(round_seed, b"round secret", network, round_bytes(round_), name.encode())


def possession_message(network: bytes, round_: int, peer: bytes, name: str) -> bytes:
    """What proves that the key called "mask" or "seal" is this peer's in this round, once it is signed."""
    return digest("possession", network, round_bytes(round_), peer, name.encode())


def possession_proofs(round_seed: bytes, network: bytes, round_: int, peer: bytes) -> tuple[bytes, bytes]:
    """The proofs for the mask key and the seal key of a key advert, 96 bytes each."""
    mask, seal = (
        prove_possession(
            _round_secret(round_seed, network, round_, name), possession_message(network, round_, peer, name)
        )
        for name in ("mask", "seal")
    )
    return mask, seal


def secret_hash(label: str, network: bytes, round_: int, peer: bytes, secret: bytes) -> bytes:
    """What a share bundle pins of a secret: H(b_i), H(rho_i) and H(z_i), bound to peer and round.

    Labels: "self", "check", "z". The binding keeps one peer's pinned hash from serving as another's.
    """
    return digest("secret", label.encode(), network, round_bytes(round_), peer, secret)


def joint_z_root(network: bytes, round_: int, zs: Sequence[bytes]) -> bytes:
    """H(z_1..z_n), the seed of the hidden points, from the z_i of U1 in index order; 32 bytes."""
    return digest("z root", network, round_bytes(round_), *zs)


def z_root_hash(network: bytes, round_: int, z_root: bytes) -> bytes:
    """H(z), which every contribution pins: that its proposer used the same hidden points as the others."""
    return digest("hash of z", network, round_bytes(round_), z_root)


# -- trusted dealer ------------------------------------------------------------------------------


@frozen
class DealerPackage:
    """What the trusted dealer gives one client: a key of its own, and a key that all clients share."""

    stream_key: bytes = field(repr=False, validator=_secret)
    client_key: bytes = field(repr=False, validator=_secret)


def issue_packages(master: bytes, peers: Iterable[bytes]) -> dict[bytes, DealerPackage]:
    """The packages of all clients from the dealer's 32-byte `master`, which is to be forgotten afterwards."""
    client_key = derive(master, b"dealer clients")
    return {peer: DealerPackage(derive(master, b"dealer stream", peer), client_key) for peer in sorted(peers)}


def dealt_round_seed(package: DealerPackage, network: bytes, round_: int) -> bytes:
    """The seed for `RoundSecrets.derive` that the dealer chose for this client and round."""
    return derive(package.stream_key, b"dealt round", network, round_bytes(round_))


def dealt_z_root(package: DealerPackage, network: bytes, round_: int) -> bytes:
    """The dealer's Z: the seed of the hidden points, the same for all clients (VCD-FL, initialisation)."""
    return derive(package.client_key, b"dealt z", network, round_bytes(round_))


def dealt_u_seed(package: DealerPackage, network: bytes) -> bytes:
    """The dealer's U: the seed of the singular matrices, the same for all clients and rounds."""
    return derive(package.client_key, b"dealt u", network)
