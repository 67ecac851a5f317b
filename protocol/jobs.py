"""The heavy steps of a round, as values: what goes in, what comes out (docs/PROTOCOL.md section 1).

The engine issues a job with `RunJob` and gets its result back as an event. Aggregation jobs are run
by `run`, the same function in production, tests, simulator and benchmark; `TrainJob` and
`EvaluateJob` are the learner's. Peers are named by their index into the round's proposers, which
is also the Shamir abscissa minus one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from protocol.algebra import field as fp
from protocol.algebra import ntt, shamir
from protocol.algebra.field import FieldVec
from protocol.blob import blob_digest
from protocol.checkpoint import decode_checkpoint
from protocol.context import Index, JobError, ReadBlob, RoundContext, require
from protocol.judge import DisputeJob, DisputeResult, VerifyJob, VerifyResult, dispute, verify
from protocol.params import CommitmentScheme, ProtocolParams, Sparsify
from protocol.secagg import encoding, interpolation
from protocol.secagg.aggregate import sum_coefficients
from protocol.secagg.contribute import (
    compress,
    encode_and_count,
    encode_masked,
    mask_update,
    publish_commitment,
    round_support,
)
from protocol.secagg.pairs import own_pair_seeds
from protocol.secagg.scheme import UploadError, build_scheme, check_upload, commitment_digest, scheme_of
from protocol.secrets import RoundSecrets
from protocol.sharing import DealerFault, Dealing, PinnedShares, ShareKind, deal, rebuild_many

__all__ = [
    "AggregateJob",
    "AggregateResult",
    "AggregationJob",
    "CheckUploadJob",
    "CheckUploadResult",
    "ContributeJob",
    "ContributeResult",
    "DealJob",
    "DealResult",
    "DisputeJob",
    "DisputeResult",
    "EvaluateJob",
    "EvaluateResult",
    "Index",
    "Job",
    "JobError",
    "JobResult",
    "LearningJob",
    "ReadBlob",
    "RoundContext",
    "TrainJob",
    "TrainResult",
    "VerifyJob",
    "VerifyResult",
    "run",
    "warm",
]


@frozen
class DealJob:
    """Phase 1: share the round's secrets among the proposers, seal each share to its holder."""

    context: RoundContext
    dealer: Index
    secrets: RoundSecrets = field(repr=False)


@frozen
class DealResult:
    dealing: Dealing = field(repr=False)


@frozen
class TrainJob:
    """Phase 2, learner: train from the model of this digest. Deterministic in `seed`."""

    round: int
    model_digest: bytes
    seed: bytes


@frozen
class TrainResult:
    """`update`: float32[d], new minus old weights; `weight`: the sample count w_i >= 1."""

    update: npt.NDArray[np.float32] = field(repr=False, eq=False)
    weight: int


@frozen
class ContributeJob:
    """Phase 2: quantise, mask, interpolate, commit. `z_root` is H(z_1..z_n) over U1.

    `residual`: float32[d], what earlier rounds left unsent (sparsified networks only).
    `model_digest` names the current model, whose blob holds the last aggregate for a shared support.
    """

    context: RoundContext
    proposer: Index
    secrets: RoundSecrets = field(repr=False)
    z_root: bytes = field(repr=False)
    update: npt.NDArray[np.float32] = field(repr=False, eq=False)
    weight: int
    model_digest: bytes
    residual: npt.NDArray[np.float32] | None = field(default=None, repr=False, eq=False)


@frozen
class ContributeResult:
    """`upload`: B_i as bytes; `commitment`: as it is published (blinded if the network says so).

    `clipping`: what the clipping bound cut off; its `clipped_at` are coordinates of the model.
    """

    upload: bytes = field(repr=False)
    upload_digest: bytes
    commitment: bytes = field(repr=False)
    commitment_digest: bytes
    residual: npt.NDArray[np.float32] | None = field(default=None, repr=False, eq=False)
    clipping: encoding.Clipping | None = None


@frozen
class CheckUploadJob:
    """Phase 2, aggregator or upload witness: is this upload whole and well-formed?"""

    context: RoundContext
    upload_digest: bytes


@frozen
class CheckUploadResult:
    upload_digest: bytes
    well_formed: bool


@frozen
class AggregateJob:
    """Phase 3, aggregator: B = sum of B_i over U2, and the unmask secrets from the released shares.

    `upload_digests` in the order of `contributors`. `self_shares`: one entry for each member of U2
    (none under single masking), `mask_shares`: for each member of U1 without U2; each with at least
    `threshold` shares that `share_holds`.
    """

    context: RoundContext
    contributors: tuple[Index, ...]
    upload_digests: tuple[bytes, ...]
    self_shares: tuple[PinnedShares, ...] = field(repr=False)
    mask_shares: tuple[PinnedShares, ...] = field(repr=False)


@frozen
class AggregateResult:
    """`faults` not empty: dealers whose shares do not give back what they pinned: the round is void."""

    sum: bytes = field(repr=False)
    sum_digest: bytes
    self_seeds: tuple[tuple[Index, bytes], ...] = field(repr=False)
    mask_secrets: tuple[tuple[Index, bytes], ...] = field(repr=False)
    faults: tuple[DealerFault, ...] = ()


@frozen
class EvaluateJob:
    """Phase 4, voters' learner: losses of these models on the own validation split.

    `best_digest`: the best model so far, where the network names one and this node has it.
    """

    round: int
    current_digest: bytes
    candidate_digest: bytes
    best_digest: bytes | None = None


