"""The plain arithmetic behind a masked sum, as only somebody who knows every secret can do it.

No function of the protocol's way from uploads to the sum is used for honest contributions: they are encoded
and added as integers. A contribution that was tampered with is what its upload holds under its sender's own
masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from protocol.algebra import field as fp
from protocol.checkpoint import Checkpoint
from protocol.jobs import ContributeJob
from protocol.ledger.state import PinnedContribution
from protocol.params import ProtocolParams, Sparsify
from protocol.secagg.contribute import compress, encode_update, mask_update, round_support
from protocol.secagg.encoding import MODEL_FRACTION_BITS
from protocol.secagg.pairs import own_pair_seeds
from protocol.secagg.scheme import scheme_of
from sim.invariants.base import InvariantError
from sim.notes import Notes

Int64Vec = npt.NDArray[np.int64]


def meant(job: ContributeJob, current: Checkpoint) -> Int64Vec:
    """The extended update, int64[masked_length], that an honest proposer's job encodes."""
    params = job.context.params
    sent, _ = compress(params, job.update, job.residual, support_of(job, current))
    return encode_update(params, scheme_of(job.context), sent, job.weight, job.secrets)


def uploaded(job: ContributeJob, upload: bytes) -> Int64Vec:
    """What an upload, whatever it is, holds once the masks of its sender are taken off; int64[...]."""
    scheme = scheme_of(job.context)
    coefficients = scheme.read_coefficients(upload, "upload")
    points = scheme.interpolation.points_from(job.z_root, scheme.masked_length)
    values = scheme.interpolation.evaluate_padded(coefficients, points)[: scheme.masked_length]
    nothing = np.zeros(scheme.masked_length, dtype=np.int64)
    seeds = own_pair_seeds(job.context, job.proposer, job.secrets.mask_key)
    masks = mask_update(job.context.params, nothing, job.proposer, seeds, job.secrets.self_seed)
    return fp.to_signed(fp.sub(values, masks))


def parts_of_sum(
    round_: int, contributors: Iterable[PinnedContribution], notes: Notes,
    blob_of: Callable[[bytes], bytes | None], current: Checkpoint,
) -> list[tuple[ContributeJob, Int64Vec]]:  # fmt: skip
    """What each member of U2 adds to the sum: as it meant it, or as its tampered upload has it."""
    parts = []
    for contribution in contributors:
        job = notes.of_peer(round_, contribution.peer)
        if job is None:
            raise InvariantError(f"round {round_}: a member of U2 never contributed")
        honest = notes.of_upload(contribution.upload_digest)
        if honest is not None:
            parts.append((job, meant(honest, current)))
            continue
        data = blob_of(contribution.upload_digest)
        if data is None:
            raise InvariantError(f"round {round_}: a sum counts that contains an upload which nobody holds")
        parts.append((job, uploaded(job, data)))
    return parts


def support_of(job: ContributeJob, current: Checkpoint) -> Int64Vec | None:
    """The coordinates that all send, where they share a support."""
    if job.context.params.sparsify is not Sparsify.SHARED_SUPPORT:
        return None
    return round_support(job.context, current.last_aggregate)


def moved(
    params: ProtocolParams, current: Int64Vec, job: ContributeJob, sums: Iterable[Int64Vec],
    weights: Mapping[bytes, int], support: Int64Vec | None,
) -> Int64Vec:  # fmt: skip
    """docs/PROTOCOL.md section 2.4: model + floor(g * step + 1/2), in Python's own integers."""
    scheme = scheme_of(job.context)
    total = sum((plain.astype(object) for plain in sums), np.zeros(scheme.masked_length, dtype=object))
    aggregate = np.zeros(params.dimension, dtype=object)
    aggregate[slice(None) if support is None else support] = total[: scheme.length]
    step = Fraction(params.max_weight, sum(weights.values()))
    step *= Fraction(2) ** (MODEL_FRACTION_BITS - scheme.fixed.fraction_bits)
    steps = (2 * aggregate * step.numerator + step.denominator) // (2 * step.denominator)
    after: Int64Vec = (current.astype(object) + steps).astype(np.int64)
    return after
