"""Conditions begin once and end once, whatever comes and goes; what flaps is told less and less."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flocknode.observe.conditions import MOST_STRIKES, MOST_SUBJECTS, Conditions, Rule
from flocknode.observe.rules import RULES

SLOW = Rule(name="slow", meaning=".", advice=".", begins_after_s=5.0, ends_after_s=10.0)
COUNTED = Rule(name="counted", meaning=".", advice=".", ends_after_times=3)


def table(*rules: Rule) -> Conditions:
    return Conditions.of(rules or (SLOW, COUNTED))


def told(conditions: Conditions, now_s: float) -> list[tuple[str, str, bool]]:
    return [(c.condition.name, c.condition.subject, c.begun) for c in conditions.due(now_s)]


def test_a_condition_begins_once_it_has_held_and_ends_once_it_has_been_away() -> None:
    conditions = table()
    conditions.holds("slow", 100.0, "one of two", figure_s=1)
    assert told(conditions, 104.9) == []
    conditions.holds("slow", 105.0, "none of two", figure_s=2)
    (begun,) = conditions.due(105.0)
    assert (begun.begun, begun.at_s, begun.condition.since_s) == (True, 105.0, 100.0)
    (present,) = conditions.present()
    assert present == begun.condition
    assert (present.name, present.what, present.figures) == ("slow", "none of two", {"figure_s": 2})
    assert told(conditions, 1_000.0) == []
    conditions.gone("slow", 1_000.0)
    assert told(conditions, 1_009.9) == []
    (present,) = conditions.present()
    assert not present.holds
    (ended,) = conditions.due(1_010.0)
    assert (ended.begun, ended.condition.since_s, ended.condition.times) == (False, 100.0, 1)
    assert conditions.present() == ()
    assert told(conditions, 2_000.0) == []


def test_what_does_not_last_is_not_told_unless_it_comes_again_and_again() -> None:
    conditions = table()
    lines = []
    for second in range(0, 400, 100):  # too seldom to be more than chance
        conditions.holds("slow", float(second), "for a second")
        lines += told(conditions, second + 1.0)
        conditions.gone("slow", second + 1.0)
        lines += told(conditions, second + 99.0)
    assert lines == []
    for second in range(1_000, 1_050, 10):
        conditions.holds("slow", float(second), "for a second")
        conditions.gone("slow", second + 1.0)
        lines += told(conditions, second + 2.0)
    assert lines == [("slow", "", True)]
    assert conditions.present()[0].times == SLOW.flaps


def test_observations_are_counted_where_a_rule_counts_them() -> None:
    conditions = table()
    conditions.holds("counted", 1.0, "round 1")
    assert told(conditions, 1.0) == [("counted", "", True)]
    for number in (2, 3):
        conditions.gone("counted", float(number))
        assert told(conditions, float(number)) == []
    conditions.gone("counted", 4.0)
    assert told(conditions, 4.0) == [("counted", "", False)]
    conditions.holds("counted", 5.0, "round 5")
    assert told(conditions, 5.0) == [("counted", "", True)]
    lines = []
    for number in range(6, 12):  # it came back at once, so its end takes twice as long
        conditions.gone("counted", float(number))
        lines.append(told(conditions, float(number)))
    assert lines == [[], [], [], [], [], [("counted", "", False)]]


@pytest.mark.parametrize("period_s", [2.0, 7.0, 12.0, 30.0, 90.0, 300.0])
def test_flapping_is_a_few_lines_and_no_flood(period_s: float) -> None:
    """Six hours of a peer that is away for one half of each period and there for the other."""
    conditions = table(SLOW)
    lines: list[tuple[str, str, bool]] = []
    halves = int(6 * 3_600 / (period_s / 2))
    for half in range(halves):
        now_s = half * period_s / 2
        if half % 2:
            conditions.gone("slow", now_s)
        else:
            conditions.holds("slow", now_s, "away")
        for look in range(4):
            lines += told(conditions, now_s + look * period_s / 8)
    assert 1 <= len(lines) <= 2 * MOST_STRIKES + 1
    assert [begun for _, _, begun in lines] == [number % 2 == 0 for number in range(len(lines))]


def test_calm_makes_its_returns_forgotten() -> None:
    conditions = table(SLOW)
    now_s = 0.0
    for _ in range(3):
        conditions.holds("slow", now_s, "away")
        assert told(conditions, now_s + 5.0) == [("slow", "", True)]
        conditions.gone("slow", now_s + 5.0)
        assert told(conditions, now_s + 15.0) == [("slow", "", False)]
        now_s += 10_000.0


def test_rules_without_patience_that_go_and_come_are_refused() -> None:
    for wrong in ({"begins_after_s": -1.0}, {"ends_after_times": 0}, {"flaps": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Rule(name="x", meaning="", advice="", **wrong)
    with pytest.raises(KeyError):
        table().holds("unknown", 0.0, "")


def test_subjects_are_bounded_and_forgotten() -> None:
    conditions = table(SLOW)
    for number in range(MOST_SUBJECTS + 10):
        conditions.holds("slow", 0.0, "away", str(number))
    assert len(conditions.due(5.0)) == MOST_SUBJECTS
    conditions.retain("slow", ["0"], 6.0)
    assert len(conditions.due(20.0)) == MOST_SUBJECTS - 1
    assert conditions.due(10_000.0) == []
    conditions.holds("slow", 10_000.0, "away", "new")
    assert told(conditions, 10_005.0) == [("slow", "new", True)]


def test_every_rule_speaks_in_sentences() -> None:
    assert len({rule_.name for rule_ in RULES}) == len(RULES)
    for told_rule in RULES:
        for sentence in (told_rule.meaning, told_rule.advice):
            assert sentence[0].isupper()
            assert sentence.endswith((".", "`."))


class Histories(RuleBasedStateMachine):
    """Any order of observations and looks: begins and ends alternate, and only for good reason."""

    def __init__(self) -> None:
        super().__init__()
        self.conditions = table()
        self.now_s = 0.0
        self.is_told: dict[tuple[str, str], bool] = {}
        self.held_since_s: dict[tuple[str, str], float] = {}
        self.away_since_s: dict[tuple[str, str], float] = {}
        self.starts: dict[tuple[str, str], list[float]] = {}

    keys = st.tuples(st.sampled_from(["slow", "counted"]), st.sampled_from(["", "a", "b"]))

    @rule(key=keys)
    def holds(self, key: tuple[str, str]) -> None:
        self.conditions.holds(key[0], self.now_s, f"{key} at {self.now_s}", key[1])
        if key not in self.held_since_s:
            self.held_since_s[key] = self.now_s
            self.starts.setdefault(key, []).append(self.now_s)
        self.away_since_s.pop(key, None)

    @rule(key=keys)
    def gone(self, key: tuple[str, str]) -> None:
        self.conditions.gone(key[0], self.now_s, key[1])
        if self.held_since_s.pop(key, None) is not None:
            self.away_since_s[key] = self.now_s

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 6.0, 11.0, 100.0, 5_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def look(self) -> None:
        rules = {"slow": SLOW, "counted": COUNTED}
        for change in self.conditions.due(self.now_s):
            key = name, _ = change.condition.name, change.condition.subject
            assert change.begun is not self.is_told.get(key, False)
            self.is_told[key] = change.begun
            if change.begun:
                since_s, starts = self.held_since_s.get(key), self.starts[key]
                has_lasted = since_s is not None and self.now_s - since_s >= rules[name].begins_after_s
                flaps = len(starts) >= SLOW.flaps and starts[-1] - starts[-SLOW.flaps] <= SLOW.flaps_within_s
                assert has_lasted or flaps
            else:
                assert key not in self.held_since_s
                assert self.now_s - self.away_since_s[key] >= rules[name].ends_after_s
        assert self.conditions.due(self.now_s) == []

    @invariant()
    def present_is_what_was_told(self) -> None:
        present = {(condition.name, condition.subject) for condition in self.conditions.present()}
        assert present == {key for key, is_told in self.is_told.items() if is_told}
        for condition in self.conditions.present():
            assert condition.holds is ((condition.name, condition.subject) in self.held_since_s)
            assert condition.since_s <= self.now_s


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_histories = Histories.TestCase
