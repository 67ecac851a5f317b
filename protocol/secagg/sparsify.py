"""Which coordinates of an update are sent: gradient compression with a local remainder.

VCD-FL algorithm 2 (`topk_local`): accumulate with momentum, send the largest, keep the rest. Under dense
masks it saves nothing, because a masked zero is not zero; with `shared_support` all clients of a round send
the same publicly known coordinates, so masking, commitment and transfer run on those alone.
docs/PROTOCOL.md section 2.
"""

import numpy as np
import numpy.typing as npt

from protocol.algebra import field
from protocol.algebra.field import Int64Vec
from protocol.secagg.encoding import EncodingError, Float32Vec, require_finite

MOMENTUM = 0.5
SUPPORT_LABEL = b"support"


def support_size(d: int, permille: int) -> int:
    """k = ceil(d * permille / 1000); EncodingError for a share outside 1..1000 permille or d < 1."""
    if d < 1 or not 1 <= permille <= 1000:
        raise EncodingError(f"{permille} permille of {d} coordinates")
    return -(-d * permille // 1000)


def _largest(keys: npt.NDArray[np.generic], count: int) -> Int64Vec:
    """Sorted indices of the `count` largest keys; equal keys are taken in order of index."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(keys, keys.size - count)[keys.size - count]
    above = np.flatnonzero(keys > threshold)
    tied = np.flatnonzero(keys == threshold)[: count - above.size]
    return np.sort(np.concatenate([above, tied])).astype(np.int64)


def _accumulated(update: Float32Vec, residual: Float32Vec, momentum: float) -> Float32Vec:
    if update.shape != residual.shape or update.ndim != 1:
        raise EncodingError(f"update of shape {update.shape}, residual of shape {residual.shape}")
    accumulated = (np.float32(momentum) * residual + update).astype(np.float32, copy=False)
    require_finite(accumulated, "accumulated update")
    return accumulated


def topk_local(
    update: Float32Vec, residual: Float32Vec, permille: int, momentum: float = MOMENTUM
) -> tuple[Float32Vec, Float32Vec]:
    """VCD-FL algorithm 2 on float32[d]: `G = momentum * G + update`, the top share of |G| is sent.

    Returns (sparse update, new residual), both float32[d]: what is sent is reset in G, the rest stays.
    EncodingError for shapes that differ, a share outside 1..1000 permille, or a non-finite element.
    """
    kept = _accumulated(update, residual, momentum)
    chosen = _largest(np.abs(kept), support_size(kept.size, permille))
    sparse = np.zeros_like(kept)
    sparse[chosen] = kept[chosen]
    kept[chosen] = 0.0
    return sparse, kept


def shared_support(beacon: bytes, last_aggregate: Int64Vec | None, d: int, permille: int) -> Int64Vec:
    """The coordinates every client of a round sends: sorted unique int64[k], k = ceil(d * permille / 1000).

    Half of them are the largest of |last_aggregate|, int64[d], ties by index and zeros never; the rest are
    those others with the largest words of `expand(beacon, b"support", d)`, ties by index. Without a last
    aggregate the beacon chooses all. Integers only, so all nodes agree. EncodingError for a last aggregate
    of another length or magnitude (2^63).
    """
    k = support_size(d, permille)
    large = np.empty(0, dtype=np.int64)
    if last_aggregate is not None:
        if last_aggregate.shape != (d,):
            raise EncodingError(f"last aggregate of shape {last_aggregate.shape}, expected ({d},)")
        magnitudes = np.abs(last_aggregate)
        if int(magnitudes.min()) < 0:
            raise EncodingError("last aggregate: a magnitude of 2^63")
        large = _largest(magnitudes, min(k // 2, int(np.count_nonzero(magnitudes))))
    words = field.expand(beacon, SUPPORT_LABEL, d).astype(np.int64)
    words[large] = -1
    return np.sort(np.concatenate([large, _largest(words, k - large.size)]))


def restrict(
    update: Float32Vec, residual: Float32Vec, support: Int64Vec, momentum: float = MOMENTUM
) -> tuple[Float32Vec, Float32Vec]:
    """Error feedback on a shared support: (float32[k] to send, new float32[d] residual).

    `G = momentum * G + update`; G[support] is sent and reset. A coordinate outside the support is trained
    again from the unchanged model every round, so momentum below 1 keeps its remainder from growing with
    the time it waits. EncodingError for shapes that differ, a non-finite element, or a support that is not
    sorted, unique and within the update.
    """
    kept = _accumulated(update, residual, momentum)
    outside = support.size > 0 and (int(support[0]) < 0 or int(support[-1]) >= kept.size)
    if support.ndim != 1 or outside or (np.diff(support) <= 0).any():
        raise EncodingError(f"support is not sorted, unique and within {kept.size} coordinates")
    sent = kept[support]
    kept[support] = 0.0
    return sent, kept
