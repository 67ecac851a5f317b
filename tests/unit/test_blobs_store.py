"""Blob store and fetcher: whole files or none, lying holders, lying sizes, exactly one answer per fetch."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from flocknode import blobs as blobs_module
from flocknode.blobs import BlobMissingError, BlobStore, BlobStoreError
from flocknode.fetcher import BAD_CHUNK, PARALLEL_CHUNKS, PATIENCE, Fetcher
from flocknode.transport.base import UnreachableError
from protocol.blob import CHUNK_BYTES, Chunk, blob_digest, chunk, verify_chunk
from protocol.codec import encode
from protocol.events import BlobFailed, BlobReady

EMPTY = b""
SMALL = b"a model" * 100
LARGE = Random(1).randbytes(2 * CHUNK_BYTES + 12_345)


def path_of(directory: Path, data: bytes) -> Path:
    return directory / "blobs" / blob_digest(data).hex()


# -- the store ---------------------------------------------------------------------------------


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


# -- the fetcher -------------------------------------------------------------------------------

Answer = Callable[[bytes, int], "bytes | None"]


def honest(data: bytes) -> Answer:
    return lambda digest, index: encode(chunk(data, index))


class Network:
    """Holders as functions; counts what is asked of whom, and the most requests under way at once."""

    def __init__(self, holders: dict[bytes, Answer]) -> None:
        self.holders = holders
        self.asked: Counter[bytes] = Counter()
        self.penalised: Counter[tuple[bytes, str]] = Counter()
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch_chunk(self, peer: bytes, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        self.asked[peer] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if peer not in self.holders:
                raise UnreachableError(peer)
            return self.holders[peer](digest, index)
        finally:
            self.under_way -= 1

    def penalise(self, peer: bytes, why: str) -> None:
        self.penalised[peer, why] += 1


@attrs.define
class World:
    store: BlobStore
    network: Network
    fetcher: Fetcher
    answers: list[tuple[BlobReady | BlobFailed, str]]
    tasks: list["asyncio.Task[None]"]

    async def settle(self) -> list[BlobReady | BlobFailed]:
        await asyncio.gather(*self.tasks)
        return [answer for answer, _ in self.answers]


def world(directory: Path, holders: dict[bytes, Answer], max_bytes: int = 2**26, seed: int = 0) -> World:
    store, network = BlobStore(directory), Network(holders)
    answers: list[tuple[BlobReady | BlobFailed, str]] = []
    tasks: list[asyncio.Task[None]] = []
    pool = ThreadPoolExecutor(1)

    def threads(work: Any, *arguments: Any) -> Any:
        return asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    fetcher = Fetcher(
        blobs=store,
        source=network,
        deliver=lambda answer, why: answers.append((answer, why)),
        spawn=lambda work: tasks.append(asyncio.ensure_future(work)),  # type: ignore[arg-type]
        threads=threads,
        max_bytes=max_bytes,
        random=Random(seed),
    )
    return World(store, network, fetcher, answers, tasks)


def peer(number: int) -> bytes:
    return bytes([number]) * 32


@pytest.mark.parametrize("data", [EMPTY, SMALL, bytes(CHUNK_BYTES), LARGE])
async def test_a_blob_arrives_whole_from_many_holders(tmp_path: Path, data: bytes) -> None:
    w = world(tmp_path, {peer(i): honest(data) for i in range(3)})
    w.fetcher.fetch(blob_digest(data), tuple(peer(i) for i in range(3)))
    assert await w.settle() == [BlobReady(blob_digest(data))]
    assert w.store.read(blob_digest(data)) == data
    assert BlobStore(tmp_path).read(blob_digest(data)) == data
    assert sum(w.network.asked.values()) == max(1, -(-len(data) // CHUNK_BYTES))


async def test_chunks_are_asked_of_random_holders_at_once(tmp_path: Path) -> None:
    data = Random(2).randbytes(12 * CHUNK_BYTES)
    w = world(tmp_path, {peer(i): honest(data) for i in range(4)})
    w.fetcher.fetch(blob_digest(data), tuple(peer(i) for i in range(4)))
    await w.settle()
    assert len(w.network.asked) >= 3
    assert 2 <= w.network.most_under_way <= 4


async def test_requests_under_way_are_bounded_over_all_blobs(tmp_path: Path) -> None:
    many = [bytes([i]) * 1000 for i in range(3 * PARALLEL_CHUNKS)]
    by_digest = {blob_digest(data): data for data in many}
    w = world(tmp_path, {peer(1): lambda digest, index: encode(chunk(by_digest[digest], index))})
    w.network.gate.clear()
    for digest in by_digest:
        w.fetcher.fetch(digest, (peer(1),))
    await asyncio.sleep(0.01)
    assert w.network.under_way == PARALLEL_CHUNKS
    w.network.gate.set()
    assert set(await w.settle()) == {BlobReady(digest) for digest in by_digest}
    assert w.network.most_under_way == PARALLEL_CHUNKS


def wrong_data(digest: bytes, index: int) -> bytes:
    return encode(attrs.evolve(chunk(LARGE, index), data=bytes(len(chunk(LARGE, index).data))))


def other_chunk(digest: bytes, index: int) -> bytes:
    return encode(chunk(LARGE, (index + 1) % 3))


def other_blob(digest: bytes, index: int) -> bytes:
    return encode(chunk(SMALL, 0))


def lying_size(digest: bytes, index: int) -> bytes:
    return encode(attrs.evolve(chunk(LARGE, index), total_bytes=2**35))


def bad_proof(digest: bytes, index: int) -> bytes:
    return encode(attrs.evolve(chunk(LARGE, index), proof=(bytes(32),) * 16))


def garbage(digest: bytes, index: int) -> bytes:
    return Random(index).randbytes(999)


LIARS = [wrong_data, other_chunk, other_blob, lying_size, bad_proof, garbage, lambda *_: b""]


@pytest.mark.parametrize("liar", LIARS)
@pytest.mark.parametrize("seed", range(3))
async def test_a_liar_costs_its_chunk_and_its_reputation(tmp_path: Path, liar: Answer, seed: int) -> None:
    w = world(tmp_path, {peer(1): liar, peer(2): honest(LARGE)}, seed=seed)
    w.fetcher.fetch(blob_digest(LARGE), (peer(1), peer(2)))
    assert await w.settle() == [BlobReady(blob_digest(LARGE))]
    assert w.store.read(blob_digest(LARGE)) == LARGE
    assert set(w.network.penalised) <= {(peer(1), BAD_CHUNK)}
    assert w.network.asked[peer(1)] == 0 or w.network.penalised[peer(1), BAD_CHUNK] >= 1


async def test_a_liar_alone_makes_the_fetch_fail_and_leaves_nothing(tmp_path: Path) -> None:
    for number, liar in enumerate(LIARS):
        w = world(tmp_path, {peer(1): liar})
        w.fetcher.fetch(blob_digest(LARGE), (peer(1),))
        assert await w.settle() == [BlobFailed(blob_digest(LARGE))], number
        assert w.network.penalised == {(peer(1), BAD_CHUNK): 1}
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_a_liar_that_turns_bad_halfway_leaves_nothing(tmp_path: Path) -> None:
    w = world(tmp_path, {peer(1): lambda d, i: honest(LARGE)(d, i) if i < 2 else wrong_data(d, i)})
    w.fetcher.fetch(blob_digest(LARGE), (peer(1),))
    assert await w.settle() == [BlobFailed(blob_digest(LARGE))]
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_a_blob_above_the_limit_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    w = world(tmp_path, {peer(1): honest(LARGE)}, max_bytes=len(LARGE) - 1)
    w.fetcher.fetch(blob_digest(LARGE), (peer(1),))
    assert await w.settle() == [BlobFailed(blob_digest(LARGE))]
    assert f"{len(LARGE)} bytes exceeds the limit of {len(LARGE) - 1}" in w.answers[0][1]
    assert w.network.asked[peer(1)] == 1
    assert not w.network.penalised
    assert list((tmp_path / "blobs").iterdir()) == []


async def test_silent_and_empty_handed_holders_are_given_up(tmp_path: Path) -> None:
    w = world(tmp_path, {peer(2): lambda *_: None})
    w.fetcher.fetch(blob_digest(SMALL), (peer(1), peer(2)))
    assert await w.settle() == [BlobFailed(blob_digest(SMALL))]
    assert w.network.asked == {peer(1): PATIENCE, peer(2): 1}
    assert not w.network.penalised
    w.fetcher.fetch(blob_digest(SMALL), ())
    assert len(await w.settle()) == 2
    assert "no holder is known" in w.answers[1][1]


async def test_a_holder_that_fails_once_is_asked_again(tmp_path: Path) -> None:
    failures = [UnreachableError(peer(1))]

    def stumbling(digest: bytes, index: int) -> bytes:
        if failures:
            raise failures.pop()
        return encode(chunk(SMALL, index))

    w = world(tmp_path, {peer(1): stumbling})
    w.fetcher.fetch(blob_digest(SMALL), (peer(1),))
    assert await w.settle() == [BlobReady(blob_digest(SMALL))]


async def test_a_held_blob_is_answered_at_once(tmp_path: Path) -> None:
    w = world(tmp_path, {})
    w.store.put(blob_digest(SMALL), SMALL)
    w.fetcher.fetch(blob_digest(SMALL), (peer(1),))
    assert [answer for answer, _ in w.answers] == [BlobReady(blob_digest(SMALL))]
    assert not w.network.asked


async def test_a_second_fetch_adds_holders_and_shares_the_answer(tmp_path: Path) -> None:
    w = world(tmp_path, {peer(2): honest(SMALL)})
    w.network.gate.clear()
    w.fetcher.fetch(blob_digest(SMALL), (peer(1),))
    await asyncio.sleep(0.01)
    w.fetcher.fetch(blob_digest(SMALL), (peer(2),))
    w.network.gate.set()
    assert await w.settle() == [BlobReady(blob_digest(SMALL))]
    assert w.store.read(blob_digest(SMALL)) == SMALL


async def test_a_dropped_blob_is_not_kept_when_it_arrives(tmp_path: Path) -> None:
    for data in (SMALL, LARGE):
        w = world(tmp_path, {peer(1): honest(data)})
        w.network.gate.clear()
        w.fetcher.fetch(blob_digest(data), (peer(1),))
        await asyncio.sleep(0.01)
        w.fetcher.abandon(blob_digest(data))
        w.store.drop(blob_digest(data))
        w.network.gate.set()
        assert await w.settle() == [BlobFailed(blob_digest(data))]
        assert w.store.held() == frozenset()
        w.fetcher.fetch(blob_digest(data), (peer(1),))
        assert (await w.settle())[1:] == [BlobReady(blob_digest(data))]
        w.store.drop(blob_digest(data))


async def test_a_blob_that_the_node_makes_itself_meanwhile_is_ready(tmp_path: Path) -> None:
    w = world(tmp_path, {})
    w.network.gate.clear()
    w.fetcher.fetch(blob_digest(SMALL), (peer(1),))
    await asyncio.sleep(0.01)
    w.store.put(blob_digest(SMALL), SMALL)
    w.network.gate.set()
    assert await w.settle() == [BlobReady(blob_digest(SMALL))]


async def test_a_full_disk_is_the_nodes_failure_not_the_peers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    w = world(tmp_path, {peer(1): honest(LARGE)})
    w.fetcher.fetch(blob_digest(LARGE), (peer(1),))
    with pytest.raises(BlobStoreError, match="No space left"):
        await w.settle()
    assert not w.answers
    gc.collect()
    assert list((tmp_path / "blobs").iterdir()) == []


def test_a_chunk_is_what_the_transport_carries() -> None:
    assert len(encode(Chunk(0, CHUNK_BYTES, bytes(CHUNK_BYTES), (bytes(32),) * 16))) <= 2**20 + 2**16
