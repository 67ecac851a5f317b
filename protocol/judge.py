"""Phase 4: is the published aggregate the true sum, and if not, who is at fault?

docs/PROTOCOL.md section 5. `verify` is what everyone does; `dispute` needs all uploads at hand and is
run after any verdict but TRUSTED. Nothing a proposer or aggregator sent makes either fail: malformed
bytes decide the result like wrong ones.
"""

from __future__ import annotations

import numpy as np
from attrs import field, frozen

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec
from protocol.blob import blob_digest
from protocol.checkpoint import decode_checkpoint, encode_checkpoint
from protocol.context import Index, ReadBlob, RoundContext, require
from protocol.params import Masking, Sparsify
from protocol.secagg.aggregate import (
    PlainSum,
    eq19_holds,
    is_committed,
    joint_challenge,
    next_checkpoint,
    sum_commitments,
    unmask_sum,
)
from protocol.secagg.contribute import round_support
from protocol.secagg.pairs import dangling_seeds
from protocol.secagg.scheme import Scheme, UploadError, scheme_of
from protocol.secagg.verification import Verdict, eq18_holds, proposer_check_holds, verdict
from protocol.secrets import z_root_hash


@frozen
class VerifyJob:
    """Phase 4, everyone: both equations over the pinned values, and the model that would follow.

    Tuples without an index run in the order of `contributors` (U2).
    """

    context: RoundContext
    contributors: tuple[Index, ...]
    sum_digest: bytes
    self_seeds: tuple[tuple[Index, bytes], ...] = field(repr=False)
    mask_secrets: tuple[tuple[Index, bytes], ...] = field(repr=False)
    check_seeds: tuple[bytes, ...] = field(repr=False)
    z_root: bytes = field(repr=False)
    commitments: tuple[bytes, ...] = field(repr=False)
    challenge_seeds: tuple[bytes, ...] = field(repr=False)
    weights: tuple[int, ...]
    model_digest: bytes


@frozen
class VerifyResult:
    """`model`: the candidate checkpoint as bytes, its digest beside it.

    Where the sum is not the committed one, or is out of bounds, it is the current model.
    """

    verdict: Verdict
    eq18: bool
    eq19: bool
    bounded: bool
    model: bytes = field(repr=False)
    model_digest: bytes


@frozen
class DisputeJob:
    """After any verdict but TRUSTED, all uploads at hand: who is guilty, and what is the true sum.

    `upload_digests` in the order of `verify.contributors`. `hash_z`: H(z) as each of them pinned it.
    """

    verify: VerifyJob
    upload_digests: tuple[bytes, ...]
    hash_z: tuple[bytes, ...]


@frozen
class DisputeResult:
    """`sum_matches`: the claimed B is the sum of the B_i. `repaired`: the verdict over the true sum.

    `guilty_checks`: proposers with f_i(z_k) != A_i(k), a malformed upload, or a wrong H(z).
    """

    sum_matches: bool
    sum: bytes = field(repr=False)
    sum_digest: bytes
    repaired: VerifyResult
    guilty_checks: tuple[Index, ...]


def verify(job: VerifyJob, read_blob: ReadBlob) -> VerifyResult:
    """Check the claimed sum. `JobError` for a job that does not fit its round."""
    _require_verifiable(job)
    try:
        claimed = scheme_of(job.context).read_coefficients(read_blob(job.sum_digest), "sum")
    except UploadError:
        current = read_blob(job.model_digest)
        return VerifyResult(verdict(False, False, True), False, False, True, current, job.model_digest)
    return _verify_coefficients(job, claimed, read_blob)


