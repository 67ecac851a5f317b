"""Transforms against polynomial evaluation and products by definition."""

import numpy as np
import pytest

from protocol.algebra import field, ntt
from protocol.algebra.field import FieldError, P


def random_vector(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, P, n, dtype=np.uint32)


def evaluate(coefficients: np.ndarray, x: int) -> int:
    value = 0
    for coefficient in coefficients[::-1].tolist():
        value = (value * x + coefficient) % P
    return value


def product_by_definition(a: np.ndarray, b: np.ndarray, n: int, wrap: int) -> list[int]:
    """a * b in F_p[X]/(X^n - wrap)."""
    out = [0] * n
    for i, x in enumerate(a.tolist()):
        for j, y in enumerate(b.tolist()):
            out[(i + j) % n] += x * y * (wrap if i + j >= n else 1)
    return [value % P for value in out]


@pytest.mark.parametrize("log_order", [0, 1, 5, 24])
def test_root_of_unity_has_exactly_its_order(log_order: int) -> None:
    root = ntt.root_of_unity(2**log_order)
    assert pow(root, 2**log_order, P) == 1
    if log_order:
        assert pow(root, 2 ** (log_order - 1), P) == P - 1


@pytest.mark.parametrize("order", [0, -2, 3, 2**25])
def test_no_root_of_other_orders(order: int) -> None:
    with pytest.raises(FieldError, match="power of two"):
        ntt.root_of_unity(order)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 64, 1024])
def test_ntt_evaluates_at_the_powers_of_the_root(n: int) -> None:
    x = random_vector(n)
    w = ntt.root_of_unity(n)
    transformed = ntt.ntt(x)
    for j in range(0, n, max(1, n // 16)):
        assert transformed[j] == evaluate(x, pow(w, j, P))
    assert np.array_equal(ntt.intt(transformed), x)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 32, 2048])
def test_negacyclic_ntt_evaluates_at_the_odd_powers(n: int) -> None:
    x = random_vector(n)
    v = ntt.root_of_unity(2 * n)
    transformed = ntt.negacyclic_ntt(x)
    for j in range(0, n, max(1, n // 16)):
        assert transformed[j] == evaluate(x, pow(v, 2 * j + 1, P))
    assert np.array_equal(ntt.negacyclic_intt(transformed), x)


@pytest.mark.parametrize("n", [1, 4, 8, 64, 128])
def test_element_wise_products_are_polynomial_products(n: int) -> None:
    a, b = random_vector(n, 1), random_vector(n, 2)
    cyclic = ntt.intt(field.mul(ntt.ntt(a), ntt.ntt(b)))
    assert cyclic.tolist() == product_by_definition(a, b, n, wrap=1)
    negacyclic = ntt.negacyclic_intt(field.mul(ntt.negacyclic_ntt(a), ntt.negacyclic_ntt(b)))
    assert negacyclic.tolist() == product_by_definition(a, b, n, wrap=-1)


@pytest.mark.parametrize("transform", [ntt.ntt, ntt.intt, ntt.negacyclic_ntt, ntt.negacyclic_intt])
def test_every_row_is_transformed_alone_and_the_input_kept(transform) -> None:
    batch = random_vector(3 * 2 * 16).reshape(3, 2, 16)
    before = batch.copy()
    result = transform(batch)
    assert result.shape == batch.shape
    assert np.array_equal(batch, before)
    for i in range(3):
        for j in range(2):
            assert np.array_equal(result[i, j], transform(batch[i, j]))
    strided = np.repeat(batch, 2, axis=2)[:, :, ::2]
    assert np.array_equal(transform(strided), result)
    assert transform(batch[:0]).shape == (0, 2, 16)


def test_a_view_of_a_message_does_not_compile_another_kernel() -> None:
    x = random_vector(16)
    expected = ntt.ntt(x)
    compiled = len(ntt._transform.signatures)
    received = np.frombuffer(b"\x07" + x.tobytes(), dtype=np.uint32, offset=1)
    assert not received.flags.writeable
    assert not received.flags.aligned
    assert np.array_equal(ntt.ntt(received), expected)
    assert np.array_equal(ntt.ntt(np.repeat(x, 2)[::2]), expected)
    assert len(ntt._transform.signatures) == compiled


def test_the_largest_values_survive() -> None:
    for n in (4, 8, 1024):
        x = np.full(n, P - 1, dtype=np.uint32)
        assert ntt.ntt(x).tolist() == [-n % P] + [0] * (n - 1)
        assert np.array_equal(ntt.intt(ntt.ntt(x)), x)
        assert np.array_equal(ntt.negacyclic_intt(ntt.negacyclic_ntt(x)), x)


@pytest.mark.parametrize("n", [0, 3, 12])
def test_other_lengths_are_refused(n: int) -> None:
    with pytest.raises(FieldError, match="power of two"):
        ntt.ntt(np.zeros((2, n), dtype=np.uint32))


def test_other_types_are_refused() -> None:
    with pytest.raises(FieldError, match="int64"):
        ntt.ntt(np.zeros(4, dtype=np.int64))


def test_powers() -> None:
    assert ntt.powers(5, 7).tolist() == [5**k for k in range(7)]
