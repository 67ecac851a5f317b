"""Shamir sharing against polynomial evaluation and interpolation by definition."""

import hashlib

import numpy as np
import pytest

from protocol.algebra import field, shamir
from protocol.algebra.field import P
from protocol.algebra.shamir import LIMBS, ShamirError

SECRET = hashlib.sha256(b"a mask key").digest()
SEED = hashlib.sha256(b"its coefficients").digest()


def limbs_by_definition(secret: bytes) -> list[int]:
    value, limbs = int.from_bytes(secret, "little"), []
    for _ in range(LIMBS):
        value, limb = divmod(value, 2**30)
        limbs.append(limb)
    return limbs


def shares_by_definition(secret: bytes, threshold: int, holders: int, seed: bytes) -> list[list[int]]:
    stream = field.expand(seed, b"shamir", (threshold - 1) * LIMBS).tolist()
    rows = [limbs_by_definition(secret)] + [stream[t * LIMBS : (t + 1) * LIMBS] for t in range(threshold - 1)]
    return [
        [sum(rows[t][limb] * x**t for t in range(threshold)) % P for limb in range(LIMBS)]
        for x in range(1, holders + 1)
    ]


def value_at_zero(points: dict[int, int]) -> int:
    total = 0
    for xi, yi in points.items():
        term = yi
        for xj in points:
            if xj != xi:
                term = term * xj * pow(xj - xi, -1, P) % P
        total += term
    return total % P


@pytest.mark.parametrize(("threshold", "holders"), [(1, 1), (1, 4), (3, 4), (7, 7), (67, 100)])
def test_shares_by_definition(threshold: int, holders: int) -> None:
    shares = shamir.split(SECRET, threshold, holders, SEED)
    assert shares.dtype == np.uint32
    assert shares.tolist() == shares_by_definition(SECRET, threshold, holders, SEED)
    chosen = range(holders - threshold, holders)
    zero = [value_at_zero({k + 1: int(shares[k, limb]) for k in chosen}) for limb in range(LIMBS)]
    assert zero == limbs_by_definition(SECRET)
    assert shamir.recover(chosen, shares[list(chosen)], threshold) == SECRET


def test_dealing_many_is_dealing_each() -> None:
    secrets = [hashlib.sha256(bytes([k])).digest() for k in range(3)]
    seeds = [hashlib.sha256(bytes([k, k])).digest() for k in range(3)]
    shares = shamir.split_many(secrets, 3, 5, seeds)
    assert shares.shape == (5, 3, LIMBS)
    for k in range(3):
        assert np.array_equal(shares[:, k], shamir.split(secrets[k], 3, 5, seeds[k]))
    assert shamir.recover_many([4, 0, 2], shares[[4, 0, 2]], 3) == secrets
    assert shamir.split_many([], 3, 5, []).shape == (5, 0, LIMBS)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31), bytes(31) + b"\x80"])
def test_extreme_secrets(secret: bytes) -> None:
    assert shamir.to_limbs(secret).tolist() == limbs_by_definition(secret)
    assert shamir.recover([2, 0], shamir.split(secret, 2, 3, SEED)[[2, 0]], 2) == secret


def test_the_lowest_indices_are_used() -> None:
    shares = shamir.split(SECRET, 3, 6, SEED)
    shares[5] = 1  # beyond the threshold once sorted, so never read
    order = [5, 2, 0, 4]
    assert shamir.recover(order, shares[order], 3) == SECRET


def test_a_wrong_share_does_not_pass_for_a_secret() -> None:
    shares = shamir.split_many([SECRET, SECRET], 3, 4, [SEED, bytes(32)])
    shares[1, 0, LIMBS - 1] = (int(shares[1, 0, LIMBS - 1]) + 2**20) % P
    assert shamir.recover_many(range(4), shares, 3) == [None, SECRET]
    with pytest.raises(ShamirError, match="a share is wrong"):
        shamir.recover(range(4), shares[:, 0], 3)


def test_fewer_shares_than_the_threshold_are_independent_of_the_secret() -> None:
    """Two shares of a threshold of three, known: every secret is completed by exactly one polynomial."""
    shares = shamir.split(SECRET, 3, 3, SEED)
    known = {1: int(shares[0, 0]), 2: int(shares[1, 0])}
    thirds = {value_at_zero({0 + 3: third, **known}) for third in range(100)}
    assert len(thirds) == 100
    # The marginal distribution of one share over seeds does not move with the secret.
    counts = []
    for secret in (bytes(32), b"\xff" * 32):
        first = [
            int(shamir.split(secret, 2, 2, hashlib.sha256(k.to_bytes(4, "big")).digest())[0, 0])
            for k in range(2000)
        ]
        counts.append(np.bincount(np.array(first) * 8 // P, minlength=8))
    for observed in counts:
        assert ((observed - 250) ** 2 / 250).sum() < 30  # 7 degrees of freedom, 1e-4 quantile


def test_bad_arguments_are_named() -> None:
    shares = shamir.split(SECRET, 2, 3, SEED)
    for threshold, holders in ((0, 3), (4, 3), (-1, 3), (1, P)):
        with pytest.raises(ShamirError, match="threshold"):
            shamir.split(SECRET, threshold, holders, SEED)
    with pytest.raises(ShamirError, match="31 bytes"):
        shamir.split(SECRET[:31], 2, 3, SEED)
    with pytest.raises(ShamirError, match="1 secrets but 2"):
        shamir.split_many([SECRET], 2, 3, [SEED, SEED])
    with pytest.raises(ShamirError, match="1 shares, 2 needed"):
        shamir.recover([0], shares[:1], 2)
    with pytest.raises(ShamirError, match="two shares of one holder"):
        shamir.recover([0, 0], shares[:2], 2)
    for index in (-1, P - 1, 2**70):
        with pytest.raises(ShamirError, match="out of range"):
            shamir.recover([index, 1], shares[:2], 2)
    with pytest.raises(ShamirError, match="shape"):
        shamir.recover([0, 1, 2], shares[:2], 2)
    with pytest.raises(ShamirError, match="shape"):
        shamir.recover([0, 1], shares[0], 2)
    with pytest.raises(ShamirError, match="needed"):
        shamir.recover([], shares[:0], 0)
    with pytest.raises(ShamirError, match="not below p"):
        shamir.recover([0, 1], np.full((2, LIMBS), P, dtype=np.uint32), 2)


def test_kernels_warm_up() -> None:
    shamir.warm()
