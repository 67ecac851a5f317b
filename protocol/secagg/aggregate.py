"""From uploads to the sum, its check and the next model, step by step (docs/PROTOCOL.md sections 3 to 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from attrs import field, frozen

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec, Int64Vec
from protocol.checkpoint import Checkpoint
from protocol.context import Index, RoundContext
from protocol.params import Challenge, ProtocolParams
from protocol.secagg import commitment, masking
from protocol.secagg.encoding import EncodingError, apply_aggregate
from protocol.secagg.interpolation import Points, padding_is_zero
from protocol.secagg.scheme import Scheme


@frozen(eq=False)
class PlainSum:
    """The sum of the extended updates, int64[masked_length], and whether the padding decoded to 0."""

    extended: Int64Vec = field(repr=False)
    padded_with_zero: bool


def sum_coefficients(scheme: Scheme, uploads: Iterable[FieldVec]) -> FieldVec:
    """B = sum of the B_i, uint32[G, M+1]."""
    total = np.zeros(scheme.coefficients_shape, dtype=np.uint32)
    for upload in uploads:
        fp.accumulate(total, upload)
    return total


def unmask_sum(
    scheme: Scheme,
    coefficients: FieldVec,
    points: Points,
    self_seeds: Iterable[bytes],
    dangling: Iterable[tuple[Index, Index, bytes]],
) -> PlainSum:
    """The sum behind B: values at the points, minus self masks and the masks shared with the dropped."""
    values = scheme.interpolation.evaluate_padded(coefficients, points)
    length = scheme.masked_length
    plain = masking.unmask(values[:length], self_seeds, dangling)
    return PlainSum(fp.to_signed(plain), padding_is_zero(values, length))


def sum_commitments(
    context: RoundContext,
    scheme: Scheme,
    contributors: Sequence[Index],
    published: Sequence[FieldVec],
    check_seeds: Sequence[bytes],
) -> FieldVec:
    """C = sum of the C_i, uint32[size], unblinded where they were published blinded."""
    if not context.params.blinded:
        return scheme.commitment.add(published)
    return scheme.commitment.add(
        [
            commitment.unblind(blinded, seed, context.network, context.round, context.proposers[index])
            for index, blinded, seed in zip(contributors, published, check_seeds, strict=True)
        ]
    )


def joint_challenge(
    params: ProtocolParams, scheme: Scheme, check_seeds: Sequence[bytes], challenge_seeds: Sequence[bytes]
) -> FieldVec | None:
    """R of eq. 19, None where the commitment needs none.

    From the check seeds, which were pinned and shared in advance; or from what the proposers said last,
    where the network follows the paper.
    """
    seeds = challenge_seeds if params.challenge is Challenge.CLEAR else check_seeds
    return scheme.commitment.challenge(seeds)


def eq19_holds(
    scheme: Scheme,
    plain: PlainSum,
    total_commitment: FieldVec,
    contributors: int,
    challenge: FieldVec | None,
) -> bool:
    """VCD-FL eq. 19: whether the sum is what U2 committed to, and nothing rides along in the padding."""
    return plain.padded_with_zero and scheme.commitment.opens(
        total_commitment, plain.extended, contributors, challenge
    )


def is_committed(scheme: Scheme, plain: PlainSum, total_commitment: FieldVec) -> bool:
    """Whether the sum commits to this very value, however large its coordinates are."""
    return plain.padded_with_zero and bool(
        np.array_equal(scheme.commitment.commit(plain.extended), total_commitment)
    )


def next_checkpoint(
    params: ProtocolParams,
    scheme: Scheme,
    current: Checkpoint,
    support: Int64Vec | None,
    plain: PlainSum,
    total_weight: int,
) -> Checkpoint:
    """The current model moved by the mean update; `support` says where its coordinates belong.

    A sum that would carry the model out of its range leaves it where it is: every node must come to the
    same end, also with a task that diverges.
    """
    aggregate = plain.extended[: scheme.length]
    if support is not None:
        aggregate = np.zeros(params.dimension, dtype=np.int64)
        aggregate[support] = plain.extended[: scheme.length]
    try:
        model = apply_aggregate(current.model, aggregate, scheme.fixed, params.max_weight, total_weight)
    except EncodingError:
        return current
    return Checkpoint(model, aggregate)
