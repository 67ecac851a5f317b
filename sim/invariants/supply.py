"""Conservation: no block creates or destroys money.

docs/PROTOCOL.md section 6: "Accounts, treasury and reward pool hold a constant total."
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from protocol import durable
from protocol.events import Effect, Persist
from sim.invariants.base import InvariantError

if TYPE_CHECKING:
    from sim.node import Node


class Supply:
    """The total of all money in every honest node's state is `total` units after each block."""

    def __init__(self, total_of: Callable[[Node], int], total: int) -> None:
        self._total_of = total_of
        self._total = total

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest or not node.alive:
            return
        for effect in performed:
            if isinstance(effect, Persist) and effect.bucket == durable.BLOCK:
                found = self._total_of(node)
                if found != self._total:
                    raise InvariantError(f"node {node.index}: supply is {found}, not {self._total}")
