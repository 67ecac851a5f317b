"""What a node may ask of its network, whatever carries it (docs/PROTOCOL.md sections 1 and 7).

Everything here is asyncio and knows no library. A transport keeps one link per member, carries messages in
order and without loss while that link lasts, and fetches chunks of blobs beside them. A message is lost only
with its link; the anti-entropy of section 7 repairs that, so no transport retries or acknowledges anything.
"""

import asyncio
import ipaddress
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
from attrs import define, field, frozen

from flocknode.transport.standing import Level, Standing, Standings
from protocol.keys import KEY_BYTES, PeerId, short_name

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 2**20 + 2**16
"""The longest message: 1 MiB of body and room for its envelope."""
MAX_CHUNK_BYTES = 2**20 + 2**16
"""The longest encoded chunk: 1 MiB of data (section 7) and room for its Merkle proof."""
DIGEST_BYTES = 32
INDEX_BYTES = 4
DEFAULT_OUTBOX_BYTES = 16 * 2**20
"""What may wait for one peer before that peer counts as too slow and loses its link."""
MAX_ADDRESS_CHARACTERS = 256
_MAX_REJECT_REASONS = 64


class TransportError(Exception):
    """Whatever a transport refuses or fails to do."""


class NotRunningError(TransportError):
    """The transport has not been started, or was stopped."""


class InvalidAddressError(TransportError):
    """An address cannot be listened on or dialled; names the address and the reason."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"address {address!r}: {reason}")
        self.address, self.reason = address, reason


class AddressInUseError(TransportError):
    """Another process listens on the port; names the address."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is in use: another process already listens on this port")
        self.address = address


class InvalidPreSharedKeyError(TransportError):
    """A pre-shared key has the wrong length, or is given for a carrier that would ignore it."""


class MessageTooLargeError(TransportError):
    """A message is longer than `MAX_MESSAGE_BYTES`; names both lengths."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a message of {size} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
        self.size = size


class UnreachableError(TransportError):
    """The peer is unknown or has no link; names it."""

    def __init__(self, peer: PeerId) -> None:
        super().__init__(f"peer {short_name(peer)} is not connected")
        self.peer = peer


class FetchFailedError(TransportError):
    """A chunk did not arrive: the link was lost, time ran out, or the reply was malformed."""

    def __init__(self, peer: PeerId, digest: bytes, index: int, reason: str) -> None:
        super().__init__(f"chunk {index} of {digest.hex()[:12]} from peer {short_name(peer)}: {reason}")
        self.peer, self.digest, self.index, self.reason = peer, digest, index, reason


def check_size(message: bytes) -> None:
    """Raise MessageTooLargeError for a message nobody would accept."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise MessageTooLargeError(len(message))


def check_chunk(digest: bytes, index: int) -> None:
    """Raise ValueError for a chunk that cannot be asked for."""
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"the digest of a blob is {DIGEST_BYTES} bytes, got {len(digest)}")
    if not 0 <= index < 2 ** (8 * INDEX_BYTES):
        raise ValueError(f"the index of a chunk is in [0, 2^{8 * INDEX_BYTES}), got {index}")


def _is_peer(_: object, attribute: "attrs.Attribute[bytes]", value: bytes) -> None:
    if type(value) is not bytes or len(value) != KEY_BYTES:
        raise ValueError(f"{attribute.name} must be {KEY_BYTES} bytes")


def _is_address(_: object, attribute: "attrs.Attribute[str]", value: str) -> None:
    if type(value) is not str or not 0 < len(value) <= MAX_ADDRESS_CHARACTERS:
        raise ValueError(f"{attribute.name} must be 1 to {MAX_ADDRESS_CHARACTERS} characters")


@frozen
class Member:
    """A peer of the network and where it listens, as a multiaddr such as `/ip4/127.0.0.1/tcp/4001`.

    The address is the peer's own claim: it is checked when it is dialled, not here.
    """

    peer: PeerId = field(validator=_is_peer, repr=short_name)
    address: str = field(validator=_is_address)


@frozen
class Endpoint:
    """A TCP address taken apart; `family` is `ip4`, `ip6`, `dns`, `dns4` or `dns6`."""

    family: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"/{self.family}/{self.host}/tcp/{self.port}"


def parse_address(address: str) -> Endpoint:
    """The endpoint of a multiaddr `/<ip4|ip6|dns|dns4|dns6>/<host>/tcp/<port>`.

    Raises InvalidAddressError for any other carrier: the member check lives in the Noise handshake over TCP,
    which QUIC replaces by TLS.
    """
    parts = address.split("/")
    if len(parts) > 3 and parts[3] == "udp":
        raise InvalidAddressError(address, "only TCP is carried: QUIC would bypass the member check")
    if len(parts) != 5 or parts[0] or parts[3] != "tcp":
        raise InvalidAddressError(address, "expected /<ip4|ip6|dns>/<host>/tcp/<port>")
    family, host, port = parts[1], parts[2], parts[4]
    if family in ("ip4", "ip6"):
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            raise InvalidAddressError(address, f"{host!r} is not an IP address") from None
        if version != int(family[2]):
            raise InvalidAddressError(address, f"{host!r} is not an {family} address")
    elif family not in ("dns", "dns4", "dns6") or not host:
        raise InvalidAddressError(address, f"unknown address family {family!r}")
    if not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InvalidAddressError(address, f"{port!r} is not a TCP port")
    return Endpoint(family, host, int(port))


