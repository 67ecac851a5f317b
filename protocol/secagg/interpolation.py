"""Grouped Lagrange encoding of a masked update with one hidden check point per group.

VCD-FL, "gradient encryption"; docs/PROTOCOL.md section 4. A vector of `length` values is cut into
G = ceil(length / M) groups of M, zero padded. Group k becomes the polynomial of degree <= M through its M
values and through a hidden point, whose ordinate is the check value A(k). Only its coefficients travel,
lowest degree first (the paper writes them in descending order).

Two layouts of the points:

- `roots`: the values sit at the powers of an M-th root of unity w, one hidden z per group, so that encoding
  is one inverse transform and O(M) more;
- `arbitrary`: the paper's own, M + 1 distinct points drawn afresh for every group, O(M^2) per group.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from attrs import Attribute, field, frozen, validators

from protocol.algebra import field as gf
from protocol.algebra import ntt
from protocol.algebra.field import FieldVec, montgomery_product, settle
from protocol.algebra.kernel import kernel
from protocol.secagg.rejection import first_accepted

PointLayout = Literal["roots", "arbitrary"]

# A group and the tables of its transform fit the L2 cache; larger groups would save nothing.
MAX_GROUP_SIZE = 2**16

_POINTS = b"points"
_CHECK = b"check"
_P64 = np.uint64(gf.P)


class InterpolationError(ValueError):
    """A vector or a set of points whose shape does not fit the encoding."""


# --- kernels: evaluation points are in Montgomery form (2^32 x mod p) ------------------------------------


@kernel
def _horner(coefficients: FieldVec, points: FieldVec, out: FieldVec) -> None:
    """out[j] = f(points[j]); the points advance together, because one evaluation alone is a latency chain."""
    out[:] = 0
    for k in range(coefficients.size - 1, -1, -1):
        for j in range(points.size):
            out[j] = settle(np.uint32(montgomery_product(out[j], points[j]) + coefficients[k]))


@kernel
def _evaluate_groups(coefficients: FieldVec, points: FieldVec, out: FieldVec) -> None:
    for k in range(coefficients.shape[0]):
        _horner(coefficients[k], points[k], out[k])


@kernel
def _evaluate_columns(coefficients: FieldVec, points: FieldVec, out: FieldVec) -> None:
    """out[k] = f_k(points[k]), one point for each row of coefficients; four rows at a time."""
    rows, terms = coefficients.shape
    for start in range(0, rows, 4):
        stop = min(start + 4, rows)
        out[start:stop] = 0
        for k in range(terms - 1, -1, -1):
            for row in range(start, stop):
                out[row] = settle(np.uint32(montgomery_product(out[row], points[row]) + coefficients[row, k]))


@kernel
def _master_polynomial(points: FieldVec, out: FieldVec) -> None:
    """Coefficients of prod_j (x - points[j]), uint32[size + 1], lowest degree first."""
    out[:] = 0
    out[0] = 1
    for count in range(points.size):
        for k in range(count + 1, 0, -1):
            out[k] = settle(
                np.uint32(out[k - 1] + np.uint32(gf.P) - montgomery_product(out[k], points[count]))
            )
        out[0] = settle(np.uint32(np.uint32(gf.P) - montgomery_product(out[0], points[count])))


@kernel
def _master_polynomials(points: FieldVec, masters: FieldVec, slopes: FieldVec) -> None:
    """For each group N(x) = prod_j (x - points[j]), and N'(points[j])."""
    derivative = np.empty(points.shape[1], dtype=np.uint32)
    for group in range(points.shape[0]):
        _master_polynomial(points[group], masters[group])
        for k in range(derivative.size):
            derivative[k] = np.uint32(np.uint64(masters[group, k + 1]) * np.uint64(k + 1) % _P64)
        _horner(derivative, points[group], slopes[group])


@kernel
def _combine_group(master: FieldVec, points: FieldVec, weights: FieldVec, out: FieldVec) -> None:
    """sum_j weights[j] N(x) / (x - points[j]), by synthetic division of all quotients at once."""
    quotients = np.zeros(points.size, dtype=np.uint32)
    for k in range(master.size - 1, 0, -1):
        total = np.uint64(0)
        for j in range(points.size):
            quotients[j] = settle(np.uint32(montgomery_product(quotients[j], points[j]) + master[k]))
            total += np.uint64(montgomery_product(quotients[j], weights[j]))
        out[k - 1] = np.uint32(total % _P64)


@kernel
def _combine(masters: FieldVec, points: FieldVec, weights: FieldVec, out: FieldVec) -> None:
    for group in range(points.shape[0]):
        # A value of 0 contributes nothing, so its basis polynomial is never formed (VCD-FL algorithm 2).
        used = np.flatnonzero(weights[group])
        _combine_group(masters[group], points[group][used], weights[group][used], out[group])


