"""The mathematics of forged sums (docs/PROTOCOL.md section 5)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec, P
from protocol.secagg.commitment import SingularCommitment
from protocol.secagg.scheme import Scheme

Int64Vec = npt.NDArray[np.int64]
ObjectMatrix = npt.NDArray[np.object_]


def shift_sum(scheme: Scheme, z_root: bytes, total: bytes, delta: Int64Vec) -> bytes:
    """B with `delta`, int64[masked_length], added to the sum behind it and no hidden value moved.

    It takes z: VCD-FL's strong attacker, who has it from a client.
    """
    points = scheme.interpolation.points_from(z_root, scheme.masked_length)
    silent = np.zeros(points.hidden.size, dtype=np.uint32)
    moved = scheme.interpolation.interpolate(fp.from_signed(delta), silent, points)
    return fp.to_bytes(fp.add(scheme.read_coefficients(total, "sum"), moved))


def shift_check(scheme: Scheme, z_root: bytes, coefficients: bytes, excess: int) -> bytes:
    """The hidden value of the first group moved by `excess` and not one value of the sum."""
    points = scheme.interpolation.points_from(z_root, scheme.masked_length)
    checks = np.zeros(points.hidden.size, dtype=np.uint32)
    checks[0] = excess
    nothing = np.zeros(scheme.masked_length, dtype=np.uint32)
    moved = scheme.interpolation.interpolate(nothing, checks, points)
    return fp.to_bytes(fp.add(scheme.read_coefficients(coefficients, "upload"), moved))


def shift_blindly(scheme: Scheme, total: bytes, excess: int) -> bytes:
    """A constant added to the first polynomial: what can be done without z. VCD-FL's weak attacker."""
    coefficients = scheme.read_coefficients(total, "sum")
    coefficients[0, 0] = (int(coefficients[0, 0]) + excess) % P
    return fp.to_bytes(coefficients)


def kernel_delta(commitment: SingularCommitment, scale: int) -> Int64Vec:
    """A short delta, int64[length], with U delta = 0: it moves the first group and no commitment.

    The rows of W reduced to echelon form give a basis of the lattice {x : W x = 0 mod p}; LLL makes it
    short (A. Lenstra, H. Lenstra, L. Lovasz 1982), about p^(rank / group_size) a coordinate.
    """
    unit = np.identity(commitment.group_size, dtype=np.int64)
    equations = np.stack([_first_group(commitment, row) for row in unit], axis=1)
    shortest = min(reduce_lattice(_kernel_lattice(equations)), key=lambda row: int(row @ row))
    delta = np.zeros(commitment.length, dtype=np.int64)
    delta[: commitment.group_size] = scale * shortest.astype(np.int64)
    return delta


def _first_group(commitment: SingularCommitment, values: Int64Vec) -> FieldVec:
    update = np.zeros(commitment.length, dtype=np.int64)
    update[: commitment.group_size] = values
    return commitment.commit(update)[: commitment.rank]


def _kernel_lattice(equations: FieldVec) -> ObjectMatrix:
    """A basis, as rows, of all integer x with equations x = 0 mod p. The first rank columns are solved for.

    With equations = (A | B), A invertible: x = (-A^-1 B y, y), plus p times anything in the first part.
    """
    rank, width = equations.shape
    reduced = _echelon(equations.astype(object))
    basis = np.zeros((width, width), dtype=object)
    basis[:rank, :rank] = P * np.identity(rank, dtype=object)
    basis[rank:, rank:] = np.identity(width - rank, dtype=object)
    basis[rank:, :rank] = -reduced[:, rank:].T % P
    return basis


def _echelon(rows: ObjectMatrix) -> ObjectMatrix:
    for column in range(len(rows)):
        pivot = next(r for r in range(column, len(rows)) if rows[r, column] % P)
        rows[[column, pivot]] = rows[[pivot, column]]
        rows[column] = rows[column] * pow(int(rows[column, column]), -1, P) % P
        for r in range(len(rows)):
            if r != column:
                rows[r] = (rows[r] - rows[r, column] * rows[column]) % P
    return rows


def reduce_lattice(basis: ObjectMatrix) -> ObjectMatrix:
    """LLL with floating Gram-Schmidt and exact integer rows; fine for a few dozen dimensions."""
    rows = basis.copy()
    k = 1
    while k < len(rows):
        for j in range(k - 1, -1, -1):
            triangle = _gram_schmidt(rows)
            rows[k] = rows[k] - round(float(triangle[j, k] / triangle[j, j])) * rows[j]
        triangle = _gram_schmidt(rows)
        if triangle[k, k] ** 2 >= 0.75 * triangle[k - 1, k - 1] ** 2 - triangle[k - 1, k] ** 2:
            k += 1
        else:
            rows[[k - 1, k]] = rows[[k, k - 1]]
            k = max(k - 1, 1)
    return rows


def _gram_schmidt(rows: ObjectMatrix) -> npt.NDArray[np.float64]:
    """The triangle R of rows^T = Q R."""
    return np.linalg.qr(rows.astype(np.float64).T).R
