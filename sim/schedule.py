"""Virtual time: one queue of what is going to happen, and the one source of chance."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import frozen

from protocol.events import Millis


@frozen(kw_only=True)
class Delays:
    """How long the machinery around the engines takes: ranges in ms, both ends included.

    `notice_ms`: until a broken connection is noticed. `connect_ms`: until nodes that can connect have.
    """

    notice_ms: tuple[int, int] = (1, 400)
    connect_ms: tuple[int, int] = (5, 200)
    fetch_timeout_ms: tuple[int, int] = (500, 1_500)


class Schedule:
    """A queue ordered by due time, then by the order in which its entries were made."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now: Millis = 0
        self.happened = 0
        self.issued = 0
        self._queue: list[tuple[Millis, int, Callable[..., None], tuple[Any, ...]]] = []

    def push(self, delay_ms: Millis, action: Callable[..., None], *arguments: object) -> int:
        """Let `action(*arguments)` happen after a delay; returns the number of the entry, its own."""
        self.issued += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self.issued, action, arguments))
        return self.issued

    def draw(self, limits: tuple[int, int]) -> int:
        """A uniform integer, both limits included."""
        return self.random.randint(*limits)

    def next_due(self) -> Millis | None:
        """When the next entry is due; None where nothing is left to happen."""
        return self._queue[0][0] if self._queue else None

    def step(self) -> None:
        """Let the next entry happen."""
        self.now, _, action, arguments = heapq.heappop(self._queue)
        self.happened += 1
        action(*arguments)
