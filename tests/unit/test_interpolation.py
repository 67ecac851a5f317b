"""Grouped encoding against Lagrange interpolation by its definition, over Python integers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.algebra import field as gf
from protocol.algebra import ntt
from protocol.algebra.field import P
from protocol.secagg.interpolation import (
    MAX_GROUP_SIZE,
    Interpolation,
    InterpolationError,
    Points,
    check_values,
    interpolate_arbitrary,
    interpolate_roots,
    padding_is_zero,
)

LAYOUTS = ["roots", "arbitrary"]
seeds = st.binary(min_size=32, max_size=32)


def lagrange_coefficients(xs: list[int], ys: list[int]) -> list[int]:
    """sum_i y_i prod_(j != i) (x - x_j) / (x_i - x_j), expanded; lowest degree first."""
    total = [0] * len(xs)
    for i, y in enumerate(ys):
        basis = [1]
        denominator = 1
        for j, x in enumerate(xs):
            if j != i:
                shifted = [0, *basis]
                scaled = [-x * c for c in basis] + [0]
                basis = [(a + b) % P for a, b in zip(shifted, scaled, strict=True)]
                denominator = denominator * (xs[i] - x) % P
        factor = y * pow(denominator, -1, P)
        total = [(t + factor * b) % P for t, b in zip(total, basis, strict=True)]
    return total


def horner(coefficients: list[int], x: int) -> int:
    value = 0
    for c in reversed(coefficients):
        value = (value * x + c) % P
    return value


def abscissae(interpolation: Interpolation, points: Points, group: int) -> list[int]:
    if points.shown is None:
        w = ntt.root_of_unity(interpolation.group_size)
        shown = [pow(w, j, P) for j in range(interpolation.group_size)]
    else:
        shown = [int(x) for x in points.shown[group]]
    return [*shown, int(points.hidden[group])]


def values_of(seed: bytes, length: int) -> gf.FieldVec:
    return gf.expand(seed, b"values", length)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    group_size=st.sampled_from([1, 2, 4, 8, 16]),
    length=st.integers(1, 40),
    seed=seeds,
)
def test_coefficients_are_those_of_the_lagrange_polynomial(
    layout: str, group_size: int, length: int, seed: bytes
) -> None:
    interpolation = Interpolation(layout, group_size)
    points = interpolation.points_from(seed, length)
    values = values_of(seed, length)
    checks = check_values(seed, interpolation.groups(length))
    coefficients = interpolation.interpolate(values, checks, points)
    assert coefficients.shape == interpolation.coefficients_shape(length)
    padded = [int(v) for v in values] + [0] * (coefficients.shape[0] * group_size - length)
    for group, row in enumerate(coefficients):
        ys = [*padded[group * group_size : (group + 1) * group_size], int(checks[group])]
        xs = abscissae(interpolation, points, group)
        assert row.tolist() == lagrange_coefficients(xs, ys)
        assert [horner(row.tolist(), x) for x in xs] == ys


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    group_size=st.sampled_from([1, 3, 8, 33, 64]),
    length=st.integers(1, 300),
    seed=seeds,
)
def test_values_and_hidden_values_come_back(layout: str, group_size: int, length: int, seed: bytes) -> None:
    if layout == "roots":
        group_size = 1 << (group_size.bit_length() - 1)
    interpolation = Interpolation(layout, group_size)
    points = interpolation.points_from(seed, length)
    values = values_of(seed, length)
    checks = check_values(seed, interpolation.groups(length))
    coefficients = interpolation.interpolate(values, checks, points)
    assert np.array_equal(interpolation.evaluate(coefficients, length, points), values)
    assert np.array_equal(interpolation.evaluate_hidden(coefficients, points), checks)
    padded = interpolation.evaluate_padded(coefficients, points)
    assert padded.size == coefficients.shape[0] * group_size
    assert padding_is_zero(padded, length)
    if padded.size > length:
        padded[-1] = 1
        assert not padding_is_zero(padded, length)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_sum_of_encodings_encodes_the_sum(layout: str) -> None:
    interpolation = Interpolation(layout, 16)
    length = 100
    points = interpolation.points_from(bytes(32), length)
    groups = interpolation.groups(length)
    total = np.zeros(interpolation.coefficients_shape(length), dtype=np.uint32)
    values = np.zeros(length, dtype=np.uint32)
    checks = np.zeros(groups, dtype=np.uint32)
    for client in range(5):
        seed = bytes([client]) * 32
        share, check = values_of(seed, length), check_values(seed, groups)
        gf.accumulate(total, interpolation.interpolate(share, check, points))
        gf.accumulate(values, share)
        gf.accumulate(checks, check)
    assert np.array_equal(interpolation.evaluate(total, length, points), values)
    assert np.array_equal(interpolation.evaluate_hidden(total, points), checks)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_change_without_the_hidden_points_shows_at_them(layout: str) -> None:
    """A change is a polynomial with at most M zeros among p points; here each has none at z."""
    interpolation = Interpolation(layout, 8)
    points = interpolation.points_from(b"z" * 32, 80)
    coefficients = interpolation.interpolate(values_of(bytes(32), 80), check_values(bytes(32), 10), points)
    before = interpolation.evaluate_hidden(coefficients, points)
    for column in range(9):
        changed = coefficients.copy()
        changed[3, column] = (int(changed[3, column]) + 12345) % P
        after = interpolation.evaluate_hidden(changed, points)
        assert np.flatnonzero(after != before).tolist() == [3]


def test_zero_values_are_skipped_without_changing_the_polynomial() -> None:
    """The arbitrary layout never forms the basis polynomials of zeros (VCD-FL algorithm 2)."""
    xs = gf.expand(bytes(32), b"x", 20).reshape(2, 10)
    ys = gf.expand(bytes(32), b"y", 20).reshape(2, 10).copy()
    ys[0, ::2] = 0
    ys[1] = 0
    rows = interpolate_arbitrary(ys, xs)
    for row, x, y in zip(rows.tolist(), xs.tolist(), ys.tolist(), strict=True):
        assert row == lagrange_coefficients(x, y)


def test_hidden_roots_follow_the_redraw_rule() -> None:
    """Words of the stream in order, without 0 and without M-th roots of unity; both do occur here."""
    interpolation = Interpolation("roots", MAX_GROUP_SIZE)
    groups = 60_000
    z_root = b"\x01" * 32
    points = interpolation.points_from(z_root, groups * MAX_GROUP_SIZE)
    accepted: list[int] = []
    refused = 0
    for word in gf.expand(z_root, b"points", groups + 100).tolist():
        if word == 0 or pow(word, MAX_GROUP_SIZE, P) == 1:
            refused += 1
        elif len(accepted) < groups:
            accepted.append(word)
    assert refused > 0
    assert points.hidden.tolist() == accepted
    assert points.shown is None


def test_a_hidden_point_on_a_root_of_unity_is_refused() -> None:
    w = ntt.root_of_unity(8)
    values, checks = np.zeros((1, 8), dtype=np.uint32), np.ones(1, dtype=np.uint32)
    with pytest.raises(gf.FieldError):
        interpolate_roots(values, checks, np.array([pow(w, 3, P)], dtype=np.uint32))


def test_arbitrary_points_are_fresh_per_group_and_distinct_within_it() -> None:
    """Words of the stream in order; one that the group already has is skipped, which does occur here."""
    size = 2**14
    interpolation = Interpolation("arbitrary", size)
    groups = 16
    z_root = b"\x01" * 32
    points = interpolation.points_from(z_root, groups * size)
    assert points.shown is not None
    stream = iter(gf.expand(z_root, b"points", groups * (size + 1) + 100).tolist())
    skipped = 0
    for group in range(groups):
        expected: dict[int, None] = {}
        while len(expected) < size + 1:
            word = next(stream)
            skipped += word in expected
            expected[word] = None
        assert [*points.shown[group].tolist(), int(points.hidden[group])] == list(expected)
    assert skipped > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_points_depend_on_the_root_and_begin_alike_for_every_length(layout: str) -> None:
    interpolation = Interpolation(layout, 4)
    short, long = (interpolation.points_from(bytes(32), length) for length in (9, 900))
    assert np.array_equal(short.hidden, long.hidden[:3])
    assert not np.array_equal(interpolation.points_from(b"\x01" * 32, 9).hidden, short.hidden)


def test_check_values_are_the_labelled_expansion() -> None:
    assert np.array_equal(check_values(b"r" * 32, 7), gf.expand(b"r" * 32, b"check", 7))


@pytest.mark.parametrize(
    ("layout", "size"),
    [("roots", 3), ("roots", 0), ("arbitrary", 0), ("roots", 2**17), ("grid", 4), ("roots", 1.5)],
)
def test_impossible_layouts_are_refused(layout: str, size: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        Interpolation(layout, size)


def test_shapes_that_do_not_fit_are_named() -> None:
    roots, arbitrary = Interpolation("roots", 8), Interpolation("arbitrary", 8)
    values, checks = values_of(bytes(32), 20), check_values(bytes(32), 3)
    points = roots.points_from(bytes(32), 20)
    coefficients = roots.interpolate(values, checks, points)
    with pytest.raises(InterpolationError, match="nothing to encode"):
        roots.groups(0)
    with pytest.raises(InterpolationError, match="check values"):
        roots.interpolate(values, checks[:2], points)
    with pytest.raises(InterpolationError, match="one vector"):
        roots.interpolate(values.reshape(4, 5), checks, points)
    for wrong in (roots.points_from(bytes(32), 30), arbitrary.points_from(bytes(32), 20)):
        with pytest.raises(InterpolationError, match="points of"):
            roots.interpolate(values, checks, wrong)
    with pytest.raises(InterpolationError, match="coefficients of shape"):
        roots.evaluate_hidden(coefficients[:, :-1], points)
    with pytest.raises(InterpolationError, match="coefficients of shape"):
        roots.evaluate_padded(coefficients[:-1], points)
    with pytest.raises(InterpolationError, match="for a length of 40"):
        roots.evaluate(coefficients, 40, points)
    with pytest.raises(InterpolationError, match="points of"):
        arbitrary.evaluate_padded(coefficients, points)


def test_every_coefficient_is_needed() -> None:
    """Neither layout leaves a coefficient that a receiver could drop: each one moves some value."""
    for layout, column in itertools.product(LAYOUTS, range(5)):
        interpolation = Interpolation(layout, 4)
        points = interpolation.points_from(b"q" * 32, 4)
        single = np.zeros((1, 5), dtype=np.uint32)
        single[0, column] = 1
        assert interpolation.evaluate_padded(single, points).any()
