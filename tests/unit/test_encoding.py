"""Fixed point against exact rational arithmetic."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from protocol.algebra import field
from protocol.algebra.field import P
from protocol.secagg import encoding
from protocol.secagg.encoding import EncodingError, FixedPoint

SEED = hashlib.sha256(b"rounding").digest()


def gaussian(d: int, scale: float = 0.3, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(d) * scale).astype(np.float32)


def test_value_bits() -> None:
    assert [encoding.value_bits(n) for n in (1, 2, 100, 128, 129, 256, 257, 2**14)] == [
        20, 20, 20, 20, 19, 19, 18, 13,
    ]  # fmt: skip
    for n in (1, 3, 100, 1000, 2**14):
        assert encoding.sum_bound(n, encoding.value_bits(n)) <= 2**26 < P // 2
    for n in (0, -1, 2**14 + 1):
        with pytest.raises(ValueError, match="proposers"):
            encoding.value_bits(n)


@pytest.mark.parametrize(("bits", "clip"), [(20, 1.0), (20, 0.1), (13, 3.7), (16, 2.0**-30), (20, 524287.0)])
def test_fraction_bits_are_the_most_that_fit(bits: int, clip: float) -> None:
    fixed = FixedPoint(bits, clip)
    largest = 2 ** (bits - 1) - 1
    encoded = Fraction(clip) * 2**fixed.fraction_bits
    assert encoded <= largest < 2 * encoded


@pytest.mark.parametrize(
    ("bits", "clip"),
    [(1, 1.0), (28, 1.0), (20, 0.0), (20, -1.0), (20, math.inf), (20, math.nan), (13, 5e3), (20, 2.0**-31)],
)
def test_unusable_parameters(bits: int, clip: float) -> None:
    with pytest.raises(EncodingError):
        FixedPoint(bits, clip)


def quantise_by_definition(
    update: np.ndarray, weight: int, max_weight: int, fixed: FixedPoint
) -> list[tuple[int, int]]:
    """The interval of integers each result may lie in, from the exact rational value."""
    uniform = field.expand(SEED, b"rounding", update.size).tolist()
    out = []
    for x, u in zip(update.tolist(), uniform, strict=True):
        clipped = min(max(Fraction(x), Fraction(-fixed.clip)), Fraction(fixed.clip))
        exact = clipped * Fraction(weight, max_weight) * 2**fixed.fraction_bits + Fraction(u, P)
        slack = Fraction(1, 2**30)  # float64 rounding
        out.append((math.floor(exact - slack), math.floor(exact + slack)))
    return out


@pytest.mark.parametrize(("weight", "max_weight"), [(1, 1), (3, 7), (1, 10**6)])
def test_quantise_by_definition(weight: int, max_weight: int) -> None:
    fixed = FixedPoint(20, 0.5)
    update = gaussian(3000)
    encoded = encoding.quantise(update, weight, max_weight, fixed, SEED)
    assert encoded.dtype == np.int64
    expected = quantise_by_definition(update, weight, max_weight, fixed)
    assert all(low <= q <= high for q, (low, high) in zip(encoded.tolist(), expected, strict=True))
    assert sum(low != high for low, high in expected) < 5


@pytest.mark.parametrize(("bits", "clip"), [(13, 0.7), (20, 1.0), (20, 524287.0), (20, 3.3e-7)])
def test_extremes_stay_within_b_bits(bits: int, clip: float) -> None:
    fixed = FixedPoint(bits, clip)
    huge = np.finfo(np.float32).max
    update = np.tile(np.array([clip, -clip, huge, -huge], dtype=np.float32), 5000)
    encoded = encoding.quantise(update, 9, 9, fixed, SEED)
    assert encoded.max() < 2 ** (bits - 1)
    assert encoded.min() >= -(2 ** (bits - 1))
    assert (np.sign(encoded) == np.sign(update)).all()


def test_rounding_is_unbiased() -> None:
    fixed = FixedPoint(13, 1.0)
    unit = 2.0**-fixed.fraction_bits
    d = 200_000
    for value in (0.3, 10.75, -5.1):
        encoded = encoding.quantise(np.full(d, value * unit, dtype=np.float32), 1, 1, fixed, SEED)
        assert set(np.unique(encoded)) == {math.floor(value), math.ceil(value)}
        # Standard deviation of the mean is at most 0.5 / sqrt(d) = 0.0011.
        assert abs(encoded.mean() - value) < 0.006


def test_rounding_follows_its_seed() -> None:
    fixed = FixedPoint(20, 1.0)
    first, again = (encoding.quantise(gaussian(100), 1, 3, fixed, SEED) for _ in range(2))
    other = encoding.quantise(gaussian(100), 1, 3, fixed, bytes(32))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(first - other).max() <= 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_input_is_named(bad: float) -> None:
    update = gaussian(10)
    update[4] = update[7] = bad
    with pytest.raises(EncodingError, match="update: element 4"):
        encoding.quantise(update, 1, 1, FixedPoint(20, 1.0), SEED)
    with pytest.raises(EncodingError, match="model: element 4"):
        encoding.model_from_float(update)


def test_quantise_refuses_other_inputs() -> None:
    fixed = FixedPoint(20, 1.0)
    for weight, max_weight in ((0, 5), (6, 5), (-1, 5)):
        with pytest.raises(EncodingError, match="weight"):
            encoding.quantise(gaussian(4), weight, max_weight, fixed, SEED)
    for wrong in (gaussian(4).astype(np.float64), gaussian(4).reshape(2, 2)):
        with pytest.raises(EncodingError, match="expected float32"):
            encoding.quantise(wrong, 1, 1, fixed, SEED)
    assert encoding.quantise(gaussian(0), 1, 1, fixed, SEED).size == 0


def apply_by_definition(
    model: list[int], aggregate: list[int], fraction_bits: int, max_weight: int, total_weight: int
) -> list[int]:
    unit = Fraction(2) ** (24 - fraction_bits)
    return [
        m + math.floor(a * unit * Fraction(max_weight, total_weight) + Fraction(1, 2))
        for m, a in zip(model, aggregate, strict=True)
    ]


@pytest.mark.parametrize("clip", [1.0, 0.01, 1e-5, 4000.0])
@pytest.mark.parametrize(
    ("max_weight", "total_weight"), [(1, 1), (1, 2), (999, 3333), (4096, 1024), (7, 10**6)]
)
def test_apply_by_definition(clip: float, max_weight: int, total_weight: int) -> None:
    fixed = FixedPoint(20, clip)
    rng = np.random.default_rng(3)
    model = rng.integers(-(2**30), 2**30, 500)
    aggregate = np.concatenate([rng.integers(-(2**26), 2**26, 480), np.arange(-10, 10)])
    result = encoding.apply_aggregate(model, aggregate, fixed, max_weight, total_weight)
    assert result.dtype == np.int64
    assert result.tolist() == apply_by_definition(
        model.tolist(), aggregate.tolist(), fixed.fraction_bits, max_weight, total_weight
    )


def test_apply_refuses_what_could_overflow() -> None:
    fixed = FixedPoint(20, 1.0)
    zero = np.zeros(2, dtype=np.int64)
    one = np.ones(2, dtype=np.int64)
    with pytest.raises(EncodingError, match="overflows"):
        encoding.apply_aggregate(zero, one * 2**62, fixed, 1, 1)
    with pytest.raises(EncodingError, match="overflows"):
        encoding.apply_aggregate(zero, np.array([0, -(2**63)]), fixed, 1, 1)
    with pytest.raises(EncodingError, match="overflows"):
        encoding.apply_aggregate(zero, one, fixed, 2**62, 3)
    with pytest.raises(EncodingError, match=r"exceed 2\^50"):
        encoding.apply_aggregate(one * 2**50, one, fixed, 1, 1)
    with pytest.raises(EncodingError, match=r"exceed 2\^50"):
        encoding.apply_aggregate(np.array([-(2**63), 0]), zero, fixed, 1, 1)
    with pytest.raises(EncodingError, match="weights"):
        encoding.apply_aggregate(zero, one, fixed, 1, 0)
    with pytest.raises(EncodingError, match="shape"):
        encoding.apply_aggregate(zero, one[:1], fixed, 1, 1)
    with pytest.raises(EncodingError, match="overflows"):
        encoding.apply_aggregate(zero, one, fixed, 1, 2**80)


def test_models_as_floats() -> None:
    weights = gaussian(1000, scale=3.0)
    model = encoding.model_from_float(weights)
    assert model.dtype == np.int64
    assert model.tolist() == [round(Fraction(float(x)) * 2**24) for x in weights]
    back = encoding.model_to_float(model)
    assert back.dtype == np.float32
    assert np.abs(back - weights).max() <= 2.0**-24
    assert np.array_equal(encoding.model_from_float(back), encoding.model_from_float(back.copy()))
    limit = np.array([2**50, -(2**50)], dtype=np.int64)
    assert encoding.model_from_float(encoding.model_to_float(limit)).tolist() == limit.tolist()
    with pytest.raises(EncodingError, match=r"element 0 is .* beyond 2\^26"):
        encoding.model_from_float(np.array([2.0**26 + 8], dtype=np.float32))


def test_a_round_of_fixed_point_is_the_weighted_mean() -> None:
    d, weights = 2000, [3, 10, 7]
    fixed = FixedPoint(encoding.value_bits(3), 1.0)
    updates = [gaussian(d, 0.1, seed) for seed in range(3)]
    total = sum(
        encoding.quantise(update, weight, 10, fixed, bytes([k]) * 32)
        for k, (update, weight) in enumerate(zip(updates, weights, strict=True))
    )
    model = encoding.model_from_float(gaussian(d, 1.0, 9))
    result = encoding.apply_aggregate(model, total, fixed, max_weight=10, total_weight=sum(weights))
    mean = sum(w * u.astype(np.float64) for w, u in zip(weights, updates, strict=True)) / sum(weights)
    error = (result - model) / 2.0**24 - mean
    assert np.abs(error).max() < 3 * 10 / sum(weights) * 2.0**-fixed.fraction_bits + 2.0**-24


def test_kernels_warm_up() -> None:
    encoding.warm()


# -- what the bound cuts off -----------------------------------------------------------------------


def test_clipped_coordinates_are_counted_and_the_first_of_them_named() -> None:
    """The bound is one that float32 cannot hold: its neighbour is beyond it."""
    clip = 0.1
    update = np.array([0.05, -0.2, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(0)), 7.5, 0.0])
    update = update.astype(np.float32)
    encoded, clipping = encoding.quantise_and_count(update, 1, 1, FixedPoint(20, clip), SEED)
    beyond = [k for k, value in enumerate(update.tolist()) if Fraction(abs(value)) > Fraction(clip)]
    assert beyond == [1, 2, 4]
    assert clipping == encoding.Clipping(6, clip, 3, 7.5, (1, 2, 4))
    assert np.array_equal(encoded, encoding.quantise(update, 1, 1, FixedPoint(20, clip), SEED))
    many = np.full(100, 3.0, dtype=np.float32)
    _, clipping = encoding.quantise_and_count(many, 1, 1, FixedPoint(20, 1.0), SEED)
    assert clipping == encoding.Clipping(100, 1.0, 100, 3.0, tuple(range(encoding.MAX_CLIPPED_PLACES)))
    _, clipping = encoding.quantise_and_count(many[:0], 1, 1, FixedPoint(20, 1.0), SEED)
    assert clipping == encoding.Clipping(0, 1.0)
