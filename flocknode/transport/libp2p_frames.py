"""How messages and chunks lie on a stream: a 4-byte big-endian length, then the bytes.

All ones stand for no bytes at all: between messages a sign of life, in place of a chunk "not held".
"""

from collections import deque
from collections.abc import Iterator

from attrs import define, field

from flocknode.transport.base import MAX_MESSAGE_BYTES, TransportError

LENGTH_BYTES = 4
NOTHING = b"\xff" * LENGTH_BYTES
_NOTHING = 2 ** (8 * LENGTH_BYTES) - 1
WRITE_BYTES = 65507
"""What fits one Yamux frame inside one Noise packet: 65,535 - 16 (tag) - 12 (header)."""


class FrameTooLongError(TransportError):
    """A peer announced more bytes than a message or chunk may have."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a frame of {size} bytes was announced, the limit is {limit}")
        self.size, self.limit = size, limit


def framed(payload: bytes) -> bytes:
    """The payload behind its length."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def frame_length(prefix: bytes | bytearray, limit: int) -> int | None:
    """The announced length, None for no bytes at all; FrameTooLongError above the limit."""
    size = int.from_bytes(prefix, "big")
    if size == _NOTHING:
        return None
    if size > limit:
        raise FrameTooLongError(size, limit)
    return size


@define
class FrameReader:
    """Puts messages together from what a stream delivers; holds at most one incomplete message."""

    limit: int = MAX_MESSAGE_BYTES
    _buffer: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages completed by `data`; FrameTooLongError where an oversize one is announced."""
        self._buffer += data
        start, end = 0, len(self._buffer)
        while end - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            size = frame_length(self._buffer[start:body], self.limit)
            if size is None:
                start = body
                continue
            if end - body < size:
                break
            start = body + size
            yield bytes(memoryview(self._buffer)[body:start])
        del self._buffer[:start]


@define
class Outbox:
    """Messages waiting for one peer, bounded in bytes."""

    limit: int
    _queue: deque[bytes] = field(factory=deque)
    _bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(self, message: bytes) -> bool:
        """Append a message; False, and nothing is queued, when it does not fit any more."""
        if self._bytes + len(message) > self.limit:
            return False
        self._bytes += len(message)
        self._queue.append(message)
        return True

    def take(self) -> tuple[list[int], Iterator[memoryview]]:
        """Some of the waiting messages, in order: their sizes, and their frames in pieces for single writes.

        Small messages share a piece, since every write costs the same; a long one is many pieces.
        """
        data, sizes = bytearray(), []
        while self._queue and (not data or len(data) + LENGTH_BYTES + len(self._queue[0]) <= WRITE_BYTES):
            message = self._queue.popleft()
            self._bytes -= len(message)
            sizes.append(len(message))
            data += framed(message)
        return sizes, pieces(data)


def pieces(data: bytes | bytearray) -> Iterator[memoryview]:
    """The data cut for single writes."""
    view = memoryview(data)
    return (view[start : start + WRITE_BYTES] for start in range(0, len(view), WRITE_BYTES))
