"""Shamir's secret sharing of 32-byte secrets over F_p (CACM 22, 1979), many secrets at a time.

A secret is LIMBS field elements, each shared by its own polynomial of degree threshold - 1; holder k has
the values at x = k + 1. The coefficients come from a seed, so dealing the same secret again reproduces
every share, and a garbage dealer can be proven (docs/PROTOCOL.md section 3).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from protocol.algebra import field
from protocol.algebra.field import FieldVec, P
from protocol.algebra.kernel import kernel, operand

SECRET_BYTES = 32
LIMBS = 9
LIMB_BITS = 30
LAST_LIMB_BITS = 8 * SECRET_BYTES - (LIMBS - 1) * LIMB_BITS
COEFFICIENT_LABEL = b"shamir"

_LIMB_BOUNDS = np.array([2**LIMB_BITS] * (LIMBS - 1) + [2**LAST_LIMB_BITS], dtype=np.uint32)


class ShamirError(ValueError):
    """Parameters or shares from which no secret can be dealt or recovered."""


def to_limbs(secret: bytes) -> FieldVec:
    """A 32-byte secret as uint32[LIMBS]: 30 bits each, little endian, 16 bits in the last."""
    if len(secret) != SECRET_BYTES:
        raise ShamirError(f"secret of {len(secret)} bytes, expected {SECRET_BYTES}")
    value = int.from_bytes(secret, "little")
    mask = 2**LIMB_BITS - 1
    return np.array([value >> (LIMB_BITS * k) & mask for k in range(LIMBS)], dtype=np.uint32)


def from_limbs(limbs: FieldVec) -> bytes | None:
    """The secret with these uint32[LIMBS], or None where a limb exceeds its width."""
    if (limbs >= _LIMB_BOUNDS).any():
        return None
    value: int = sum(limb << (LIMB_BITS * k) for k, limb in enumerate(limbs.tolist()))
    return value.to_bytes(SECRET_BYTES, "little")


@lru_cache(maxsize=16)
def _vandermonde(holders: int, threshold: int) -> FieldVec:
    """x^t for x = 1..holders and t < threshold, uint32[holders, threshold]."""
    x = np.arange(1, holders + 1, dtype=np.uint32)
    columns = [np.ones(holders, dtype=np.uint32)]
    for _ in range(1, threshold):
        columns.append(field.mul(columns[-1], x))
    return np.ascontiguousarray(np.stack(columns, axis=1))


def split_many(
    secrets: Sequence[bytes], threshold: int, holders: int, coefficient_seeds: Sequence[bytes]
) -> FieldVec:
    """Shares of several secrets, uint32[holders, len(secrets), LIMBS]; any `threshold` rows recover them.

    Each secret has its own 32-byte seed for the threshold - 1 random coefficients of each limb,
    `expand(seed, b"shamir", (threshold - 1) * LIMBS)`, degree by degree. ShamirError unless
    1 <= threshold <= holders < p, with one seed per secret and secrets of 32 bytes.
    """
    if not 1 <= threshold <= holders < P:
        raise ShamirError(f"threshold {threshold} of {holders} holders")
    if len(secrets) != len(coefficient_seeds):
        raise ShamirError(f"{len(secrets)} secrets but {len(coefficient_seeds)} coefficient seeds")
    coefficients = np.empty((threshold, len(secrets), LIMBS), dtype=np.uint32)
    for k, (secret, seed) in enumerate(zip(secrets, coefficient_seeds, strict=True)):
        coefficients[0, k] = to_limbs(secret)
        random = field.expand(seed, COEFFICIENT_LABEL, (threshold - 1) * LIMBS)
        coefficients[1:, k] = random.reshape(threshold - 1, LIMBS)
    shares = field.matmul(_vandermonde(holders, threshold), coefficients.reshape(threshold, -1))
    return shares.reshape(holders, len(secrets), LIMBS)


def split(secret: bytes, threshold: int, holders: int, coefficient_seed: bytes) -> FieldVec:
    """Shares of one secret, uint32[holders, LIMBS]. See `split_many`."""
    return split_many([secret], threshold, holders, [coefficient_seed])[:, 0]


@kernel
def _weight_fractions(x: FieldVec, numerators: FieldVec, denominators: FieldVec) -> None:
    for i in range(x.size):
        above = np.uint32(1)
        below = np.uint32(1)
        for j in range(x.size):
            if j != i:
                above = field.product(above, x[j])
                below = field.product(below, field.difference(x[j], x[i]))
        numerators[i] = above
        denominators[i] = below


def weights_at_zero(x: FieldVec) -> FieldVec:
    """Lagrange weights prod_{j != i} x_j / (x_j - x_i) for the value at 0; x distinct, uint32[k]."""
    numerators = np.empty_like(x)
    denominators = np.empty_like(x)
    _weight_fractions(operand(x), numerators, denominators)
    return field.mul(numerators, field.invert(denominators))


def recover_many(indices: Sequence[int], shares: FieldVec, threshold: int) -> list[bytes | None]:
    """Secrets from shares[k, secrets, LIMBS] of the holders `indices` (0-based, in the order of the rows).

    The `threshold` holders of lowest index are used. An entry is None where the recovered limbs do not
    have the form of a 32-byte secret: some share was wrong. ShamirError names too few, duplicate or
    impossible indices, a wrong shape, or a share that is not below p.
    """
    if shares.ndim != 3 or shares.shape[0] != len(indices) or shares.shape[2] != LIMBS:
        raise ShamirError(f"shares of shape {shares.shape} for {len(indices)} holders and {LIMBS} limbs")
    if threshold < 1 or len(indices) < threshold:
        raise ShamirError(f"{len(indices)} shares, {threshold} needed")
    if any(not 0 <= index < P - 1 for index in indices):
        raise ShamirError(f"holder index out of range in {sorted(indices)[:1]}..{sorted(indices)[-1:]}")
    if len(set(indices)) != len(indices):
        raise ShamirError("two shares of one holder")
    if shares.size and int(shares.max()) >= P:
        raise ShamirError(f"a share is {int(shares.max())}, not below p")
    rows = np.argsort(np.array(indices, dtype=np.int64), kind="stable")[:threshold]
    x = np.array([indices[row] + 1 for row in rows], dtype=np.uint32)
    limbs = field.matmul(weights_at_zero(x).reshape(1, -1), shares[rows].reshape(threshold, -1))
    return [from_limbs(secret) for secret in limbs.reshape(-1, LIMBS)]


def recover(indices: Sequence[int], shares: FieldVec, threshold: int) -> bytes:
    """One secret from shares[k, LIMBS]; ShamirError also where the limbs do not form 32 bytes."""
    if shares.ndim != 2:
        raise ShamirError(f"shares of shape {shares.shape}, expected [holders, {LIMBS}]")
    secret = recover_many(indices, shares[:, None, :], threshold)[0]
    if secret is None:
        raise ShamirError("the recovered limbs are not a 32-byte secret: a share is wrong")
    return secret


def warm() -> None:
    """Compile (or load from the cache) every kernel of this module."""
    recover([0, 1], split(bytes(SECRET_BYTES), 2, 2, bytes(field.SEED_BYTES)), 2)
