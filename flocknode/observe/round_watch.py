"""Warnings about a node's part in rounds: what did not count, and why; work that is late or fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from flocknode.observe.conditions import Conditions
from protocol.events import Notify
from protocol.ledger.state import Phase
from protocol.params import ProtocolParams
from protocol.progress import SOFT_GRACE_MS, hard_deadline_ms


class Times(Protocol):
    """How long the learner's work takes: `flocknode.jobs_runner.LearningTimes`."""

    @property
    def running(self) -> tuple[str, float] | None:
        """The work that runs, and since when, in seconds of the monotonic clock."""

    def took_s(self, key: str) -> float | None:
        """Return how long a piece of work took, None for one that has not ended or was long ago."""


@frozen
class _Work:
    """A piece of the learner's work: how long it has taken, and whether it still runs."""

    seconds: float
    is_running: bool

    @property
    def words(self) -> str:
        return (
            f"has taken {self.seconds:.1f} s and still runs"
            if self.is_running
            else f"took {self.seconds:.1f} s"
        )


@define(eq=False)
class RoundWatch:
    """Watches one node's part in rounds. `began_s`: when the node started, by the monotonic clock."""

    conditions: Conditions
    params: ProtocolParams
    times: Times
    began_s: float
    _round: int = field(default=0, init=False)
    _phase: Phase = field(default=Phase.ADVERT, init=False)
    _phase_began_s: float = field(init=False)
    _failed: dict[str, int] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._phase_began_s = self.began_s

    def notice(self, notice: Notify, now_s: float) -> None:
        """Take in a fact that the engine tells."""
        handler = _HANDLERS.get(notice.kind)
        if handler is not None:
            handler(self, notice.fields, now_s)

    def _on_phase(self, fields: Mapping[str, Any], now_s: float) -> None:
        self._round = max(self._round, fields["round"])
        self._phase, self._phase_began_s = Phase[fields["phase"]], now_s

    def _on_round(self, fields: Mapping[str, Any], now_s: float) -> None:
        """Forget jobs that failed and have not failed in the round after it."""
        self._round = fields["round"]
        for subject, round_ in list(self._failed.items()):
            if self._round > round_ + 1:
                del self._failed[subject]
                if subject not in FOR_UPDATES:
                    self.conditions.gone("job_failed", now_s, subject)

    def _on_encoded(self, fields: Mapping[str, Any], now_s: float) -> None:
        for subject in FOR_UPDATES:
            self.conditions.gone("job_failed", now_s, subject)

    def tested(self, round_: object, why: str, now_s: float) -> None:
        """Take in that the model of a round was evaluated on the test split, or why it could not be."""
        if why:
            what = f"the model of round {round_} could not be evaluated on the test split: {why}"
            self.conditions.holds("evaluation_failed", now_s, what, round=round_, why=why)
        else:
            self.conditions.gone("evaluation_failed", now_s)

    def _on_job_failed(self, fields: Mapping[str, Any], now_s: float) -> None:
        round_, _, name = fields["job"].partition("/")
        subject = name.partition("/")[0]
        if subject == "evaluate":
            return  # then this node abstains, and says so
        self._failed[subject] = self._round
        cost = ": this node's update does not count" if subject in FOR_UPDATES else ""
        self.conditions.holds(
            "job_failed",
            now_s,
            f"round {round_}: the job {subject!r} failed{cost}. It says: {fields['why']}",
            subject,
            round=self._round,
            job=fields["job"],
            why=fields["why"],
        )

    def _on_judged(self, fields: Mapping[str, Any], now_s: float) -> None:
        if fields["vote"]:
            self.conditions.gone("abstained", now_s)
            return
        self.conditions.holds(
            "abstained",
            now_s,
            f"round {fields['round']}: this node abstained from the vote, because evaluation failed: "
            f"{fields['why']}",
            round=fields["round"],
            why=fields["why"],
        )

    def _on_part(self, fields: Mapping[str, Any], now_s: float) -> None:
        """Tell why this node's part in a phase did not count, or that it does again."""
        role, round_ = fields["role"], fields["round"]
        learns = _LEARNS.get(role)
        if fields["counted"]:
            self.conditions.gone("not_counted", now_s, role)
            if learns is not None:
                self.conditions.gone("deadline_missed", now_s, learns[0])
            return
        step = fields["step"]
        if fields["elapsed_ms"] < SOFT_GRACE_MS // 2:
            return  # no phase that lacks something closes so soon: this node was not there when it began
        if learns is not None and step == learns[0]:
            if self._failed.get(learns[1]) != round_:
                self._on_late(fields, learns, now_s)
            return
        if fields["synced"]:
            return  # this node was away or behind, and learns of the phase after it is over
        seconds, deadline_s = fields["elapsed_ms"] / 1000, fields["deadline_ms"] / 1000
        self.conditions.holds(
            "not_counted",
            now_s,
            f"round {round_}: {_WORDS[role, step]} when the phase closed after {seconds:.1f} s "
            f"(deadline {deadline_s:g} s)",
            role,
            round=round_,
            step=step,
            closed_after_s=seconds,
            deadline_s=deadline_s,
        )

    def _on_late(self, fields: Mapping[str, Any], learns: tuple[str, str], now_s: float) -> None:
        doing, job = learns
        work = self._work(f"{fields['round']}/{job}", now_s)
        if work is None and (fields["synced"] or self.times.running is None):
            return
        self._late(fields["round"], doing, work, fields["elapsed_ms"] / 1000, now_s, closed=True)

    def _late(
        self, round_: int, doing: str, work: _Work | None, seconds: float, now_s: float, *, closed: bool
    ) -> None:
        phase = Phase.CONTRIBUTE if doing == "training" else Phase.BALLOT
        deadline_s = hard_deadline_ms(phase, self.params) / 1000
        took = work.words if work is not None else "has not begun: the learner is busy with earlier work"
        if not closed:
            ended = f"the phase's deadline of {deadline_s:g} s has passed"
        elif seconds < deadline_s:
            ended = f"the phase closed after {seconds:.1f} s, before its deadline of {deadline_s:g} s, "
            ended += "as most others were done"
        else:
            ended = f"the phase closed after {seconds:.1f} s (deadline {deadline_s:g} s)"
        lost = "update" if doing == "training" else "vote"
        self.conditions.holds(
            "deadline_missed",
            now_s,
            f"round {round_}: {doing} {took}; {ended}: this node's {lost} does not count",
            doing,
            round=round_,
            seconds=None if work is None else round(work.seconds, 3),
            still_runs=work is not None and work.is_running,
            closed_after_s=round(seconds, 3),
            deadline_s=deadline_s,
        )

    def _work(self, key: str, now_s: float) -> _Work | None:
        """Return the piece of work whose key is, or begins with, `key`, if it has begun."""
        running = self.times.running
        if running is not None and (running[0] == key or running[0].startswith(f"{key}/")):
            return _Work(now_s - running[1], True)
        ended = (self.times.took_s(name) for name in (key, f"{key}/1", f"{key}/0"))
        return next((_Work(took_s, False) for took_s in ended if took_s is not None), None)

    def look(self, now_s: float) -> None:
        """See whether the learner's work is past the deadline of its phase, or past its round."""
        running = self.times.running
        if running is None:
            self.conditions.gone("learner_busy", now_s)
            return
        key, began_s = running
        round_text, _, name = key.partition("/")
        in_phase_s = now_s - self._phase_began_s
        for doing, job, phase in (
            ("training", "train", Phase.CONTRIBUTE),
            ("evaluation", "evaluate", Phase.BALLOT),
        ):
            is_due = self._phase is phase and round_text == str(self._round)
            deadline_s = hard_deadline_ms(phase, self.params) / 1000
            if is_due and name.startswith(job) and in_phase_s >= deadline_s:
                work = _Work(now_s - began_s, True)
                self._late(self._round, doing, work, in_phase_s, now_s, closed=False)
        is_late = name.partition("/")[0] in ("train", "evaluate") and int(round_text) < self._round
        if not is_late:
            self.conditions.gone("learner_busy", now_s)
            return
        self.conditions.holds(
            "learner_busy",
            now_s,
            f"the job {name!r} of round {round_text} has run for {now_s - began_s:.0f} s, and round "
            f"{self._round} is under way: what this node is to train or evaluate waits behind it",
            job=key,
            seconds=round(now_s - began_s, 1),
            round=self._round,
        )