@frozen
class EvaluateResult:
    """Losses as the task gave them; None where the node could not evaluate (then it abstains).

    `best_loss` None too where the job named no best model. `done`: the task says so of the candidate. `why`:
    for the operator, why it could not; it stays with the node.
    """

    current_loss: float | None
    candidate_loss: float | None
    best_loss: float | None = None
    done: bool = False
    why: str = field(default="", kw_only=True)


AggregationJob: TypeAlias = DealJob | ContributeJob | CheckUploadJob | AggregateJob | VerifyJob | DisputeJob
LearningJob: TypeAlias = TrainJob | EvaluateJob
Job: TypeAlias = AggregationJob | LearningJob
JobResult: TypeAlias = (
    DealResult
    | TrainResult
    | ContributeResult
    | CheckUploadResult
    | AggregateResult
    | VerifyResult
    | DisputeResult
    | EvaluateResult
)


def run(job: AggregationJob, read_blob: ReadBlob) -> JobResult:
    """Do one aggregation job; a function of the job and its blobs alone.

    `JobError` names what does not fit. Nothing a proposer or aggregator sent makes `VerifyJob` or
    `DisputeJob` fail: it decides their result.
    """
    match job:
        case DealJob():
            _require_own(job.context, job.dealer, job.secrets)
            return DealResult(deal(job.context, job.dealer, job.secrets))
        case ContributeJob():
            return _contribute(job, read_blob)
        case CheckUploadJob():
            return _check_upload(job, read_blob)
        case AggregateJob():
            return _aggregate(job, read_blob)
        case VerifyJob():
            return verify(job, read_blob)
        case DisputeJob():
            return dispute(job, read_blob)


def warm(params: ProtocolParams, network: bytes | None = None) -> None:
    """Compile every kernel, and expand the network's commitment key, before a round needs them."""
    for module in (fp, ntt, shamir, encoding, interpolation):
        module.warm()
    if network is not None and params.commitment is CommitmentScheme.LATTICE:
        scheme = build_scheme(params, network, None)
        scheme.commitment.commit(np.zeros(scheme.masked_length, dtype=np.int64))


# -- checks ------------------------------------------------------------------------------------


def _require_own(context: RoundContext, index: Index, secrets: RoundSecrets) -> None:
    """A restored node must not speak with other keys than it advertised: its masks would not cancel."""
    advertised = (context.mask_publics[index], context.seal_publics[index])
    own = (secrets.mask_public, secrets.seal_public)
    require(advertised == own, f"proposer {index} advertised other keys than it holds")


# -- phase 2 -----------------------------------------------------------------------------------


def _contribute(job: ContributeJob, read_blob: ReadBlob) -> ContributeResult:
    context, params, secrets = job.context, job.context.params, job.secrets
    _require_own(context, job.proposer, secrets)
    require(job.proposer in context.sharers, f"proposer {job.proposer} is not in U1")
    scheme = scheme_of(context)
    support = None
    if params.sparsify is Sparsify.SHARED_SUPPORT:
        support = round_support(
            context, decode_checkpoint(params, read_blob(job.model_digest)).last_aggregate
        )
    sent, residual = compress(params, job.update, job.residual, support)
    extended, clipping = encode_and_count(params, scheme, sent, job.weight, secrets)
    if support is not None:
        clipping = evolve(clipping, clipped_at=tuple(int(support[place]) for place in clipping.clipped_at))
    pair_seeds = own_pair_seeds(context, job.proposer, secrets.mask_key)
    masked = mask_update(params, extended, job.proposer, pair_seeds, secrets.self_seed)
    upload = fp.to_bytes(encode_masked(scheme, masked, secrets.check_seed, job.z_root))
    commitment = fp.to_bytes(publish_commitment(context, scheme, extended, job.proposer, secrets.check_seed))
    return ContributeResult(
        upload=upload,
        upload_digest=blob_digest(upload),
        commitment=commitment,
        commitment_digest=commitment_digest(commitment),
        residual=residual,
        clipping=clipping,
    )


def _check_upload(job: CheckUploadJob, read_blob: ReadBlob) -> CheckUploadResult:
    try:
        check_upload(job.context.params, read_blob(job.upload_digest))
    except UploadError:
        return CheckUploadResult(job.upload_digest, False)
    return CheckUploadResult(job.upload_digest, True)


# -- phase 3 -----------------------------------------------------------------------------------


def _aggregate(job: AggregateJob, read_blob: ReadBlob) -> AggregateResult:
    context, scheme = job.context, scheme_of(job.context)
    require(len(job.upload_digests) == len(job.contributors), "upload_digests: not one for each contributor")

    def uploads() -> Iterator[FieldVec]:
        for index, upload in zip(job.contributors, job.upload_digests, strict=True):
            try:
                yield scheme.read_coefficients(read_blob(upload), f"upload of proposer {index}")
            except UploadError as error:
                raise JobError(str(error)) from error

    total = fp.to_bytes(sum_coefficients(scheme, uploads()))
    self_seeds, self_faults = _rebuilt(context, ShareKind.SELF, job.self_shares)
    mask_secrets, mask_faults = _rebuilt(context, ShareKind.MASK, job.mask_shares)
    return AggregateResult(total, blob_digest(total), self_seeds, mask_secrets, self_faults + mask_faults)


def _rebuilt(
    context: RoundContext, kind: ShareKind, wanted: tuple[PinnedShares, ...]
) -> tuple[tuple[tuple[Index, bytes], ...], tuple[DealerFault, ...]]:
    """The secrets by dealer, and the faults of those that dealt garbage."""
    results = rebuild_many(context, kind, wanted)
    secrets = tuple(
        (item.dealer, result)
        for item, result in zip(wanted, results, strict=True)
        if isinstance(result, bytes)
    )
    return secrets, tuple(result for result in results if isinstance(result, DealerFault))
