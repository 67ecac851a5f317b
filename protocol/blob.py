"""Blobs: masked updates, aggregates and models, by digest and in chunks (docs/PROTOCOL.md section 7).

Each chunk proves by itself that it belongs to its blob, so anyone may send it; a bad one costs one chunk.
"""

from collections.abc import Iterator

from attrs import field, frozen

from protocol import merkle
from protocol.codec import bounded_bytes, bounded_tuple, bytes_of, digest, int_range

Digest = bytes
"""A 32-byte SHA-256 digest."""

CHUNK_BYTES = 2**20
MAX_BLOB_BYTES = 2**36
MAX_PROOF_HASHES = 16
"""log2 of the chunks in the largest blob."""


class BlobError(ValueError):
    """A chunk is not the part of the blob that it claims to be, or there is no such chunk."""


@frozen
class Chunk:
    """At most `CHUNK_BYTES` of a blob of `total_bytes`, from `index * CHUNK_BYTES` on, and their proof."""

    index: int = field(validator=int_range(0, MAX_BLOB_BYTES // CHUNK_BYTES - 1))
    total_bytes: int = field(validator=int_range(0, MAX_BLOB_BYTES))
    data: bytes = field(validator=bounded_bytes(CHUNK_BYTES))
    proof: tuple[bytes, ...] = field(validator=bounded_tuple(MAX_PROOF_HASHES, bytes_of(merkle.HASH_BYTES)))


def chunk_count(total_bytes: int) -> int:
    """Chunks of a blob of `total_bytes`; an empty blob has one, empty, and is asked for like any other."""
    return max(1, -(-total_bytes // CHUNK_BYTES))


def chunk_bytes(total_bytes: int, index: int) -> int:
    """The exact size of chunk `index`. BlobError where a blob of `total_bytes` has no such chunk."""
    if not 0 <= index < chunk_count(total_bytes):
        raise BlobError(f"chunk {index} of a blob of {chunk_count(total_bytes)} chunks")
    return min(CHUNK_BYTES, total_bytes - index * CHUNK_BYTES)


@frozen
class ChunkedBlob:
    """A whole blob, hashed once to serve all its chunks; made by `chunked`."""

    data: memoryview = field(repr=False)
    tree: merkle.Tree = field(repr=False)

    @property
    def digest(self) -> Digest:
        """The blob's address: it binds the size and, by the root of a Merkle tree, every chunk."""
        return _address(len(self.data), self.tree.root)

    def chunk(self, index: int) -> Chunk:
        """Chunk `index` with its proof. BlobError where there is none."""
        size = chunk_bytes(len(self.data), index)
        start = index * CHUNK_BYTES
        return Chunk(index, len(self.data), bytes(self.data[start : start + size]), self.tree.proof(index))


def chunked(data: bytes | memoryview) -> ChunkedBlob:
    """`data` (a memoryview must be of contiguous bytes, not to be changed later), ready to be served.

    BlobError above `MAX_BLOB_BYTES`.
    """
    view = memoryview(data).cast("B")
    if len(view) > MAX_BLOB_BYTES:
        raise BlobError(f"a blob of {len(view)} bytes exceeds {MAX_BLOB_BYTES}")
    return ChunkedBlob(view, merkle.tree([merkle.leaf_hash(part) for part in _parts(view)]))


def blob_digest(data: bytes | memoryview) -> Digest:
    """The 32-byte address of `data`; BlobError as in `chunked`."""
    return chunked(data).digest


def chunk(data: bytes | memoryview, index: int) -> Chunk:
    """One chunk; to serve several, `chunked` hashes the blob once. BlobError where there is no such chunk."""
    return chunked(data).chunk(index)


def verify_chunk(digest: Digest, chunk: Chunk) -> None:
    """BlobError unless `chunk` is, byte for byte, the part that it claims to be of the blob at `digest`."""
    size = chunk_bytes(chunk.total_bytes, chunk.index)
    if len(chunk.data) != size:
        raise BlobError(f"chunk {chunk.index} has {len(chunk.data)} bytes, not {size}")
    count = chunk_count(chunk.total_bytes)
    root = merkle.root_of_path(merkle.leaf_hash(chunk.data), chunk.index, count, chunk.proof)
    if root is None or _address(chunk.total_bytes, root) != digest:
        raise BlobError(f"chunk {chunk.index} of {count} is not part of blob {digest.hex()[:16]}")


def _address(total_bytes: int, root: bytes) -> Digest:
    return digest("blob", total_bytes.to_bytes(8, "big"), root)


def _parts(view: memoryview) -> Iterator[memoryview]:
    for index in range(chunk_count(len(view))):
        yield view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
