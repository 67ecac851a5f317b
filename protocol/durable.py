"""What a node writes down before it acts (docs/PROTOCOL.md section 7, "Durable before it leaves").

Buckets and keys: `block` by height, `snapshot` (the ledger's state after the block that ended the last
round) under one key, `statement` by statement id (every own statement, and others'
contributions, whose commitments nobody could give back), `safety` under one key, `secret` by round,
`share` by round and dealer, `opening` by round and ballot, `residual` and `yardstick` (what this voter has
measured of accepted models) under one key each, `order` by the order's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from protocol.codec import bounded_bytes
from protocol.events import BlocksRead, ReadBlocks

BLOCK = "block"
SNAPSHOT = "snapshot"
STATEMENT = "statement"
SAFETY = "safety"
SECRET = "secret"
SHARE = "share"
OPENING = "opening"
RESIDUAL = "residual"
ORDER = "order"
BLOB = "blob"
YARDSTICK = "yardstick"

SAFETY_KEY = b"safety"
SNAPSHOT_KEY = b"snapshot"
RESIDUAL_KEY = b"residual"
YARDSTICK_KEY = b"yardstick"
RECORD_BYTES = 4 << 20


@frozen
class Residual:
    """What sparsification has not sent yet: float32[d] little-endian, as of the end of `round`."""

    round: int
    values: bytes = field(validator=bounded_bytes(1 << 26), repr=False)


def height_key(height: int) -> bytes:
    return height.to_bytes(8, "big")


def height_of_key(key: bytes) -> int:
    return int.from_bytes(key, "big")


def round_key(round_: int, rest: bytes = b"") -> bytes:
    """Keys of one round share its 8 leading bytes, so that what is over can be found and deleted."""
    return round_.to_bytes(8, "big") + rest


def round_of_key(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")


def first_blocks(blocks: Iterable[bytes], max_bytes: int) -> tuple[bytes, ...]:
    """Return the first of these encoded blocks: as many as weigh `max_bytes` together, at least one."""
    taken: list[bytes] = []
    size = 0
    for block in blocks:
        size += len(block)
        if taken and size > max_bytes:
            break
        taken.append(block)
    return tuple(taken)


def read_blocks(stored: Mapping[bytes, bytes], asked: ReadBlocks) -> BlocksRead:
    """Answer a `ReadBlocks` from a block bucket that is in memory; the answer ends before a gap."""

    def consecutive() -> Iterable[bytes]:
        for height in range(asked.first_height, asked.last_height + 1):
            block = stored.get(height_key(height))
            if block is None:
                return
            yield block

    return BlocksRead(asked.peer, asked.first_height, first_blocks(consecutive(), asked.max_bytes))
