"""What a node sees, turned into conditions, and those into one line of the log each (docs/OPERATING.md).

The engine tells facts (`protocol.reporting`), the transport who is connected, the learner's thread how long
its work takes. A begin is a warning and an end is an information, both under the condition's name, with
`state` ("begun" or "ended"), `what` (a sentence), `since`, and figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import define, evolve, field

from flocknode.observe.conditions import Change, Condition, Conditions
from flocknode.observe.log import Logger
from flocknode.observe.network_watch import NetworkWatch
from flocknode.observe.own_watch import PlaceWatch, UpdateWatch
from flocknode.observe.round_watch import RoundWatch, Times
from flocknode.observe.rules import RULES
from flocknode.observe.words import MOST_NAMED, listed
from flocknode.transport.base import Member, TransportStats
from flocknode.transport.standing import Standing
from protocol.events import Notify
from protocol.keys import PeerId
from protocol.params import ProtocolParams

QUIET: Final = frozenset(
    {
        "phase",
        "account",
        "encoded",
        "judged",
        "part",
        "foreign",
        "native",
        "behind",
        "samples_cut",
        "job_failed",
    }
)
"""Facts that the log has at level debug only: what matters of them are the conditions."""

GROUPED_S: Final = 10.0
"""Peers that leave or return within so long share a line."""


@define(eq=False)
class Monitor:
    """Watches one node: `notice` is called with every `Notify`, `look` once a second.

    `clock` is monotonic, in seconds. Nothing that goes wrong in here ends the node.
    """

    me: PeerId
    members: Sequence[Member]
    params: ProtocolParams
    log: Logger
    times: Times
    clock: Callable[[], float] = time.monotonic
    conditions: Conditions = field(factory=lambda: Conditions.of(RULES))
    _network: NetworkWatch = field(init=False)
    _round: RoundWatch = field(init=False)
    _update: UpdateWatch = field(init=False)
    _place: PlaceWatch = field(init=False)
    _grouped: list[Change] = field(factory=list, init=False)
    _grouped_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._grouped_s = began_s = self.clock()
        self._network = NetworkWatch(self.conditions, self.me, self.members, began_s)
        self._round = RoundWatch(self.conditions, self.params, self.times, began_s)
        self._update = UpdateWatch(self.conditions)
        self._place = PlaceWatch(self.conditions)

    def present(self) -> tuple[Condition, ...]:
        """Return the conditions that were told and have not ended; `since_s` by this node's clock."""
        return tuple(self._dated(condition) for condition in self.conditions.present())

    def notice(self, notice: Notify) -> None:
        """Take in a fact that the engine tells."""
        watches = (self._network, self._round, self._update, self._place)

        def take_in() -> None:
            now_s = self.clock()
            for watch in watches:
                watch.notice(notice, now_s)

        self._contained(take_in)

    def standing_changed(self, peer: PeerId, standing: Standing) -> None:
        """Take in that a peer is throttled from now on, or refused, or in good standing again."""
        self._contained(lambda: self._network.standing_is(peer, standing, self.clock()))

    def look(self, connected: Iterable[PeerId], stats: TransportStats) -> None:
        """Take in who is connected, how they stand and how dialling went, and tell what has become due."""

        def take_in() -> None:
            now_s = self.clock()
            self._network.look(connected, stats, now_s)
            self._round.look(now_s)

        self._contained(take_in)

    def dropped(self, peer: PeerId, size_bytes: int) -> None:
        """Take in that a message of a peer was dropped, because too much of it is waiting."""
        self._contained(lambda: self._network.dropped(peer, size_bytes, self.clock()))

    def tested(self, round_: object, why: str = "") -> None:
        """Take in that the model of a round was evaluated on the test split, or why it could not be."""
        self._contained(lambda: self._round.tested(round_, why, self.clock()))

    def _contained(self, work: Callable[[], None]) -> None:
        """Do what must not end the node, and tell what is due."""
        try:
            work()
            self._tell(self.clock())
        except Exception:
            self.log.exception("monitor_failed")

    def _tell(self, now_s: float) -> None:
        for change in self.conditions.due(now_s):
            if change.condition.name == "peer_away":
                self._grouped.append(change)
            else:
                self._write(change, now_s)
        if self._grouped and now_s - self._grouped_s >= GROUPED_S:
            for begun in (True, False):
                self._write_grouped([change for change in self._grouped if change.begun is begun], now_s)
            self._grouped, self._grouped_s = [], now_s

    def _write(self, change: Change, now_s: float) -> None:
        condition = self._dated(change.condition)
        fields = dict(condition.figures)
        if condition.subject:
            fields["subject"] = condition.subject
        fields["since"] = self._date(condition.since_s)
        if change.begun:
            if condition.times > 1:
                what = (
                    f"{condition.what}: it has come and gone {condition.times} times since {fields['since']}"
                )
                condition = evolve(condition, what=what)
                fields["times"] = condition.times
            advice = self.conditions.rules[condition.name].advice
            self.log.warning(condition.name, state="begun", what=condition.what, advice=advice, **fields)
            return
        again = f", having come {condition.times} times" if condition.times > 1 else ""
        lasted_s = round(now_s - condition.since_s, 1)
        what = f"over after {lasted_s:.0f} s{again}: {condition.what}"
        self.log.info(
            condition.name, state="ended", what=what, lasted_s=lasted_s, times=condition.times, **fields
        )

    def _write_grouped(self, changes: Sequence[Change], now_s: float) -> None:
        """Write one line for all peers that left, or came back, of late."""
        if len(changes) == 1:
            self._write(changes[0], now_s)
        elif changes:
            one = changes[0]
            names = sorted(change.condition.subject for change in changes)
            verb = "are not connected" if one.begun else "were not connected"
            what = f"{len(names)} peers {verb}: {listed(names)}"
            earliest_s = min(change.condition.since_s for change in changes)
            most = max(change.condition.times for change in changes)
            condition = evolve(
                one.condition,
                subject="",
                what=what,
                since_s=earliest_s,
                times=most,
                figures={"peers": names[:MOST_NAMED], "count": len(names)},
            )
            self._write(evolve(one, condition=condition), now_s)

    def _dated(self, condition: Condition) -> Condition:
        return evolve(condition, what=condition.what.replace("{since}", self._date(condition.since_s)))

    def _date(self, at_s: float) -> str:
        """Return a moment of the monotonic clock as the wall clock has it now."""
        moment = datetime.fromtimestamp(time.time() - (self.clock() - at_s), UTC)
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
