"""A transport with another one inside: everything passes, and subclasses bend what they are there for."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from flocknode.transport.base import Handler, Member, Transport, TransportStats
from flocknode.transport.standing import Standing
from protocol.keys import PeerId


@define(eq=False)
class PassingTransport(Transport):
    """Passes every call on. `handler_for`: who hears from `inner` in place of the node."""

    inner: Transport

    def handler_for(self, handler: Handler) -> Handler:
        return handler

    @property
    def peer(self) -> PeerId:
        return self.inner.peer

    @property
    def address(self) -> str:
        return self.inner.address

    async def start(self, handler: Handler) -> None:
        await self.inner.start(self.handler_for(handler))

    async def stop(self) -> None:
        await self.inner.stop()

    def set_members(self, members: Sequence[Member]) -> None:
        self.inner.set_members(members)

    def send(self, peer: PeerId, message: bytes) -> bool:
        return self.inner.send(peer, message)

    def broadcast(self, message: bytes) -> int:
        return self.inner.broadcast(message)

    async def fetch_chunk(self, peer: PeerId, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        return await self.inner.fetch_chunk(peer, digest, index, timeout_s)

    def connected(self) -> frozenset[PeerId]:
        return self.inner.connected()

    def penalise(self, peer: PeerId, why: str) -> Standing:
        return self.inner.penalise(peer, why)

    def stats(self) -> TransportStats:
        return self.inner.stats()
