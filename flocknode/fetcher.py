"""Fetching blobs: chunks from random holders at once, each of them verified (docs/PROTOCOL.md section 7).

At most `PARALLEL_CHUNKS` chunks are in memory, whatever a blob's size; verified ones go straight to disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from random import Random
from typing import Any, Protocol, TypeVar

from attrs import define, field

from flocknode.blobs import BlobStore, IncomingBlob
from flocknode.faults import FAULT, describe_error
from flocknode.transport.base import MAX_CHUNK_BYTES, TransportError
from protocol.blob import BlobError, Chunk, chunk_count, verify_chunk
from protocol.codec import DecodeError, decode
from protocol.events import BlobFailed, BlobReady, Digest, PeerId

Result = TypeVar("Result")

PARALLEL_CHUNKS = 16
"""Requests under way, over all blobs."""
PARALLEL_CHUNKS_OF_A_BLOB = 4
CHUNK_TIMEOUT_S = 10.0
SLOW_CHUNK_S = 2.0
"""How long a holder may take while others are left to ask. Twice as long after each that took longer: the
line that is slow may be this node's own."""
PATIENCE = 2
"""How often a holder may fail to answer, for one blob, before it is asked no more."""
BAD_CHUNK = "bad-chunk"


class FetchError(Exception):
    """A blob cannot be had: no holder is left, it is larger than allowed, or nobody wants it any more."""


class ChunkSource(Protocol):
    """What the fetcher asks of the network; see `flocknode.transport.base.Transport`."""

    async def fetch_chunk(
        self, peer: PeerId, digest: bytes, index: int, timeout_s: float
    ) -> bytes | None: ...
    def penalise(self, peer: PeerId, why: str) -> object: ...


class Threads(Protocol):
    """Runs a blocking call off the event loop."""

    def __call__(self, work: Callable[..., Result], *arguments: Any) -> Awaitable[Result]: ...


@define
class _Pull:
    """One blob on its way. `reserves` are asked once a holder has failed or let the node wait."""

    digest: Digest
    patience: dict[PeerId, int] = field(factory=dict)
    reserves: set[PeerId] = field(factory=set)
    refused: set[PeerId] = field(factory=set)
    slow_s: float = field(factory=lambda: SLOW_CHUNK_S)
    last_failure: str = "no holder is known"
    stopped: FetchError | None = None

    def add(self, holders: tuple[PeerId, ...], reserves: tuple[PeerId, ...] = ()) -> None:
        for holder in holders:
            if holder not in self.refused:
                self.patience[holder] = PATIENCE
        self.reserves.update(reserves)
        if not self.patience:
            self.call_reserves()

    def call_reserves(self) -> None:
        """From now on ask them like any holder."""
        for holder in self.reserves - self.refused:
            self.patience.setdefault(holder, PATIENCE)
        self.reserves.clear()

    def may_take_s(self) -> float:
        """How long the next answer may take: not as long where another holder can be asked."""
        others_left = self.reserves or len(self.patience) > 1
        return min(self.slow_s, CHUNK_TIMEOUT_S) if others_left else CHUNK_TIMEOUT_S

    def failed(self, holder: PeerId, why: str, patience: int) -> None:
        """`holder` did not give a chunk and is asked again while patience lasts."""
        self.last_failure = why
        left = self.patience.get(holder, 0) - patience
        if left > 0:
            self.patience[holder] = left
        else:
            self.patience.pop(holder, None)
        self.call_reserves()


