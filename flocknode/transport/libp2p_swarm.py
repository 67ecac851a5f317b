"""The libp2p host of a node, built from its parts so that each known way to lose it is closed.

`libp2p.new_host` brings a resource manager, address discovery, TLS and plaintext, and listeners this node
must not have. What is built here: TCP on a socket the node itself owns, Noise for members, Yamux.
"""

import logging
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.abc import IListener
from libp2p.host.basic_host import BasicHost
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from flocknode.transport.base import Counters, Endpoint
from flocknode.transport.libp2p_admission import AdmissionRefusedError, MembersOnlyNoise, key_pair, libp2p_id
from flocknode.transport.listening import endpoint_of
from protocol.keys import Identity

_log = logging.getLogger(__name__)

UPGRADE_TIMEOUT_S = 5
MAX_HANDSHAKES = 256
"""Inbound connections that have not proved to be a member's. More would cost the process its descriptors."""
_ACCEPT_RETRY_S = 0.1
_UNLIMITED = 10**6
_FAMILIES = {"dns4": socket.AF_INET, "dns6": socket.AF_INET6}


class BoundListener(IListener):  # type: ignore[misc]
    """Accepts on a listening socket that outlives it.

    libp2p's own listener binds with SO_REUSEPORT, so that a second node on the same port would start and
    silently take half of the connections, and dies of any unusual accept() error. The socket here is bound
    once, without it, before libp2p is involved, and every restart accepts on a duplicate: the port is never
    given up.
    """

    background_nursery: trio.Nursery

    def __init__(self, bound: socket.socket, handler: Callable[[Any], Awaitable[None]]) -> None:
        self._bound, self._handler = bound, handler
        self._listener: trio.SocketListener | None = None

    async def listen(self, maddr: Any) -> None:
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._bound.dup()))
        self.background_nursery.start_soon(self._accept_all, self._listener)

    async def _accept_all(self, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as connections, listener:
            while True:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    return
                except OSError:  # out of file descriptors, or the network hiccuped
                    _log.warning("accept failed", exc_info=True)
                    await trio.sleep(_ACCEPT_RETRY_S)
                else:
                    connections.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await self._handler(TrioTCPStream(stream))
        except Exception:
            _log.debug("inbound connection failed", exc_info=True)
        finally:
            await trio.aclose_forcefully(stream)

    def get_addrs(self) -> tuple[Any, ...]:
        return (Multiaddr(str(endpoint_of(self._bound))),) if self._listener is not None else ()

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.aclose()
            self._listener = None


class BoundTCP(TCP):  # type: ignore[misc]
    """TCP that listens on one given socket."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__()
        self._bound = bound

    def create_listener(self, handler_function: Any) -> BoundListener:
        return BoundListener(self._bound, handler_function)


class _NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Dials nobody: libp2p's would aim at half a million connections to whatever it has heard of."""

    async def maybe_connect(self) -> None: ...


class MemberSwarm(Swarm):  # type: ignore[misc]
    """A swarm whose inbound slots come back."""

    def __init__(self, counters: Counters, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._counters = counters
        self._upgrading = 0
        self.unfinished: set[Any] = set()
        """Peers that were reached when they were dialled last, and whose handshake has not ended well."""
        self.auto_connector = _NoAutoConnector(self)

    async def upgrade_outbound_raw_conn(self, raw_conn: Any, peer_id: Any, pre_scope: Any = None) -> Any:
        """Upgrade, and remember a peer that was reached and ended the connection before that was done."""
        self.unfinished.add(peer_id)
        try:
            connection = await super().upgrade_outbound_raw_conn(raw_conn, peer_id, pre_scope)
        except Exception as error:
            if isinstance(_root_cause(error), AdmissionRefusedError):
                self.unfinished.discard(peer_id)  # it is this node that refuses
            raise
        self.unfinished.discard(peer_id)
        return connection

    async def upgrade_inbound_raw_conn(self, raw_conn: Any, maddr: Any) -> Any:
        """Upgrade, then stay until the connection is over.

        The caller holds an inbound slot and a task until the whole swarm ends; an exception is what releases
        them.
        """
        if self._upgrading >= MAX_HANDSHAKES:
            self._counters.reject("busy")
            raise SwarmException("too many handshakes at once")
        self._upgrading += 1
        try:
            connection = await super().upgrade_inbound_raw_conn(raw_conn, maddr)
        except Exception as error:
            if not isinstance(_root_cause(error), AdmissionRefusedError):
                self._counters.reject("handshake")
            raise
        finally:
            self._upgrading -= 1
        await connection.event_closed.wait()
        raise SwarmException("the inbound connection has ended")


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


async def resolved(endpoint: Endpoint) -> Endpoint:
    """An endpoint by IP address, as the system resolves names; libp2p would ask name servers only.

    Raises OSError for an unknown name. One of several addresses is drawn, so that a retry may try another.
    """
    if endpoint.family in ("ip4", "ip6"):
        return endpoint
    wanted = _FAMILIES.get(endpoint.family, socket.AF_UNSPEC)
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, wanted, socket.SOCK_STREAM)
    family, *_, address = random.choice(found)
    return Endpoint("ip6" if family == socket.AF_INET6 else "ip4", str(address[0]), endpoint.port)


def build_host(
    identity: Identity, noise: MembersOnlyNoise, bound: socket.socket, psk: bytes | None, counters: Counters
) -> Any:
    """A BasicHost that speaks no protocol yet, over Yamux, Noise and TCP on `bound`."""
    swarm = MemberSwarm(
        counters,
        libp2p_id(identity.peer),
        PeerStore(),
        TransportUpgrader({NOISE_PROTOCOL: noise}, {YAMUX_PROTOCOL: Yamux}, UPGRADE_TIMEOUT_S),
        transports=[BoundTCP(bound)],
        retry_config=RetryConfig(max_retries=0),  # the node has its own back-off
        connection_config=ConnectionConfig(
            max_connections=_UNLIMITED,  # the default admits 250 inbound connections
            high_watermark=_UNLIMITED,
            min_connections=0,
            low_watermark=0,
            inbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
            outbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
        ),
        psk=psk.hex() if psk is not None else None,
    )
    swarm.peerstore.add_key_pair(swarm.get_peer_id(), key_pair(identity))
    notifees = list(swarm.notifees)
    host = BasicHost(swarm, negotiate_timeout=UPGRADE_TIMEOUT_S, disable_identify_address_discovery=True)
    # Identify would open two streams per connection, from system tasks whose failure ends the whole trio run.
    # Members are known already, so it is not spoken, nor ping.
    swarm.notifees[:] = notifees
    for protocol in host.get_mux().get_protocols():
        host.remove_stream_handler(protocol)
    return host


async def open_stream(connection: Any, protocol: str) -> Any:
    """A stream for `protocol` on this very connection; `host.new_stream` would choose or dial one.

    What it raises, time-outs included, leaves the connection to be closed.
    """
    with trio.fail_after(UPGRADE_TIMEOUT_S):
        stream = await connection.new_stream()
        communicator = MultiselectCommunicator(stream)
        await MultiselectClient().select_one_of([protocol], communicator, UPGRADE_TIMEOUT_S)
    stream.set_protocol(protocol)
    return stream


def grace(seconds: float) -> trio.CancelScope:
    """A scope for cleaning up: not cancelled from outside, and not for ever."""
    return trio.CancelScope(deadline=trio.current_time() + seconds, shield=True)
