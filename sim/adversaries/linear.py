"""Linear algebra over F_p as an attacker does it: echelon forms, kernels, small systems of equations."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.algebra.field import P

Rows = list[list[int]]


def reduced_rows(matrix: Sequence[Sequence[int]]) -> tuple[Rows, list[int]]:
    """Reduced row echelon form without its zero rows, and the pivot columns."""
    rows = [[x % P for x in row] for row in matrix]
    pivots: list[int] = []
    for column in range(len(rows[0])):
        rank = len(pivots)
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, P)
        rows[rank] = [x * inverse % P for x in rows[rank]]
        for r in range(len(rows)):
            if r != rank and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [(a - factor * b) % P for a, b in zip(rows[r], rows[rank], strict=True)]
        pivots.append(column)
    return rows[: len(pivots)], pivots


def kernel_basis(matrix: Sequence[Sequence[int]]) -> Rows:
    """A basis of {x : matrix x = 0} over F_p, one vector for each column without a pivot."""
    rows, pivots = reduced_rows(matrix)
    width = len(matrix[0])
    basis = []
    for free in range(width):
        if free not in pivots:
            vector = [0] * width
            vector[free] = 1
            for row, pivot in zip(rows, pivots, strict=True):
                vector[pivot] = -row[free] % P
            basis.append(vector)
    return basis


def solve(matrix: Sequence[Sequence[int]], right_side: Sequence[int]) -> list[int] | None:
    """The x with matrix x = right_side over F_p, for full column rank; None where there is none."""
    width = len(matrix[0])
    rows, pivots = reduced_rows([[*row, b] for row, b in zip(matrix, right_side, strict=True)])
    if pivots != list(range(width)):
        return None
    return [row[-1] for row in rows]
