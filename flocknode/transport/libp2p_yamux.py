"""Reading and writing Yamux streams at a price that votes can afford.

Measured with libp2p 0.8.1: writing a short message through NetStream and YamuxStream passes six locks, each a
turn of trio's scheduler; reading it returns its few bytes of credit at once, which costs both sides as much
as the message; and a writer that is short of credit looks again every 10 ms. Both classes work on the
stream's own accounts, so the protocol on the wire is Yamux as it is.
"""

import struct
from typing import Any

import trio
from attrs import define
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import DEFAULT_WINDOW_SIZE, TYPE_DATA, YAMUX_HEADER_FORMAT

_READ_BYTES = 2**18
_WINDOW_BYTES = 2**20
_CREDIT_BYTES = _WINDOW_BYTES // 4
_FIRST_POLL_S = 0.001
_LONGEST_POLL_S = 0.02


@define(eq=False)
class YamuxWriter:
    """Writes pieces of at most 64 kB; one task at a time."""

    _stream: Any

    async def write(self, piece: memoryview) -> None:
        """Write one piece as one frame, once the reader has room for it."""
        stream, size = self._stream, len(piece)
        connection = stream.conn
        pause_s = _FIRST_POLL_S
        while stream.send_window < size and not stream.closed:  # nobody is told of new credit
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_POLL_S)
        if stream.closed or stream.send_closed or connection.event_shutting_down.is_set():
            raise MuxedStreamReset("the stream is closed")
        stream.send_window -= size
        header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, stream.stream_id, size)
        async with connection._write_lock:  # frames of other streams must not mix with this one
            await connection.secured_conn.write(header + piece)


@define(eq=False)
class YamuxReader:
    """Reads whatever has arrived and returns credit in large portions."""

    _stream: Any
    _owed_bytes: int = _WINDOW_BYTES - DEFAULT_WINDOW_SIZE

    async def read(self) -> bytes:
        """The next bytes. Raises MuxedStreamEOF or MuxedStreamReset at the end."""
        stream = self._stream
        if self._owed_bytes >= _CREDIT_BYTES:
            credit, self._owed_bytes = self._owed_bytes, 0
            stream.recv_window += credit
            await stream.send_window_update(credit)
        data: bytes = await stream.conn.read_stream(stream.stream_id, _READ_BYTES)
        self._owed_bytes += len(data)
        return data
