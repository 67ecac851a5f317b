"""One supervised trio run per event loop (docs/PROTOCOL.md section 1).

libp2p needs trio and a node is asyncio, so trio runs as a guest of the node's loop: one thread, no locks, and
the asyncio side may call trio's synchronous functions directly. trio allows one run per thread, so the hosts
of one loop share it. Whatever ends a host, or the whole run, short of a stop is a crash: both are started
again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import trio
from attrs import define, field

from flocknode.transport.libp2p_polling import polled_by

_log = logging.getLogger(__name__)

_FIRST_RESTART_S = 0.05
_LONGEST_RESTART_S = 2.0
_HEALTHY_S = 10.0
_STEPS_PER_PASS = 16


class Guest(Protocol):
    """What runs in the trio run."""

    async def run(self) -> None:
        """Serve until cancelled. Returning or raising is a crash."""

    def crashed(self, error: BaseException | None) -> None:
        """The run ended without being stopped and will be repeated. Called from the event loop's thread."""


@define(eq=False)
class _Backoff:
    """Pauses between restarts: doubling, and forgotten after a healthy spell."""

    _clock: asyncio.AbstractEventLoop
    _pause_s: float = _FIRST_RESTART_S
    _begun_s: float = 0.0

    def begin(self) -> None:
        self._begun_s = self._clock.time()

    def pause_s(self) -> float:
        if self._clock.time() - self._begun_s > _HEALTHY_S:
            self._pause_s = _FIRST_RESTART_S
        pause, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_RESTART_S)
        return pause


@define(eq=False)
class _Lodger:
    guest: Guest
    backoff: _Backoff
    gone: "asyncio.Future[None]"
    scope: trio.CancelScope | None = None
    leaving: bool = False

    def stays(self) -> bool:
        return not self.leaving


@define(eq=False)
class TrioRun:
    """The trio run of one event loop. Use `of(loop)`; the run lives while anyone is attached."""

    _loop: asyncio.AbstractEventLoop
    _backoff: _Backoff = field(init=False)
    _lodgers: dict[Guest, _Lodger] = field(factory=dict, init=False)
    _nursery: trio.Nursery | None = field(default=None, init=False)
    _active: bool = field(default=False, init=False)
    _ending: bool = field(default=False, init=False)
    _idle: asyncio.Event = field(factory=asyncio.Event, init=False)
    _steps: deque[Callable[[], object]] = field(factory=deque, init=False)
    _stepping: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._backoff = _Backoff(self._loop)

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> "TrioRun":
        run = _RUNS.get(loop)
        if run is None:
            run = _RUNS[loop] = TrioRun(loop)
        return run

    def attach(self, guest: Guest) -> None:
        """Run a guest, again and again if it crashes, until it is detached."""
        lodger = _Lodger(guest, _Backoff(self._loop), self._loop.create_future())
        self._lodgers[guest] = lodger
        if not self._active:
            self._begin()
        elif self._nursery is not None and not self._ending:
            self._nursery.start_soon(self._keep, lodger)

    async def detach(self, guest: Guest) -> None:
        """Cancel a guest and wait until it has ended; the last one takes the trio run with it."""
        lodger = self._lodgers.get(guest)
        if lodger is None:
            return
        lodger.leaving = True
        if lodger.scope is not None:
            lodger.scope.cancel()
            await asyncio.shield(lodger.gone)
        self._lodgers.pop(guest, None)
        if self._lodgers:
            return
        if not self._active:
            _RUNS.pop(self._loop, None)
        else:
            self._ending = True
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
            await self._idle.wait()

    def _begin(self) -> None:
        if not self._lodgers or self._active:
            return
        self._active = True
        self._idle.clear()
        self._backoff.begin()
        with polled_by(self._loop):
            trio.lowlevel.start_guest_run(
                self._root,
                run_sync_soon_threadsafe=self._wake_soon,
                run_sync_soon_not_threadsafe=self._step_soon,
                done_callback=self._ended,
                host_uses_signal_set_wakeup_fd=True,
            )

    def _wake_soon(self, step: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(step)

    def _step_soon(self, step: Callable[[], object]) -> None:
        """Schedule trio's next step, several of them in one pass of the loop.

        trio yields at every lock and every write, libp2p takes eight of them to send one message, and a pass
        of asyncio's loop costs more than a step of trio's.
        """
        self._steps.append(step)
        if len(self._steps) == 1 and not self._stepping:
            self._loop.call_soon(self._run_steps)

    def _run_steps(self) -> None:
        self._stepping = True
        try:
            for _ in range(_STEPS_PER_PASS):
                if not self._steps:
                    break
                self._steps.popleft()()
        finally:
            self._stepping = False
            if self._steps:
                self._loop.call_soon(self._run_steps)

    async def _root(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for lodger in self._lodgers.values():
                nursery.start_soon(self._keep, lodger)
            if self._ending:
                nursery.cancel_scope.cancel()
            await trio.sleep_forever()

    async def _keep(self, lodger: _Lodger) -> None:
        """Run one guest until it leaves; the other guests do not notice its crashes."""
        try:
            while lodger.stays():
                error: Exception | None = None
                lodger.backoff.begin()
                try:
                    with trio.CancelScope() as lodger.scope:
                        await lodger.guest.run()
                except Exception as caught:
                    error = caught
                if not lodger.stays():
                    break
                _log.error("the network host crashed and is restarted", exc_info=error)
                lodger.guest.crashed(error)
                with trio.CancelScope() as lodger.scope:
                    await trio.sleep(lodger.backoff.pause_s())
        finally:
            self._release(lodger)

    @staticmethod
    def _release(lodger: _Lodger) -> None:
        lodger.scope = None
        if lodger.leaving and not lodger.gone.done():
            lodger.gone.set_result(None)

    def _ended(self, outcome: Any) -> None:
        """trio's last word: an orderly end, or a crash of everything in it."""
        orderly = self._ending
        self._nursery, self._active, self._ending = None, False, False
        self._idle.set()
        for lodger in self._lodgers.values():
            self._release(lodger)
        if not self._lodgers:
            _RUNS.pop(self._loop, None)
            return
        if orderly:  # somebody attached while the last guest was leaving
            self._begin()
            return
        error = getattr(outcome, "error", None)
        if isinstance(error, KeyboardInterrupt):
            raise error
        _log.error("the trio run crashed and is restarted", exc_info=error)
        for lodger in list(self._lodgers.values()):
            lodger.guest.crashed(error)
        self._loop.call_later(self._backoff.pause_s(), self._begin)


_RUNS: dict[asyncio.AbstractEventLoop, TrioRun] = {}
