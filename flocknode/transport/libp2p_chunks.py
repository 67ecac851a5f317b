"""Chunks over a stream of their own, so that bulk waits for bulk and never a vote for a chunk.

The asking side keeps one stream per link and has a few requests on their way; replies come in order. A
request is the blob's digest and the chunk's index, a reply the chunk as one frame.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import trio
from attrs import define, field

from flocknode.transport.base import (
    DIGEST_BYTES,
    INDEX_BYTES,
    MAX_CHUNK_BYTES,
    Counters,
    FetchFailedError,
    TransportError,
)
from flocknode.transport.libp2p_frames import LENGTH_BYTES, NOTHING, frame_length, framed, pieces
from flocknode.transport.libp2p_swarm import grace
from flocknode.transport.libp2p_yamux import YamuxWriter
from protocol.keys import PeerId

_REQUEST_BYTES = DIGEST_BYTES + INDEX_BYTES
_IN_FLIGHT = 4
_READ_BLOB_TIMEOUT_S = 30.0
_CANCEL_S = 1.0


class UnaskedChunkError(TransportError):
    """A peer replied to a request that nobody made."""


Write = Callable[[YamuxWriter, memoryview], Awaitable[None]]
"""Writes one piece within the link's time limit."""


async def read_exactly(stream: Any, size: int) -> bytes:
    """The next `size` bytes of a stream; libp2p's own helper gives up after 100 reads."""
    data = bytearray()
    while len(data) < size:
        data += await stream.read(size - len(data))
    return bytes(data)


async def in_asyncio(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, bytes | None]
) -> bytes | None:
    """Await asyncio work from trio, both on the same thread."""
    finished = trio.Event()
    task = loop.create_task(work)
    task.add_done_callback(lambda _: finished.set())
    try:
        await finished.wait()
    except trio.Cancelled:
        task.cancel()
        with grace(_CANCEL_S):
            await finished.wait()
        raise
    return None if task.cancelled() else task.result()


@define(eq=False)
class _Request:
    digest: bytes
    index: int
    reply: "asyncio.Future[bytes | None]"

    def encode(self) -> bytes:
        return self.digest + self.index.to_bytes(INDEX_BYTES, "big")


@define(eq=False)
class ChunkClient:
    """Asks one peer for chunks."""

    _peer: PeerId
    _write: Write
    _counters: Counters
    started: bool = False
    _waiting: deque[_Request] = field(factory=deque)
    _asked: deque[_Request] = field(factory=deque)
    _wake: trio.Event = field(factory=trio.Event)
    _slots: trio.Semaphore = field(factory=lambda: trio.Semaphore(_IN_FLIGHT))
    _lost: str | None = None

    def ask(self, digest: bytes, index: int, reply: "asyncio.Future[bytes | None]") -> None:
        """Queue a request; its reply resolves the future."""
        request = _Request(digest, index, reply)
        if self._lost is not None:
            self._fail(request, self._lost)
            return
        while self._waiting and self._waiting[0].reply.done():  # timed out: a stuck link keeps none of them
            self._waiting.popleft()
        self._waiting.append(request)
        self._wake.set()

    def fail(self, reason: str) -> None:
        """The link is lost: every request without a reply fails."""
        self._lost = reason
        for request in (*self._asked, *self._waiting):
            self._fail(request, reason)
        self._asked.clear()
        self._waiting.clear()

    def _fail(self, request: _Request, reason: str) -> None:
        if not request.reply.done():
            request.reply.set_exception(FetchFailedError(self._peer, request.digest, request.index, reason))

    async def run(self, stream: Any) -> None:
        """Serve the queue over a stream until that breaks."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_requests, stream)
            await self._read_replies(stream)

    async def _write_requests(self, stream: Any) -> None:
        writer = YamuxWriter(stream.muxed_stream)
        while True:
            while not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            await self._slots.acquire()
            request = self._waiting.popleft()
            if request.reply.done():  # timed out while it waited
                self._slots.release()
                continue
            self._asked.append(request)
            await self._write(writer, memoryview(request.encode()))

    async def _read_replies(self, stream: Any) -> None:
        while True:
            size = frame_length(await read_exactly(stream, LENGTH_BYTES), MAX_CHUNK_BYTES)
            chunk = None if size is None else await read_exactly(stream, size)
            if not self._asked:
                raise UnaskedChunkError("a chunk came that nobody asked for")
            request = self._asked.popleft()
            self._slots.release()
            if chunk is not None:
                self._counters.chunk_in(self._peer, len(chunk))
            if not request.reply.done():
                request.reply.set_result(chunk)


@define(eq=False)
class ChunkServer:
    """Answers one peer's requests from the node's store, one after the other."""

    _peer: PeerId
    _write: Write
    _counters: Counters
    _loop: asyncio.AbstractEventLoop
    _read_blob: Callable[[PeerId, bytes, int], Coroutine[Any, Any, bytes | None]]

    async def run(self, stream: Any) -> None:
        """Serve a stream until it ends."""
        writer = YamuxWriter(stream.muxed_stream)
        while True:
            request = await read_exactly(stream, _REQUEST_BYTES)
            chunk = await self._chunk(request[:DIGEST_BYTES], int.from_bytes(request[DIGEST_BYTES:], "big"))
            for piece in pieces(NOTHING if chunk is None else framed(chunk)):
                await self._write(writer, piece)
            if chunk is not None:
                self._counters.chunk_out(self._peer, len(chunk))

    async def _chunk(self, digest: bytes, index: int) -> bytes | None:
        chunk: bytes | None = None
        with trio.move_on_after(_READ_BLOB_TIMEOUT_S):
            chunk = await in_asyncio(self._loop, self._read_blob(self._peer, digest, index))
        return chunk
