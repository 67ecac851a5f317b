"""For any proposers, survivors and updates, unmasking the sum gives the plain integer sum; and the
fixed-point and sparsification rules hold for any input."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.algebra import field
from protocol.secagg import encoding, masking, sparsify
from protocol.secagg.encoding import FixedPoint

seeds = st.binary(min_size=32, max_size=32)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 20), seeds, st.booleans(), st.data())
def test_the_unmasked_sum_is_the_plain_sum(n, m, beacon, sparse, data) -> None:
    dropped = data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1))
    survivors = sorted(set(range(n)) - dropped)
    even = list(range(2, n, 2))
    degree = data.draw(st.sampled_from(even)) if sparse and even else None
    bits = encoding.value_bits(n)
    coordinate = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    updates = {
        i: np.array(data.draw(st.lists(coordinate, min_size=m, max_size=m)), dtype=np.int64)
        for i in survivors
    }
    pair_seeds = {
        (i, j): field.to_bytes(field.expand(beacon, bytes([i, j]), 8)) for i in range(n) for j in range(i)
    }
    self_seeds = {i: field.to_bytes(field.expand(beacon, bytes([i]), 8)) for i in range(n)}
    total = np.zeros(m, dtype=np.uint32)
    dangling = []
    for i in survivors:
        near = {j: pair_seeds[max(i, j), min(i, j)] for j in masking.neighbours(i, n, beacon, degree)}
        field.accumulate(total, masking.mask(field.from_signed(updates[i]), i, near, self_seeds[i]))
        dangling += [(i, j, seed) for j, seed in near.items() if j in dropped]
    plain = masking.unmask(total, [self_seeds[i] for i in survivors], dangling)
    assert np.array_equal(field.to_signed(plain), sum(updates.values()))
    assert (np.abs(field.to_signed(plain)) <= encoding.sum_bound(len(survivors), bits)).all()


@settings(deadline=None)
@given(
    st.lists(floats, min_size=1, max_size=30),
    st.integers(13, 20),
    st.floats(2.0**-30, 4000.0),
    st.integers(1, 1000),
    st.integers(0, 1000),
    seeds,
)
def test_encoded_values_are_near_and_within_b_bits(values, bits, clip, weight, more, seed) -> None:
    fixed = FixedPoint(bits, clip)
    update = np.array(values, dtype=np.float32)
    encoded = encoding.quantise(update, weight, weight + more, fixed, seed)
    for x, q in zip(update.tolist(), encoded.tolist(), strict=True):
        exact = min(max(Fraction(x), Fraction(-clip)), Fraction(clip)) * Fraction(weight, weight + more)
        assert abs(q - exact * 2**fixed.fraction_bits) < 1 + Fraction(1, 2**30)
        assert -(2 ** (bits - 1)) <= q < 2 ** (bits - 1)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(2**45), 2**45), st.integers(-(2**27), 2**27)), min_size=1, max_size=20),
    st.floats(2.0**-20, 1000.0),
    st.integers(1, 10_000),
    st.integers(1, 10**7),
)
def test_the_next_model_is_the_exact_mean_rounded_half_up(rows, clip, max_weight, total_weight) -> None:
    fixed = FixedPoint(20, clip)
    model, aggregate = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    step = Fraction(max_weight, total_weight) * Fraction(2) ** (24 - fixed.fraction_bits)
    largest = max(abs(m) for m, _ in rows) + max(abs(a) for _, a in rows) * step + 1
    product = 2 * (max(abs(a) for _, a in rows) + 1) * step.numerator + 2 * step.denominator
    if largest > 2**50 or product >= 2**63:
        with pytest.raises(encoding.EncodingError):
            encoding.apply_aggregate(model, aggregate, fixed, max_weight, total_weight)
        return
    result = encoding.apply_aggregate(model, aggregate, fixed, max_weight, total_weight)
    assert result.tolist() == [m + math.floor(a * step + Fraction(1, 2)) for m, a in rows]


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=50), st.integers(1, 1000), seeds)
def test_the_shared_support_is_sorted_unique_and_of_its_size(last, permille, beacon) -> None:
    d = len(last)
    support = sparsify.shared_support(beacon, np.array(last, dtype=np.int64), d, permille)
    k = -(-d * permille // 1000)
    assert support.tolist() == sorted(set(support.tolist()))
    assert support.size == k
    assert support[0] >= 0
    assert support[-1] < d
    # Half of it outweighs everything left out, as far as there are coordinates that moved.
    outside = set(range(d)) - set(support.tolist())
    loudest = sorted((abs(last[i]) for i in support.tolist()), reverse=True)[: k // 2]
    assert all(abs(last[i]) <= weight for i in outside for weight in loudest)


small = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(small, small), min_size=1, max_size=50), st.integers(1, 1000))
def test_nothing_is_lost_by_sparsification(rows, permille) -> None:
    update, residual = (np.array(column, dtype=np.float32) for column in zip(*rows, strict=True))
    accumulated = np.float32(0.5) * residual + update
    sparse, kept = sparsify.topk_local(update, residual, permille)
    assert np.array_equal(sparse + kept, accumulated)
    assert ((sparse == 0) | (kept == 0)).all()
    assert np.abs(sparse[sparse != 0]).min(initial=np.inf) >= np.abs(kept).max()
    support = sparsify.shared_support(bytes(32), None, update.size, permille)
    sent, rest = sparsify.restrict(update, residual, support)
    rest[support] = sent
    assert np.array_equal(rest, accumulated)
