"""Number-theoretic transforms of power-of-two length over F_p.

`ntt` evaluates a polynomial at the powers of a root of unity, `negacyclic_ntt` at the odd powers of a root
of twice the order, which turns products in F_p[X]/(X^n + 1) into element-wise ones. docs/PROTOCOL.md
sections 4 and 5; the method is Gentleman and Sande (1966), decimation in frequency, row by row in a
buffer that stays in the L1 cache for the lengths used.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from attrs import field as attribute
from attrs import frozen

from protocol.algebra import field
from protocol.algebra.field import FieldError, FieldVec, montgomery_product, settle
from protocol.algebra.kernel import kernel, operand

_P32 = np.uint32(field.P)
_NONE = np.empty(0, dtype=np.uint32)


@frozen(eq=False)
class _Plan:
    """The tables of one transform. Factors are in Montgomery form, 2^32 w mod p."""

    twiddles: FieldVec = attribute()  # [n]; the stage of half-width h uses [h, 2h)
    places: npt.NDArray[np.int64] = attribute()  # [n] bit reversal: where the j-th result belongs
    before: FieldVec = attribute()  # [n] factors on the input, or empty
    after: FieldVec = attribute()  # [n] factors on the output, or empty


@kernel
def _butterfly(a: np.uint32, b: np.uint32) -> tuple[np.uint32, np.uint32]:
    """(a + b, a - b + p): the difference is left in [0, 2p), which the next product accepts."""
    return settle(np.uint32(np.uint32(a) + np.uint32(b))), np.uint32(np.uint32(a) - np.uint32(b) + _P32)


@kernel
def _stage(row: FieldVec, half: int, factors: FieldVec) -> None:
    """One layer of butterflies between elements `half` apart."""
    for start in range(0, row.size, 2 * half):
        lower = row[start : start + half]
        upper = row[start + half : start + 2 * half]
        for j in range(half):
            total, difference = _butterfly(lower[j], upper[j])
            lower[j] = total
            upper[j] = montgomery_product(difference, factors[j])


@kernel
def _last_three_stages(row: FieldVec, w: FieldVec, places: npt.NDArray[np.int64], out: FieldVec) -> None:
    """Eight-point transforms in registers, written to their final places.

    The last layers have strides too short for vector instructions; fused they cost one pass. w holds the
    factors of the stage of half-width 4, that is the powers 0..3 of an eighth root of unity.
    """
    e = row.size >> 3
    for block in range(e):
        x = row[8 * block : 8 * block + 8]
        a0, a4 = _butterfly(x[0], x[4])
        a1, a5 = _butterfly(x[1], x[5])
        a2, a6 = _butterfly(x[2], x[6])
        a3, a7 = _butterfly(x[3], x[7])
        a4, a5 = settle(a4), montgomery_product(a5, w[1])
        a6, a7 = montgomery_product(a6, w[2]), montgomery_product(a7, w[3])
        b0, b2 = _butterfly(a0, a2)
        b1, b3 = _butterfly(a1, a3)
        b4, b6 = _butterfly(a4, a6)
        b5, b7 = _butterfly(a5, a7)
        b2, b3 = settle(b2), montgomery_product(b3, w[2])
        b6, b7 = settle(b6), montgomery_product(b7, w[2])
        c0, c1 = _butterfly(b0, b1)
        c2, c3 = _butterfly(b2, b3)
        c4, c5 = _butterfly(b4, b5)
        c6, c7 = _butterfly(b6, b7)
        place = places[8 * block]
        out[place] = c0
        out[place + 4 * e] = settle(c1)
        out[place + 2 * e] = c2
        out[place + 6 * e] = settle(c3)
        out[place + e] = c4
        out[place + 5 * e] = settle(c5)
        out[place + 3 * e] = c6
        out[place + 7 * e] = settle(c7)


@kernel
def _scale(row: FieldVec, factors: FieldVec, out: FieldVec) -> None:
    for j in range(row.size):
        out[j] = montgomery_product(row[j], factors[j])


@kernel
def _transform(
    x: FieldVec,
    twiddles: FieldVec,
    places: npt.NDArray[np.int64],
    before: FieldVec,
    after: FieldVec,
    out: FieldVec,
) -> None:
    rows, n = x.shape
    row = np.empty(n, dtype=np.uint32)
    for r in range(rows):
        if before.size > 0:
            _scale(x[r], before, row)
        else:
            row[:] = x[r]
        half = n >> 1
        shortest = 8 if n >= 8 else 1
        while half >= shortest:
            _stage(row, half, twiddles[half : 2 * half])
            half >>= 1
        if n >= 8:
            _last_three_stages(row, twiddles[4:8], places, out[r])
        else:
            for j in range(n):
                out[r, places[j]] = row[j]
        if after.size > 0:
            _scale(out[r], after, out[r])


def root_of_unity(order: int) -> int:
    """A primitive root of unity of this order, a power of two up to 2^24: GENERATOR^((p-1)/order)."""
    if order < 1 or order & (order - 1) or order > 2**field.TWO_ADICITY:
        raise FieldError(f"order {order} is not a power of two up to 2^{field.TWO_ADICITY}")
    return pow(field.GENERATOR, (field.P - 1) // order, field.P)


def powers(base: int, n: int) -> FieldVec:
    """base^0 .. base^(n-1), uint32[n]."""
    out = np.ones(1, dtype=np.uint32)
    while out.size < n:
        out = np.concatenate([out, field.mul(out, pow(base, out.size, field.P))])
    return np.ascontiguousarray(out[:n])


def _bit_reversal(n: int) -> npt.NDArray[np.int64]:
    places = np.zeros(1, dtype=np.int64)
    while places.size < n:
        places = np.concatenate([2 * places, 2 * places + 1])
    return places


def _montgomery_form(x: FieldVec) -> FieldVec:
    return field.mul(x, field.MONTGOMERY_ONE)


@lru_cache(maxsize=32)
def _plan(n: int, inverse: bool, negacyclic: bool) -> _Plan:
    direction = -1 if inverse else 1
    root = field.power(root_of_unity(n), direction)
    twiddles = np.zeros(n, dtype=np.uint32)
    half = n >> 1
    while half >= 1:
        twiddles[half : 2 * half] = powers(pow(root, n // (2 * half), field.P), half)
        half >>= 1
    factors = np.ones(n, dtype=np.uint32)
    if negacyclic:
        factors = powers(field.power(root_of_unity(2 * n), direction), n)
    if inverse:
        factors = field.mul(factors, field.power(n, -1))
    factors = _montgomery_form(factors)
    return _Plan(
        twiddles=_montgomery_form(twiddles),
        places=_bit_reversal(n),
        before=factors if negacyclic and not inverse else _NONE,
        after=factors if inverse else _NONE,
    )


def _apply(x: FieldVec, inverse: bool, negacyclic: bool) -> FieldVec:
    if x.ndim < 1 or x.dtype != np.uint32:
        raise FieldError(f"transform of a {x.ndim}-dimensional {x.dtype} array, expected uint32[..., n]")
    n = x.shape[-1]
    plan = _plan(n, inverse, negacyclic)
    rows = operand(x).reshape(-1, n)
    out = np.empty_like(rows)
    _transform(rows, plan.twiddles, plan.places, plan.before, plan.after, out)
    return out.reshape(x.shape)


def ntt(x: FieldVec) -> FieldVec:
    """out[..., j] = sum_i x[..., i] w^(ij), w = root_of_unity(n); uint32 of the same shape.

    The last axis n is a power of two up to 2^24, otherwise FieldError.
    """
    return _apply(x, inverse=False, negacyclic=False)


def intt(x: FieldVec) -> FieldVec:
    """The inverse of `ntt`: coefficients from values at the powers of w, lowest degree first."""
    return _apply(x, inverse=True, negacyclic=False)


def negacyclic_ntt(x: FieldVec) -> FieldVec:
    """out[..., j] = sum_i x[..., i] v^(i(2j+1)), v = root_of_unity(2n); same shape, n up to 2^23.

    Coefficients of F_p[X]/(X^n + 1) to the form in which its product is element-wise.
    """
    return _apply(x, inverse=False, negacyclic=True)


def negacyclic_intt(x: FieldVec) -> FieldVec:
    """The inverse of `negacyclic_ntt`."""
    return _apply(x, inverse=True, negacyclic=True)


def warm() -> None:
    """Compile (or load from the cache) every kernel of this module."""
    ntt(np.zeros((1, 8), dtype=np.uint32))
