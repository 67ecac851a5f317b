"""What a demo shows while it runs: a live view on a terminal, a line a round elsewhere, nothing if quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field
from rich.console import Console
from rich.live import Live

from flocknode.observe.live import View, live_view

DRAW_EVERY_S = 0.125

Show = Callable[[], None]
"""Show the moment, unless the last time was just before."""


@contextmanager
def open_screen(console: Console, view: Callable[[], View], quiet: bool) -> Iterator[Show]:
    """The way to show that suits the console."""
    if quiet:
        yield lambda: None
    elif console.is_terminal:
        # No refresh thread: the launcher forks when it starts a node again.
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield _Throttled(lambda: live.update(live_view(view(), *console.size), refresh=True)).show
    else:
        yield _Lines(console, view).show


@contextmanager
def busy(console: Console, what: str, quiet: bool) -> Iterator[None]:
    """Say what is being done, with a spinner on a terminal. Its thread is gone when this ends."""
    if quiet:
        yield
    elif console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(f"{what} ...")
        yield


@define
class _Throttled:
    draw: Callable[[], None]
    _last_s: float = field(default=0.0, init=False)

    def show(self) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= DRAW_EVERY_S:
            self.draw()
            self._last_s = now_s


@define
class _Lines:
    console: Console
    view: Callable[[], View]
    _shown: int = field(default=0, init=False)

    def show(self) -> None:
        view = self.view()
        for record in view.follower.rounds[self._shown : view.rounds]:
            kept = "accepted" if record.accepted else "not accepted"
            self.console.print(
                f"round {record.round}: {record.verdict}, {kept}, "
                f"{len(record.contributors)} of {len(record.proposers)} contributed"
            )
            self._shown += 1
