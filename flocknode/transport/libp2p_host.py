"""A libp2p host and its links, as one guest of the trio run (docs/PROTOCOL.md section 1)."""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen
from libp2p.abc import INotifee
from libp2p.rcmgr import Direction
from libp2p.tools.anyio_service import TrioManager
from multiaddr import Multiaddr

from flocknode.transport.base import (
    Counters,
    Dispatcher,
    InvalidAddressError,
    TransportError,
    parse_address,
)
from flocknode.transport.libp2p_admission import MembersOnlyNoise, Roster, libp2p_id, peer_of
from flocknode.transport.libp2p_chunks import ChunkServer
from flocknode.transport.libp2p_link import CHUNK_PROTOCOL, MAX_STREAMS, MESSAGE_PROTOCOL, Link, hang_up
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.transport.libp2p_swarm import build_host, grace, resolved
from flocknode.transport.listening import endpoint_of
from protocol.keys import Identity, PeerId, short_name

if TYPE_CHECKING:
    from flocknode.transport.libp2p_gossip import Gossip

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0
_YOUNG_S = 2.0
_SHUTDOWN_S = 3.0
_RESET_S = 1.0


class _Connections(INotifee):  # type: ignore[misc]
    """Tells the host of new connections and of lost ones."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    async def connected(self, network: Any, conn: Any) -> None:
        self._host.adopt(conn)

    async def disconnected(self, network: Any, conn: Any) -> None:
        self._host.lost(conn)

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, multiaddr: Any) -> None: ...

    async def listen_close(self, network: Any, multiaddr: Any) -> None: ...


def supersedes(new: Link, old: Link, own: PeerId) -> bool:
    """Whether a second connection between two peers replaces the first.

    It does: its dialler has lost the first, or would not have dialled. Unless both have just been made, one
    by each side; then both sides must keep the same one, and that is the lower peer's.
    """
    if new.dialled == old.dialled or new.born_s - old.born_s > _YOUNG_S:
        return True
    return new.dialled == (own < new.peer)


class Host:
    """Dials members, keeps one link to each, and serves theirs. A crash rebuilds everything in it."""

    def __init__(
        self,
        identity: Identity,
        bound: socket.socket,
        roster: Roster,
        options: Libp2pOptions,
        psk: bytes | None,
        counters: Counters,
        dispatcher: Dispatcher,
        ready: "asyncio.Future[None]",
    ) -> None:
        self._identity, self._bound, self._roster = identity, bound, roster
        self._options, self._psk, self._counters = options, psk, counters
        self._dispatcher, self._ready, self._loop = dispatcher, ready, ready.get_loop()
        self.links: dict[PeerId, Link] = {}
        self._by_connection: dict[Any, Link] = {}
        self._keepers: dict[PeerId, trio.CancelScope] = {}
        self._awaited: dict[PeerId, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._swarm: Any = None
        self._gossip: Gossip | None = None

    async def run(self) -> None:
        host = build_host(
            self._identity,
            MembersOnlyNoise(self._identity, self._roster, self._counters),
            self._bound,
            self._psk,
            self._counters,
        )
        self._swarm = swarm = host.get_network()
        swarm.set_stream_handler(self._contained(swarm.common_stream_handler))
        host.set_stream_handler(MESSAGE_PROTOCOL, self._message_stream)
        host.set_stream_handler(CHUNK_PROTOCOL, self._chunk_stream)
        swarm.register_notifee(_Connections(self))
        async with trio.open_nursery() as nursery:
            services = [await nursery.start(_run_service, swarm)]
            try:
                await swarm.listen(Multiaddr(str(endpoint_of(self._bound))))
                if not host.get_addrs():  # libp2p reports a failure to listen in no other way
                    raise TransportError(f"libp2p does not listen on {endpoint_of(self._bound)}")
                async with trio.open_nursery() as self._nursery:
                    if self._options.broadcast_mode == "gossipsub":
                        self._gossip = self._new_gossip(host)
                        for service in self._gossip.services:
                            services.append(await nursery.start(_run_service, service))
                        self._nursery.start_soon(self._gossip.run)
                    self._nursery.start_soon(self._watch)
                    self.members_changed()
                    if not self._ready.done():
                        self._ready.set_result(None)
                    await services[0].manager.wait_finished()
                    raise TransportError("the libp2p swarm ended by itself")
            finally:
                self._nursery = None
                self._keepers.clear()
                for link in list(self.links.values()):
                    link.close("the host stops")
                # Orderly, while the swarm's own tasks still run: they race with each other when cancelled.
                with grace(_SHUTDOWN_S):
                    for running in services[:0:-1]:
                        await running.manager.stop()
                    await swarm.close()
                for running in services:
                    running.scope.cancel()
                if self._gossip is not None:
                    self._gossip.close()
                    self._gossip = None

    def crashed(self, error: BaseException | None) -> None:
        self._counters.restarts += 1
        self._nursery = None
        for link in list(self.links.values()):
            with suppress(RuntimeError):  # the trio run may be gone
                link.close("the host crashed")
        if not self._ready.done():
            self._ready.set_exception(TransportError(f"the libp2p host did not start: {error}"))

    # ------------------------------------------------------------------ called by the node

    def members_changed(self) -> None:
        """Follow the roster: stop what concerns former members, start dialling new ones."""
        wanted = set(self._roster.peers())
        for peer in self._keepers.keys() - wanted:
            self._keepers.pop(peer).cancel()
        for peer in self.links.keys() - wanted:
            self.links[peer].close("no longer a member")
        if self._nursery is None:
            return
        for peer in sorted(wanted - self._keepers.keys()):
            self._keepers[peer] = scope = trio.CancelScope()
            self._nursery.start_soon(self._keep, peer, scope)

    def up(self) -> list[Link]:
        """The links that carry messages."""
        return [link for link in self.links.values() if link.is_up]

    def broadcast(self, message: bytes) -> int:
        """Queue a message on every link, or for gossipsub; how many members it is meant to reach."""
        if self._gossip is None:
            return sum(link.send(message) for link in self.up())
        return len(self.up()) if self._gossip.publish(message) else 0

    def _new_gossip(self, host: Any) -> "Gossip":
        from flocknode.transport.libp2p_gossip import Gossip

        return Gossip(host, self._roster, self._options, self._counters, self._dispatcher, self._offend)

    # ------------------------------------------------------------------ links

    def adopt(self, connection: Any) -> Link | None:
        """The link of a connection, made now if this is the first we hear of it; None if it is not wanted."""
        known = self._by_connection.get(connection)
        if known is not None:
            return known
        peer = peer_of(connection.muxed_conn.peer_id)
        if self._nursery is None or connection.is_closed or peer is None:
            return None
        dialled = connection.direction == Direction.OUTBOUND
        link = Link(peer, connection, dialled, self, self._options, self._counters, self._dispatcher)
        old = self.links.get(peer)
        if self._roster.refusal(peer) or (old is not None and not supersedes(link, old, self._identity.peer)):
            self._nursery.start_soon(hang_up, connection)
            return None
        if old is not None:
            old.close("superseded")
        self.links[peer] = self._by_connection[connection] = link
        self._awaited.pop(peer, trio.Event()).set()
        self._nursery.start_soon(link.run)
        return link

    def lost(self, connection: Any) -> None:
        link = self._by_connection.get(connection)
        if link is not None:
            link.close("disconnected")

    def link_up(self, link: Link) -> None:
        self._counters.dialled(link.peer, is_refused=None)
        self._dispatcher.peer_up(link.peer)

    def link_down(self, link: Link) -> None:
        self._by_connection.pop(link.connection, None)
        if self.links.get(link.peer) is link:
            del self.links[link.peer]
        if link.was_up:
            self._dispatcher.peer_down(link.peer)
        elif link.dialled:
            self._counters.dialled(link.peer, is_refused=True)
        if self._gossip is not None and self._nursery is not None:
            self._nursery.start_soon(self._gossip.forget, link.connection.muxed_conn.peer_id)

    def _offend(self, peer: PeerId, reason: str) -> None:
        link = self.links.get(peer)
        if link is not None:
            link.offend(reason)

    async def _watch(self) -> None:
        while True:
            slept_s = trio.current_time()
            await trio.sleep(self._options.keepalive_s / 2)
            now_s = trio.current_time()
            if now_s - slept_s > self._options.keepalive_s:
                continue  # it was this node that stood still: hear first what the others had to say
            for link in self.up():
                link.check(now_s)

    # ------------------------------------------------------------------ dialling

    async def _keep(self, peer: PeerId, scope: trio.CancelScope) -> None:
        """Keep one member connected.

        The lower peer id dials. The other side steps in only after a while, for a member that cannot be
        reached but can reach: a pair ends up with one connection whichever of the two ways is open.
        """
        pause_s = _FIRST_PAUSE_S
        with scope:
            while True:
                refused_s = self._roster.refused_for_s(peer)
                if refused_s > 0:
                    await trio.sleep(refused_s)
                    continue
                if self._identity.peer > peer and peer not in self.links:
                    with trio.move_on_after(self._options.dial_anyway_s):
                        await self._awaited.setdefault(peer, trio.Event()).wait()
                link = self.links.get(peer) or await self._dial(peer)
                if link is not None:
                    await link.gone.wait()
                    if link.was_up:
                        pause_s = _FIRST_PAUSE_S
                await trio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _dial(self, peer: PeerId) -> Link | None:
        """One attempt.

        By `dial_addr`: `dial_peer` would block a member for a minute after a failure, and after a success
        wait 0.25 s for another address.
        """
        member = self._roster.get(peer)
        if member is None:
            return None
        self._swarm.unfinished.discard(libp2p_id(peer))
        try:
            endpoint = parse_address(member.address)
            with trio.fail_after(self._options.dial_timeout_s):
                address = Multiaddr(str(await resolved(endpoint)))
                return self.adopt(await self._swarm.dial_addr(address, libp2p_id(peer)))
        except InvalidAddressError:
            self._counters.reject("bad-address")
            self._counters.dialled(peer, is_refused=False)
            await trio.sleep(_LONGEST_PAUSE_S)
        except Exception:
            self._counters.dialled(peer, is_refused=libp2p_id(peer) in self._swarm.unfinished)
            _log.debug("dialling %s failed", short_name(peer), exc_info=True)
        return None

    # ------------------------------------------------------------------ incoming streams

    def _contained(self, handle: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """libp2p's stream handler, which must not raise: an exception there ends the whole swarm."""

        async def handle_contained(stream: Any) -> None:
            try:
                if len(stream.swarm_conn.get_streams()) <= MAX_STREAMS:
                    await handle(stream)
                    return
                self._counters.reject("too-many-streams")
            except Exception:
                self._counters.reject("stream-error")
                _log.warning("a stream handler failed", exc_info=True)
            with trio.move_on_after(_RESET_S) as limit:
                await stream.reset()
            if limit.cancelled_caught:  # a write was cut off: the connection is of no use any more
                await hang_up(stream.swarm_conn)

        return handle_contained

    async def _message_stream(self, stream: Any) -> None:
        link = self.adopt(stream.swarm_conn)
        if link is not None:
            await link.read_messages(stream)

    async def _chunk_stream(self, stream: Any) -> None:
        link = self.adopt(stream.swarm_conn)
        if link is not None:
            read_blob = self._dispatcher.read_blob
            server = ChunkServer(link.peer, link.write, self._counters, self._loop, read_blob)
            await link.contain(lambda: server.run(stream))


@frozen
class _Running:
    manager: Any
    scope: trio.CancelScope


async def _run_service(service: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Run a libp2p service, shielded: it is to be stopped by asking it to."""
    manager = TrioManager(service)
    service._manager = manager
    with trio.CancelScope(shield=True) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.run)
            await manager.wait_started()
            task_status.started(_Running(manager, scope))