class Fetcher:
    """Performs `Fetch`: each one ends in exactly one `BlobReady` or `BlobFailed`, given to `deliver`.

    A fetch of a blob that is under way adds its holders to it and shares its answer. `spawn` starts a task
    whose failure is the node's failure (a full disk, not a bad peer). `threads` runs one call at a time, and
    the node's own `put` and `drop` go the same way.
    """

    def __init__(
        self,
        *,
        blobs: BlobStore,
        source: ChunkSource,
        deliver: Callable[[BlobReady | BlobFailed, str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        threads: Threads,
        max_bytes: int,
        random: Random,
    ) -> None:
        self._blobs = blobs
        self._source = source
        self._deliver = deliver
        self._spawn = spawn
        self._threads = threads
        self._max_bytes = max_bytes
        self._random = random
        self._slots = asyncio.Semaphore(PARALLEL_CHUNKS)
        self._pulls: dict[Digest, _Pull] = {}

    def fetch(self, digest: Digest, holders: tuple[PeerId, ...], reserves: tuple[PeerId, ...] = ()) -> None:
        """Begin to fetch `digest` from `holders`, or answer at once if it is held."""
        pull = self._pulls.get(digest)
        if pull is not None:
            pull.add(holders, reserves)
        elif digest in self._blobs:
            self._deliver(BlobReady(digest), "held")
        else:
            pull = self._pulls[digest] = _Pull(digest)
            pull.add(holders, reserves)
            self._spawn(self._run(pull))

    def abandon(self, digest: Digest) -> None:
        """The blob is not wanted any more: a fetch that is under way ends in `BlobFailed`."""
        pull = self._pulls.get(digest)
        if pull is not None:
            pull.stopped = FetchError("dropped meanwhile")

    async def _run(self, pull: _Pull) -> None:
        why = "fetched"
        try:
            await self._pull(pull)
        except FetchError as error:
            why = str(error)
        del self._pulls[pull.digest]
        # Held nevertheless where the node itself has made the blob meanwhile.
        ready = pull.digest in self._blobs
        self._deliver(BlobReady(pull.digest) if ready else BlobFailed(pull.digest), why)

    async def _pull(self, pull: _Pull) -> None:
        first = await self._chunk(pull, 0)
        # The digest binds the size: this is the blob's own, however large, and is refused before it costs.
        if first.total_bytes > self._max_bytes:
            raise FetchError(f"a blob of {first.total_bytes} bytes exceeds the limit of {self._max_bytes}")
        count = chunk_count(first.total_bytes)
        if count == 1:
            await self._threads(self._keep_only, pull, first)
        else:
            await self._pull_rest(pull, first, count)
        if pull.stopped is not None:
            raise pull.stopped

    def _keep_only(self, pull: _Pull, chunk: Chunk) -> None:
        """Store a blob of one chunk: in one call, for a round waits for several of them."""
        incoming = self._blobs.receive(pull.digest, chunk.total_bytes)
        try:
            incoming.write(chunk)
            incoming.finish(lambda: pull.stopped is None)
        finally:
            incoming.discard()

    async def _pull_rest(self, pull: _Pull, first: Chunk, count: int) -> None:
        incoming = await self._threads(self._blobs.receive, pull.digest, first.total_bytes)
        try:
            await self._threads(incoming.write, first)
            rest = iter(range(1, count))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(PARALLEL_CHUNKS_OF_A_BLOB, count - 1)):
                    group.create_task(self._fill(pull, rest, incoming))
            await self._threads(incoming.finish, lambda: pull.stopped is None)
        finally:
            incoming.discard()

    async def _fill(self, pull: _Pull, indices: Iterator[int], incoming: IncomingBlob) -> None:
        """Fetch and store chunk after chunk until `indices`, which several of these share, is empty."""
        try:
            for index in indices:
                await self._threads(incoming.write, await self._chunk(pull, index))
        except FetchError as error:
            pull.stopped = error

    async def _chunk(self, pull: _Pull, index: int) -> Chunk:
        """Chunk `index`, verified, from whichever holder gives it. Raises `FetchError` when none is left."""
        while True:
            async with self._slots:
                if pull.stopped is not None:
                    raise pull.stopped
                if not pull.patience:
                    raise FetchError(f"chunk {index}: no holder left: {pull.last_failure}")
                holder, limit_s = self._random.choice(sorted(pull.patience)), pull.may_take_s()
                began = asyncio.get_running_loop().time()
                try:
                    data = await self._source.fetch_chunk(holder, pull.digest, index, limit_s)
                except TransportError as error:
                    if asyncio.get_running_loop().time() - began >= limit_s:
                        pull.slow_s *= 2
                    pull.failed(holder, str(error), 1)
                    continue
                except Exception as error:
                    # Whatever the answer of one holder breaks costs that holder, and another one is asked.
                    pull.failed(holder, describe_error(error), PATIENCE)
                    self._source.penalise(holder, FAULT)
                    continue
                if data is None:
                    pull.failed(holder, "a holder does not hold it", PATIENCE)
                    continue
                try:
                    return await self._threads(_verified, pull.digest, index, data)
                except Exception as error:
                    # Only a liar gets here: an honest holder checks its own blobs before it serves them. What
                    # a chunk breaks otherwise than by `DecodeError` or `BlobError` is this node's fault too.
                    known = isinstance(error, DecodeError | BlobError)
                    pull.refused.add(holder)
                    pull.failed(holder, describe_error(error), PATIENCE)
                    self._source.penalise(holder, BAD_CHUNK if known else FAULT)


def _verified(digest: Digest, index: int, data: bytes) -> Chunk:
    chunk = decode(Chunk, data, MAX_CHUNK_BYTES)
    if chunk.index != index:
        raise BlobError(f"chunk {chunk.index} came for chunk {index}")
    verify_chunk(digest, chunk)
    return chunk
