"""Fixed point: from a float update to bounded integers, and from their sum to the next global model.

docs/PROTOCOL.md section 2. What leaves a client is `q_i = round(clip(Delta_i) * w_i / w_max * 2^f)` in b-bit
signed integers; the global model is an integer vector on which every node applies the same integer
aggregate, so that its digest agrees on every machine.
"""

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from attrs import Attribute, frozen
from attrs import field as attribute

from protocol.algebra import field
from protocol.algebra.field import FieldVec, Int64Vec, P
from protocol.algebra.kernel import kernel, operand

MAX_VALUE_BITS = 20
MIN_VALUE_BITS = 13
SUM_BITS = 27
MODEL_FRACTION_BITS = 24
MODEL_LIMIT = 2**50
ROUNDING_LABEL = b"rounding"
MIN_CLIP = 2.0**-30

Float32Vec = npt.NDArray[np.float32]


class EncodingError(ValueError):
    """A number that has no place in the fixed-point encoding."""


def value_bits(n_proposers: int) -> int:
    """b = min(20, 27 - ceil(log2 n_p)), the width of one encoded coordinate.

    Sums of n_p of them stay within 2^26 in magnitude, far from p/2 and inside the lattice commitment's
    bound. ValueError below 13 bits (more than 2^14 proposers) or without proposers.
    """
    if n_proposers < 1:
        raise ValueError(f"{n_proposers} proposers")
    bits = min(MAX_VALUE_BITS, SUM_BITS - (n_proposers - 1).bit_length())
    if bits < MIN_VALUE_BITS:
        raise ValueError(f"{n_proposers} proposers leave {bits} bits, fewer than {MIN_VALUE_BITS}")
    return bits


def sum_bound(contributors: int, bits: int) -> int:
    """The largest magnitude of a coordinate of an honest sum: contributors * 2^(b-1)."""
    return contributors << (bits - 1)


def _bits_in_range(_: object, __: "Attribute[int]", bits: int) -> None:
    if not 2 <= bits <= SUM_BITS:
        raise EncodingError(f"{bits} bits a coordinate, expected 2 to {SUM_BITS}")


def _clip_in_range(fixed: "FixedPoint", _: "Attribute[float]", clip: float) -> None:
    if not MIN_CLIP <= clip <= fixed.largest:
        raise EncodingError(f"clip {clip} is outside [2^-30, {fixed.largest}] for {fixed.bits} bits")


