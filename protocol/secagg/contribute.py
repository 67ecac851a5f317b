"""What a proposer computes in phase 2, step by step (docs/PROTOCOL.md sections 2 to 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec, Int64Vec
from protocol.context import Index, RoundContext
from protocol.params import Masking, ProtocolParams, Sparsify
from protocol.secagg import commitment, masking, sparsify
from protocol.secagg.encoding import Clipping, Float32Vec, quantise_and_count
from protocol.secagg.interpolation import check_values
from protocol.secagg.scheme import Scheme
from protocol.secrets import RoundSecrets


def round_support(context: RoundContext, last_aggregate: Int64Vec | None) -> Int64Vec:
    """The coordinates that all send in this round, sorted int64[k], where the support is shared."""
    params = context.params
    return sparsify.shared_support(context.beacon, last_aggregate, params.dimension, params.sparsify_permille)


def compress(
    params: ProtocolParams, update: Float32Vec, residual: Float32Vec | None, support: Int64Vec | None
) -> tuple[Float32Vec, Float32Vec | None]:
    """The float32[k] to send, and float32[d] kept for later rounds (None where nothing is left out).

    `support` is needed, and used, only where it is shared. `protocol.secagg.encoding.EncodingError` for
    an update or residual of another shape, or not finite.
    """
    if params.sparsify is Sparsify.OFF:
        return update, None
    kept = np.zeros(params.dimension, dtype=np.float32) if residual is None else residual
    if support is not None:
        return sparsify.restrict(update, kept, support)
    return sparsify.topk_local(update, kept, params.sparsify_permille)


def encode_update(
    params: ProtocolParams, scheme: Scheme, sent: Float32Vec, weight: int, secrets: RoundSecrets
) -> Int64Vec:
    """q_i followed by the commitment's opening randomness: int64[masked_length]."""
    return encode_and_count(params, scheme, sent, weight, secrets)[0]


def encode_and_count(
    params: ProtocolParams, scheme: Scheme, sent: Float32Vec, weight: int, secrets: RoundSecrets
) -> tuple[Int64Vec, Clipping]:
    """Encode as `encode_update`, and tell what the clipping bound cut off."""
    quantised, clipping = quantise_and_count(
        sent, weight, params.max_weight, scheme.fixed, secrets.rounding_seed
    )
    randomness = scheme.commitment.opening_randomness(secrets.commitment_seed)
    return np.concatenate([quantised, randomness]), clipping


def mask_update(
    params: ProtocolParams,
    extended: Int64Vec,
    proposer: Index,
    pair_seeds: Mapping[Index, bytes],
    self_seed: bytes,
) -> FieldVec:
    """y_i, uint32[masked_length]; `self_seed` is not used under single masking."""
    own = self_seed if params.masking is Masking.DOUBLE else None
    return masking.mask(fp.from_signed(extended), proposer, pair_seeds, own)


def encode_masked(scheme: Scheme, masked: FieldVec, check_seed: bytes, z_root: bytes) -> FieldVec:
    """B_i, uint32[G, M+1]: VCD-FL, "gradient encryption"."""
    groups, _ = scheme.coefficients_shape
    points = scheme.interpolation.points_from(z_root, masked.size)
    return scheme.interpolation.interpolate(masked, check_values(check_seed, groups), points)


def publish_commitment(
    context: RoundContext, scheme: Scheme, extended: Int64Vec, proposer: Index, check_seed: bytes
) -> FieldVec:
    """C_i as everyone sees it: blinded until rho_i is revealed, if the network says so."""
    committed = scheme.commitment.commit(extended)
    if not context.params.blinded:
        return committed
    peer = context.proposers[proposer]
    return commitment.blind(committed, check_seed, context.network, context.round, peer)
