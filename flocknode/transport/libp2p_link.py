"""One connection to one member: a one-way message stream in each direction, chunk streams beside them.

Every way in which a connection can be stuck ends here in the same way: the socket is closed first, so that
whoever is blocked on it wakes up, and the member is dialled anew.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio
from attrs import define, field
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from flocknode.transport.base import Counters, Dispatcher
from flocknode.transport.libp2p_chunks import ChunkClient, UnaskedChunkError
from flocknode.transport.libp2p_frames import NOTHING, FrameReader, FrameTooLongError, Outbox
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.transport.libp2p_swarm import grace, open_stream
from flocknode.transport.libp2p_yamux import YamuxReader, YamuxWriter
from protocol.keys import PeerId, short_name

_log = logging.getLogger(__name__)

MESSAGE_PROTOCOL = "/flocknode/message/1"
CHUNK_PROTOCOL = "/flocknode/chunk/1"
MAX_STREAMS = 16
"""Streams a member may have open on one connection; a node itself opens two, and one for gossipsub."""
MAX_UNREAD_BYTES = 32 * 2**20
"""What may lie unread on one connection. Yamux only warns of a peer that writes past its window."""
_HANG_UP_S = 1.0
_LAST_HANG_UP_S = 0.02


class WriteTimeoutError(StreamError):  # type: ignore[misc]
    """A peer took too long to accept a piece of data."""


class Owner(Protocol):
    """Whom a link tells about itself."""

    def link_up(self, link: "Link") -> None: ...

    def link_down(self, link: "Link") -> None: ...


async def hang_up(connection: Any) -> None:
    """Close a connection, whatever state it is in.

    The socket goes first: libp2p's own way writes a farewell, which may wait behind a blocked write for ever.
    """
    stopping = trio.current_effective_deadline() == -math.inf
    patience_s = _LAST_HANG_UP_S if stopping else _HANG_UP_S  # libp2p pauses 0.2 s for its other tasks
    with grace(patience_s):
        for close in (connection.muxed_conn.secured_conn.close, connection.close):
            try:
                await close()
            except Exception:
                _log.debug("closing a connection failed", exc_info=True)


@define(eq=False)
class Link:
    """A connection as this node uses it.

    Its synchronous methods may be called from asyncio as well as from trio.
    """

    peer: PeerId
    connection: Any
    dialled: bool
    _owner: Owner
    _options: Libp2pOptions
    _counters: Counters
    _dispatcher: Dispatcher
    _outbox: Outbox = field(init=False)
    _chunks: ChunkClient = field(init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _settled: trio.Event = field(factory=trio.Event, init=False)
    _nursery: trio.Nursery | None = field(default=None, init=False)
    _reading: bool = field(default=False, init=False)
    _heard_s: float = field(factory=trio.current_time, init=False)
    _wrote_s: float = field(factory=trio.current_time, init=False)
    born_s: float = field(factory=trio.current_time, init=False)
    gone: trio.Event = field(factory=trio.Event, init=False)
    was_up: bool = field(default=False, init=False)
    ended: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._outbox = Outbox(self._options.outbox_bytes)
        self._chunks = ChunkClient(self.peer, self.write, self._counters)

    @property
    def is_up(self) -> bool:
        return self.was_up and self.ended is None

    @property
    def pending(self) -> bool:
        """Whether messages wait to be written."""
        return bool(self._outbox)

    def send(self, message: bytes) -> bool:
        """Queue a message; a full outbox ends the link."""
        if not self.is_up:
            return False
        if not self._outbox.put(message):
            self.offend("outbox-overflow")
            return False
        self._wake.set()
        return True

    def ask(self, digest: bytes, index: int, reply: Any) -> None:
        """Request a chunk; the reply, or the loss of the link, resolves the future."""
        self._chunks.ask(digest, index, reply)
        if self.is_up and not self._chunks.started and self._nursery is not None:
            self._chunks.started = True
            self._nursery.start_soon(self.contain, self._fetch_chunks)

    def offend(self, reason: str) -> None:
        """End the link for something the peer did, and count it."""
        if self.ended is None:
            self._counters.reject(reason)
            self.close(reason)
            self._dispatcher.offended(self.peer, reason)

    def close(self, reason: str) -> None:
        """End the link. Everything it holds is lost."""
        if self.ended is not None:
            return
        self.ended = reason
        _log.debug("link to %s ended: %s", short_name(self.peer), reason)
        self._chunks.fail(reason)
        self._owner.link_down(self)
        self._settled.set()
        self.gone.set()
        self._scope.cancel()

    async def run(self) -> None:
        """Open the outgoing message stream and serve it until the link ends."""
        try:
            with self._scope:
                await self.contain(self._serve)
        finally:
            self.close("disconnected")
            await hang_up(self.connection)

    async def _serve(self) -> None:
        stream = await open_stream(self.connection, MESSAGE_PROTOCOL)
        async with trio.open_nursery() as self._nursery:
            self.was_up = True
            self._owner.link_up(self)
            self._settled.set()
            await self._write_messages(stream)

    async def contain(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong on a link ends that link and nothing else."""
        try:
            await serve()
        except Exception as error:
            self._end_for(error)
        except BaseExceptionGroup as group:
            # A peer that hangs up while this side does: the cancellation goes on, the error must not, or it
            # would end the whole host.
            errors, rest = group.split(Exception)
            if errors is not None:
                self._end_for(errors)
            if rest is not None:
                raise rest from None

    def _end_for(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        _log.debug("link to %s: %r", short_name(self.peer), error)
        if isinstance(error, WriteTimeoutError):
            self.offend("write-timeout")
        elif isinstance(error, FrameTooLongError):
            self.offend("oversize")
        elif isinstance(error, UnaskedChunkError):
            self.offend("unasked-chunk")
        elif isinstance(error, (StreamEOF, MuxedStreamEOF)):
            self.close("closed by the peer")
        else:
            self.close(f"{type(error).__name__}: {error}")

    async def write(self, writer: YamuxWriter, piece: memoryview) -> None:
        """One write within the time limit; WriteTimeoutError leaves the connection unusable."""
        with trio.move_on_after(self._options.write_timeout_s) as limit:
            await writer.write(piece)
        if limit.cancelled_caught:
            raise WriteTimeoutError(f"no progress in {self._options.write_timeout_s} s")

    async def _write_messages(self, stream: Any) -> None:
        writer = YamuxWriter(stream.muxed_stream)
        while True:
            while not self._outbox:
                self._wake = trio.Event()
                await self._wake.wait()
                if not self._outbox:
                    await self.write(writer, memoryview(NOTHING))
                    self._wrote_s = trio.current_time()
            sizes, pieces = self._outbox.take()
            for piece in pieces:
                await self.write(writer, piece)
            for size in sizes:
                self._counters.message_out(self.peer, size)
            self._wrote_s = trio.current_time()

    async def read_messages(self, stream: Any) -> None:
        """Deliver what arrives on the peer's message stream, once this side can answer."""
        if self._reading:
            self.offend("second-message-stream")
            return
        self._reading = True
        await self._settled.wait()
        await self.contain(lambda: self._deliver(stream))

    async def _deliver(self, stream: Any) -> None:
        frames = FrameReader()
        source = YamuxReader(stream.muxed_stream)
        while self.ended is None:
            data = await source.read()
            self._heard_s = trio.current_time()
            for message in frames.feed(data):
                if self.ended is None:
                    self._dispatcher.received(self.peer, message)

    async def _fetch_chunks(self) -> None:
        await self._chunks.run(await open_stream(self.connection, CHUNK_PROTOCOL))

    def check(self, now_s: float) -> None:
        """Show a sign of life, miss the peer's, and see that it does not flood us."""
        if now_s - self._heard_s > self._options.silence_timeout_s:
            self.offend("silent")
        elif sum(map(len, self.connection.muxed_conn.stream_buffers.values())) > MAX_UNREAD_BYTES:
            self.offend("flood")
        elif now_s - self._wrote_s > self._options.keepalive_s:
            self._wake.set()
