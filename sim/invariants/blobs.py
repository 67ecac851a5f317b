"""Blobs: whatever an honest node holds under a digest is what the digest is of.

docs/PROTOCOL.md section 7.6: "digest = H("blob", be8(total bytes), merkle root of the chunks). A chunk is
verified by itself with its path".
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from protocol.events import Effect
from sim.invariants.base import InvariantError
from sim.invariants.plain import be8, tagged_hash

if TYPE_CHECKING:
    from sim.node import Node

CHUNK_BYTES = 1 << 20


class Blobs:
    """Looks at each blob once, as soon as its node has it."""

    def __init__(self) -> None:
        self._seen: dict[int, set[bytes]] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        seen = self._seen.setdefault(node.index, set())
        for digest in [digest for digest in node.blobs if digest not in seen]:
            if digest != _digest(node.blobs[digest]):
                raise InvariantError(f"node {node.index} holds other bytes than those of {digest.hex()[:12]}")
            seen.add(digest)


def _digest(data: bytes) -> bytes:
    parts = [data[at : at + CHUNK_BYTES] for at in range(0, max(1, len(data)), CHUNK_BYTES)]
    level = [sha256(b"\x00" + part).digest() for part in parts]
    while len(level) > 1:
        pairs = [b"".join(level[at : at + 2]) for at in range(0, len(level), 2)]
        level = [sha256(b"\x01" + pair).digest() if len(pair) > 32 else pair for pair in pairs]
    return tagged_hash("blob", be8(len(data)), level[0])
