"""Who runs the jobs of simulated nodes: the protocol's own `run`, and a learner."""

from __future__ import annotations

from random import Random
from typing import Protocol

from protocol.events import Digest, Millis
from protocol.jobs import (
    ContributeJob,
    DisputeJob,
    EvaluateJob,
    EvaluateResult,
    Job,
    JobResult,
    TrainJob,
    TrainResult,
    VerifyJob,
    run,
)
from sim.notes import Notes
from sim.world import ReadBlob

REMEMBERED_RESULTS = 64


class Learner(Protocol):
    """Trains and evaluates; raises where it cannot."""

    def train(self, node: int, job: TrainJob, read_blob: ReadBlob) -> TrainResult: ...

    def evaluate(self, node: int, job: EvaluateJob, read_blob: ReadBlob) -> EvaluateResult: ...


class JobWorker:
    """Durations are drawn from the ranges given, in virtual ms. `notes` hears of every contribution.

    Every node verifies the same values, and blobs are named by their digests; so a verification is computed
    once and its result shared, which a run cannot tell from the real thing.
    """

    def __init__(
        self,
        learner: Learner,
        train_ms: tuple[int, int] = (200, 800),
        job_ms: tuple[int, int] = (5, 60),
        notes: Notes | None = None,
    ) -> None:
        self._learner = learner
        self._notes = notes
        self._train_ms = train_ms
        self._job_ms = job_ms
        self._results: dict[VerifyJob | DisputeJob, tuple[tuple[Digest, ...], JobResult]] = {}

    def duration_ms(self, node: int, job: Job, random: Random) -> Millis:
        learning = isinstance(job, TrainJob | EvaluateJob)
        return random.randint(*(self._train_ms if learning else self._job_ms))

    def run(self, node: int, job: Job, read_blob: ReadBlob) -> JobResult:
        """Raises whatever the learner or `protocol.jobs.run` raises."""
        match job:
            case TrainJob():
                return self._learner.train(node, job, read_blob)
            case EvaluateJob():
                measured = self._learner.evaluate(node, job, read_blob)
                if self._notes is not None:
                    self._notes.take_evaluation(node, job, measured)
                return measured
            case VerifyJob() | DisputeJob():
                return self._shared(job, read_blob)
            case ContributeJob():
                result = run(job, read_blob)
                if self._notes is not None:
                    self._notes.take(job, result)
                return result
            case _:
                return run(job, read_blob)

    def _shared(self, job: VerifyJob | DisputeJob, read_blob: ReadBlob) -> JobResult:
        remembered = self._results.get(job)
        if remembered is not None:
            digests, result = remembered
            for digest in digests:  # a node that lacks a blob fails here as it would alone
                read_blob(digest)
            return result
        read: list[Digest] = []

        def noting(digest: Digest) -> bytes:
            read.append(digest)
            return read_blob(digest)

        result = run(job, noting)
        if len(self._results) >= REMEMBERED_RESULTS:
            del self._results[next(iter(self._results))]
        self._results[job] = (tuple(read), result)
        return result
