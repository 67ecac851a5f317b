"""What a node concludes about a published aggregate.

docs/PROTOCOL.md section 5: eq. 18 (was anything left out or touched without the keys?), eq. 19 (is it the sum
of what was committed? `Commitment.opens`), and VCD-FL's rules for reading the two together.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from protocol.algebra import field as gf
from protocol.algebra.field import FieldVec
from protocol.secagg.interpolation import Interpolation, Points, check_values


class Verdict(IntEnum):
    """First reading of an aggregate; a dispute decides who is at fault. VCD-FL, "detection rules"."""

    TRUSTED = 0
    LAZY_AGGREGATOR = 1  # VCD-FL's weak attacker
    COLLUDING_AGGREGATOR = 2  # VCD-FL's strong attacker
    CHECK_FAULT = 3  # the sum is right, a hidden point is not
    UNBOUNDED = 4  # no sum of honest updates is that large


def eq18_holds(
    coefficients_sum: FieldVec, points: Points, interpolation: Interpolation, check_seeds: Sequence[bytes]
) -> bool:
    """VCD-FL eq. 18: f_k(z_k) = sum over U2 of A_i(k) for every group k of the sum B, uint32[G, M+1].

    `check_seeds` are the rho_i of U2. A change made without z passes in one group with probability about M/p;
    one made with z always can. InterpolationError when B and the points do not fit the encoding.
    """
    expected = np.zeros(points.hidden.size, dtype=np.uint32)
    for seed in check_seeds:
        gf.accumulate(expected, check_values(seed, expected.size))
    return bool(np.array_equal(interpolation.evaluate_hidden(coefficients_sum, points), expected))


def proposer_check_holds(
    coefficients: FieldVec, points: Points, interpolation: Interpolation, check_seed: bytes
) -> bool:
    """f_i(z_k) = A_i(k) for every group k of one upload B_i: eq. 18 for one proposer, in a dispute."""
    return eq18_holds(coefficients, points, interpolation, [check_seed])


def verdict(eq18: bool, eq19: bool, bounded: bool) -> Verdict:
    """The table of docs/PROTOCOL.md section 5.

    A sum out of bounds counts as such only where an equation holds: a sum that leaves contributions out
    is noise under the masks, out of bounds too, and is what the paper's rule 2 calls a weak attacker.
    """
    if not bounded and (eq18 or eq19):
        return Verdict.UNBOUNDED
    if eq18:
        return Verdict.TRUSTED if eq19 else Verdict.COLLUDING_AGGREGATOR
    return Verdict.CHECK_FAULT if eq19 else Verdict.LAZY_AGGREGATOR
