"""An upload that only a coalition holds: its proposer, voters who vouch for it, a forging aggregator."""

from __future__ import annotations

from attrs import define

from protocol.blob import blob_digest
from protocol.events import Event, JobDone
from protocol.jobs import AggregateJob, AggregateResult, ContributeResult, Job, JobResult
from protocol.secagg.scheme import scheme_of
from sim.adversaries.aggregators import RefusingAggregator
from sim.adversaries.coalition import Hoard
from sim.adversaries.forgery import shift_blindly
from sim.filters import Filter


@define(eq=False)
class Hider(Filter):
    """Serves what the coalition hides to its members only; as a proposer it hides its own upload."""

    hoard: Hoard

    def events(self, event: Event) -> list[Event]:
        if isinstance(event, JobDone) and isinstance(event.result, ContributeResult):
            self.hoard.digests.add(event.result.upload_digest)
        return [event]

    def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
        return self.hoard.served(digest, peer, data)


@define(eq=False)
class HidingForger(RefusingAggregator):
    """Adds up a hidden upload that it never acknowledged, and claims another sum."""

    hoard: Hoard

    def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
        return self.hoard.served(digest, peer, data)

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        shown = super().result(job, result)
        if not isinstance(job, AggregateJob) or not isinstance(shown, AggregateResult):
            return shown
        total = shift_blindly(scheme_of(job.context), shown.sum, 5)
        return AggregateResult(total, blob_digest(total), shown.self_seeds, shown.mask_secrets)