@kernel
def _fill_distinct(words: FieldVec, out: FieldVec) -> bool:
    """Fill each row of `out` with the next words that differ from its earlier ones; False if they run out."""
    position = 0
    for group in range(out.shape[0]):
        filled = 0
        while filled < out.shape[1]:
            if position == words.size:
                return False
            word = words[position]
            position += 1
            repeats = 0
            for j in range(filled):
                repeats += out[group, j] == word
            if repeats == 0:
                out[group, filled] = word
                filled += 1
    return True


def _montgomery_form(x: FieldVec) -> FieldVec:
    return gf.mul(x, gf.MONTGOMERY_ONE)


# --- the encoding of one stack of groups -----------------------------------------------------------------


def evaluate_each(coefficients: FieldVec, points: FieldVec) -> FieldVec:
    """f_k(points[k]) for polynomials uint32[G, terms], lowest degree first, and points uint32[G]."""
    out = np.empty(points.size, dtype=np.uint32)
    _evaluate_columns(np.ascontiguousarray(coefficients), _montgomery_form(points), out)
    return out


def vanishing(points: FieldVec, group_size: int) -> FieldVec:
    """z^M - 1 for each z, uint32 of the same shape; M a power of two. Zero exactly at the M-th roots of 1."""
    power = points
    for _ in range(group_size.bit_length() - 1):
        power = gf.mul(power, power)
    return gf.sub(power, 1)


def interpolate_roots(values: FieldVec, checks: FieldVec, hidden: FieldVec) -> FieldVec:
    """Coefficients uint32[G, M+1] of the f_k of degree <= M: f_k(w^j) = values[k, j], f_k(z_k) = checks[k].

    values uint32[G, M] with M a power of two, checks uint32[G], hidden z uint32[G] with z^M != 1 (FieldError
    otherwise). With c the interpolant of the values alone, f = c + t (x^M - 1), t = (A - c(z)) / (z^M - 1):
    the factor vanishes at every w^j. VCD-FL, "gradient encryption"; docs/PROTOCOL.md section 4.
    """
    group_size = values.shape[1]
    through_values = ntt.intt(values)
    short_of = gf.sub(checks, evaluate_each(through_values, hidden))
    t = gf.mul(short_of, gf.invert(vanishing(hidden, group_size)))
    coefficients = np.empty((values.shape[0], group_size + 1), dtype=np.uint32)
    coefficients[:, :group_size] = through_values
    coefficients[:, 0] = gf.sub(through_values[:, 0], t)
    coefficients[:, group_size] = t
    return coefficients


def interpolate_arbitrary(values: FieldVec, points: FieldVec) -> FieldVec:
    """Coefficients uint32[G, m] of the f_k of degree < m with f_k(points[k, j]) = values[k, j].

    values and points uint32[G, m], the points of a group distinct (FieldError otherwise). Lagrange's formula
    with L_j = N(x) / ((x - x_j) N'(x_j)), N = prod (x - x_j): VCD-FL, "Lagrange interpolation".
    """
    groups, size = points.shape
    factors = _montgomery_form(np.ascontiguousarray(points))
    masters = np.empty((groups, size + 1), dtype=np.uint32)
    slopes = np.empty((groups, size), dtype=np.uint32)
    _master_polynomials(factors, masters, slopes)
    weights = _montgomery_form(gf.mul(values, gf.invert(slopes)))
    out = np.empty((groups, size), dtype=np.uint32)
    _combine(masters, factors, weights, out)
    return out


def check_values(check_seed: bytes, groups: int) -> FieldVec:
    """A_i, the ordinates of a proposer's hidden points: expand(rho_i, "check", G), uint32[G]."""
    return gf.expand(check_seed, _CHECK, groups)


def padding_is_zero(values: FieldVec, length: int) -> bool:
    """Whether everything after the first `length` values is 0, as it is in every honest contribution.

    Masks cover the first `length` values only, so this holds before unmasking as well as after.
    """
    return not values[length:].any()


# --- layouts ---------------------------------------------------------------------------------------------


@frozen(eq=False)
class Points:
    """Abscissae of one round, known to proposers and not to the aggregator before the reveal."""

    hidden: FieldVec = field(repr=False)  # [G]
    shown: FieldVec | None = field(repr=False)  # [G, M] where the values sit; None for the roots of unity


def _power_of_two_for_roots(instance: "Interpolation", _: "Attribute[int]", size: int) -> None:
    if instance.points == "roots" and size & (size - 1):
        raise ValueError(f"group size {size} is not a power of two, which roots of unity need")


