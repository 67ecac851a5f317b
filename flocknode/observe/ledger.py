"""Reading a node's ledger from its directory, whether the node runs or not, and checking it from genesis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from flocknode.config import GENESIS_FILE
from flocknode.store import LedgerReader, StoreError, open_reader
from protocol import durable
from protocol.codec import DecodeError
from protocol.ledger.block import StoredBlock, decode_stored_block
from protocol.ledger.chain import ChainError, genesis_head, replay
from protocol.ledger.resume import resume
from protocol.ledger.state import LedgerState, genesis_state
from protocol.params import Genesis


class LedgerError(Exception):
    """A directory holds no ledger that could be read; the message names the file."""


@frozen
class Step:
    """A block that was checked, with the ledger's state before and after it."""

    stored: StoredBlock
    before: LedgerState
    after: LedgerState


@frozen
class LedgerEnd:
    """Where a ledger ends: the hash of its last block (the network id where there is none), and the state."""

    head: bytes
    state: LedgerState

    @property
    def height(self) -> int:
        return self.state.height


def read_genesis(directory: Path) -> Genesis:
    """The genesis of a node directory. Raises `LedgerError`."""
    path = directory / GENESIS_FILE
    try:
        return Genesis.from_bytes(path.read_bytes())
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from error
    except DecodeError as error:
        raise LedgerError(f"{path}: {error}") from error


def stored_blocks(directory: Path, first: int = 1, last: int = 2**63 - 1) -> Iterator[StoredBlock]:
    """The blocks from height `first` to `last`, ascending and without a gap, as they are stored.

    Raises `ChainError` at the first that is missing, damaged or no block, `LedgerError` where there is no
    ledger to read.
    """
    try:
        with open_reader(directory) as reader:
            yield from _blocks_of(reader, first, last)
    except StoreError as error:
        raise LedgerError(str(error)) from error


def _blocks_of(reader: LedgerReader, first: int, last: int) -> Iterator[StoredBlock]:
    expected = first
    rows = reader.blocks(first, last)
    while True:
        try:
            height, data = next(rows)
        except StopIteration:
            return
        except StoreError as error:
            raise ChainError(expected, str(error)) from error
        if height != expected:
            raise ChainError(expected, f"missing: the next one that is stored has height {height}")
        try:
            stored = decode_stored_block(data)
        except DecodeError as error:
            raise ChainError(height, str(error)) from error
        if stored.block.height != height:
            raise ChainError(height, f"stored in the place of block {stored.block.height}")
        yield stored
        expected += 1


def walk(directory: Path) -> Iterator[Step]:
    """Check a ledger from genesis on: hashes, certificates and the contract, block by block.

    Raises `ChainError`, whose `height` is the first wrong block, and `LedgerError`.
    """
    for stored, before, after in replay(read_genesis(directory), lambda: stored_blocks(directory)):
        yield Step(stored, before, after)


def present_end(directory: Path) -> LedgerEnd:
    """Return where a stored ledger ends, as its node takes it up: signatures are not checked again.

    Raises `ChainError`, `LedgerError`.
    """
    genesis = read_genesis(directory)
    try:
        with open_reader(directory) as reader:
            snapshot = reader.record(durable.SNAPSHOT, durable.SNAPSHOT_KEY)
            position = resume(genesis, snapshot, (data for _, data in reader.blocks(1)))
    except StoreError as error:
        raise LedgerError(str(error)) from error
    return LedgerEnd(position.head, position.state)


def genesis_end(genesis: Genesis) -> LedgerEnd:
    """Where a ledger without a block ends."""
    return LedgerEnd(genesis_head(genesis.network), genesis_state(genesis))


def end_of(genesis: Genesis, steps: Sequence[Step]) -> LedgerEnd:
    """Where a ledger that consists of these steps ends."""
    if not steps:
        return genesis_end(genesis)
    return LedgerEnd(steps[-1].stored.block.hash, steps[-1].after)
