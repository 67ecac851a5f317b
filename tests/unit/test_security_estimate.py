"""The lattice estimate: against the published numbers of its source, and against what the design claims."""

import math

import pytest

from protocol.algebra.field import P
from protocol.secagg.encoding import value_bits
from protocol.secagg.security import (
    MAX_DIFFERENCE,
    RING_DIMENSION,
    SecurityError,
    check_lattice_parameters,
    deviation_given_sum,
    lattice_security,
    lwe_attack,
    lwe_bits,
    root_hermite_factor,
    sis_attack,
    sis_bits,
)

DILITHIUM_Q = 8380417


@pytest.mark.parametrize(
    ("rows", "gamma1", "gamma2", "tau", "block", "bits"),
    [
        (1024, 2**17, (DILITHIUM_Q - 1) // 88, 39, 423, 123),
        (1536, 2**19, (DILITHIUM_Q - 1) // 32, 49, 638, 186),
        (2048, 2**19, (DILITHIUM_Q - 1) // 32, 60, 909, 265),
    ],
)
def test_sis_estimate_reproduces_the_dilithium_specification(
    rows: int, gamma1: int, gamma2: int, tau: int, block: int, bits: int
) -> None:
    """Dilithium specification 3.1, table 1, levels 2, 3 and 5: BKZ block and classical bits to break SIS."""
    bound = max(gamma1, 2 * gamma2 + 1 + 2**12 * tau)
    attack = sis_attack(rows, DILITHIUM_Q, 3, bound)
    assert abs(attack.block - block) <= 10
    assert abs(attack.classical_bits - bits) <= 3


@pytest.mark.parametrize(
    ("secrets", "samples", "eta", "block", "bits"),
    [(1024, 1024, 2, 423, 123), (1280, 1536, 4, 624, 182), (1792, 2048, 2, 863, 252)],
)
def test_lwe_estimate_reproduces_the_dilithium_specification(
    secrets: int, samples: int, eta: int, block: int, bits: int
) -> None:
    deviation = math.sqrt(sum(x * x for x in range(-eta, eta + 1)) / (2 * eta + 1))
    attack = lwe_attack(secrets, DILITHIUM_Q, samples, deviation)
    assert abs(attack.block - block) <= 10
    assert abs(attack.classical_bits - bits) <= 3


def test_root_hermite_factor_decreases_with_the_block_size() -> None:
    factors = [root_hermite_factor(block) for block in range(50, 1000, 10)]
    assert factors == sorted(factors, reverse=True)
    assert 1.0 < factors[-1] < factors[0] < 1.02


@pytest.mark.parametrize("data_blocks", [1, 49, 489])
def test_binding_is_195_bits_whatever_the_length(data_blocks: int) -> None:
    attack = sis_attack(RING_DIMENSION, P, data_blocks + 2, MAX_DIFFERENCE)
    assert attack.block == 667
    assert 195 <= attack.classical_bits < 196
    assert 176 <= attack.quantum_bits < 178


def test_binding_falls_as_the_bound_grows() -> None:
    bits = [sis_bits(RING_DIMENSION, P, 3, 2**exponent) for exponent in range(22, 30)]
    assert bits == sorted(bits, reverse=True)
    with pytest.raises(SecurityError, match="every vector is short enough"):
        sis_bits(RING_DIMENSION, P, 3, P // 2 + 1)


@pytest.mark.parametrize("bits", range(13, 21))
def test_hiding_stays_above_600_bits_when_the_sum_over_two_honest_parties_is_known(bits: int) -> None:
    assert lwe_bits(RING_DIMENSION, P, RING_DIMENSION, deviation_given_sum(bits)) > 600


def test_the_narrowest_encoding_falls_to_the_dual_attack_at_block_2295() -> None:
    attack = lwe_attack(RING_DIMENSION, P, RING_DIMENSION, deviation_given_sum(13))
    assert attack.block == 2295
    assert 671 <= attack.classical_bits < 672


@pytest.mark.parametrize("bits", [16, 20])
def test_secrets_wider_than_the_shortest_lattice_vector_are_not_determined(bits: int) -> None:
    """Up to 2^11 proposers: no block size below the whole dimension succeeds."""
    attack = lwe_attack(RING_DIMENSION, P, RING_DIMENSION, deviation_given_sum(bits))
    assert attack.block == 2 * RING_DIMENSION + 1


def test_deviation_given_sum_by_enumeration() -> None:
    """Average the conditional variance of the first of two uniform values over all their sums."""
    width = 64
    variance = 0.0
    for total in range(2 * width - 1):
        first = [x for x in range(width) if 0 <= total - x < width]
        mean = sum(first) / len(first)
        variance += sum((x - mean) ** 2 for x in first) / width**2
    assert math.sqrt(variance) == pytest.approx(deviation_given_sum(6), rel=1e-3)


def test_ternary_secrets_would_leave_two_honest_parties_85_bits() -> None:
    """Why e and s are wide. The sum of two ternary values determines both when it is +-2 (2 times in 9)."""
    alone = lwe_bits(RING_DIMENSION, P, RING_DIMENSION, math.sqrt(2 / 3))
    assert 190 < alone < 200
    # Known coordinates of e are exact equations, each of which removes one more unknown coordinate of s.
    known = round(RING_DIMENSION * 2 / 9)
    # The others are binary (sum +-1, 4 in 9) or ternary (sum 0, 3 in 9).
    variance = (4 / 9 * 1 / 4 + 3 / 9 * 2 / 3) / (7 / 9)
    with_sum = lwe_bits(RING_DIMENSION - 2 * known, P, RING_DIMENSION, math.sqrt(variance))
    assert 84 < with_sum < 87


@pytest.mark.parametrize("contributors", [3, 4, 100, 128, 129, 1024, 2**14])
@pytest.mark.parametrize("length", [1, 100_000, 1_000_000])
def test_the_parameters_the_encoding_chooses_are_accepted(contributors: int, length: int) -> None:
    bits = value_bits(contributors)
    check_lattice_parameters(length, bits, contributors)
    security = lattice_security(length, bits, contributors)
    assert security.binding.classical_bits >= 195
    assert security.hiding.classical_bits >= 600


@pytest.mark.parametrize(
    ("length", "bits", "contributors", "named"),
    [
        (1000, 20, 129, "binding"),
        (1000, 26, 3, "binding"),
        (1000, 12, 100, "hiding"),
        (1000, 2, 3, "hiding"),
        (0, 20, 3, "length"),
        (1000, 1, 3, "bits"),
        (1000, 20, 0, "contributors"),
    ],
)
def test_parameters_outside_are_refused_by_name(
    length: int, bits: int, contributors: int, named: str
) -> None:
    with pytest.raises(SecurityError, match=named):
        check_lattice_parameters(length, bits, contributors)
