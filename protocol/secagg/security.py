"""How hard it is to break the lattice commitment: binding (ring-SIS) and hiding (ring-LWE).

docs/PROTOCOL.md section 5. Both estimates follow CRYSTALS-Dilithium: L. Ducas et al., "CRYSTALS-Dilithium: A
Lattice-Based Digital Signature Scheme", TCHES 2018(1), appendix C, and the authors' `security-estimates`
scripts; the cost of one lattice reduction is the core-SVP count of E. Alkim, L. Ducas, T. Pöppelmann,
P. Schwabe, "Post-quantum key exchange - a new hope", USENIX Security 2016, section 6. The ring structure is
given no credit and no blame: an instance over F_p[X]/(X^n + 1) is estimated as the unstructured one of
dimension n.

What the numbers are not: core-SVP counts one call to a sieve, without its memory and without the polynomial
number of calls (so it understates the work), and it knows only the attacks listed here (so it may overstate
it): combinatorial attacks, and later ones that use how near the SIS bound is to q, are not among them.
"""

import math
from collections.abc import Callable
from functools import lru_cache

from attrs import frozen

from protocol.algebra.field import P

RING_DIMENSION = 2048
MAX_DIFFERENCE = 2**27
"""Largest coordinate of the difference of two openings for which the commitment is claimed to bind."""

MIN_HIDING_BITS = 600.0

_CLASSICAL_SIEVE = math.log2(math.sqrt(3 / 2))  # Becker, Ducas, Gama, Laarhoven, SODA 2016
_QUANTUM_SIEVE = math.log2(math.sqrt(13 / 9))  # Laarhoven, PhD thesis, 2015
_SIEVE_VECTORS = math.log2(math.sqrt(4 / 3))
_SMALLEST_BLOCK = 50


class SecurityError(ValueError):
    """Parameters for which the commitment is not claimed to be secure."""


@frozen
class Attack:
    """The cheapest attack found: its BKZ block size and the base-2 logarithms of its cost."""

    block: int
    classical_bits: float
    quantum_bits: float


def root_hermite_factor(block: int) -> float:
    """delta of BKZ with this block size (Y. Chen, PhD thesis, 2013): b_1 has length delta^d vol^(1/d)."""
    ball = math.pow(math.pi * block, 1 / block) * block / (2 * math.pi * math.e)
    return math.pow(ball, 1 / (2 * block - 2))


def _attack(block: int, repetitions_bits: float) -> Attack:
    return Attack(
        block=block,
        classical_bits=block * _CLASSICAL_SIEVE + repetitions_bits,
        quantum_bits=block * _QUANTUM_SIEVE + repetitions_bits,
    )


def _cheapest(blocks: range, repetitions_bits: Callable[[int], float]) -> Attack | None:
    """The block size with the least total cost; None where every one of them needs infinitely many runs."""
    best: Attack | None = None
    for block in blocks:
        if best is not None and block * _CLASSICAL_SIEVE >= best.classical_bits:
            break
        repeated = repetitions_bits(block)
        if math.isfinite(repeated) and (
            best is None or block * _CLASSICAL_SIEVE + repeated < best.classical_bits
        ):
            best = _attack(block, repeated)
    return best


# --- ring-SIS in the infinity norm: binding ---------------------------------------------------------------


def _log2_within(sigma: float, bound: float) -> float:
    """log2 of the probability that a normal variable of this deviation stays within +-bound."""
    tail = math.erfc(bound / (sigma * math.sqrt(2)))
    return math.log1p(-tail) / math.log(2) if tail < 1 else -math.inf


def _sis_success_bits(block: int, rows: int, columns: int, modulus: int, bound: int, keep: bool) -> float:
    """log2 of the probability that one vector from the first block obeys the infinity-norm bound.

    The reduced basis has a profile of `head` untouched vectors of length q (when they are kept), a ramp of
    logarithmic slope -2 ln(delta), and vectors of length 1. A vector of the first reduced block has uniform
    coordinates modulo q in the head, Gaussian ones over the ramp, and zeros beyond.
    """
    slope = 2 * math.log(root_hermite_factor(block))
    log_q = math.log(modulus)
    volume = rows * log_q
    head = 0
    if keep:
        ramp = math.floor(log_q / slope)
        head = math.ceil(rows - ramp / 2)
        if head < 0 or head + ramp > columns:
            return -math.inf
        log_first = log_q
    else:
        ramp = min(columns, math.floor((math.sqrt(1 + 8 * volume / slope) - 1) / 2))
        log_first = volume / ramp + slope * (ramp - 1) / 2
    sigma = math.exp(log_first - math.log(ramp) / 2)
    return ramp * _log2_within(sigma, bound) + head * math.log2(2 * bound / modulus)


@lru_cache(maxsize=64)
def sis_attack(ring_dimension: int, modulus: int, blocks: int, bound: int) -> Attack:
    """The cheapest way to a nonzero x, |x_i| <= bound, with sum_j a_j x_j = 0 over `blocks` ring elements.

    Dilithium appendix C: BKZ once, then as many short vectors of its first block as one sieve yields (4/3 to
    the half block size), repeated until one obeys the bound; both with the trivial vectors q e_i kept and
    with them randomised away. SecurityError when the bound is so large that no reduction is needed at all.
    """
    if 2 * bound >= modulus:
        raise SecurityError(f"bound {bound}: every vector is short enough modulo {modulus}")
    columns = ring_dimension * blocks

    def repetitions_bits(block: int) -> float:
        success = max(
            _sis_success_bits(block, ring_dimension, columns, modulus, bound, keep) for keep in (False, True)
        )
        return max(0.0, -success - block * _SIEVE_VECTORS)

    found = _cheapest(range(_SMALLEST_BLOCK, columns + 1), repetitions_bits)
    return found or _attack(columns, 0.0)


