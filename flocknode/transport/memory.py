"""A network inside one process, with the same contract as libp2p's: for tests, and for nodes without sockets.

A `Hub` is the wire. Two transports are linked while both run, each lists the other, neither refuses the other
and the hub has not cut them apart. Messages pass through a bounded outbox and the event loop, so order,
overflow and loss are those of a real link.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from flocknode.transport.base import (
    DEFAULT_OUTBOX_BYTES,
    AddressInUseError,
    Counters,
    Dispatcher,
    FetchFailedError,
    Handler,
    Member,
    NotRunningError,
    Transport,
    TransportError,
    TransportStats,
    UnreachableError,
    check_chunk,
    check_size,
)
from flocknode.transport.standing import Limits, Standing, Standings
from protocol.keys import PeerId

_RECONNECT_S = 0.01


@define(eq=False)
class _Pipe:
    """One direction of a link."""

    source: "MemoryTransport"
    target: "MemoryTransport"
    lost: "asyncio.Future[None]"
    _queue: deque[bytes] = field(factory=deque)
    _bytes: int = 0

    def put(self, message: bytes) -> bool:
        if self._bytes + len(message) > self.source.outbox_bytes:
            return False
        self._bytes += len(message)
        self._queue.append(message)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._drain)
        return True

    def _drain(self) -> None:
        while self._queue and not self.lost.done():
            message = self._queue.popleft()
            self._bytes -= len(message)
            self.source.counters.message_out(self.target.peer, len(message))
            self.target.dispatcher.received(self.source.peer, message)


class Hub:
    """The wire between the transports of one event loop."""

    def __init__(self) -> None:
        self._nodes: dict[PeerId, MemoryTransport] = {}
        self._cut: set[frozenset[PeerId]] = set()

    def cut(self, one: PeerId, other: PeerId) -> None:
        """Break the link between two peers and allow none until `mend`."""
        self._cut.add(frozenset((one, other)))
        self.unlink(one, other)

    def mend(self, one: PeerId, other: PeerId) -> None:
        """Undo `cut`."""
        self._cut.discard(frozenset((one, other)))
        self.reconsider(one)

    def unlink(self, one: PeerId, other: PeerId) -> None:
        """Break a link, losing what is on its way; it comes back after a moment if nothing forbids it."""
        a, b = self._nodes.get(one), self._nodes.get(other)
        if a is None or b is None or other not in a.pipes:
            return
        for here, there in ((a, b), (b, a)):
            here.pipes.pop(there.peer).lost.set_result(None)
            here.dispatcher.peer_down(there.peer)
        asyncio.get_running_loop().call_later(_RECONNECT_S, self.reconsider, one)

    def enter(self, node: "MemoryTransport") -> None:
        if any(known.address == node.address for known in self._nodes.values()):
            raise AddressInUseError(node.address)
        self._nodes[node.peer] = node
        self.reconsider(node.peer)

    def leave(self, node: "MemoryTransport") -> None:
        for peer in list(node.pipes):
            self.unlink(node.peer, peer)
        self._nodes.pop(node.peer, None)

    def reconsider(self, peer: PeerId) -> None:
        """Make and break the links of a peer as its members and refusals now demand."""
        node = self._nodes.get(peer)
        if node is None:
            return
        for other in list(self._nodes.values()):
            if other is node:
                continue
            wanted = node.wants(other) and other.wants(node)
            if not wanted:
                self.unlink(peer, other.peer)
            elif other.peer not in node.pipes and frozenset((peer, other.peer)) not in self._cut:
                loop = asyncio.get_running_loop()
                for here, there in ((node, other), (other, node)):
                    here.pipes[there.peer] = _Pipe(here, there, loop.create_future())
                    here.dispatcher.peer_up(there.peer)


class MemoryTransport(Transport):
    """A transport on a hub. `address` is any name, unique on the hub."""

    dispatcher: Dispatcher

    def __init__(
        self,
        hub: Hub,
        peer: PeerId,
        address: str,
        *,
        outbox_bytes: int = DEFAULT_OUTBOX_BYTES,
        limits: Limits | None = None,
    ) -> None:
        self._hub, self._peer, self._address = hub, peer, address
        self.outbox_bytes = outbox_bytes
        self.standings = Standings(limits or Limits())
        self.counters = Counters()
        self.pipes: dict[PeerId, _Pipe] = {}
        self._members: dict[PeerId, Member] = {}
        self._handler: Handler | None = None
        self._stopped = False

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def address(self) -> str:
        if self._handler is None:
            raise NotRunningError("the transport does not listen yet")
        return self._address

    async def start(self, handler: Handler) -> None:
        if self._handler is not None or self._stopped:
            raise TransportError("a transport starts once")
        self._handler = handler
        loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(handler, self.counters, loop, self.standings, self._refuse)
        self._hub.enter(self)

    async def stop(self) -> None:
        self._stopped = True
        if self._handler is not None:
            await asyncio.sleep(0)  # what was sent is on its way
            self._hub.leave(self)
            self.dispatcher.close()

    def wants(self, other: "MemoryTransport") -> bool:
        """Whether this node lists the other one and does not refuse it."""
        refused_s = self.standings.refused_for_s(other.peer, time.monotonic())
        return other.peer in self._members and not refused_s

    def set_members(self, members: Sequence[Member]) -> None:
        self._members = {member.peer: member for member in members if member.peer != self._peer}
        self._hub.reconsider(self._peer)

    def send(self, peer: PeerId, message: bytes) -> bool:
        check_size(message)
        pipe = self.pipes.get(peer)
        if pipe is None:
            return False
        if not pipe.put(message):
            self.counters.reject("outbox-overflow")
            self._hub.unlink(self._peer, peer)
            return False
        return True

    def broadcast(self, message: bytes) -> int:
        check_size(message)
        return sum(self.send(peer, message) for peer in sorted(self.pipes))

    async def fetch_chunk(self, peer: PeerId, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        check_chunk(digest, index)
        pipe = self.pipes.get(peer)
        if pipe is None:
            raise UnreachableError(peer)
        reading = asyncio.ensure_future(pipe.target.serve(self._peer, digest, index))
        try:
            waiting: set[asyncio.Future[Any]] = {reading, pipe.lost}
            await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reason = "the link was lost" if pipe.lost.done() else f"no reply in {timeout_s} s"
                raise FetchFailedError(peer, digest, index, reason)
            chunk = reading.result()
        finally:
            reading.cancel()
        if chunk is not None:
            self.counters.chunk_in(peer, len(chunk))
        return chunk

    async def serve(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        """The chunk as the handler gives it; None when it fails."""
        chunk = await self.dispatcher.read_blob(peer, digest, index)
        if chunk is not None:
            self.counters.chunk_out(peer, len(chunk))
        return chunk

    def connected(self) -> frozenset[PeerId]:
        return frozenset(self.pipes)

    def penalise(self, peer: PeerId, why: str) -> Standing:
        self.counters.reject(why)
        return self.dispatcher.offended(peer, why)

    def _refuse(self, peer: PeerId, seconds: float) -> None:
        self._hub.unlink(self._peer, peer)
        over_s = seconds + _RECONNECT_S
        asyncio.get_running_loop().call_later(over_s, self._hub.reconsider, self._peer)

    def stats(self) -> TransportStats:
        return self.counters.snapshot(self.standings)
