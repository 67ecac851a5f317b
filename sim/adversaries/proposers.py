"""Dishonest proposers: what they train, encode, commit to and tell (docs/PROTOCOL.md sections 3 to 5)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import define, evolve, field

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec
from protocol.blob import blob_digest
from protocol.envelope import Statement
from protocol.events import Effect, Event, JobDone, RunJob
from protocol.jobs import ContributeJob, ContributeResult, Job, JobResult, TrainJob, TrainResult
from protocol.messages import Contribution, Kind, Reveal, ShareBundle
from protocol.params import MAX_WEIGHT
from protocol.secagg.contribute import encode_masked, mask_update, publish_commitment
from protocol.secagg.pairs import own_pair_seeds
from protocol.secagg.scheme import Scheme, commitment_digest, scheme_of
from sim.adversaries.coalition import Coalition
from sim.adversaries.forgery import Int64Vec, shift_check
from sim.adversaries.tampering import JobTampering, StatementTampering, heard
from sim.filters import Filter
from sim.invariants.sums import uploaded


@define(eq=False)
class Accomplice(Filter):
    """Honest in everything it says, and tells its coalition everything it knows."""

    coalition: Coalition

    def effects(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, RunJob) and isinstance(effect.job, ContributeJob):
                self.coalition.jobs[effect.job.context.round, effect.job.proposer] = effect.job
        return effects


@define(eq=False)
class Poisoner(JobTampering):
    """Sends the largest update that clipping admits, away from where it should go."""

    clip: float

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(job, TrainJob) or not isinstance(result, TrainResult):
            return result
        away = np.where(result.update < 0, self.clip, -self.clip).astype(np.float32)
        return evolve(result, update=away)


@define(eq=False)
class Scaler(JobTampering):
    """Multiplies what it has learned: by more than one to outweigh others, by less than none to undo them."""

    factor: float

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(job, TrainJob) or not isinstance(result, TrainResult):
            return result
        return evolve(result, update=(result.update * np.float32(self.factor)).astype(np.float32))


@define(eq=False)
class WeightInflater(StatementTampering):
    """Claims more samples than anyone may have, so that the sum is divided by too much.

    Where the network admits as many as a statement can say, it claims these.
    """

    weight: int

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, ShareBundle):
            return statement
        body = evolve(statement.body, weight=min(self.weight, MAX_WEIGHT))
        return self.signed(statement.round, Kind.SHARE_BUNDLE, body)


@define(eq=False)
class FalseRevealer(StatementTampering):
    """Reveals a check seed that is not the one it pinned."""

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, Reveal):
            return statement
        return self.signed(statement.round, Kind.REVEAL, evolve(statement.body, check_seed=bytes(32)))


@define(eq=False)
class CheckBreaker(JobTampering):
    """Uploads a B_i whose hidden values are not its own A_i. First reading: `CHECK_FAULT`."""

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(job, ContributeJob) or not isinstance(result, ContributeResult):
            return result
        upload = shift_check(scheme_of(job.context), job.z_root, result.upload, 99)
        return evolve(result, upload=upload, upload_digest=blob_digest(upload))


@define(eq=False)
class Inconsistent(JobTampering):
    """Uploads one update and commits to another; `sent` and `committed` make them from the true one."""

    sent: Callable[[Int64Vec, Scheme], Int64Vec]
    committed: Callable[[Int64Vec, Scheme], Int64Vec]

    def result(self, job: Job, result: JobResult) -> JobResult | None:
        if not isinstance(job, ContributeJob) or not isinstance(result, ContributeResult):
            return result
        scheme = scheme_of(job.context)
        extended = uploaded(job, result.upload)
        upload = make_upload(job, scheme, self.sent(extended.copy(), scheme))
        return _with_commitment(
            evolve(result, upload=upload, upload_digest=blob_digest(upload)),
            publish_commitment(
                job.context,
                scheme,
                self.committed(extended.copy(), scheme),
                job.proposer,
                job.secrets.check_seed,
            ),
        )


def unchanged(extended: Int64Vec, scheme: Scheme) -> Int64Vec:
    """The honest choice for `Inconsistent`."""
    return extended


def off_by_one(extended: Int64Vec, scheme: Scheme) -> Int64Vec:
    """Another update, as near as can be."""
    extended[0] += 1
    return extended


def out_of_bounds(extended: Int64Vec, scheme: Scheme) -> Int64Vec:
    """One coordinate so large that no number of honest updates makes up for it."""
    extended[0] = -(1 << 29)
    return extended


def whole_bound(extended: Int64Vec, scheme: Scheme) -> Int64Vec:
    """One coordinate three times as large as one clipped update may have it, and no sum out of bounds."""
    extended[0] = 3 << (scheme.fixed.bits - 1)
    return extended


def make_upload(job: ContributeJob, scheme: Scheme, extended: Int64Vec) -> bytes:
    """B_i for any extended update, masked as its proposer owes it."""
    pair_seeds = own_pair_seeds(job.context, job.proposer, job.secrets.mask_key)
    masked = mask_update(job.context.params, extended, job.proposer, pair_seeds, job.secrets.self_seed)
    return fp.to_bytes(encode_masked(scheme, masked, job.secrets.check_seed, job.z_root))


def _with_commitment(result: ContributeResult, commitment: FieldVec) -> ContributeResult:
    data = fp.to_bytes(commitment)
    return evolve(result, commitment=data, commitment_digest=commitment_digest(data))


@define(eq=False)
class RogueCommitter(Accomplice):
    """Commits last: to what makes all commitments together open to `target`, whatever the others sent.

    It holds its own contribution back until it has seen the commitments of `others` of the round, and
    subtracts them. In the clear they are what they seem; blinded they are noise. Its coalition's aggregator
    then claims `target`. docs/PROTOCOL.md section 3, "The order is the security argument".
    """

    target: Callable[[Scheme], Int64Vec]
    others: int
    _held: tuple[str, ContributeResult] | None = field(default=None, init=False)
    _seen: dict[tuple[int, bytes], bytes] = field(factory=dict, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            if isinstance(statement.body, Contribution) and statement.envelope.payload:
                self._seen[statement.round, statement.sender] = statement.envelope.payload
        if isinstance(event, JobDone) and isinstance(event.result, ContributeResult):
            self._held = event.key, event.result
            return self._released()
        return [event, *self._released()]

    def _released(self) -> list[Event]:
        if self._held is None:
            return []
        key, result = self._held
        round_ = int(key.partition("/")[0])
        job = self.coalition.jobs[self._own_job(round_)]
        seen = {peer: data for (told, peer), data in self._seen.items() if told == round_}
        if len(seen) < self.others:
            return []
        self._held = None
        scheme = scheme_of(job.context)
        wanted = scheme.commitment.commit(self.target(scheme))
        published = [scheme.read_commitment(data, "commitment") for _, data in sorted(seen.items())]
        rogue = fp.sub(wanted, scheme.commitment.add(published))
        return [JobDone(key, _with_commitment(result, rogue))]

    def _own_job(self, round_: int) -> tuple[int, int]:
        return next(key for key in sorted(self.coalition.jobs) if key[0] == round_)
