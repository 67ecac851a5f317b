"""Dishonest voters (docs/PROTOCOL.md sections 5 and 6)."""

from __future__ import annotations

from attrs import define, field

from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Event
from protocol.jobs import EvaluateResult, Job, JobResult
from protocol.ledger.judgement import MAX_CHANGE
from protocol.messages import Kind, SealedVote, VoteOpening, vote_hash
from sim.adversaries.tampering import JobTampering, StatementTampering, heard


@define(eq=False)
class Withholder(StatementTampering):
    """Never lets statements of some kinds leave the node: votes that stay sealed, reveals, claims."""

    kinds: frozenset[Kind]

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        return None if statement.kind in self.kinds else statement


@define(eq=False)
class Contrarian(JobTampering):
    """Votes against whatever is good, and for whatever is bad."""

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(result, EvaluateResult):
            return result
        return EvaluateResult(result.candidate_loss, result.current_loss)


@define(eq=False)
class Abstainer(JobTampering):
    """Says that it cannot evaluate."""

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        return EvaluateResult(None, None) if isinstance(result, EvaluateResult) else result


@define(eq=False)
class Yeasayer(JobTampering):
    """Votes +1 whatever the models are worth: it saves itself the evaluation."""

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        return EvaluateResult(0, 0) if isinstance(result, EvaluateResult) else result


@define(eq=False)
class UnsoundVoter(StatementTampering):
    """Votes for every sum, and says in the same opening that it is as bad as can be."""

    _sealed: dict[tuple[int, int], Statement] = field(factory=dict, init=False)

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        body = statement.body
        if not isinstance(body, SealedVote):
            return None if isinstance(body, VoteOpening) else statement
        digest = vote_hash(self.network, statement.round, self.identity.peer, _unsound(body.ballot))
        self._sealed[statement.round, body.ballot] = statement
        return self.signed(statement.round, Kind.SEALED_VOTE, SealedVote(body.ballot, digest))

    def effects(self, effects: list[Effect]) -> list[Effect]:
        """Its engine would not open a vote that it has not sealed."""
        performed = super().effects(effects)
        for round_, ballot in sorted(self._sealed):
            opening = self.signed(round_, Kind.VOTE_OPENING, _unsound(ballot))
            performed.append(Broadcast(opening.to_bytes()))
        self._sealed.clear()
        return performed


def _unsound(ballot: int) -> VoteOpening:
    return VoteOpening(ballot, 1, 0, bytes(32), MAX_CHANGE)


@define(eq=False)
class VoteCopier(StatementTampering):
    """Lazy: hands in another voter's sealed vote as its own, and that voter's opening once it is out.

    Where it has not heard what it is to copy, it keeps silent until it has.
    """

    _seen: dict[tuple[int, Kind, int], SealedVote | VoteOpening] = field(factory=dict, init=False)
    _owed: dict[tuple[int, Kind, int], Statement] = field(factory=dict, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            body = statement.body
            if isinstance(body, SealedVote | VoteOpening) and statement.sender != self.identity.peer:
                self._seen.setdefault((statement.round, statement.kind, body.ballot), body)
        return [event]

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        body = statement.body
        if not isinstance(body, SealedVote | VoteOpening):
            return statement
        place = statement.round, statement.kind, body.ballot
        copied = self._seen.get(place)
        if copied is None:
            self._owed[place] = statement
            return None
        return self.signed(statement.round, statement.kind, copied)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        for place in sorted(self._owed.keys() & self._seen.keys()):
            copied = self.rewrite(self._owed.pop(place), None)
            assert copied is not None
            performed.append(Broadcast(copied.to_bytes()))
        return performed
