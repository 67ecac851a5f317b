"""Reading one client's update out of what a coalition has: uploads, rebuilt keys, commitments.

docs/PROTOCOL.md sections 4.1, 5.1 and 5.2. Each function gives what the coalition believes to be the
update; whether it is right is for others to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from protocol.algebra import field as fp
from protocol.algebra.field import FieldVec, P
from protocol.context import Index, RoundContext
from protocol.keys import AgreementKey
from protocol.secagg import masking
from protocol.secagg.commitment import Commitment, SingularCommitment, singular_factors
from protocol.secagg.pairs import own_pair_seeds
from protocol.secagg.scheme import scheme_of
from sim.adversaries.forgery import Int64Vec
from sim.adversaries.linear import solve

NOISE_BELOW = 0.5
"""A residual whose `spread` is above this is noise, and no update was recognised."""


def late_update(
    context: RoundContext, z_root: bytes, victim: Index, mask_secret: bytes, upload: bytes
) -> Int64Vec:
    """An upload less every pairwise mask, by its sender's rebuilt key: x_i, or x_i under its self mask."""
    scheme = scheme_of(context)
    points = scheme.interpolation.points_from(z_root, scheme.masked_length)
    coefficients = scheme.read_coefficients(upload, "late upload")
    masked = scheme.interpolation.evaluate(coefficients, scheme.masked_length, points)
    seeds = own_pair_seeds(context, victim, AgreementKey(mask_secret))
    pairs = [(victim, other, seed) for other, seed in sorted(seeds.items())]
    return fp.to_signed(masking.unmask(masked, [], pairs))


def sparse_update(commitment: SingularCommitment, published: FieldVec, largest: int) -> Int64Vec | None:
    """The sparsest update of coordinates up to `largest` that fits a singular commitment in the clear.

    Each group gives `rank` equations. Every support of at most so many coordinates is tried, the smallest
    first; a wrong one has a solution as small with a chance of about (largest / 2^30)^rank. None where a
    group has more coordinates than equations.
    """
    _, right = singular_factors(commitment.u_seed, commitment.group_size, commitment.rank)
    equations = right.tolist()
    update = np.zeros(commitment.groups * commitment.group_size, dtype=np.int64)
    for group, values in enumerate(published.reshape(commitment.groups, commitment.rank).tolist()):
        found = _sparsest(equations, values, largest)
        if found is None:
            return None
        for place, value in found.items():
            update[group * commitment.group_size + place] = value
    return update[: commitment.length]


def bare_update(commitment: Commitment, published: FieldVec) -> Int64Vec | None:
    """The update of a commitment that has more equations than it has weights, were there no e and no s.

    Solves the first `length` equations. None where they do not determine it.
    """
    columns = []
    for place in range(commitment.length):
        unit = np.zeros(commitment.length + commitment.extra(), dtype=np.int64)
        unit[place] = 1
        columns.append(commitment.commit(unit)[: commitment.length].tolist())
    rows = [list(row) for row in zip(*columns, strict=True)]
    solution = solve(rows, published[: commitment.length].tolist())
    return None if solution is None else fp.to_signed(np.array(solution, dtype=np.uint32))


def _sparsest(
    equations: Sequence[Sequence[int]], values: Sequence[int], largest: int
) -> dict[int, int] | None:
    if not any(values):
        return {}
    for size in range(1, len(equations) + 1):
        for support in combinations(range(len(equations[0])), size):
            solution = solve([[row[place] for place in support] for row in equations], values)
            if solution is None:
                continue
            signed = [x if x <= P // 2 else x - P for x in solution]
            if max(map(abs, signed)) <= largest:
                return dict(zip(support, signed, strict=True))
    return None


def recognised(commitment: Commitment, published: FieldVec, guesses: Iterable[Int64Vec]) -> int | None:
    """Which of some possible updates a commitment is of, if one of them stands out; None if none does.

    The residual of the right guess is zero under the singular commitment, and e + a' s under the lattice
    one, which looks like that of a wrong guess.
    """
    nothing = np.zeros(commitment.extra(), dtype=np.int64)
    spreads = [
        spread(fp.sub(published, commitment.commit(np.concatenate([guess, nothing])))) for guess in guesses
    ]
    best = min(range(len(spreads)), key=spreads.__getitem__)
    return best if spreads[best] < NOISE_BELOW else None


def spread(residual: FieldVec) -> float:
    """Mean magnitude relative to that of a uniform element: about 1 for noise, 0 for a recognised update."""
    return float(np.abs(fp.to_signed(residual)).mean() / (P / 4))