def sis_bits(ring_dimension: int, modulus: int, blocks: int, bound: int) -> float:
    """Classical core-SVP bits of `sis_attack`."""
    return sis_attack(ring_dimension, modulus, blocks, bound).classical_bits


# --- LWE: hiding ------------------------------------------------------------------------------------------


def _dimension_for(wanted: float, block: int, secrets: int, samples: int) -> float:
    """The lattice dimension nearest to `wanted` that some number of the samples gives."""
    return min(max(wanted, secrets + 1.0, float(block)), float(secrets + samples))


def _primal_succeeds(block: int, secrets: int, samples: int, modulus: int, deviation: float) -> bool:
    """New Hope section 6.3: the projected (s, e, 1) is shorter than the Gram-Schmidt vector it meets."""
    log_delta = math.log(root_hermite_factor(block))
    log_q = math.log(modulus)
    dimension = 1 + _dimension_for(
        math.sqrt((secrets + 1) * log_q / log_delta) - 1, block - 1, secrets, samples
    )
    met = (2 * block - dimension - 1) * log_delta + (1 - (secrets + 1) / dimension) * log_q
    return math.log(deviation) + math.log(block) / 2 <= met


def _dual_repetitions_bits(block: int, secrets: int, samples: int, modulus: int, deviation: float) -> float:
    """New Hope section 6.4: a dual vector of length l has distinguishing advantage exp(-2 (pi l s / q)^2)."""
    log_delta = math.log(root_hermite_factor(block))
    log_q = math.log(modulus)
    dimension = _dimension_for(math.sqrt(secrets * log_q / log_delta), block, secrets, samples)
    length = math.exp(dimension * log_delta + secrets / dimension * log_q)
    advantage_bits = 2 * (math.pi * length * deviation / modulus) ** 2 / math.log(2)
    return max(0.0, 2 * advantage_bits - block * _SIEVE_VECTORS)


@lru_cache(maxsize=64)
def lwe_attack(secrets: int, modulus: int, samples: int, deviation: float) -> Attack:
    """The cheaper of the primal (unique SVP) and the dual attack on LWE with secrets as wide as the errors.

    `deviation` is the standard deviation of every coordinate of secret and error. Where the secrets are so
    wide that the shortest lattice vector is shorter than they are, the sample does not determine them and no
    block size succeeds; the whole dimension is then reported as the block.
    """
    whole = secrets + samples + 1
    blocks = range(_SMALLEST_BLOCK, whole)

    def primal(block: int) -> float:
        return 0.0 if _primal_succeeds(block, secrets, samples, modulus, deviation) else math.inf

    def dual(block: int) -> float:
        return _dual_repetitions_bits(block, secrets, samples, modulus, deviation)

    found = [_cheapest(blocks, primal), _cheapest(blocks, dual), _attack(whole, 0.0)]
    return min((attack for attack in found if attack is not None), key=lambda attack: attack.classical_bits)


def lwe_bits(secrets: int, modulus: int, samples: int, deviation: float) -> float:
    """Classical core-SVP bits of `lwe_attack`."""
    return lwe_attack(secrets, modulus, samples, deviation).classical_bits


def deviation_given_sum(bits: int) -> float:
    """Root mean square deviation of one of two uniform b-bit values once their sum is known.

    Given the sum the value is uniform on an interval of width W - |sum|, W = 2^b, which on average has half
    the square of W. Two honest parties are the worst case: a sum over more of them says less about each.
    """
    return math.sqrt(2.0 ** (2 * bits) / 24)


# --- what a network may use -------------------------------------------------------------------------------


@frozen
class LatticeSecurity:
    """Both sides of the commitment of one network."""

    binding: Attack
    hiding: Attack


def lattice_security(length: int, bits: int, contributors: int) -> LatticeSecurity:
    """The estimate for updates of `length` coordinates of b `bits`, summed over up to `contributors`.

    Binding: two openings within +-contributors 2^(b-1) differ by at most contributors 2^b; the columns are
    the blocks of the update, the identity for e and a' for s. Hiding: one ring sample with secrets e, s of
    b bits whose sum over two honest parties is published.
    """
    blocks = -(-length // RING_DIMENSION) + 2
    return LatticeSecurity(
        binding=sis_attack(RING_DIMENSION, P, blocks, contributors * 2**bits),
        hiding=lwe_attack(RING_DIMENSION, P, RING_DIMENSION, deviation_given_sum(bits)),
    )


def check_lattice_parameters(length: int, bits: int, contributors: int) -> None:
    """Refuse parameters outside docs/PROTOCOL.md section 5 with a SecurityError that names the cause.

    Inside, binding is at least 195 bits (block 667) and hiding at least 600.
    """
    if length < 1 or bits < 2 or contributors < 1:
        raise SecurityError(f"length {length}, bits {bits}, contributors {contributors}: out of range")
    difference = contributors * 2**bits
    if difference > MAX_DIFFERENCE:
        raise SecurityError(
            f"binding: {contributors} contributions of {bits} bits differ by up to {difference}, "
            f"more than {MAX_DIFFERENCE}"
        )
    hiding = lattice_security(length, bits, contributors).hiding.classical_bits
    if hiding < MIN_HIDING_BITS:
        raise SecurityError(f"hiding: {bits}-bit secrets give {hiding:.0f} bits, below {MIN_HIDING_BITS:.0f}")
