"""Resumption: a snapshot is of the block that it names, and a life begins where the stored chain ends.

docs/PROTOCOL.md section 7.3: "behind the block that ends a round ... a node writes a snapshot", "At start a
node takes up the state that its last stored block leads to".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocol import durable
from protocol.codec import encode
from protocol.engine import Engine
from protocol.events import Effect, Notify, Persist
from protocol.ledger.block import StoredBlock, decode_stored_block
from sim.invariants.base import InvariantError
from sim.invariants.plain import tagged_hash

if TYPE_CHECKING:
    from sim.node import Node

HEAD_AT = 3
STATE_AT = 35
"""Places in a snapshot: an array of two, the head of 32 bytes, the state."""


class Resumption:
    """Keep the last block that each node wrote, and look at its snapshots and at how its lives begin."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, bytes]] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        for effect in performed:
            match effect:
                case Persist(durable.BLOCK, key, bytes() as value):
                    self._last[node.index] = durable.height_of_key(key), value
                case Persist(durable.SNAPSHOT, _, bytes() as value):
                    self._check_snapshot(node, value)
                case Notify("started"):
                    self._check_start(node)

    def _check_snapshot(self, node: Node, snapshot: bytes) -> None:
        head, root = _end(self._stored(node))
        if snapshot[HEAD_AT:STATE_AT] != head:
            raise InvariantError(f"node {node.index}: a snapshot that is not of the last durable block")
        if tagged_hash("state", snapshot[STATE_AT:]) != root:
            raise InvariantError(f"node {node.index}: a snapshot of another state than its block leads to")

    def _check_start(self, node: Node) -> None:
        stored = self._stored(node)
        engine = node.engine
        if stored is None or not isinstance(engine, Engine):
            return
        if (engine.head, tagged_hash("state", encode(engine.state))) != _end(stored):
            raise InvariantError(
                f"node {node.index} begins at height {engine.height}, its store ends at {stored.block.height}"
            )

    def _stored(self, node: Node) -> StoredBlock | None:
        last = self._last.get(node.index)
        return None if last is None else decode_stored_block(last[1])


def _end(stored: StoredBlock | None) -> tuple[bytes, bytes]:
    """The hash of a block, worked out here, and the root of the state that it leads to."""
    if stored is None:
        return b"", b""
    return tagged_hash("block", stored.block.encoded), stored.block.state_root
