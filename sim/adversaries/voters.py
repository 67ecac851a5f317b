"""Dishonest voters (docs/PROTOCOL.md sections 5 and 6)."""

from __future__ import annotations

from attrs import define

from protocol.envelope import Statement
from protocol.jobs import EvaluateResult, Job, JobResult
from protocol.messages import Kind
from sim.adversaries.tampering import JobTampering, StatementTampering


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
        return EvaluateResult(result.candidate_loss_micro, result.current_loss_micro)
