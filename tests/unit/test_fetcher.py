"""Fetcher: lying holders, lying sizes, bounded requests, exactly one answer per fetch."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest

from flocknode import fetcher as fetcher_module
from flocknode.blobs import BlobStore, BlobStoreError
from flocknode.fetcher import BAD_CHUNK, PARALLEL_CHUNKS, PATIENCE, Fetcher
from flocknode.transport.base import FetchFailedError, UnreachableError
from protocol.blob import CHUNK_BYTES, Chunk, blob_digest, chunk
from protocol.codec import encode
from protocol.events import BlobFailed, BlobReady

EMPTY = b""
SMALL = b"a model" * 100
LARGE = Random(1).randbytes(2 * CHUNK_BYTES + 12_345)

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
        self.stalling: set[bytes] = set()
        self.longest_s: dict[bytes, float] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch_chunk(self, peer: bytes, digest: bytes, index: int, timeout_s: float) -> bytes | None:
        self.asked[peer] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.longest_s[peer] = max(self.longest_s.get(peer, 0.0), timeout_s)
        try:
            if peer in self.stalling:
                await asyncio.sleep(timeout_s)
                raise FetchFailedError(peer, digest, index, f"no reply in {timeout_s} s")
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


async def test_reserves_are_asked_only_once_a_holder_has_failed(tmp_path: Path) -> None:
    w = world(tmp_path, {peer(1): honest(SMALL), peer(2): honest(SMALL)})
    w.fetcher.fetch(blob_digest(SMALL), (peer(1),), (peer(2),))
    assert await w.settle() == [BlobReady(blob_digest(SMALL))]
    assert w.network.asked == {peer(1): 1}
    for number, holders in enumerate(((peer(3),), ())):
        w.store.drop(blob_digest(SMALL))
        w.fetcher.fetch(blob_digest(SMALL), holders, (peer(2),))
        assert len(await w.settle()) == 2 + number
    assert all(isinstance(answer, BlobReady) for answer, _ in w.answers)
    assert 1 <= w.network.asked[peer(3)] <= PATIENCE


async def test_a_holder_that_stalls_holds_up_a_blob_no_longer_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it waited for like the last holder there is, the test would take ten seconds a chunk."""
    monkeypatch.setattr(fetcher_module, "SLOW_CHUNK_S", 0.02)
    for seed in range(5):
        directory = tmp_path / str(seed)
        directory.mkdir()
        w = world(directory, {peer(2): honest(LARGE)}, seed=seed)
        w.network.stalling = {peer(1)}
        w.fetcher.fetch(blob_digest(LARGE), (peer(1), peer(2)), (peer(3),))
        assert await asyncio.wait_for(w.settle(), 5) == [BlobReady(blob_digest(LARGE))]
        assert w.network.longest_s.get(peer(1), 0.0) < fetcher_module.CHUNK_TIMEOUT_S
        assert not w.network.penalised


async def test_the_last_holder_has_the_whole_time(tmp_path: Path) -> None:
    w = world(tmp_path, {peer(1): honest(SMALL)})
    w.fetcher.fetch(blob_digest(SMALL), (peer(1),))
    await w.settle()
    assert w.network.longest_s[peer(1)] == fetcher_module.CHUNK_TIMEOUT_S


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
