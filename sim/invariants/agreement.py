"""Agreement: no two honest nodes finalise different blocks at a height.

docs/PROTOCOL.md section 7.2: "So no block but X can gather a commit certificate."
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from protocol import durable
from protocol.events import Effect, Persist
from sim.invariants.base import InvariantError

if TYPE_CHECKING:
    from sim.node import Node


class Agreement:
    """No two honest nodes ever commit different blocks at one height, and none takes one back.

    `block_id` maps a stored value to what nodes must agree on: certificates may differ, the block must not.
    """

    def __init__(self, block_id: Callable[[bytes], bytes]) -> None:
        self._block_id = block_id
        self._committed: dict[int, tuple[bytes, int]] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        for effect in performed:
            if isinstance(effect, Persist) and effect.bucket == durable.BLOCK:
                self._check(node.index, durable.height_of_key(effect.key), effect.value)

    def _check(self, node: int, height: int, value: bytes | None) -> None:
        if value is None:
            raise InvariantError(f"node {node} deleted its block at height {height}")
        mine = self._block_id(value)
        first, whose = self._committed.setdefault(height, (mine, node))
        if first != mine:
            raise InvariantError(
                f"height {height}: node {whose} committed {first.hex()[:16]}, node {node} {mine.hex()[:16]}"
            )
