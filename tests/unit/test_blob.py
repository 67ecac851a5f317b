import hashlib

import attrs
import pytest

from protocol import merkle
from protocol.blob import (
    CHUNK_BYTES,
    BlobError,
    Chunk,
    blob_digest,
    chunk,
    chunk_bytes,
    chunk_count,
    chunked,
    verify_chunk,
)
from protocol.codec import decode, digest, encode

SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 4 * CHUNK_BYTES + 77]


def content(size: int) -> bytes:
    return hashlib.shake_128(b"blob").digest(size)


@pytest.mark.parametrize("size", SIZES)
def test_chunks_verify_and_make_the_blob(size: int) -> None:
    data = content(size)
    whole = chunked(data)
    parts = [whole.chunk(index) for index in range(chunk_count(size))]
    for part in parts:
        verify_chunk(blob_digest(data), part)
        assert decode(Chunk, encode(part), CHUNK_BYTES + 1000) == part
    assert b"".join(part.data for part in parts) == data
    assert [len(part.data) for part in parts] == [chunk_bytes(size, index) for index in range(len(parts))]
    assert chunk(data, len(parts) - 1) == parts[-1]


def test_digest_by_definition() -> None:
    data = content(CHUNK_BYTES + 5)
    leaves = [hashlib.sha256(b"\0" + part).digest() for part in (data[:CHUNK_BYTES], data[CHUNK_BYTES:])]
    root = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    assert blob_digest(data) == digest("blob", len(data).to_bytes(8, "big"), root)
    assert blob_digest(memoryview(data)) == blob_digest(data)


@pytest.mark.parametrize(("total", "count"), [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2)])
def test_chunk_count(total: int, count: int) -> None:
    assert chunk_count(total) == count


def test_a_chunk_passes_for_nothing_else() -> None:
    data = content(3 * CHUNK_BYTES)
    whole = chunked(data)
    first, second = whole.chunk(0), whole.chunk(1)
    forged = [
        attrs.evolve(first, data=bytes([first.data[0] ^ 1]) + first.data[1:]),
        attrs.evolve(first, data=second.data),
        attrs.evolve(first, data=first.data[:-1]),
        attrs.evolve(first, data=b""),
        attrs.evolve(first, index=1),
        attrs.evolve(first, index=3),
        attrs.evolve(first, total_bytes=3 * CHUNK_BYTES - 1),
        attrs.evolve(first, total_bytes=4 * CHUNK_BYTES),
        attrs.evolve(first, total_bytes=CHUNK_BYTES, proof=()),
        attrs.evolve(first, proof=second.proof),
        attrs.evolve(first, proof=first.proof[:-1]),
        attrs.evolve(first, proof=(*first.proof, first.proof[0])),
        chunk(content(3 * CHUNK_BYTES)[::-1], 0),
    ]
    for part in forged:
        with pytest.raises(BlobError):
            verify_chunk(whole.digest, part)


def test_a_blob_of_hashes_has_another_digest() -> None:
    # The data of a one-chunk blob cannot be chosen so that it reads as the inner node of a larger one.
    data = content(2 * CHUNK_BYTES)
    leaves = [merkle.leaf_hash(data[:CHUNK_BYTES]), merkle.leaf_hash(data[CHUNK_BYTES:])]
    assert blob_digest(leaves[0] + leaves[1]) != blob_digest(data)
    # And a size that was not hashed is not accepted for the same root.
    assert blob_digest(b"\0") != blob_digest(b"")


def test_no_such_chunk() -> None:
    for index in (-1, 2):
        with pytest.raises(BlobError, match="of a blob of 2 chunks"):
            chunk(content(CHUNK_BYTES + 1), index)


@pytest.mark.parametrize(
    ("field", "value"),
    [("index", -1), ("index", 2**16), ("total_bytes", -1), ("total_bytes", 2**36 + 1),
     ("data", bytes(CHUNK_BYTES + 1)), ("proof", (bytes(32),) * 17), ("proof", (bytes(31),))],
)  # fmt: skip
def test_chunk_fields_are_bounded(field: str, value: object) -> None:
    good = Chunk(0, 1, b"x", ())
    with pytest.raises(ValueError, match=field):
        attrs.evolve(good, **{field: value})