def dispute(job: DisputeJob, read_blob: ReadBlob) -> DisputeResult:
    """Compare the claimed sum with that of the uploads, and check each upload by itself.

    A malformed upload adds nothing to the sum. `JobError` for a job that does not fit its round.
    """
    claim, context = job.verify, job.verify.context
    _require_verifiable(claim)
    count = len(claim.contributors)
    require(len(job.upload_digests) == len(job.hash_z) == count, "one upload and one H(z) a contributor")
    scheme = scheme_of(context)
    points = scheme.interpolation.points_from(claim.z_root, scheme.masked_length)
    hash_z = z_root_hash(context.network, context.round, claim.z_root)
    guilty: list[Index] = []
    total = np.zeros(scheme.coefficients_shape, dtype=np.uint32)
    for place, index in enumerate(claim.contributors):
        try:
            upload = scheme.read_coefficients(read_blob(job.upload_digests[place]), "upload")
        except UploadError:
            guilty.append(index)
            continue
        fp.accumulate(total, upload)
        check_seed = claim.check_seeds[place]
        holds = proposer_check_holds(upload, points, scheme.interpolation, check_seed)
        if not holds or job.hash_z[place] != hash_z:
            guilty.append(index)
    data = fp.to_bytes(total)
    sum_digest = blob_digest(data)
    return DisputeResult(
        sum_matches=sum_digest == claim.sum_digest,
        sum=data,
        sum_digest=sum_digest,
        repaired=_verify_coefficients(claim, total, read_blob),
        guilty_checks=tuple(guilty),
    )


def _verify_coefficients(job: VerifyJob, coefficients: FieldVec, read_blob: ReadBlob) -> VerifyResult:
    context, scheme = job.context, scheme_of(job.context)
    count = len(job.contributors)
    points = scheme.interpolation.points_from(job.z_root, scheme.masked_length)
    dangling = dangling_seeds(context, job.contributors, dict(job.mask_secrets))
    self_seeds = [seed for _, seed in job.self_seeds]
    plain = unmask_sum(scheme, coefficients, points, self_seeds, dangling)
    eq18 = eq18_holds(coefficients, points, scheme.interpolation, job.check_seeds)
    total = _total_commitment(job, scheme)
    challenge = joint_challenge(context.params, scheme, job.check_seeds, job.challenge_seeds)
    eq19 = total is not None and eq19_holds(scheme, plain, total, count, challenge)
    bounded = scheme.commitment.within_bound(plain.extended, count)
    # A sum with a mask too many or too few is out of bounds as well, but that is the aggregator's doing;
    # UNBOUNDED is kept for the sum of what was committed to.
    oversized = not bounded and (eq19 or (total is not None and is_committed(scheme, plain, total)))
    model = read_blob(job.model_digest)
    if eq19 and bounded:
        model = _candidate(job, scheme, plain, model)
    reading = verdict(eq18, eq19, not oversized)
    return VerifyResult(reading, eq18, eq19, bounded, model, blob_digest(model))


def _total_commitment(job: VerifyJob, scheme: Scheme) -> FieldVec | None:
    """The sum of the published commitments, or None: one that is malformed commits to nothing."""
    try:
        published = [scheme.read_commitment(data, "commitment") for data in job.commitments]
    except UploadError:
        return None
    return sum_commitments(job.context, scheme, job.contributors, published, job.check_seeds)


def _candidate(job: VerifyJob, scheme: Scheme, plain: PlainSum, current: bytes) -> bytes:
    params = job.context.params
    checkpoint = decode_checkpoint(params, current)
    support = None
    if params.sparsify is Sparsify.SHARED_SUPPORT:
        support = round_support(job.context, checkpoint.last_aggregate)
    following = next_checkpoint(params, scheme, checkpoint, support, plain, sum(job.weights))
    return encode_checkpoint(params, following)


def _require_verifiable(job: VerifyJob) -> None:
    count, sharers = len(job.contributors), job.context.sharers
    unmasked = job.contributors if job.context.params.masking is Masking.DOUBLE else ()
    dropped = tuple(index for index in sharers if index not in job.contributors)
    require(count > 0 and set(job.contributors) <= set(sharers), "contributors: not a part of U1")
    require(tuple(index for index, _ in job.self_seeds) == unmasked, "self_seeds: not those of U2")
    require(tuple(index for index, _ in job.mask_secrets) == dropped, "mask_secrets: not those of U1 - U2")
    lengths = {len(job.check_seeds), len(job.commitments), len(job.weights)}
    require(lengths == {count}, "check_seeds, commitments, weights: not one of each a contributor")
    require(min(job.weights) >= 1, "weights: below 1")
