"""What must hold after every event of a simulation, checked incrementally from the effects performed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from protocol import durable
from protocol.events import Effect, Persist

if TYPE_CHECKING:
    from sim.node import Node


class InvariantError(AssertionError):
    """A run reached a state that must not be. The world adds the seed and the trace."""


class Invariant(Protocol):
    """Called after every event with the node and the effects it performed; raises `InvariantError`."""

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None: ...


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


class Supply:
    """The total of all money in every honest node's state is `total` after each block."""

    def __init__(self, total_of: Callable[[Node], int], total: int) -> None:
        self._total_of = total_of
        self._total = total

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest or not node.alive:
            return
        if any(isinstance(effect, Persist) and effect.bucket == durable.BLOCK for effect in performed):
            found = self._total_of(node)
            if found != self._total:
                raise InvariantError(f"node {node.index}: supply is {found}, not {self._total}")
