"""Node directories as far as a ledger goes, filled from simulated networks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from flocknode.config import GENESIS_FILE
from flocknode.store import Store
from protocol import durable
from protocol.codec import encode
from protocol.events import Persist
from protocol.ledger.block import StoredBlock, decode_stored_block
from protocol.params import Genesis
from sim.node import Node


def blocks_of(node: Node) -> list[StoredBlock]:
    """What a simulated node has made durable, ascending."""
    rows = node.records[durable.BLOCK]
    return [decode_stored_block(rows[key]) for key in sorted(rows)]


def write_ledger(directory: Path, genesis: Genesis, blocks: Iterable[StoredBlock]) -> Path:
    """A directory with a genesis and a ledger; nothing else of a node is there."""
    rows = {durable.height_key(stored.block.height): encode(stored) for stored in blocks}
    return write_rows(directory, genesis, rows)


def write_rows(directory: Path, genesis: Genesis, rows: Mapping[bytes, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / GENESIS_FILE).write_bytes(genesis.to_bytes())

    async def commit() -> None:
        store = await Store.open(directory)
        await store.commit([Persist(durable.BLOCK, key, value) for key, value in rows.items()])
        await store.close()

    asyncio.run(commit())
    return directory
