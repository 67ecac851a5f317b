"""`flocknode bench start`: what taking up a stored ledger costs, beside checking it from genesis.

The ledger is made by real engines in the simulator and written to a real store. The three ways take turns, so
that a busy machine does all of them the same harm: with the snapshot, as a node starts; without it, as a node
starts whose snapshot is lost; and with every check, as `flocknode ledger verify` does and a start once did.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

from attrs import field, frozen

from flocknode.observe.log import make_logger
from flocknode.startup import start_event
from flocknode.store import Store, open_reader
from protocol import durable, keys
from protocol.events import Persist
from protocol.ledger.block import decode_stored_block
from protocol.ledger.chain import replay
from protocol.ledger.resume import LedgerPosition, resume
from protocol.params import Genesis
from sim.founding import build_world, found, small_params

BATCH = 500
PATIENCE_MS = 10**9


@frozen
class StartBench:
    """Milliseconds a block, medians of the repeats; the peak of what a start allocates, in bytes."""

    nodes: int
    blocks: int
    ledger_bytes: int
    ms_a_block: dict[str, float] = field(repr=False)
    peak_bytes: int


def bench_start(blocks: int, nodes: int = 4, repeats: int = 3, seed: int = 1) -> StartBench:
    """Make a ledger of at least so many blocks, and time each way of taking it up."""
    params = small_params(nodes)
    world = build_world(nodes, seed, params=params, keep_trace=0)
    world.invariants.clear()
    node = world.nodes[0]
    world.run(lambda _: node.height >= blocks, PATIENCE_MS, 10**9)
    records = node.records
    genesis = found(nodes, seed, params).genesis
    with tempfile.TemporaryDirectory(prefix="flocknode-bench-") as name:
        directory = Path(name)
        asyncio.run(_write(directory, records))
        size = sum(map(len, records[durable.BLOCK].values()))
        count = len(records[durable.BLOCK])
        world.nodes.clear()
        ways: dict[str, Callable[[], object]] = {
            "with its snapshot": lambda: _start(directory, genesis),
            "without a snapshot": lambda: _start(directory, genesis, is_snapshot_lost=True),
            "every check": lambda: _verify(directory, genesis),
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                took[way].append(time.perf_counter() - began)
        tracemalloc.start()
        _start(directory, genesis)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    figures = {way: median(seconds) / count * 1_000 for way, seconds in took.items()}
    return StartBench(nodes, count, size, figures, peak)


async def _write(directory: Path, records: dict[str, dict[bytes, bytes]]) -> None:
    store = await Store.open(directory)
    rows = [
        Persist(bucket, key, value)
        for bucket in (durable.BLOCK, durable.SNAPSHOT)
        for key, value in sorted(records[bucket].items())
    ]
    for start in range(0, len(rows), BATCH):
        await store.commit(rows[start : start + BATCH])
    await store.close()


def _start(directory: Path, genesis: Genesis, is_snapshot_lost: bool = False) -> None:
    """Open the store and take up its ledger, as a node does."""

    def without(snapshot: bytes | None, blocks: Iterable[bytes]) -> LedgerPosition:
        return resume(genesis, None, blocks)

    async def run() -> None:
        store = await Store.open(directory)
        try:
            log = make_logger([io.StringIO()], "bench", "error")
            way = without if is_snapshot_lost else partial(resume, genesis)
            await start_event(store, way, frozenset(), log, asyncio.Event())
        finally:
            await store.close()

    asyncio.run(run())


def _verify(directory: Path, genesis: Genesis) -> None:
    """Check everything from genesis, as a new process does, which remembers no signature."""
    keys.verify.cache_clear()
    with open_reader(directory) as reader:
        deque(replay(genesis, lambda: (decode_stored_block(data) for _, data in reader.blocks())), maxlen=0)


def render(result: StartBench) -> str:
    """Return the figures as lines of text."""
    lines = [
        f"{result.blocks} blocks, {result.ledger_bytes / result.blocks:.0f} bytes each, {result.nodes} nodes",
        *(f"{way:20} {ms:8.3f} ms a block" for way, ms in result.ms_a_block.items()),
        f"a start with its snapshot allocates {result.peak_bytes / 1e6:.2f} MB at most",
    ]
    return "\n".join(lines)
