"""How simulated nodes sign: the same signatures, made by libsodium in two thirds of the time.

Ed25519 is deterministic (RFC 8032), so no run can tell. Real nodes sign with the library that they verify
with.
"""

from __future__ import annotations

from attrs import field, frozen
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from protocol.keys import SIGNATURE_BYTES, Identity


@frozen
class SwiftIdentity(Identity):
    """An `Identity` that signs with libsodium."""

    _expanded: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        object.__setattr__(self, "_expanded", crypto_sign_seed_keypair(self.private)[1])

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return crypto_sign(message, self._expanded)[:SIGNATURE_BYTES]