FOR_UPDATES: Final = ("train", "contribute")
"""The jobs without which there is no update; the next update shows that they work again."""

_HANDLERS: Final[Mapping[str, Callable[[RoundWatch, Mapping[str, Any], float], None]]] = {
    "phase": RoundWatch._on_phase,
    "block": RoundWatch._on_phase,
    "account": RoundWatch._on_round,
    "encoded": RoundWatch._on_encoded,
    "job_failed": RoundWatch._on_job_failed,
    "judged": RoundWatch._on_judged,
    "part": RoundWatch._on_part,
}

_LEARNS: Final[Mapping[str, tuple[str, str]]] = {
    "proposer": ("training", "train"),
    "voter": ("evaluation", "evaluate"),
}
"""By role, what the learner does for it, and the name of its job."""

_WORDS: Final[Mapping[tuple[str, str], str]] = {
    ("sharer", "dealing"): "this node had not dealt its shares",
    ("sharer", "attestation"): "too few nodes held the shares that this node had dealt",
    ("proposer", "encoding"): "this node's update was trained, but not masked and sent",
    (
        "proposer",
        "receipt",
    ): "this node's update was sent, but nobody vouched for it",
    (
        "proposer",
        "attestation",
    ): "this node's update was sent, but too few nodes had heard of it",
    ("voter", "verification"): "this node had not verified the sum, so it did not vote",
    ("voter", "attestation"): "this node's sealed vote was sent, but too few nodes had it",
    ("aggregator", "aggregation"): "this node, the aggregator, had not given the sum to the others",
    ("opener", "opening"): "this node's sealed vote was not opened to enough nodes, which costs it gamma,",
}
"""By role and by the step that it was stuck at (`protocol.reporting`)."""
