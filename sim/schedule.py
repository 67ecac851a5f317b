"""Virtual time: one queue of what is going to happen, and the one source of chance."""

from __future__ import annotations

import heapq
from collections import deque
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
    slow_fetch_ms: int = 2_000
    """How long a holder may take while others are left to ask; twice as long after each that took longer."""


class Schedule:
    """A queue ordered by due time, then by the order in which its entries were made.

    Many fall on one millisecond, so the heap holds times, and each time its entries.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now: Millis = 0
        self.happened = 0
        self.issued = 0
        self.times: list[Millis] = []
        """A heap: the next entry is due at the first, and where there is none, nothing is left to happen."""
        self._entries: dict[Millis, deque[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    def push(self, delay_ms: Millis, action: Callable[..., None], *arguments: object) -> int:
        """Let `action(*arguments)` happen after a delay; returns the number of the entry, its own."""
        self.issued += 1
        due = self.now + delay_ms
        entries = self._entries.get(due)
        if entries is None:
            entries = self._entries[due] = deque()
            heapq.heappush(self.times, due)
        entries.append((action, arguments))
        return self.issued

    def draw(self, limits: tuple[int, int]) -> int:
        """A uniform integer, both limits included."""
        return self.random.randint(*limits)

    def next_due(self) -> Millis | None:
        """When the next entry is due; None where nothing is left to happen."""
        return self.times[0] if self.times else None

    def step(self) -> None:
        """Let the next entry happen."""
        due = self.now = self.times[0]
        entries = self._entries[due]
        action, arguments = entries.popleft()
        if not entries:
            heapq.heappop(self.times)
            del self._entries[due]
        self.happened += 1
        action(*arguments)
