"""Take up what a node's store holds, off the event loop and interruptible (docs/PROTOCOL.md section 7.3)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from flocknode.observe.log import Logger
from flocknode.store import Store, StoreError
from protocol import durable
from protocol.events import Digest, Start
from protocol.ledger.chain import ChainError
from protocol.ledger.resume import LedgerPosition

Resume = Callable[[bytes | None, Iterable[bytes]], LedgerPosition]
"""`protocol.ledger.resume.resume` for one genesis: takes the snapshot, if there is one, and the blocks."""

PROGRESS_INTERVAL_S = 2.0
"""How often a long check of the stored ledger tells how far it is."""


class InterruptedStartError(Exception):
    """The node was asked to stop while it took up its ledger."""


async def start_event(
    store: Store, resume: Resume | None, blobs: frozenset[Digest], log: Logger, stop: asyncio.Event
) -> Start:
    """Return the first event of a life. Without `resume`, of an engine without a ledger, no block is read.

    The blocks are read one after the other, on a thread of the store's, and none of them is kept. Raises
    `StoreError` for a damaged store or ledger, naming the height, `InterruptedStartError` once `stop` is set.
    """
    records = await store.load()
    if resume is None:
        return Start(records, blobs)
    snapshot = records.pop(durable.SNAPSHOT, {}).get(durable.SNAPSHOT_KEY)
    loop, halted = asyncio.get_running_loop(), threading.Event()

    def tell(height: int, seconds: float) -> None:
        loop.call_soon_threadsafe(lambda: log.info("checking_ledger", height=height, seconds=seconds))

    def check(blocks: Iterator[bytes]) -> LedgerPosition:
        return resume(snapshot, _watched(blocks, halted, tell))

    began = time.monotonic()
    checking = asyncio.ensure_future(store.with_blocks(check))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({checking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        halted.set()
        position = await checking
    except ChainError as error:
        raise StoreError(f"{store.path}: damaged: {error}") from error
    finally:
        halted.set()
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping
    seconds = round(time.monotonic() - began, 3)
    log.info("ledger", height=position.state.height, round=position.state.round, seconds=seconds)
    return Start(records, blobs, position)


def _watched(
    blocks: Iterable[bytes], halted: threading.Event, tell: Callable[[int, float], None]
) -> Iterator[bytes]:
    """Pass blocks on, tell how many now and then, and stop when the node does."""
    began = told = time.monotonic()
    for height, block in enumerate(blocks, 1):
        if halted.is_set():
            raise InterruptedStartError
        if (now := time.monotonic()) - told >= PROGRESS_INTERVAL_S:
            told = now
            tell(height, round(now - began, 1))
        yield block
