"""Who may connect: members only, by the peer id their Noise handshake proves (docs/PROTOCOL.md section 8).

libp2p's own connection gate filters IP addresses. Here the check is the last step of the handshake itself, so
a stranger is turned away before any multiplexer or stream exists.
"""

import time
from collections.abc import Sequence
from typing import Any

from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import Transport as NoiseTransport

from flocknode.transport.base import Counters, Member
from protocol.keys import KEY_BYTES, Identity, PeerId, short_name

# A libp2p peer id of an Ed25519 key: identity multihash (0x00) of 36 bytes (0x24), a protobuf PublicKey
# holding key type Ed25519 (08 01) and the 32 bytes of the key (12 20).
_PEER_ID_PREFIX = bytes.fromhex("002408011220")
_READ_AHEAD_BYTES = 2**17


def libp2p_id(peer: PeerId) -> Any:
    """The libp2p ID of a peer."""
    return ID(_PEER_ID_PREFIX + peer)


def peer_of(peer_id: Any) -> PeerId | None:
    """The peer behind a libp2p ID, or None when its key is not Ed25519."""
    raw: bytes = peer_id.to_bytes()
    if len(raw) != len(_PEER_ID_PREFIX) + KEY_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        return None
    return raw[len(_PEER_ID_PREFIX) :]


def key_pair(identity: Identity) -> Any:
    """The identity as libp2p holds it."""
    private = Ed25519PrivateKey.from_bytes(identity.private)
    return KeyPair(private, private.get_public_key())


class AdmissionRefusedError(HandshakeFailure):  # type: ignore[misc]
    """The handshake proved a peer that may not connect."""


class Roster:
    """The members and who of them is refused for a while."""

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._members: dict[PeerId, Member] = {}
        self._refused_until_s: dict[PeerId, float] = {}

    def replace(self, members: Sequence[Member]) -> None:
        self._members = {member.peer: member for member in members if member.peer != self._own}

    def get(self, peer: PeerId) -> Member | None:
        return self._members.get(peer)

    def peers(self) -> list[PeerId]:
        """The other members, sorted."""
        return sorted(self._members)

    def refuse(self, peer: PeerId, seconds: float) -> None:
        self._refused_until_s[peer] = time.monotonic() + seconds

    def refused_for_s(self, peer: PeerId) -> float:
        """Seconds until a penalised peer is welcome again, 0 when it is."""
        until = self._refused_until_s.get(peer)
        if until is None:
            return 0.0
        left = until - time.monotonic()
        if left <= 0:
            del self._refused_until_s[peer]
            return 0.0
        return left

    def refusal(self, peer: PeerId | None) -> str | None:
        """Why a peer may not connect now, or None when it may."""
        if peer is None or peer not in self._members:
            return "stranger"
        return "penalised" if self.refused_for_s(peer) > 0 else None


class ReadAhead:
    """A raw connection that reads ahead.

    libp2p reads a Noise packet in two system calls, its length and its body, and trio yields to every other
    task at each; one large read serves many packets.
    """

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._data, self._used = b"", 0

    async def read(self, n: int | None = None) -> bytes:
        if self._used == len(self._data):
            self._data, self._used = await self._conn.read(_READ_AHEAD_BYTES), 0
        start = self._used
        self._used = len(self._data) if n is None else min(start + n, len(self._data))
        return self._data[start : self._used]

    async def write(self, data: bytes) -> None:
        await self._conn.write(data)

    async def close(self) -> None:
        await self._conn.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


class MembersOnlyNoise(NoiseTransport):  # type: ignore[misc]
    """Noise (XX) that ends in a membership check, in both directions."""

    def __init__(self, identity: Identity, roster: Roster, counters: Counters) -> None:
        super().__init__(key_pair(identity), new_noise_key_pair().private_key)
        self._roster, self._counters = roster, counters

    async def secure_inbound(self, conn: Any) -> Any:
        return await self._admit(await super().secure_inbound(ReadAhead(conn)))

    async def secure_outbound(self, conn: Any, peer_id: Any) -> Any:
        return await self._admit(await super().secure_outbound(ReadAhead(conn), peer_id))

    async def _admit(self, session: Any) -> Any:
        peer = peer_of(session.get_remote_peer())
        refusal = self._roster.refusal(peer)
        if refusal is None:
            return session
        self._counters.reject(refusal)
        await session.close()
        name = short_name(peer) if peer is not None else session.get_remote_peer().to_base58()
        raise AdmissionRefusedError(f"peer {name} refused: {refusal}")