@frozen
class FixedPoint:
    """b-bit signed integers holding values up to +-clip, in units of 2^-fraction_bits."""

    bits: int = attribute(validator=_bits_in_range)
    clip: float = attribute(validator=_clip_in_range)

    @property
    def largest(self) -> int:
        """The largest encoded magnitude, 2^(b-1) - 1."""
        return (1 << (self.bits - 1)) - 1

    @property
    def fraction_bits(self) -> int:
        """f = floor(log2((2^(b-1) - 1) / clip)), in exact arithmetic: a logarithm could round across."""
        ratio = Fraction(self.largest) / Fraction(self.clip)
        return (ratio.numerator // ratio.denominator).bit_length() - 1


def require_finite(x: Float32Vec, what: str) -> None:
    """EncodingError naming `what` and the first index that is infinite or not a number."""
    bad = np.flatnonzero(~np.isfinite(x))
    if bad.size:
        where = int(bad[0])
        raise EncodingError(f"{what}: element {where} is {x[where]}")


MAX_CLIPPED_PLACES = 16
"""How many of the coordinates that were clipped are named."""


@frozen
class Clipping:
    """What the bound `clip` cut off an update of `coordinates` values.

    `clipped_coordinates`: how many were beyond the bound. `largest`: the largest magnitude before the
    cut, 0 where none was.
    `clipped_at`: the indices of the first `MAX_CLIPPED_PLACES` of them, ascending.
    """

    coordinates: int
    clip: float
    clipped_coordinates: int = 0
    largest: float = 0.0
    clipped_at: tuple[int, ...] = ()


@kernel
def _quantise(update: Float32Vec, clip: float, scale: float, uniform: FieldVec, out: Int64Vec) -> int:
    beyond = np.int64(0)
    for i in range(update.size):
        value = np.float64(update[i])
        clipped = min(max(value, -clip), clip)
        beyond += np.int64(clipped != value)
        out[i] = np.int64(np.floor(clipped * scale + np.float64(uniform[i]) / P))
    return int(beyond)


def quantise(
    update: Float32Vec, weight: int, max_weight: int, fixed: FixedPoint, rounding_seed: bytes
) -> Int64Vec:
    """Encode float32[d] as int64[d], `clip(update) * weight / max_weight * 2^f` stochastically rounded.

    Rounding is unbiased: floor(x + u), u = expand(rounding_seed, b"rounding", d) / p. Every result lies in
    [-2^(b-1), 2^(b-1)). EncodingError for a non-finite element (its index is named), for a shape or type
    other than float32[d], or a weight outside 1..max_weight.
    """
    return quantise_and_count(update, weight, max_weight, fixed, rounding_seed)[0]


def quantise_and_count(
    update: Float32Vec, weight: int, max_weight: int, fixed: FixedPoint, rounding_seed: bytes
) -> tuple[Int64Vec, Clipping]:
    """Encode as `quantise`, and tell what the clipping bound cut off; counted in the same pass."""
    if update.ndim != 1 or update.dtype != np.float32:
        raise EncodingError(f"update is {update.dtype}{list(update.shape)}, expected float32[d]")
    if not 1 <= weight <= max_weight:
        raise EncodingError(f"weight {weight} is outside 1..{max_weight}")
    require_finite(update, "update")
    uniform = field.expand(rounding_seed, ROUNDING_LABEL, update.size)
    scale = weight / max_weight * 2.0**fixed.fraction_bits
    out = np.empty(update.size, dtype=np.int64)
    beyond = _quantise(operand(update), fixed.clip, scale, uniform, out)
    if not beyond:
        return out, Clipping(update.size, fixed.clip)
    # In float64, as the kernel compares: a float32 bound may round to the value that exceeds it.
    magnitudes = np.abs(update.astype(np.float64))
    places = tuple(int(place) for place in np.flatnonzero(magnitudes > fixed.clip)[:MAX_CLIPPED_PLACES])
    return out, Clipping(update.size, fixed.clip, beyond, float(magnitudes.max()), places)


def _magnitude(x: Int64Vec) -> int:
    """The largest magnitude as a Python integer: abs(-2^63) does not fit int64."""
    return max(int(x.max()), -int(x.min())) if x.size else 0


@kernel
def _apply(model: Int64Vec, aggregate: Int64Vec, numerator: int, denominator: int, out: Int64Vec) -> None:
    for i in range(model.size):
        # floor(x + 1/2) for x = aggregate * numerator / denominator
        out[i] = model[i] + (2 * aggregate[i] * numerator + denominator) // (2 * denominator)


def apply_aggregate(
    model: Int64Vec, aggregate: Int64Vec, fixed: FixedPoint, max_weight: int, total_weight: int
) -> Int64Vec:
    """The next global model, int64[d] in units of 2^-24.

    The mean update is `aggregate * max_weight / total_weight` in units of 2^-f, for the integer sum
    `aggregate`, int64[d], and the public sum of weights. Exact integer arithmetic, rounded half up.
    EncodingError for different lengths, a weight below 1, or where an intermediate product could leave
    64 bits or the result 2^50.
    """
    if model.shape != aggregate.shape or model.ndim != 1:
        raise EncodingError(f"aggregate of shape {aggregate.shape} for a model of shape {model.shape}")
    if max_weight < 1 or total_weight < 1:
        raise EncodingError(f"weights of at most {max_weight} with a sum of {total_weight}")
    step = Fraction(max_weight, total_weight) * Fraction(2) ** (MODEL_FRACTION_BITS - fixed.fraction_bits)
    magnitude = _magnitude(aggregate)
    if 2 * (magnitude + 1) * step.numerator + 2 * step.denominator >= 2**63:
        raise EncodingError(f"aggregate of magnitude {magnitude} times {step} overflows 64 bits")
    if _magnitude(model) + magnitude * step + 1 > MODEL_LIMIT:
        raise EncodingError("the updated model could exceed 2^50 units")
    out = np.empty(model.size, dtype=np.int64)
    _apply(operand(model), operand(aggregate), step.numerator, step.denominator, out)
    return out


def model_to_float(model: Int64Vec) -> Float32Vec:
    """Weights as float32[d]; one rounding, since a model within 2^50 is exact in float64."""
    return (model.astype(np.float64) * 2.0**-MODEL_FRACTION_BITS).astype(np.float32)


def model_from_float(weights: Float32Vec) -> Int64Vec:
    """The model nearest to float32[d]; EncodingError where a weight is not finite or exceeds 2^26."""
    require_finite(weights, "model")
    scaled = np.rint(weights.astype(np.float64) * 2.0**MODEL_FRACTION_BITS)
    large = np.flatnonzero(np.abs(scaled) > MODEL_LIMIT)
    if large.size:
        where = int(large[0])
        raise EncodingError(f"model: element {where} is {weights[where]}, beyond 2^26")
    return scaled.astype(np.int64)


def warm() -> None:
    """Compile (or load from the cache) every kernel of this module."""
    fixed = FixedPoint(bits=MAX_VALUE_BITS, clip=math.pi)
    update = quantise(np.zeros(2, dtype=np.float32), 1, 1, fixed, bytes(field.SEED_BYTES))
    apply_aggregate(update, update, fixed, 1, 1)
