"""Conditions: what is wrong with a node at present, since when, with figures (docs/OPERATING.md).

A condition begins, holds for a while and ends; each begin is told once and each end once. What comes and goes
is told less and less: with every return, the condition has to stay away twice as long before its end is told.
There is no clock here: time is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from attrs import define, field, frozen
from attrs.validators import ge

Figures = Mapping[str, object]
"""JSON-ready; the names of numbers end in their units."""

MOST_STRIKES = 6
"""Returns that double the time that an end takes: beyond them it stays 64 times the rule's."""
MOST_SUBJECTS = 4_096
"""Of one condition; a subject is a member of the network or a part of a round."""


@frozen(kw_only=True)
class Rule:
    """How a condition of this name is told.

    `name` is the event in the log. `meaning` and `advice` are sentences for the operator. The condition is
    told once it has held for `begins_after_s` without a break, or has begun `flaps` times within
    `flaps_within_s`. Its end is told once it has been away for `ends_after_s`, and for `ends_after_times`
    observations in a row; both are doubled by each return.
    """

    name: str
    meaning: str
    advice: str
    begins_after_s: float = field(default=0.0, validator=ge(0.0))
    ends_after_s: float = field(default=0.0, validator=ge(0.0))
    ends_after_times: int = field(default=1, validator=ge(1))
    flaps: int = field(default=5, validator=ge(2))
    flaps_within_s: float = field(default=120.0, validator=ge(0.0))
    forgotten_after_s: float = field(default=600.0, validator=ge(0.0))
    """After so long without it, and eight times as long as its last end took, its returns are forgotten."""


@frozen(kw_only=True)
class Condition:
    """One that is present. `subject`: whom or what it is about, where there may be several; else "".

    `times`: how often it has come since it was told; 1 where it never went away. `holds`: False while it is
    away, but not for long enough yet.
    """

    name: str
    subject: str
    since_s: float
    what: str
    figures: Figures
    times: int
    holds: bool


@frozen(kw_only=True)
class Change:
    """A condition that began, or ended, and when that was noticed."""

    begun: bool
    condition: Condition
    at_s: float


@define(eq=False)
class _Entry:
    """What is known of one condition, told or not."""

    since_s: float
    what: str
    figures: Figures
    starts: deque[float]
    holds: bool = True
    is_told: bool = False
    is_flapping: bool = False
    away_since_s: float = 0.0
    away_times: int = 0
    times: int = 1
    strikes: int = 0
    ended_s: float | None = None


@define(eq=False)
class Conditions:
    """All conditions of one node. Raises `KeyError` for a name without a rule."""

    rules: Mapping[str, Rule]
    _entries: dict[str, dict[str, _Entry]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._entries = {name: {} for name in self.rules}

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Conditions:
        """Return an empty table of conditions with these rules."""
        return cls({rule.name: rule for rule in rules})

    def holds(self, name: str, now_s: float, what: str, subject: str = "", **figures: object) -> None:
        """Observe that a condition holds now; sentence and figures are those of the present."""
        rule, entries = self.rules[name], self._entries[name]
        entry = entries.get(subject)
        if entry is None:
            if len(entries) >= MOST_SUBJECTS:
                return
            entry = _Entry(now_s, what, figures, deque([now_s], maxlen=rule.flaps))
            entries[subject] = entry
            return
        if not entry.holds:
            self._returns(rule, entry, now_s)
        entry.what, entry.figures = what, figures

    def _returns(self, rule: Rule, entry: _Entry, now_s: float) -> None:
        entry.holds = True
        entry.starts.append(now_s)
        if entry.is_told:
            entry.times += 1
            entry.strikes = min(entry.strikes + 1, MOST_STRIKES)
            return
        entry.since_s, entry.times = now_s, 1
        if entry.ended_s is not None:
            if self._is_forgotten(rule, entry, now_s):
                entry.strikes = 0
            else:
                entry.strikes = min(entry.strikes + 1, MOST_STRIKES)
            entry.ended_s = None
        if len(entry.starts) == rule.flaps and now_s - entry.starts[0] <= rule.flaps_within_s:
            entry.is_flapping, entry.since_s, entry.times = True, entry.starts[0], rule.flaps

    def gone(self, name: str, now_s: float, subject: str = "") -> None:
        """Observe that a condition does not hold now."""
        entry = self._entries[name].get(subject)
        if entry is None:
            return
        if entry.holds:
            entry.holds, entry.away_since_s, entry.away_times = False, now_s, 0
        entry.away_times += 1

    def retain(self, name: str, subjects: Iterable[str], now_s: float) -> None:
        """Observe that a condition holds for none but these subjects: the others are not there any more."""
        for subject in self._entries[name].keys() - set(subjects):
            self.gone(name, now_s, subject)

    def due(self, now_s: float) -> list[Change]:
        """Return what is to be told now, each once; begins and ends of one condition alternate."""
        changes = []
        for name, entries in self._entries.items():
            rule = self.rules[name]
            for subject, entry in list(entries.items()):
                begun = self._told(rule, entry, now_s)
                if begun is not None:
                    changes.append(
                        Change(begun=begun, condition=_condition(name, subject, entry), at_s=now_s)
                    )
                elif not entry.is_told and not entry.holds and self._is_forgotten(rule, entry, now_s):
                    del entries[subject]
        return changes

    def _told(self, rule: Rule, entry: _Entry, now_s: float) -> bool | None:
        """Return True where a begin is due, False where an end is, None where nothing is; it is told then."""
        if not entry.is_told:
            if not (entry.is_flapping or (entry.holds and now_s - entry.since_s >= rule.begins_after_s)):
                return None
            entry.is_told, entry.is_flapping = True, False
            return True
        if entry.holds:
            return None
        factor = 1 << entry.strikes
        if now_s - entry.away_since_s < rule.ends_after_s * factor:
            return None
        if entry.away_times < rule.ends_after_times * factor:
            return None
        entry.is_told, entry.ended_s = False, now_s
        entry.starts.clear()
        return False

    def present(self) -> tuple[Condition, ...]:
        """Return what has been told and has not ended, in the order of names and subjects."""
        return tuple(
            _condition(name, subject, entry)
            for name in sorted(self._entries)
            for subject, entry in sorted(self._entries[name].items())
            if entry.is_told
        )

    @staticmethod
    def _is_forgotten(rule: Rule, entry: _Entry, now_s: float) -> bool:
        last_s = entry.away_since_s if entry.ended_s is None else entry.ended_s
        settled_s = 8 * rule.ends_after_s * (1 << entry.strikes)
        return now_s - last_s >= max(rule.forgotten_after_s, settled_s)


def _condition(name: str, subject: str, entry: _Entry) -> Condition:
    return Condition(
        name=name,
        subject=subject,
        since_s=entry.since_s,
        what=entry.what,
        figures=dict(entry.figures),
        times=entry.times,
        holds=entry.holds,
    )
