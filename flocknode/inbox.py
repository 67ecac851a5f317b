"""The one queue of a node: what happened, in the order in which the engine is to learn of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

from attrs import define

from protocol.events import Event, PeerId, Received

MAX_WAITING_BYTES = 32 * 2**20
"""Of one peer: a flood must not become this node's memory, and repair brings back what was dropped."""
MAX_WAITING_MESSAGES = 8192
"""Of one peer: an empty message takes memory too. Four times what section 8.7 lets a peer send at once."""


class InboxClosedError(Exception):
    """No event is given any more."""


@define
class _Waiting:
    """What waits of one peer."""

    messages: int = 0
    bytes: int = 0


class Inbox:
    """A FIFO of events. An answer (a timer that fired, a job that is done) can be revoked until it is taken.

    Without that, a timer restarted while its firing waits in the queue would fire too early, and a cancelled
    job would still be answered. Messages are counted for each peer from `put_message` until they are taken;
    a peer of which nothing waits has no entry.
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Hashable, Event]] = deque()
        self._answers: dict[Hashable, Event] = {}
        self._waiting: dict[PeerId, _Waiting] = {}
        self._filled = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def waiting(self, peer: PeerId) -> tuple[int, int]:
        """Return how many messages of `peer` wait, and their bytes."""
        waiting = self._waiting.get(peer)
        return (0, 0) if waiting is None else (waiting.messages, waiting.bytes)

    def put(self, event: Event) -> None:
        """Queue an event that is neither revoked nor dropped. Raises TypeError for a message."""
        if isinstance(event, Received):
            raise TypeError("a message is queued by put_message, which bounds what waits of its peer")
        self._append(None, event)

    def put_message(self, message: Received) -> bool:
        """Queue a message; False, and it is dropped, where too much of its peer's is waiting."""
        messages, size = self.waiting(message.peer)
        if messages >= MAX_WAITING_MESSAGES or size + len(message.data) > MAX_WAITING_BYTES:
            return False
        waiting = self._waiting.setdefault(message.peer, _Waiting())
        waiting.messages += 1
        waiting.bytes += len(message.data)
        self._append(None, message)
        return True

    def put_answer(self, slot: Hashable, event: Event) -> None:
        """Queue the answer to `slot`, in place of an earlier one that still waits."""
        self._answers[slot] = event
        self._append(slot, event)

    def revoke(self, slot: Hashable) -> None:
        """The answer to `slot`, if one waits, is not given."""
        self._answers.pop(slot, None)

    def revoke_all(self) -> None:
        """No answer that waits is given."""
        self._answers.clear()

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

    def _append(self, slot: Hashable, event: Event) -> None:
        self._queue.append((slot, event))
        self._filled.set()

    def _forget(self, message: Received) -> None:
        """Count a message no longer. An entry goes with its last message: that may have no bytes."""
        waiting = self._waiting[message.peer]
        waiting.messages -= 1
        waiting.bytes -= len(message.data)
        if not waiting.messages:
            del self._waiting[message.peer]
