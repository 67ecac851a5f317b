"""The global model as a blob: what its digest on the ledger stands for (docs/PROTOCOL.md section 2).

Weights are int64 in units of 2^-24, little endian. Where the support of a round is shared, the last
aggregate follows, because the next support is computed from it: a node that joins needs the blob alone.
"""

from __future__ import annotations

import numpy as np
from attrs import field, frozen

from protocol.algebra.field import Int64Vec
from protocol.params import ProtocolParams, Sparsify
from protocol.secagg.encoding import EncodingError, Float32Vec, model_from_float

WORD_BYTES = 8


class CheckpointError(ValueError):
    """Bytes that are no checkpoint of this network, or weights that have no place in one."""


@frozen(eq=False)
class Checkpoint:
    """`model`: int64[d] in units of 2^-24. `last_aggregate`: int64[d], zero where nothing was sent.

    `last_aggregate` is None where the network keeps none, and where it is all zero, as at the start.
    """

    model: Int64Vec = field(repr=False)
    last_aggregate: Int64Vec | None = field(default=None, repr=False)


def keeps_aggregate(params: ProtocolParams) -> bool:
    """Whether checkpoints of this network carry the last aggregate."""
    return params.sparsify is Sparsify.SHARED_SUPPORT


def checkpoint_bytes(params: ProtocolParams) -> int:
    """The exact size of a checkpoint."""
    return WORD_BYTES * params.dimension * (2 if keeps_aggregate(params) else 1)


def encode_checkpoint(params: ProtocolParams, checkpoint: Checkpoint) -> bytes:
    """The blob. `CheckpointError` for vectors that are not int64[d]."""
    parts = [checkpoint.model]
    if keeps_aggregate(params):
        last = checkpoint.last_aggregate
        parts.append(np.zeros(params.dimension, dtype=np.int64) if last is None else last)
    for part in parts:
        if part.shape != (params.dimension,) or part.dtype != np.int64:
            raise CheckpointError(f"{part.dtype}{list(part.shape)}, expected int64[{params.dimension}]")
    return b"".join(part.astype("<i8", copy=False).tobytes() for part in parts)


def decode_checkpoint(params: ProtocolParams, data: bytes) -> Checkpoint:
    """The checkpoint in a blob, which came from anyone. `CheckpointError` for another size."""
    if len(data) != checkpoint_bytes(params):
        raise CheckpointError(f"checkpoint of {len(data)} bytes, expected {checkpoint_bytes(params)}")
    words = np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False)
    last = words[params.dimension :]
    return Checkpoint(words[: params.dimension], last if last.any() else None)


def initial_checkpoint(params: ProtocolParams, weights: Float32Vec) -> bytes:
    """The blob of the model that a network starts from, float32[d].

    `CheckpointError` for another shape or type, a weight that is not finite, or one beyond 2^26.
    """
    if weights.shape != (params.dimension,) or weights.dtype != np.float32:
        raise CheckpointError(f"{weights.dtype}{list(weights.shape)}, expected float32[{params.dimension}]")
    try:
        return encode_checkpoint(params, Checkpoint(model_from_float(weights)))
    except EncodingError as error:
        raise CheckpointError(str(error)) from error
