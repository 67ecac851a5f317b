"""The network of a node: libp2p, Noise and Yamux over TCP, members only (docs/PROTOCOL.md sections 1 and 8).

This is asyncio. py-libp2p runs on trio; the modules `libp2p_*`, imported when a transport starts, are the
only ones that know. A message goes straight to every member over one persistent stream each ("push");
"gossipsub" is the second way to broadcast, for networks of more than about a hundred nodes. Whatever is lost
with a link is repaired above.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flocknode.transport.base import (
    Counters,
    Dispatcher,
    FetchFailedError,
    Handler,
    InvalidAddressError,
    InvalidPreSharedKeyError,
    Member,
    NotRunningError,
    Transport,
    TransportError,
    TransportStats,
    UnreachableError,
    check_chunk,
    check_size,
    parse_address,
)
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.transport.listening import bind, endpoint_of
from flocknode.transport.standing import Standing, Standings
from protocol.keys import Identity, PeerId

if TYPE_CHECKING:
    from flocknode.transport.libp2p_admission import Roster
    from flocknode.transport.libp2p_host import Host

PSK_BYTES = 32
_START_TIMEOUT_S = 20.0
_FLUSH_STEPS = 50
_FLUSH_STEP_S = 0.01


class Libp2pTransport(Transport):
    """A node's links to the members of its network.

    `listen` is `/ip4/<host>/tcp/<port>` or `/ip6/...`; port 0 takes a free one, which `address` then tells.
    `psk` is an optional 32-byte pre-shared key without which nobody gets as far as the handshake.
    """

    def __init__(
        self,
        identity: Identity,
        listen: str,
        *,
        psk: bytes | None = None,
        options: Libp2pOptions | None = None,
    ) -> None:
        """Raises InvalidAddressError, or InvalidPreSharedKeyError (wrong length, or together with QUIC)."""
        if psk is not None and "/quic" in listen:
            raise InvalidPreSharedKeyError(f"{listen}: QUIC ignores a pre-shared key; use TCP")
        if psk is not None and len(psk) != PSK_BYTES:
            raise InvalidPreSharedKeyError(f"a pre-shared key is {PSK_BYTES} bytes, got {len(psk)}")
        self._listen = parse_address(listen)
        if self._listen.family not in ("ip4", "ip6"):
            raise InvalidAddressError(listen, "a node listens on an IP address")
        self._identity, self._psk = identity, psk
        self._options = options or Libp2pOptions()
        self._counters = Counters()
        self._standings = Standings(self._options.standing)
        self._members: Sequence[Member] = ()
        self._bound: socket.socket | None = None
        self._roster: Roster | None = None
        self._host: Host | None = None
        self._dispatcher: Dispatcher | None = None
        self._stopped = False

    @property
    def peer(self) -> PeerId:
        return self._identity.peer

    @property
    def address(self) -> str:
        if self._bound is None:
            raise NotRunningError("the transport does not listen yet")
        return str(endpoint_of(self._bound))

    async def start(self, handler: Handler) -> None:
        if self._bound is not None or self._stopped:
            raise TransportError("a transport starts once")
        self._bound = bind(self._listen)
        try:
            await self._start(handler)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, handler: Handler) -> None:
        from flocknode.transport.libp2p_quiet import import_libp2p

        import_libp2p()
        from flocknode.transport.libp2p_admission import Roster
        from flocknode.transport.libp2p_guest import TrioRun
        from flocknode.transport.libp2p_host import Host

        assert self._bound is not None
        loop = asyncio.get_running_loop()
        self._roster = Roster(self.peer)
        self._roster.replace(self._members)
        self._dispatcher = Dispatcher(handler, self._counters, loop, self._standings, self._refuse)
        ready: asyncio.Future[None] = loop.create_future()
        self._host = Host(
            self._identity,
            self._bound,
            self._roster,
            self._options,
            self._psk,
            self._counters,
            self._dispatcher,
            ready,
        )
        TrioRun.of(loop).attach(self._host)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await ready
        except TimeoutError:
            raise TransportError(f"the libp2p host did not start in {_START_TIMEOUT_S} s") from None

    async def stop(self) -> None:
        self._stopped = True
        host, bound, dispatcher = self._host, self._bound, self._dispatcher
        if host is not None:
            from flocknode.transport.libp2p_guest import TrioRun

            for _ in range(_FLUSH_STEPS):
                if not any(link.pending for link in host.up()):
                    break
                await asyncio.sleep(_FLUSH_STEP_S)
            await TrioRun.of(asyncio.get_running_loop()).detach(host)
            self._host = None
        if dispatcher is not None:
            dispatcher.close()
        if bound is not None:
            bound.close()

    def set_members(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)
        if self._roster is not None:
            self._roster.replace(self._members)
        if self._host is not None:
            self._host.members_changed()

    def send(self, peer: PeerId, message: bytes) -> bool:
        check_size(message)
        link = self._host.links.get(peer) if self._host is not None else None
        return link is not None and link.send(message)

    def broadcast(self, message: bytes) -> int:
        check_size(message)
        if self._host is None:
            return 0
        return self._host.broadcast(message)

    async def fetch_chunk(self, peer: PeerId, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        check_chunk(digest, index)
        link = self._host.links.get(peer) if self._host is not None else None
        if link is None or not link.is_up:
            raise UnreachableError(peer)
        reply: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        link.ask(digest, index, reply)
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            raise FetchFailedError(peer, digest, index, f"no reply in {timeout_s} s") from None

    def connected(self) -> frozenset[PeerId]:
        return frozenset(link.peer for link in self._host.up()) if self._host is not None else frozenset()

    def penalise(self, peer: PeerId, why: str) -> Standing:
        if self._dispatcher is None:
            raise NotRunningError("a transport that was never started hears of no offence")
        self._counters.reject(why)
        return self._dispatcher.offended(peer, why)

    def _refuse(self, peer: PeerId, seconds: float) -> None:
        assert self._roster is not None
        self._roster.refuse(peer, seconds)
        link = self._host.links.get(peer) if self._host is not None else None
        if link is not None:
            link.close("penalised")

    def stats(self) -> TransportStats:
        return self._counters.snapshot(self._standings)
