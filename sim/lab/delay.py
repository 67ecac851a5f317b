"""Slow links where the kernel cannot delay packets: a node holds back its own messages, outside libp2p.

The lab says how long in memory that it shares with its nodes, so that a delay can come and go while they run.
What libp2p itself sends (handshakes, signs of life) is not delayed.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
from collections import deque
from collections.abc import Callable
from random import Random

from attrs import define, field

from flocknode.transport.base import FetchFailedError, Handler, check_size
from flocknode.transport.standing import Standing
from protocol.keys import PeerId
from sim.lab.passing import PassingTransport

_ENTRY = struct.Struct("<II")


class DelayBoard:
    """For each node the least and the greatest one-way delay of its messages, in milliseconds."""

    def __init__(self, nodes: int) -> None:
        self._memory = mmap.mmap(-1, nodes * _ENTRY.size)  # anonymous and shared with forked children

    def set(self, node: int, least_ms: int, most_ms: int) -> None:
        _ENTRY.pack_into(self._memory, node * _ENTRY.size, least_ms, most_ms)

    def get(self, node: int) -> tuple[int, int]:
        least_ms, most_ms = _ENTRY.unpack_from(self._memory, node * _ENTRY.size)
        return least_ms, most_ms


@define(eq=False)
class _Line:
    """Calls in the order in which they came, each after its delay and after the one before it."""

    draw_s: Callable[[], float]
    _waiting: deque[tuple[float, Callable[[], object]]] = field(factory=deque, init=False)

    def put(self, call: Callable[[], object]) -> None:
        delay_s = self.draw_s()
        if delay_s <= 0 and not self._waiting:
            call()
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, call))
        if len(self._waiting) == 1:
            loop.call_at(due, self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self._waiting.popleft()[1]()
        if self._waiting:
            loop.call_at(self._waiting[0][0], self._run)


@define(eq=False)
class DelayedTransport(PassingTransport):
    """The transport of node `node` behind slow links."""

    board: DelayBoard
    node: int
    _random: Random = field(factory=Random, init=False)
    _out: _Line = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._out = _Line(self.draw_s)

    def draw_s(self) -> float:
        """One delay."""
        least_ms, most_ms = self.board.get(self.node)
        return self._random.uniform(least_ms, most_ms) / 1000

    def handler_for(self, handler: Handler) -> Handler:
        return _DelayedHandler(handler, self.draw_s)

    def send(self, peer: PeerId, message: bytes) -> bool:
        check_size(message)
        if peer not in self.inner.connected():
            return False
        self._out.put(lambda: self.inner.send(peer, message))
        return True

    def broadcast(self, message: bytes) -> int:
        check_size(message)
        self._out.put(lambda: self.inner.broadcast(message))
        return len(self.inner.connected())

    async def fetch_chunk(self, peer: PeerId, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        there_and_back_s = self.draw_s() + self.draw_s()
        if there_and_back_s >= timeout_s:
            await asyncio.sleep(timeout_s)
            raise FetchFailedError(peer, digest, index, f"no reply in {timeout_s} s")
        await asyncio.sleep(there_and_back_s)
        return await self.inner.fetch_chunk(peer, digest, index, timeout_s - there_and_back_s)


@define(eq=False)
class _DelayedHandler:
    """Whom the transport serves hears of everything late, and in the same order."""

    handler: Handler
    draw_s: Callable[[], float]
    _in: _Line = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._in = _Line(self.draw_s)

    def received(self, peer: PeerId, message: bytes) -> None:
        self._in.put(lambda: self.handler.received(peer, message))

    def peer_up(self, peer: PeerId) -> None:
        self._in.put(lambda: self.handler.peer_up(peer))

    def peer_down(self, peer: PeerId) -> None:
        self._in.put(lambda: self.handler.peer_down(peer))

    def standing_changed(self, peer: PeerId, standing: Standing) -> None:
        self._in.put(lambda: self.handler.standing_changed(peer, standing))

    async def read_blob(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        await asyncio.sleep(self.draw_s() + self.draw_s())
        return await self.handler.read_blob(peer, digest, index)