@frozen
class Interpolation:
    """How updates are encoded: the layout of the points and the number M of values in a group.

    ValueError for another layout, a size outside [1, MAX_GROUP_SIZE], or roots without a power of two.
    """

    points: PointLayout = field(validator=validators.in_(("roots", "arbitrary")))
    group_size: int = field(
        validator=[
            validators.instance_of(int),
            validators.ge(1),
            validators.le(MAX_GROUP_SIZE),
            _power_of_two_for_roots,
        ]
    )

    def groups(self, length: int) -> int:
        """G = ceil(length / M). InterpolationError for a length below 1."""
        if length < 1:
            raise InterpolationError(f"length {length}: nothing to encode")
        return -(-length // self.group_size)

    def coefficients_shape(self, length: int) -> tuple[int, int]:
        """(G, M + 1): every group has all its coefficients, also the padded last one."""
        return self.groups(length), self.group_size + 1

    def points_from(self, z_root: bytes, length: int) -> Points:
        """The points of a round from the 32-byte root H(z_1..z_n) of its shared randomness.

        Words of expand(z_root, "points") in order. Roots: one z per group; 0 and every z with z^M = 1 are
        skipped, because the hidden point must not be a point of the layout. Arbitrary: M + 1 words per group,
        the last one hidden; a word already in the group is skipped. FieldError for a bad root.
        """
        groups = self.groups(length)
        if self.points == "roots":
            return Points(hidden=first_accepted(z_root, _POINTS, groups, self._may_hide), shown=None)
        points = np.empty((groups, self.group_size + 1), dtype=np.uint32)
        drawn = points.size
        while not _fill_distinct(gf.expand(z_root, _POINTS, drawn), points):
            drawn += self.group_size + 1
        return Points(hidden=np.ascontiguousarray(points[:, -1]), shown=np.ascontiguousarray(points[:, :-1]))

    def _may_hide(self, z: FieldVec) -> npt.NDArray[np.bool_]:
        return np.logical_and(z, vanishing(z, self.group_size))

    def interpolate(self, values: FieldVec, checks: FieldVec, points: Points) -> FieldVec:
        """B_i: coefficients uint32[G, M+1] of a masked update uint32[length] and its check values uint32[G].

        InterpolationError when values, checks and points do not have the same number of groups.
        """
        if values.ndim != 1:
            raise InterpolationError(f"values of shape {values.shape}, expected one vector")
        groups = self.groups(values.size)
        if checks.shape != (groups,):
            raise InterpolationError(f"check values of shape {checks.shape}, expected ({groups},)")
        self._require_points(points, groups)
        padded = np.zeros((groups, self.group_size), dtype=np.uint32)
        padded.reshape(-1)[: values.size] = values
        if points.shown is None:
            return interpolate_roots(padded, checks, points.hidden)
        return interpolate_arbitrary(
            np.column_stack([padded, checks]), np.column_stack([points.shown, points.hidden])
        )

    def evaluate_hidden(self, coefficients: FieldVec, points: Points) -> FieldVec:
        """f_k(z_k) for every group, uint32[G]: the left side of VCD-FL eq. 18."""
        self._require_coefficients(coefficients, points)
        return evaluate_each(coefficients, points.hidden)

    def evaluate_padded(self, coefficients: FieldVec, points: Points) -> FieldVec:
        """The values behind the coefficients uint32[G, M+1], padding included: uint32[G * M]."""
        self._require_coefficients(coefficients, points)
        if points.shown is None:
            # At an M-th root of unity x^M is 1: the last coefficient falls onto the first.
            folded = coefficients[:, :-1].copy()
            gf.accumulate(folded[:, 0], coefficients[:, -1])
            return ntt.ntt(folded).reshape(-1)
        values = np.empty(points.shown.shape, dtype=np.uint32)
        _evaluate_groups(np.ascontiguousarray(coefficients), _montgomery_form(points.shown), values)
        return values.reshape(-1)

    def evaluate(self, coefficients: FieldVec, length: int, points: Points) -> FieldVec:
        """The first `length` values, uint32[length]; see `padding_is_zero` for the rest."""
        if points.hidden.size != self.groups(length):
            raise InterpolationError(f"points of {points.hidden.size} groups for a length of {length}")
        return self.evaluate_padded(coefficients, points)[:length]

    def _require_points(self, points: Points, groups: int) -> None:
        shown = None if points.shown is None else points.shown.shape
        expected = None if self.points == "roots" else (groups, self.group_size)
        if points.hidden.shape != (groups,) or shown != expected:
            raise InterpolationError(
                f"points of {points.hidden.size} groups at {shown}, expected {groups} groups at {expected}"
            )

    def _require_coefficients(self, coefficients: FieldVec, points: Points) -> None:
        expected = (points.hidden.size, self.group_size + 1)
        if coefficients.shape != expected:
            raise InterpolationError(f"coefficients of shape {coefficients.shape}, expected {expected}")
        self._require_points(points, expected[0])


def warm() -> None:
    """Compile (or load from the cache) every kernel of this module."""
    length = 2
    seed = bytes(gf.SEED_BYTES)
    for layout in (Interpolation("roots", length), Interpolation("arbitrary", length)):
        points = layout.points_from(seed, length)
        coefficients = layout.interpolate(np.ones(length, dtype=np.uint32), check_values(seed, 1), points)
        layout.evaluate(coefficients, length, points)
        layout.evaluate_hidden(coefficients, points)
