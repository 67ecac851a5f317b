"""Dishonest aggregators, from lazy to forging (docs/PROTOCOL.md sections 3 and 5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from attrs import define, evolve, field

from protocol.blob import blob_digest
from protocol.events import Broadcast, Effect, Event, JobDone, PutBlob, Send
from protocol.jobs import (
    AggregateJob,
    AggregateResult,
    CheckUploadJob,
    ContributeJob,
    Job,
    JobResult,
)
from protocol.messages import AggregateClaim, Contribution, Kind
from protocol.secagg.aggregate import unmask_sum
from protocol.secagg.commitment import SingularCommitment
from protocol.secagg.pairs import dangling_seeds
from protocol.secagg.scheme import Scheme, scheme_of
from sim.adversaries.coalition import Coalition
from sim.adversaries.forgery import Int64Vec, kernel_delta, shift_blindly, shift_check, shift_sum
from sim.adversaries.tampering import JobTampering, StatementTampering, heard
from sim.reading import read_statement


@define(eq=False)
class SilentAggregator(JobTampering):
    """Acknowledges uploads and never adds them up. A time-out block replaces it."""

    def job(self, job: Job) -> Job | None:
        return None if isinstance(job, AggregateJob) else job


@define(eq=False)
class RefusingAggregator(JobTampering):
    """Never finishes checking the upload of one proposer, which so gets no receipt. Upload witnesses do."""

    victim: bytes
    _uploads: set[bytes] = field(factory=set, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            if isinstance(statement.body, Contribution) and statement.sender == self.victim:
                self._uploads.add(statement.body.upload_digest)
        return super().events(event)

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        refused = isinstance(job, CheckUploadJob) and job.upload_digest in self._uploads
        return None if refused else result


@define(eq=False)
class OmittingAggregator(JobTampering):
    """Lazy: leaves the first `omitted` contributions out of the sum, and claims it is whole."""

    omitted: int = 1

    def job(self, job: Job) -> Job | None:
        if not isinstance(job, AggregateJob):
            return job
        return evolve(
            job,
            contributors=job.contributors[self.omitted :],
            upload_digests=job.upload_digests[self.omitted :],
        )


@define(eq=False)
class ForgingAggregator(JobTampering, ABC):
    """Claims another sum than the one it computed; `forged` says which."""

    @abstractmethod
    def forged(self, job: AggregateJob, result: AggregateResult) -> bytes:
        """The B to claim, given the true result."""

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(job, AggregateJob) or not isinstance(result, AggregateResult):
            return result
        total = self.forged(job, result)
        return evolve(result, sum=total, sum_digest=blob_digest(total))


@define(eq=False)
class BlindForger(ForgingAggregator):
    """VCD-FL's weak attacker: touches the sum without the keys. First reading: `LAZY_AGGREGATOR`."""

    excess: int = 5

    def forged(self, job: AggregateJob, result: AggregateResult) -> bytes:
        return shift_blindly(scheme_of(job.context), result.sum, self.excess)


@define(eq=False)
class MalformedSum(ForgingAggregator):
    """Claims a blob that is no sum at all."""

    def forged(self, job: AggregateJob, result: AggregateResult) -> bytes:
        return result.sum[:-4]


@define(eq=False)
class InformedForger(ForgingAggregator, ABC):
    """Knows z, and the dealer's U where there is one, from an accomplice among the proposers."""

    coalition: Coalition

    def forged(self, job: AggregateJob, result: AggregateResult) -> bytes:
        told = self.coalition.job_of(job.context.round)
        return result.sum if told is None else self.forged_with(told, job, result)

    @abstractmethod
    def forged_with(self, told: ContributeJob, job: AggregateJob, result: AggregateResult) -> bytes:
        """As `forged`, with what an accomplice told of its own contribution."""


@define(eq=False)
class CollusiveForger(InformedForger):
    """VCD-FL's strong attacker: adds a delta of its own. First reading: `COLLUDING_AGGREGATOR`."""

    delta: Callable[[Scheme], Int64Vec]

    def forged_with(self, told: ContributeJob, job: AggregateJob, result: AggregateResult) -> bytes:
        scheme = scheme_of(told.context)
        return shift_sum(scheme, told.z_root, result.sum, self.delta(scheme))


@define(eq=False)
class TargetForger(InformedForger):
    """Reads the sum as soon as its masks can be taken off, and claims `target` in its place.

    Trusted if the commitments open to the target, which a `RogueCommitter` sees to.
    """

    target: Callable[[Scheme], Int64Vec]

    def forged_with(self, told: ContributeJob, job: AggregateJob, result: AggregateResult) -> bytes:
        scheme = scheme_of(told.context)
        plain = unmask_sum(
            scheme,
            scheme.read_coefficients(result.sum, "sum"),
            scheme.interpolation.points_from(told.z_root, scheme.masked_length),
            [seed for _, seed in result.self_seeds],
            dangling_seeds(job.context, job.contributors, dict(result.mask_secrets)),
        )
        return shift_sum(scheme, told.z_root, result.sum, self.target(scheme) - plain.extended)


@define(eq=False)
class CheckForger(InformedForger):
    """Breaks a hidden value and leaves the sum alone. First reading: `CHECK_FAULT`."""

    def forged_with(self, told: ContributeJob, job: AggregateJob, result: AggregateResult) -> bytes:
        return shift_check(scheme_of(told.context), told.z_root, result.sum, 99)


def first_coordinate(amount: int) -> Callable[[Scheme], Int64Vec]:
    """A delta that moves one coordinate of the update."""

    def delta(scheme: Scheme) -> Int64Vec:
        moved = np.zeros(scheme.masked_length, dtype=np.int64)
        moved[0] = amount
        return moved

    return delta


def kernel_of(commitment: SingularCommitment, scale: int) -> Callable[[Scheme], Int64Vec]:
    """A delta with U delta = 0 for these matrices, whatever scheme the network really uses."""

    def delta(scheme: Scheme) -> Int64Vec:
        moved = np.zeros(scheme.masked_length, dtype=np.int64)
        moved[: commitment.length] = kernel_delta(commitment, scale)
        return moved

    return delta


def kernel_of_own_u(scale: int) -> Callable[[Scheme], Int64Vec]:
    """A delta with U delta = 0 for the very matrices of a network with singular commitments."""

    def delta(scheme: Scheme) -> Int64Vec:
        assert isinstance(scheme.commitment, SingularCommitment)
        return kernel_of(scheme.commitment, scale)(scheme)

    return delta


@define(eq=False)
class EquivocatingAggregator(StatementTampering):
    """Signs two claims for one slot, and shows the peers in `misled` the second one only."""

    misled: tuple[bytes, ...]
    others: tuple[bytes, ...]
    _forged: bytes = field(default=b"", init=False)

    def events(self, event: Event) -> list[Event]:
        if isinstance(event, JobDone) and isinstance(event.result, AggregateResult):
            self._forged = bytes(4) + event.result.sum[4:]
        return [event]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [shown for effect in super().effects(effects) for shown in self._two_faced(effect)]

    def _two_faced(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast):
            return [effect]
        statement = read_statement(effect.data)
        if not isinstance(statement.body, AggregateClaim) or statement.sender != self.identity.peer:
            return [effect]
        body = evolve(statement.body, sum_digest=blob_digest(self._forged))
        lie = self.signed(statement.round, Kind.AGGREGATE_CLAIM, body)
        return [
            PutBlob(body.sum_digest, self._forged),
            *(Send(peer, effect.data) for peer in self.others),
            *(Send(peer, lie.to_bytes()) for peer in self.misled),
        ]
