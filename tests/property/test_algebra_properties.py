"""Laws of the field, the transforms and secret sharing on random inputs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.algebra import field, ntt, shamir
from protocol.algebra.field import P

elements = st.integers(0, P - 1)
seeds = st.binary(min_size=32, max_size=32)


def vectors(min_size: int = 1, max_size: int = 40) -> st.SearchStrategy[np.ndarray]:
    lists = st.lists(elements, min_size=min_size, max_size=max_size)
    return lists.map(lambda x: np.array(x, dtype=np.uint32))


@given(st.lists(st.tuples(elements, elements, elements), min_size=1, max_size=40))
def test_ring_laws_and_integer_arithmetic(rows) -> None:
    a, b, c = (np.array(column, dtype=np.uint32) for column in zip(*rows, strict=True))
    assert field.mul(a, field.add(b, c)).tolist() == [x * (y + z) % P for x, y, z in rows]
    assert np.array_equal(field.add(field.mul(a, b), field.mul(a, c)), field.mul(a, field.add(b, c)))
    assert np.array_equal(field.sub(field.add(a, b), b), a)
    assert not field.add(a, field.neg(a)).any()
    assert field.dot(a, b) == sum(x * y for x, y, _ in rows) % P


@given(st.lists(st.integers(1, P - 1), min_size=1, max_size=40))
def test_inverses_invert(values) -> None:
    a = np.array(values, dtype=np.uint32)
    assert (field.mul(a, field.invert(a)) == 1).all()


@given(st.lists(st.integers(-(P // 2), P // 2), max_size=40))
def test_signed_and_byte_round_trips(values) -> None:
    residues = field.from_signed(np.array(values, dtype=np.int64))
    assert field.to_signed(residues).tolist() == values
    assert np.array_equal(field.from_bytes(field.to_bytes(residues), len(values), "x"), residues)


@given(seeds, st.binary(max_size=10), st.integers(0, 300), st.integers(0, 300))
def test_expansions_are_canonical_prefixes(seed, label, short, extra) -> None:
    long = field.expand(seed, label, short + extra)
    assert (long < P).all()
    assert np.array_equal(field.expand(seed, label, short), long[:short])
    acc = long.copy()
    field.expand_into(acc, seed, label, -1)
    assert not acc.any()


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(1, 3), st.data())
def test_transforms_are_linear_and_invertible(log_n, rows, data) -> None:
    n = 2**log_n
    a, b = (data.draw(vectors(rows * n, rows * n)).reshape(rows, n) for _ in range(2))
    for forward, back in ((ntt.ntt, ntt.intt), (ntt.negacyclic_ntt, ntt.negacyclic_intt)):
        assert np.array_equal(back(forward(a)), a)
        assert np.array_equal(forward(field.add(a, b)), field.add(forward(a), forward(b)))
    # Multiplication by X rotates; in the negacyclic ring what comes round changes sign.
    x = np.zeros(n, dtype=np.uint32)
    x[1 % n] = 1
    if n > 1:
        rotated = np.roll(a, 1, axis=1)
        assert np.array_equal(ntt.intt(field.mul(ntt.ntt(a), ntt.ntt(x))), rotated)
        rotated[:, 0] = field.neg(np.ascontiguousarray(rotated[:, 0]))
        product = field.mul(ntt.negacyclic_ntt(a), ntt.negacyclic_ntt(x))
        assert np.array_equal(ntt.negacyclic_intt(product), rotated)


@settings(deadline=None)
@given(st.lists(st.tuples(seeds, seeds), min_size=1, max_size=3), st.integers(1, 9), st.data())
def test_any_threshold_of_holders_recovers_every_secret(dealt, holders, data) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = shamir.split_many([s for s, _ in dealt], threshold, holders, [c for _, c in dealt])
    order = data.draw(st.permutations(range(holders)))
    chosen = order[: data.draw(st.integers(threshold, holders))]
    assert shamir.recover_many(chosen, shares[chosen], threshold) == [s for s, _ in dealt]


@settings(deadline=None)
@given(seeds, seeds, seeds)
def test_shares_are_linear(first, second, coefficients) -> None:
    """Sums of shares are shares of the sum, limb by limb."""
    a, b = shamir.split(first, 3, 5, coefficients), shamir.split(second, 3, 5, bytes(32))
    limbs = field.add(shamir.to_limbs(first), shamir.to_limbs(second))
    weights = shamir.weights_at_zero(np.array([2, 4, 5], dtype=np.uint32))
    recovered = field.matmul(weights.reshape(1, 3), field.add(a, b)[[1, 3, 4]])
    assert np.array_equal(recovered[0], limbs)