class Handler(Protocol):
    """Who a transport serves. All calls come from the event loop; an exception is logged and counted.

    Per peer, `peer_up` precedes every message of a link and `peer_down` follows them all.
    """

    def received(self, peer: PeerId, message: bytes) -> None:
        """A message of at most `MAX_MESSAGE_BYTES` from `peer`, whose identity the transport has verified."""

    def peer_up(self, peer: PeerId) -> None:
        """A link to `peer` can be used."""

    def peer_down(self, peer: PeerId) -> None:
        """The link to `peer` is gone, and with it whatever was on its way."""

    def standing_changed(self, peer: PeerId, standing: Standing) -> None:
        """A peer is throttled from now on, or refused, or in good standing again."""

    async def read_blob(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        """The encoded chunk `index` of the blob `digest` for `peer`, or None when it is not held."""


@frozen
class PeerTraffic:
    """What went over the links of one peer. Bytes are payload: framing and encryption are not counted."""

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    chunks_in: int = 0
    chunks_out: int = 0


@frozen
class Dial:
    """How dialling a peer went last, and how often in a row it has failed.

    `is_refused`: the peer was reached, and ended the connection before it could be used; else it was not
    reached. Where nothing failed, the peer was not dialled yet or the last attempt succeeded.
    """

    failures: int = 0
    is_refused: bool = False

    @property
    def words(self) -> str:
        """The outcome in words."""
        if not self.failures:
            return "not dialled"
        return "ends the connection" if self.is_refused else "not reached"


@frozen
class TransportStats:
    """Counters since construction: traffic per peer, refusals per reason, restarts of the network layer.

    `standings` and `dials` are those of the moment.
    """

    peers: Mapping[PeerId, PeerTraffic]
    rejects: Mapping[str, int]
    restarts: int
    standings: Mapping[PeerId, Standing]
    dials: Mapping[PeerId, Dial] = field(factory=dict)


@define
class _Tally:
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    chunks_in: int = 0
    chunks_out: int = 0


@define
class Counters:
    """The mutable side of `TransportStats`."""

    restarts: int = 0
    _tallies: dict[PeerId, _Tally] = field(factory=dict)
    _rejects: Counter[str] = field(factory=Counter)
    dials: dict[PeerId, Dial] = field(factory=dict)

    def dialled(self, peer: PeerId, *, is_refused: bool | None) -> None:
        """Note how an attempt to reach a peer ended: None for a link that carries messages."""
        if is_refused is None:
            self.dials.pop(peer, None)
        else:
            self.dials[peer] = Dial(self.dials.get(peer, Dial()).failures + 1, is_refused)

    def of(self, peer: PeerId) -> _Tally:
        tally = self._tallies.get(peer)
        if tally is None:
            tally = self._tallies[peer] = _Tally()
        return tally

    def message_in(self, peer: PeerId, size: int) -> None:
        tally = self.of(peer)
        tally.messages_in += 1
        tally.bytes_in += size

    def message_out(self, peer: PeerId, size: int) -> None:
        tally = self.of(peer)
        tally.messages_out += 1
        tally.bytes_out += size

    def chunk_in(self, peer: PeerId, size: int) -> None:
        tally = self.of(peer)
        tally.chunks_in += 1
        tally.bytes_in += size

    def chunk_out(self, peer: PeerId, size: int) -> None:
        tally = self.of(peer)
        tally.chunks_out += 1
        tally.bytes_out += size

    def reject(self, reason: str) -> None:
        """Count a refusal. Reasons may come from outside, so their number is bounded."""
        known = reason in self._rejects or len(self._rejects) < _MAX_REJECT_REASONS
        self._rejects[reason if known else "other"] += 1

    def snapshot(self, standings: Standings) -> TransportStats:
        peers = {peer: PeerTraffic(**attrs.asdict(tally)) for peer, tally in self._tallies.items()}
        now = standings.all(time.monotonic())
        return TransportStats(peers, dict(self._rejects), self.restarts, now, dict(self.dials))


class Dispatcher:
    """Hands events to the handler in order, from the event loop and never from inside a call of the node.

    So `send` cannot re-enter the engine with the `peer_down` it causes, and what the handler raises stays
    here. A message of a peer that has used up what its standing allows goes no further than this.
    """

    def __init__(
        self,
        handler: Handler,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        standings: Standings,
        refuse: Callable[[PeerId, float], None],
    ) -> None:
        """`refuse(peer, seconds)` ends the link to a peer and lets it make none for so long."""
        self._handler, self._counters, self._loop = handler, counters, loop
        self._standings, self._refuse = standings, refuse
        self._levels: dict[PeerId, Level] = {}
        self._open = True

    def close(self) -> None:
        """Nothing is handed over from here on, not even what is already queued."""
        self._open = False

    def received(self, peer: PeerId, message: bytes) -> None:
        self._counters.message_in(peer, len(message))
        now_s = time.monotonic()
        if self._standings.admits(peer, message, now_s):
            self._loop.call_soon(self._call, self._handler.received, peer, message)
        else:
            self._counters.reject("throttled")
        self._follow(peer, now_s)

    def offended(self, peer: PeerId, reason: str) -> Standing:
        """The peer did what lowers its standing; how it stands now."""
        now_s = time.monotonic()
        self._standings.offend(peer, reason, now_s)
        return self._follow(peer, now_s)

    def _follow(self, peer: PeerId, now_s: float) -> Standing:
        """Act on a change of level, and tell the handler."""
        standing = self._standings.standing(peer, now_s)
        if standing.level is not self._levels.get(peer, Level.GOOD):
            self._levels[peer] = standing.level
            self._loop.call_soon(self._call, self._handler.standing_changed, peer, standing)
            if standing.level is Level.REFUSED:
                self._refuse(peer, self._standings.refused_for_s(peer, now_s))
        return standing

    def peer_up(self, peer: PeerId) -> None:
        self._loop.call_soon(self._call, self._handler.peer_up, peer)

    def peer_down(self, peer: PeerId) -> None:
        self._loop.call_soon(self._call, self._handler.peer_down, peer)

    async def read_blob(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        """What the handler holds, None too when it fails or returns more than `MAX_CHUNK_BYTES`."""
        try:
            chunk = await self._handler.read_blob(peer, digest, index)
            if chunk is not None and len(chunk) > MAX_CHUNK_BYTES:
                raise ValueError(f"a chunk of {len(chunk)} bytes exceeds the limit of {MAX_CHUNK_BYTES}")
        except Exception:
            self._counters.reject("handler-error")
            _log.exception("chunk %d of %s could not be served", index, digest.hex()[:12])
            return None
        return chunk

    def _call(self, function: Callable[..., None], peer: PeerId, *arguments: object) -> None:
        """Call the handler. A failure over a message costs its sender; any other is nobody's fault."""
        if not self._open:
            return
        try:
            function(peer, *arguments)
        except Exception:
            _log.exception("the handler failed on %s", function.__name__)
            if function == self._handler.received:
                self._counters.reject("fault")
                self.offended(peer, "fault")
            else:
                self._counters.reject("handler-error")


class Transport(ABC):
    """A node's network: one link per member, chunk transfer beside it.

    It starts and stops once. All methods are called on the event loop's thread.
    """

    @property
    @abstractmethod
    def peer(self) -> PeerId:
        """Who this node is."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where this node listens, with the port in use; NotRunningError before `start`."""

    @abstractmethod
    async def start(self, handler: Handler) -> None:
        """Listen and begin to dial the members.

        Raises AddressInUseError, InvalidAddressError or TransportError when it cannot listen.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Close every link and the port. No handler call comes after this returns. Harmless when repeated."""

    @abstractmethod
    def set_members(self, members: Sequence[Member]) -> None:
        """The peers to be linked to, from now on: connects the new ones, disconnects whoever is not listed.

        The node itself may be listed. An address that cannot be dialled is counted and left to dial us.
        """

    @abstractmethod
    def send(self, peer: PeerId, message: bytes) -> bool:
        """Queue a message. False when the peer has no link or its outbox overflowed (which ends the link).

        Raises MessageTooLargeError.
        """

    @abstractmethod
    def broadcast(self, message: bytes) -> int:
        """Queue a message for every connected member and return how many those are.

        Raises MessageTooLargeError.
        """

    @abstractmethod
    async def fetch_chunk(self, peer: PeerId, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        """The encoded chunk `index` of the blob `digest` as `peer` serves it, unverified; None if it is not
        held.

        Raises UnreachableError, FetchFailedError when the link is lost or time runs out, and ValueError for a
        digest or an index of the wrong size.
        """

    @abstractmethod
    def connected(self) -> frozenset[PeerId]:
        """The members with a link."""

    @abstractmethod
    def penalise(self, peer: PeerId, why: str) -> Standing:
        """Hold an offence against a peer, and count it under `why`; how the peer stands now.

        By its score it is throttled, or disconnected and refused for a while (`standing`).
        """

    @abstractmethod
    def stats(self) -> TransportStats:
        """The counters so far."""
