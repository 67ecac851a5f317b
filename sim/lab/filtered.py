"""A dishonest node as a real process: the simulator's filters around the engine and around what it serves."""

from __future__ import annotations

from attrs import define, field

from flocknode.node import StateMachine
from flocknode.transport.base import Handler
from flocknode.transport.standing import Standing
from protocol.blob import CHUNK_BYTES, Chunk, chunk, chunk_count
from protocol.codec import decode, encode
from protocol.events import Effect, Event, Millis
from protocol.keys import PeerId
from sim.filters import Filter
from sim.lab.passing import PassingTransport

CHUNK_LIMIT_BYTES = CHUNK_BYTES + 2**16


@define(eq=False)
class FilteredEngine:
    """An engine of which the node sees, and which sees of the node, what the filter lets pass.

    As in `sim.world`, but that a filter lives as long as its process and not longer.
    """

    engine: StateMachine
    filter: Filter

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        effects: list[Effect] = []
        for shown in self.filter.events(event):
            effects += self.filter.effects(self.engine.handle(shown, now))
        return effects


@define(eq=False)
class FilteringTransport(PassingTransport):
    """Peers that fetch a blob get what the filter gives them."""

    filter: Filter

    def handler_for(self, handler: Handler) -> Handler:
        return _FilteringHandler(handler, self.filter)


@define(eq=False)
class _FilteringHandler:
    handler: Handler
    filter: Filter
    _whole: dict[bytes, bytes] = field(factory=dict, init=False)
    """The blobs asked for last, since a filter wants to see all of one."""

    def received(self, peer: PeerId, message: bytes) -> None:
        self.handler.received(peer, message)

    def peer_up(self, peer: PeerId) -> None:
        self.handler.peer_up(peer)

    def peer_down(self, peer: PeerId) -> None:
        self.handler.peer_down(peer)

    def standing_changed(self, peer: PeerId, standing: Standing) -> None:
        self.handler.standing_changed(peer, standing)

    async def read_blob(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        data = await self._read_all(peer, digest)
        shown = None if data is None else self.filter.serve(digest, peer, data)
        if shown is None or not 0 <= index < chunk_count(len(shown)):
            return None
        return encode(chunk(shown, index))

    async def _read_all(self, peer: PeerId, digest: bytes) -> bytes | None:
        if digest in self._whole:
            return self._whole[digest]
        parts: list[bytes] = []
        total = 1
        while len(parts) < total:
            encoded = await self.handler.read_blob(peer, digest, len(parts))
            if encoded is None:
                return None
            part = decode(Chunk, encoded, CHUNK_LIMIT_BYTES)
            parts.append(part.data)
            total = chunk_count(part.total_bytes)
        self._whole = {digest: b"".join(parts)}
        return self._whole[digest]


def serves_blobs_as_they_are(filter: Filter) -> bool:
    """Whether a filter leaves alone what peers fetch."""
    return type(filter).serve is Filter.serve
