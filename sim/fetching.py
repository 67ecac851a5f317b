"""Fetching blobs between simulated nodes: holders are asked one after the other, in random order.

As in `flocknode.fetcher`, reserves come in when a holder fails or is slow; the slow are asked again at last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from protocol import blob
from protocol.blob import BlobError, chunk_count
from protocol.events import BlobFailed, BlobReady, Digest, Event, PeerId
from sim.network import Network
from sim.node import FetchState, Node
from sim.schedule import Delays, Schedule


class Fetching:
    """Every fetch ends in one `BlobReady` or `BlobFailed`, unless its node crashes first."""

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        delays: Delays,
        nodes: Sequence[Node],
        by_peer: Mapping[PeerId, Sequence[Node]],
        deliver: Callable[[Node, int, Event], None],
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._delays = delays
        self._nodes = nodes
        self._by_peer = by_peer
        self._deliver = deliver

    def fetch(
        self, node: Node, digest: Digest, holders: Iterable[PeerId], reserves: Iterable[PeerId] = ()
    ) -> None:
        """Begin, or add holders to what is under way."""
        if digest in node.blobs:
            self._schedule.push(0, self._deliver, node, node.life, BlobReady(digest))
            return
        under_way = node.fetches.get(digest)
        state = under_way or node.fetches.setdefault(digest, FetchState(self._delays.slow_fetch_ms))
        for named, row in ((holders, state.untried), (reserves, state.reserves)):
            for holder in (twin for peer in named for twin in self._by_peer.get(peer, ())):
                if holder.peer != node.peer and holder.index not in state.asked:
                    state.asked.add(holder.index)
                    row.append(holder.index)
        if under_way is None:
            self._ask_next(node, digest, state)

    def abandon(self, node: Node, digest: Digest) -> None:
        """End a fetch of a blob that its node does not want any more, as `flocknode.fetcher` does."""
        if node.fetches.pop(digest, None) is not None:
            self._schedule.push(0, self._deliver, node, node.life, BlobFailed(digest))

    def _ask_next(self, node: Node, digest: Digest, state: FetchState) -> None:
        if not state.untried:
            state.untried, state.reserves = state.reserves, []
        if not state.untried:
            state.untried, state.slow, state.slow_ms = state.slow, [], None
        if not state.untried:
            del node.fetches[digest]
            self._schedule.push(0, self._deliver, node, node.life, BlobFailed(digest))
            return
        draw = self._schedule.random.randrange(len(state.untried))
        holder = self._nodes[state.untried.pop(draw)]
        reached = holder.alive and not holder.paused and self._network.connectable(node.index, holder.index)
        data = self._served(holder, node, digest) if reached else None
        if not reached or self._network.request_lost(node.index, holder.index):
            data, duration = None, self._schedule.draw(self._delays.fetch_timeout_ms)
        else:
            duration = self._network.round_trip_ms(node.index, holder.index, len(data or b""))
        others_left = bool(state.untried or state.reserves)
        if state.slow_ms is not None and duration > state.slow_ms and others_left:
            self._schedule.push(state.slow_ms, self._lose_patience, node, node.life, digest, state, holder)
        else:
            self._schedule.push(
                duration, self._end_attempt, node, node.life, digest, state, holder, holder.life, data
            )

    def _lose_patience(self, node: Node, life: int, digest: Digest, state: FetchState, holder: Node) -> None:
        """Others are asked; this holder again when there is no other."""
        if node.life == life and node.fetches.get(digest) is state:
            assert state.slow_ms is not None
            state.slow.append(holder.index)
            state.slow_ms *= 2
            self._ask_others(node, digest, state)

    def _ask_others(self, node: Node, digest: Digest, state: FetchState) -> None:
        state.untried += state.reserves
        state.reserves = []
        self._ask_next(node, digest, state)

    def _served(self, holder: Node, node: Node, digest: Digest) -> bytes | None:
        """What a holder answers; bytes that a dishonest one made up are found out by their digest."""
        data = holder.blobs.get(digest)
        if holder.filter is not None and data is not None:
            data = holder.filter.serve(digest, node.peer, data)
        if data is not None and not holder.honest and not _every_chunk_holds(digest, data):
            return None
        return data

    def _end_attempt(
        self,
        node: Node,
        life: int,
        digest: Digest,
        state: FetchState,
        holder: Node,
        holder_life: int,
        data: bytes | None,
    ) -> None:
        if node.life != life or node.fetches.get(digest) is not state:
            return
        broken = holder.life != holder_life or not self._network.connectable(node.index, holder.index)
        if data is None or broken:
            self._ask_others(node, digest, state)
            return
        del node.fetches[digest]
        node.blobs[digest] = data
        self._deliver(node, life, BlobReady(digest))


def _every_chunk_holds(digest: Digest, data: bytes) -> bool:
    """Whether a fetcher takes what comes in chunks, each with its path."""
    served = blob.chunked(data)
    try:
        for index in range(chunk_count(len(data))):
            blob.verify_chunk(digest, served.chunk(index))
    except BlobError:
        return False
    return True
