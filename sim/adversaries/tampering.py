"""Two ways to bend an honest engine: change the results of its jobs, or the statements that it signs.

A changed job result is what the engine itself then signs, stores and serves, so that the node stays
consistent in its lie. A changed statement is rewritten wherever it leaves the node, repair included.
"""

from __future__ import annotations

from attrs import define, field

from protocol.envelope import Statement, make_statement
from protocol.events import Broadcast, Effect, Event, JobDone, Received, RunJob, Send
from protocol.jobs import Job, JobResult
from protocol.keys import Identity
from protocol.messages import Body, Kind, Statements
from sim.filters import Filter
from sim.reading import read_statement


def heard(event: Event) -> list[Statement]:
    """The messages in an event, those inside a repair batch too; nothing where it is no message."""
    if not isinstance(event, Received):
        return []
    try:
        statement = read_statement(event.data)
        if isinstance(statement.body, Statements):
            return [statement, *(read_statement(data) for data in statement.body.envelopes)]
    except ValueError:
        return []
    return [statement]


@define(eq=False)
class JobTampering(Filter):
    """Changes jobs on their way to the worker, and their results on the way back."""

    _running: dict[str, Job] = field(factory=dict, init=False)

    def job(self, job: Job) -> Job | None:
        """The job that is run instead; None: it never is."""
        return job

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        """What the engine is shown as the result; None: nothing."""
        return result

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed: list[Effect] = []
        for effect in effects:
            if isinstance(effect, RunJob):
                job = self.job(effect.job)
                if job is None:
                    continue
                self._running[effect.key] = job
                performed.append(RunJob(effect.key, job))
            else:
                performed.append(effect)
        return performed

    def events(self, event: Event) -> list[Event]:
        if not isinstance(event, JobDone) or event.key not in self._running:
            return [event]
        result = self.result(self._running.pop(event.key), event.result)
        return [] if result is None else [JobDone(event.key, result)]


@define(eq=False)
class StatementTampering(Filter):
    """Rewrites messages that the node signed, wherever they leave it; it needs the node's key for that."""

    identity: Identity
    network: bytes

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        """What leaves instead of this message to one peer (None: to all); None: nothing does."""
        return statement

    def relays(self, statement: Statement, to: bytes | None) -> bool:
        """Whether it passes this message of somebody else on to one peer (None: to all)."""
        return True

    def signed(self, round_: int, kind: Kind, body: Body, payload: bytes = b"") -> Statement:
        """A message of the adversary's own making."""
        return make_statement(self.identity, self.network, round_, kind, body, payload)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Broadcast | Send):
                to = effect.peer if isinstance(effect, Send) else None
                data = self._rewritten(effect.data, to)
                if data is not None:
                    performed.append(Broadcast(data) if to is None else Send(to, data))
            else:
                performed.append(effect)
        return performed

    def _rewritten(self, data: bytes, to: bytes | None) -> bytes | None:
        statement = read_statement(data)
        if isinstance(statement.body, Statements):
            inner = [self._rewritten(entry, to) for entry in statement.body.envelopes]
            batch = Statements(tuple(entry for entry in inner if entry is not None))
            if batch == statement.body:
                return data
            if not batch.envelopes:
                return None
            return self.signed(statement.round, Kind.STATEMENTS, batch).to_bytes()
        if statement.sender != self.identity.peer:
            return data if self.relays(statement, to) else None
        changed = self.rewrite(statement, to)
        if changed is statement:
            return data
        return None if changed is None else changed.to_bytes()


@define(eq=False)
class Both(Filter):
    """Two ways to misbehave at once: `inner` stands next to the engine."""

    inner: Filter
    outer: Filter

    def events(self, event: Event) -> list[Event]:
        return [each for shown in self.outer.events(event) for each in self.inner.events(shown)]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return self.outer.effects(self.inner.effects(effects))

    def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
        served = self.inner.serve(digest, peer, data)
        return None if served is None else self.outer.serve(digest, peer, served)
