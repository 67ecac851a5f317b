"""The one queue of a node: what happened, in the order in which the engine is to learn of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

from protocol.events import Event, PeerId, Received

MAX_WAITING_BYTES = 32 * 2**20
"""Of one peer: a flood must not become this node's memory, and repair brings back what was dropped."""


class InboxClosedError(Exception):
    """No event is given any more."""


class Inbox:
    """A FIFO of events. An answer (a timer that fired, a job that is done) can be revoked until it is taken.

    Without that, a timer restarted while its firing waits in the queue would fire too early, and a cancelled
    job would still be answered.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Hashable, Event]] = deque()
        self._answers: dict[Hashable, Event] = {}
        self._waiting_bytes: dict[PeerId, int] = {}
        self._filled = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, event: Event) -> None:
        """Queue an event that nothing revokes."""
        self._queue.append((None, event))
        self._filled.set()

    def put_message(self, message: Received) -> bool:
        """Queue a message; False, and it is dropped, where too much of its peer's is waiting."""
        waiting = self._waiting_bytes.get(message.peer, 0) + len(message.data)
        if waiting > MAX_WAITING_BYTES:
            return False
        self._waiting_bytes[message.peer] = waiting
        self.put(message)
        return True

    def put_answer(self, slot: Hashable, event: Event) -> None:
        """Queue the answer to `slot`, in place of an earlier one that still waits."""
        self._answers[slot] = event
        self._queue.append((slot, event))
        self._filled.set()

    def revoke(self, slot: Hashable) -> None:
        """The answer to `slot`, if one waits, is not given."""
        self._answers.pop(slot, None)

    def close(self) -> None:
        """Give nothing more, whatever waits."""
        self._closed = True
        self._filled.set()

    async def get(self) -> Event:
        """The next event; waits for one. Raises `InboxClosedError`."""
        while True:
            if self._closed:
                raise InboxClosedError
            event = self.get_waiting()
            if event is not None:
                return event
            self._filled.clear()
            await self._filled.wait()

    def get_waiting(self) -> Event | None:
        """The next event, None where none waits or no event is given any more."""
        while self._queue and not self._closed:
            slot, event = self._queue.popleft()
            if slot is not None:
                if self._answers.get(slot) is not event:
                    continue
                del self._answers[slot]
            elif isinstance(event, Received):
                self._forget(event)
            return event
        return None

    def _forget(self, message: Received) -> None:
        left = self._waiting_bytes[message.peer] - len(message.data)
        if left:
            self._waiting_bytes[message.peer] = left
        else:
            del self._waiting_bytes[message.peer]
