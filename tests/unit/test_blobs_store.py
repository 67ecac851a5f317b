"""Blob store: whole files or none, names that are no paths, damage that is not served."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flocknode import blobs as blobs_module
from flocknode.blobs import BlobMissingError, BlobStore, BlobStoreError
from protocol.blob import CHUNK_BYTES, blob_digest, chunk, verify_chunk

EMPTY = b""
SMALL = b"a model" * 100
LARGE = Random(1).randbytes(2 * CHUNK_BYTES + 12_345)


def path_of(directory: Path, data: bytes) -> Path:
    return directory / "blobs" / blob_digest(data).hex()


def test_blobs_survive_reopening_under_their_digest(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for data in (EMPTY, SMALL, LARGE):
        store.put(blob_digest(data), data)
        store.put(blob_digest(data), data)
    store = BlobStore(tmp_path)
    assert store.held() == {blob_digest(data) for data in (EMPTY, SMALL, LARGE)}
    for data in (EMPTY, SMALL, LARGE):
        assert store.read(blob_digest(data)) == data
        assert store.read(blob_digest(data)) == data
        assert path_of(tmp_path, data).read_bytes() == data
    store.drop(blob_digest(SMALL))
    store.drop(blob_digest(SMALL))
    assert blob_digest(SMALL) not in store
    with pytest.raises(BlobMissingError, match=blob_digest(SMALL).hex()):
        store.read(blob_digest(SMALL))
    assert BlobStore(tmp_path).held() == {blob_digest(data) for data in (EMPTY, LARGE)}


def test_chunks_prove_themselves(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = blob_digest(LARGE)
    store.put(digest, LARGE)
    for source in (store, BlobStore(tmp_path)):
        chunks = [source.read_chunk(digest, index) for index in range(3)]
        assert chunks == [chunk(LARGE, index) for index in range(3)]
        for part in chunks:
            assert part is not None
            verify_chunk(digest, part)
        assert source.read_chunk(digest, 3) is None
        assert source.read_chunk(digest, -1) is None
        assert source.read_chunk(bytes(32), 0) is None


@pytest.mark.parametrize(
    "name", [b"", b"../../etc/passwd", bytes(31), bytes(33), "ab" * 32, b"/" * 32 + b"x", None]
)
def test_only_32_bytes_name_a_blob(tmp_path: Path, name: Any) -> None:
    store = BlobStore(tmp_path)
    for call in (store.read, store.drop, lambda bad: store.put(bad, b""), lambda bad: store.receive(bad, 1)):
        with pytest.raises(BlobStoreError, match="32 bytes"):
            call(name)
    assert store.read_chunk(name, 0) is None
    assert store.held() == frozenset()


def test_a_name_of_path_characters_stays_inside_the_directory(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for name in (b"/../" * 8, b"." * 32, bytes(32)):
        assert store.read_chunk(name, 0) is None
        store.drop(name)
        store.receive(name, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"blobs"}
    assert all(len(path.name) > 64 for path in (tmp_path / "blobs").iterdir())


def test_data_that_does_not_match_its_digest_is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with pytest.raises(BlobStoreError, match=blob_digest(SMALL).hex()):
        store.put(blob_digest(LARGE), SMALL)
    assert list((tmp_path / "blobs").iterdir()) == []


def test_leftovers_of_a_crash_are_removed_and_strange_files_are_not_blobs(tmp_path: Path) -> None:
    BlobStore(tmp_path).put(blob_digest(SMALL), SMALL)
    directory = tmp_path / "blobs"
    (directory / f"{'ab' * 32}.partial").write_bytes(b"half")
    (directory / f"{'cd' * 32}.incoming.partial").write_bytes(b"half")
    (directory / "README").write_bytes(b"")
    (directory / ("AB" * 32)).write_bytes(b"")
    assert BlobStore(tmp_path).held() == {blob_digest(SMALL)}
    assert {path.name for path in directory.iterdir()} == {blob_digest(SMALL).hex(), "README", "AB" * 32}


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_damaged_blob_is_not_served_and_not_held_after_a_restart(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    digest = blob_digest(SMALL)
    BlobStore(tmp_path).put(digest, SMALL)
    store = BlobStore(tmp_path)
    path_of(tmp_path, SMALL).write_bytes(damage(SMALL))
    assert store.read_chunk(digest, 0) is None
    assert BlobStore(tmp_path).held() == frozenset()
    assert not path_of(tmp_path, SMALL).exists()


def test_a_blob_that_vanished_is_no_longer_held(tmp_path: Path) -> None:
    digest = blob_digest(SMALL)
    BlobStore(tmp_path).put(digest, SMALL)
    store = BlobStore(tmp_path)
    path_of(tmp_path, SMALL).unlink()
    with pytest.raises(BlobMissingError, match="No such file"):
        store.read(digest)
    assert digest not in store


def test_the_cache_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "CACHE_BYTES", 1000)
    store = BlobStore(tmp_path)
    data = [bytes([i]) * 400 for i in range(5)] + [bytes(5000)]
    for blob in data:
        store.put(blob_digest(blob), blob)
        store.read_chunk(blob_digest(blob), 0)
        assert store._cached_bytes == sum(len(held.data) for held in store._cache.values()) <= 1000
    for blob in data:
        assert store.read(blob_digest(blob)) == blob
        store.drop(blob_digest(blob))
    assert store._cached_bytes == 0


WRITER = """
import sys
from pathlib import Path
from flocknode.blobs import BlobStore
from protocol.blob import blob_digest
store = BlobStore(Path(sys.argv[1]))
for i in range(10**6):
    data = (b"%d " % i) * 60_000
    store.put(blob_digest(data), data)
    print(i, flush=True)
"""


def test_kill_9_leaves_whole_blobs_and_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(8):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
    store = BlobStore(tmp_path)
    assert all(blob_digest((b"%d " % i) * 60_000) in store for i in range(acknowledged + 1))
    for digest in store.held():
        assert blob_digest(store.read(digest)) == digest
    assert not list((tmp_path / "blobs").glob("*.partial"))
