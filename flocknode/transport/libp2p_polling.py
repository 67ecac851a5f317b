"""trio's sockets, watched by the event loop that trio is a guest of.

As a guest, trio waits for its sockets in a thread of its own: every message that arrives while a node is idle
wakes that thread, which wakes the loop through a pipe, and both compete for the interpreter. But an epoll
descriptor is readable itself when one of its sockets is, so the loop can watch it like any other and needs no
thread. This uses internals of trio 0.30 to 0.35; where there is no epoll, trio's own way stays.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sniffio
import trio._core._run as trio_run
from outcome import Error, Outcome, Value, capture
from trio import TrioInternalError

_LONGEST_SLEEP_S = 3600.0
_GUEST = "GuestState"
"""What `trio.lowlevel.start_guest_run` makes, by this name."""


class _LoopPolledGuest(trio_run.GuestState):
    """`guest_tick` with the wait for events left to the event loop instead of a thread."""

    def watch_from(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._descriptor: int = self.runner.io_manager._epoll.fileno()
        self._asleep = False
        self._timer: asyncio.TimerHandle | None = None
        # Watched for good: to begin and to end it for every sleep would be two more system calls.
        loop.add_reader(self._descriptor, self._wake)

    def guest_tick(self) -> None:
        library = sniffio.thread_local
        outer, library.name = library.name, "trio"
        try:
            timeout_s = self.unrolled_run_next_send.send(self.unrolled_run_gen)
        except StopIteration:
            assert self.runner.main_task_outcome is not None
            self._end(self.runner.main_task_outcome)
            return
        except TrioInternalError as error:
            self._end(Error(error))
            return
        finally:
            library.name = outer
        events: Value[Any] | Error = capture(self.runner.io_manager.get_events, 0)
        if timeout_s <= 0 or isinstance(events, Error) or events.value:
            self.unrolled_run_next_send = events
            self.runner.guest_tick_scheduled = True
            self.run_sync_soon_not_threadsafe(self.guest_tick)
        else:
            self._sleep(timeout_s)

    def _sleep(self, timeout_s: float) -> None:
        self.runner.guest_tick_scheduled = False
        self._asleep = True
        due_s = self._loop.time() + min(timeout_s, _LONGEST_SLEEP_S)
        # A timer that fires too early costs one tick, which is less than to replace it at every sleep.
        if self._timer is None or self._timer.when() > due_s:
            self._cancel_timer()
            self._timer = self._loop.call_at(due_s, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        """Something can be read or written, another thread calls, or time is up."""
        if not self._asleep:
            return
        self._asleep = False
        self.unrolled_run_next_send = capture(self.runner.io_manager.get_events, 0)
        self.runner.guest_tick_scheduled = True
        self.guest_tick()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, outcome: Outcome[Any]) -> None:
        self._asleep = False
        self._cancel_timer()
        self._loop.remove_reader(self._descriptor)
        self.done_callback(outcome)


@contextmanager
def polled_by(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """A guest run that is started inside has its events waited for by `loop`, where there is epoll."""
    usual = getattr(trio_run, _GUEST)

    def watched(**parts: Any) -> _LoopPolledGuest:
        guest = _LoopPolledGuest(**parts)
        guest.watch_from(loop)
        return guest

    if hasattr(select, "epoll"):
        setattr(trio_run, _GUEST, watched)
    try:
        yield
    finally:
        setattr(trio_run, _GUEST, usual)
