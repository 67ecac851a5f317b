"""Blobs on disk: masked updates, aggregates and models, a file each (docs/PROTOCOL.md section 7).

A file is there whole or not at all, and is checked against its digest when the store is opened. Its name is
made from the 32 bytes of the digest and nothing else, so nothing from the wire can be a path. Calls block and
may come from any thread.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from flocknode.files import PARTIAL, sync_directory, write_file
from protocol.blob import CHUNK_BYTES, BlobError, Chunk, ChunkedBlob, blob_digest, chunked
from protocol.events import Digest

DIRECTORY = "blobs"
DIGEST_BYTES = 32
CACHE_BYTES = 64 * 2**20
"""Blobs kept in memory, hashed, for members that fetch one after the other."""


class BlobStoreError(Exception):
    """A blob cannot be kept or read; the message names its digest or its file."""


class BlobMissingError(BlobStoreError):
    """The blob is not held."""


class BlobStore:
    """The blobs of one node, under `directory`/blobs. Opening removes what is unfinished or damaged."""

    def __init__(self, directory: Path) -> None:
        """Raises `BlobStoreError` where the directory cannot be created or read."""
        self._directory = directory / DIRECTORY
        self._lock = Lock()
        self._held: set[Digest] = set()
        self._cache: OrderedDict[Digest, ChunkedBlob] = OrderedDict()
        self._cached_bytes = 0
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._scan()
        except OSError as error:
            raise BlobStoreError(f"{self._directory}: {error.strerror}") from error

    def held(self) -> frozenset[Digest]:
        """The digests of all blobs held."""
        return frozenset(self._held)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._held

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep `data` durably, unless it is held. Raises `BlobStoreError` where `data` is another blob."""
        path = self._path(digest)
        if digest in self._held:
            return
        blob = chunked(data)
        if blob.digest != digest:
            raise BlobStoreError(f"{len(data)} bytes named {digest.hex()} are blob {blob.digest.hex()}")
        try:
            write_file(path, [data], 0o600)
        except OSError as error:
            raise BlobStoreError(f"{path}: {error.strerror}") from error
        with self._lock:
            self._held.add(digest)
            self._remember(digest, blob)

    def drop(self, digest: Digest) -> None:
        """Forget the blob; nothing happens if it is not held. Raises `BlobStoreError`."""
        path = self._path(digest)
        with self._lock:
            self._forget(digest)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise BlobStoreError(f"{path}: {error.strerror}") from error

    def read(self, digest: Digest) -> bytes:
        """The whole blob. Raises `BlobMissingError`."""
        with self._lock:
            return self._load(digest)

    def read_chunk(self, digest: Digest, index: int) -> Chunk | None:
        """Chunk `index` with its proof; None where there is no such blob, chunk, or even name."""
        try:
            with self._lock:
                blob = self._blob(digest)
            return blob.chunk(index)
        except (BlobStoreError, BlobError):
            return None

    def receive(self, digest: Digest, total_bytes: int) -> IncomingBlob:
        """A place for the chunks of a blob that is being fetched. Raises `BlobStoreError`."""
        return IncomingBlob(self, digest, self._path(digest), total_bytes)

    def received(self, digest: Digest) -> None:
        """The file of `digest` was put in its place, chunk for chunk verified."""
        with self._lock:
            self._held.add(digest)

    def _path(self, digest: Digest) -> Path:
        if type(digest) is not bytes or len(digest) != DIGEST_BYTES:
            raise BlobStoreError(f"a blob's name is {DIGEST_BYTES} bytes, not {digest!r:.80}")
        return self._directory / digest.hex()

    def _scan(self) -> None:
        for entry in self._directory.iterdir():
            if entry.name.endswith(PARTIAL):
                entry.unlink()
            elif (digest := _digest_of(entry.name)) is not None:
                # What is not what its name says is not held: whoever needs the blob fetches it again.
                if blob_digest(entry.read_bytes()) == digest:
                    self._held.add(digest)
                else:
                    entry.unlink()

    def _blob(self, digest: Digest) -> ChunkedBlob:
        blob = self._cache.get(digest)
        if blob is not None:
            self._cache.move_to_end(digest)
            return blob
        blob = chunked(self._load(digest))
        if blob.digest != digest:
            # Serving it would earn this node the penalty of a liar.
            raise BlobStoreError(f"{self._path(digest)}: damaged")
        self._remember(digest, blob)
        return blob

    def _load(self, digest: Digest) -> bytes:
        path = self._path(digest)
        if digest not in self._held:
            raise BlobMissingError(f"blob {digest.hex()} is not held")
        try:
            return path.read_bytes()
        except OSError as error:
            self._forget(digest)
            raise BlobMissingError(f"{path}: {error.strerror}") from error

    def _remember(self, digest: Digest, blob: ChunkedBlob) -> None:
        self._cache[digest] = blob
        self._cached_bytes += len(blob.data)
        while self._cached_bytes > CACHE_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= len(oldest.data)

    def _forget(self, digest: Digest) -> None:
        self._held.discard(digest)
        blob = self._cache.pop(digest, None)
        if blob is not None:
            self._cached_bytes -= len(blob.data)


class IncomingBlob:
    """A blob on its way in: its verified chunks go to disk in any order; made by `BlobStore.receive`."""

    def __init__(self, store: BlobStore, digest: Digest, path: Path, total_bytes: int) -> None:
        self._store = store
        self._digest = digest
        self._path = path
        # Not the name under which `put` writes: the node may produce a blob itself while it fetches it.
        self._partial = path.with_name(f"{path.name}.incoming{PARTIAL}")
        try:
            self._file = self._partial.open("wb", buffering=0)
            self._file.truncate(total_bytes)
        except OSError as error:
            raise BlobStoreError(f"{self._partial}: {error.strerror}") from error

    def write(self, chunk: Chunk) -> None:
        """Store a chunk that was verified. Raises `BlobStoreError`."""
        view, position = memoryview(chunk.data), chunk.index * CHUNK_BYTES
        try:
            while view:
                count = os.pwrite(self._file.fileno(), view, position)
                view, position = view[count:], position + count
        except OSError as error:
            raise BlobStoreError(f"{self._partial}: {error.strerror}") from error

    def finish(self, wanted: Callable[[], bool]) -> None:
        """All chunks are written: if the blob is still wanted, it is held from here on, durably.

        Raises `BlobStoreError`.
        """
        if not wanted():
            return
        try:
            os.fsync(self._file.fileno())
            self._partial.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise BlobStoreError(f"{self._path}: {error.strerror}") from error
        self._store.received(self._digest)

    def discard(self) -> None:
        """Let go; what was not finished is gone."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def _digest_of(name: str) -> Digest | None:
    try:
        digest = bytes.fromhex(name)
    except ValueError:
        return None
    return digest if len(digest) == DIGEST_BYTES and digest.hex() == name else None
