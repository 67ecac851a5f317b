"""Take up a ledger that this node has stored: from a snapshot, without checking every signature again.

docs/PROTOCOL.md section 7.3. What a node wrote down it has checked before, and every record of its store has
a checksum. So at start the chain of the stored blocks is checked (heights, parents, that each certificate
names its block), and the snapshot against the block that it was taken after; only the blocks behind it are
applied. `protocol.ledger.chain.replay` checks everything, and is what `flocknode ledger verify` runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from protocol import durable
from protocol.checks import Checks
from protocol.codec import DecodeError, bytes_of, decode, encode
from protocol.envelope import Statement, open_envelope
from protocol.events import Start
from protocol.ledger.block import STORED_BLOCK_BYTES, StoredBlock
from protocol.ledger.chain import Chain, ChainError
from protocol.ledger.state import LedgerState
from protocol.messages import Certificate
from protocol.params import Genesis
from protocol.pinning import Rules


@frozen
class LedgerPosition:
    """Name a place in a ledger: the hash of the last block (the network id before block 1) and the state."""

    head: bytes = field(validator=bytes_of(32))
    state: LedgerState


def encode_snapshot(head: bytes, state: LedgerState) -> bytes:
    """Return the record of the bucket `snapshot`."""
    return encode(LedgerPosition(head, state))


def resume(genesis: Genesis, snapshot: bytes | None, blocks: Iterable[bytes]) -> LedgerPosition:
    """Return where a stored ledger ends; `blocks` are its encoded stored blocks from height 1, read once.

    Costs a hash for each block, and the rules for those behind the snapshot (for all where there is none);
    keeps none of them. Raises `ChainError` naming the first height that is wrong.
    """
    taken = None if snapshot is None else _decode_snapshot(snapshot)
    chain = _trusting_chain(genesis)
    head, height = chain.head, 0
    for data in blocks:
        stored = _linked(data, height + 1, head)
        block = stored.block
        head, height = block.hash, block.height
        if taken is not None and height < taken.state.height:
            continue
        if taken is not None and height == taken.state.height:
            if head != taken.head or block.state_root != taken.state.root:
                raise ChainError(height, "the snapshot of the ledger's state is not of this block")
            chain.state, chain.head = taken.state, head
        else:
            chain.append(stored)
    if taken is not None and taken.state.height > height:
        raise ChainError(height + 1, f"missing: the snapshot is of block {taken.state.height}")
    return LedgerPosition(chain.head, chain.state)


def start_from(
    genesis: Genesis, records: Mapping[str, Mapping[bytes, bytes]], blobs: frozenset[bytes]
) -> Start:
    """Return the `Start` of a life whose whole store is in memory: of simulators and tests.

    Raises `ChainError` for a damaged ledger.
    """
    snapshot = records.get(durable.SNAPSHOT, {}).get(durable.SNAPSHOT_KEY)
    stored = records.get(durable.BLOCK, {})
    position = resume(genesis, snapshot, (stored[key] for key in sorted(stored)))
    others = {
        bucket: rows for bucket, rows in records.items() if bucket not in {durable.BLOCK, durable.SNAPSHOT}
    }
    return Start(others, blobs, position)


class _TrustingChecks(Checks):
    """The checks of blocks that this store has checked before it took them."""

    def certificate_holds(
        self, certificate: Certificate, network: bytes, validators: tuple[bytes, ...]
    ) -> bool:
        return True


def _trusting_chain(genesis: Genesis) -> Chain:
    network = genesis.network

    def open_checked(data: bytes) -> Statement:
        return open_envelope(data, network, stripped=True, verify=lambda *_: True)

    return Chain(genesis, Rules(genesis.params, network), open_checked, _TrustingChecks())


def _decode_snapshot(data: bytes) -> LedgerPosition:
    try:
        # What the node itself has written is as long as its state is.
        return decode(LedgerPosition, data, len(data))
    except DecodeError as error:
        raise ChainError(0, f"the snapshot of the ledger's state is damaged: {error}") from error


def _linked(data: bytes, height: int, parent: bytes) -> StoredBlock:
    """Decode the next block; raises `ChainError` unless it has this height and this parent."""
    try:
        # Not by `decode_stored_block`, whose cache would keep the last ones.
        stored = decode(StoredBlock, data, STORED_BLOCK_BYTES)
    except DecodeError as error:
        raise ChainError(height, str(error)) from error
    block = stored.block
    if block.height != height:
        raise ChainError(height, f"missing: the next one that is stored has height {block.height}")
    if block.parent != parent:
        raise ChainError(height, f"does not extend {parent.hex()[:16]}")
    if stored.certificate.vote.block_hash != block.hash:
        raise ChainError(height, "the certificate is of another block")
    return stored
