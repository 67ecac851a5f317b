"""What a lab shows while it runs: where the round is, how each node is, and the faults as they strike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attrs import define, field, frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flocknode.observe.live import make_table
from flocknode.observe.rounds import RoundRecord

DRAW_EVERY_S = 0.125
SHOWN_EVENTS = 10
STATE_STYLES = {"up": "green", "down": "bold red", "paused": "yellow", "unplugged": "yellow", "honest": ""}


@frozen(kw_only=True)
class Moment:
    """The lab now. `states`: up, down, paused or unplugged, by node; `heights` likewise."""

    title: str
    round: int
    rounds: int
    phase: str
    ended: Sequence[RoundRecord]
    states: Sequence[str]
    behaviours: Sequence[str]
    heights: Sequence[int]
    elapsed_s: float


@define(eq=False)
class Screen:
    """A live view on a terminal, lines elsewhere, nothing if quiet. `say` an event, `show` the moment."""

    console: Console
    moment: Callable[[], Moment]
    quiet: bool
    _live: Live | None = field(default=None, init=False)
    _events: list[str] = field(factory=list, init=False)
    _told: int = field(default=0, init=False)
    _drawn_s: float = field(default=0.0, init=False)

    @contextmanager
    def open(self) -> Iterator[None]:
        if self.quiet or not self.console.is_terminal:
            yield
            return
        # No refresh thread: the launcher forks when it starts a node again.
        with Live(console=self.console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def say(self, what: str) -> None:
        line = f"{self.moment().elapsed_s:7.2f} s  {what}"
        self._events.append(line)
        if not self.quiet and self._live is None:
            self.console.print(line, markup=False, highlight=False)
        self.show(now=True)

    def show(self, *, now: bool = False) -> None:
        if self.quiet:
            return
        if self._live is None:
            self._tell_rounds()
        elif now or time.monotonic() - self._drawn_s >= DRAW_EVERY_S:
            self._drawn_s = time.monotonic()
            self._live.update(picture(self.moment(), self._events[-SHOWN_EVENTS:]), refresh=True)

    def _tell_rounds(self) -> None:
        for record in self.moment().ended[self._told :]:
            self._told += 1
            self.say(f"round {record.round} ended: {outcome_of(record)}")


def outcome_of(record: RoundRecord) -> str:
    """A round in words."""
    kept = "accepted" if record.accepted else "not accepted"
    share = f"{len(record.contributors)} of {len(record.proposers)} contributed"
    return f"{record.verdict}, {kept}, {share}, attempt {record.attempts}"


def picture(moment: Moment, events: Sequence[str]) -> RenderableType:
    """The whole view."""
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"round {min(moment.round, moment.rounds)} of {moment.rounds} / {moment.phase}", style="bold"),
        ProgressBar(total=moment.rounds, completed=len(moment.ended[: moment.rounds]), width=40),
        f"{moment.elapsed_s:.0f} s",
    )
    nodes = make_table(moment.title)
    for name in ("node", "state", "behaviour"):
        nodes.add_column(name)
    nodes.add_column("block", justify="right")
    for number, state in enumerate(moment.states):
        nodes.add_row(
            str(number),
            Text(state, style=STATE_STYLES.get(state, "")),
            moment.behaviours[number],
            str(moment.heights[number]),
        )
    return Group(head, Text(), nodes, Text(), *(Text(event) for event in events))
