"""F_p vectors against arithmetic on Python integers, and the expansion against its definition."""

import hashlib
import hmac
import warnings

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.algebra import field
from protocol.algebra.field import FieldError, P

EDGES = [0, 1, 2, P // 2, P // 2 + 1, P - 2, P - 1]


def random_vector(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, P, n, dtype=np.uint32)


def edge_pairs() -> tuple[np.ndarray, np.ndarray]:
    pairs = [(x, y) for x in EDGES for y in EDGES]
    a, b = zip(*pairs, strict=True)
    return np.array(a, dtype=np.uint32), np.array(b, dtype=np.uint32)


def test_the_prime_and_its_two_adic_generator() -> None:
    assert P == 2130706433
    assert all(P % q for q in range(3, 46161, 2))
    # 3 generates the whole group: it is no q-th power for either prime factor of p - 1 = 2^24 * 127.
    assert P - 1 == 2**field.TWO_ADICITY * 127
    assert pow(field.GENERATOR, (P - 1) // 2, P) != 1
    assert pow(field.GENERATOR, (P - 1) // 127, P) != 1


@pytest.mark.parametrize(
    ("vectorised", "by_definition"),
    [
        (field.add, lambda x, y: (x + y) % P),
        (field.sub, lambda x, y: (x - y) % P),
        (field.mul, lambda x, y: x * y % P),
    ],
)
def test_elementwise_arithmetic(vectorised, by_definition) -> None:
    for a, b in (edge_pairs(), (random_vector(1000, 1), random_vector(1000, 2))):
        expected = [by_definition(int(x), int(y)) for x, y in zip(a, b, strict=True)]
        result = vectorised(a, b)
        assert result.dtype == np.uint32
        assert result.tolist() == expected
        assert vectorised(a, 7).tolist() == [by_definition(int(x), 7) for x in a]
    matrix = random_vector(12).reshape(3, 4)
    row = random_vector(4, 3)
    assert np.array_equal(vectorised(matrix, row)[2], vectorised(matrix[2], row))


def test_arithmetic_refuses_other_types() -> None:
    with pytest.raises(TypeError):
        field.add(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.uint32))


def test_negation_and_in_place_sums() -> None:
    a, b = edge_pairs()
    assert field.neg(a).tolist() == [-int(x) % P for x in a]
    total = a.copy()
    field.accumulate(total, b)
    assert np.array_equal(total, field.add(a, b))
    field.deduct(total, b)
    assert np.array_equal(total, a)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 2), (4, 0, 3), (2, 300, 7)])
def test_matmul_by_definition(m: int, k: int, n: int) -> None:
    a = random_vector(m * k, 4).reshape(m, k)
    b = random_vector(k * n, 5).reshape(k, n)
    expected = [[sum(int(a[i, t]) * int(b[t, j]) for t in range(k)) % P for j in range(n)] for i in range(m)]
    assert field.matmul(a, b).tolist() == expected
    assert field.matmul(np.asfortranarray(a), b[:, ::-1][:, ::-1]).tolist() == expected


def test_matmul_does_not_overflow_on_the_largest_values() -> None:
    a = np.full((1, 10_000), P - 1, dtype=np.uint32)
    assert field.matmul(a, a.T).tolist() == [[10_000 % P]]
    assert field.dot(a[0], a[0]) == 10_000


def test_shapes_that_do_not_chain() -> None:
    a = np.ones((2, 3), dtype=np.uint32)
    with pytest.raises(FieldError, match="do not chain"):
        field.matmul(a, a)
    with pytest.raises(FieldError, match="dot"):
        field.dot(a[0], a[0, :2])


def test_inverses() -> None:
    a = np.array([x for x in EDGES if x] + random_vector(50).tolist(), dtype=np.uint32)
    assert field.invert(a).tolist() == [pow(int(x), P - 2, P) for x in a]
    assert field.invert(a[:4].reshape(2, 2)).shape == (2, 2)
    assert field.invert(a[:0]).size == 0
    with pytest.raises(FieldError, match="element 2 is zero"):
        field.invert(np.array([1, 2, 0, 0], dtype=np.uint32))


def test_power() -> None:
    assert field.power(5, 3) == 125
    assert field.power(5, -1) * 5 % P == 1
    with pytest.raises(FieldError, match="zero has no inverse"):
        field.power(0, -1)


def test_signed_round_trip_is_centred() -> None:
    signed = [0, 1, -1, P // 2, -(P // 2), 123456, -654321]
    assert field.to_signed(field.from_signed(np.array(signed, dtype=np.int64))).tolist() == signed
    assert field.to_signed(np.array(EDGES, dtype=np.uint32)).tolist() == [
        x if x <= P // 2 else x - P for x in EDGES
    ]
    extremes = np.array([-(2**63), 2**63 - 1], dtype=np.int64)
    assert field.from_signed(extremes).tolist() == [-(2**63) % P, (2**63 - 1) % P]


def test_bytes_are_little_endian_and_checked() -> None:
    a = np.array([1, P - 1], dtype=np.uint32)
    assert field.to_bytes(a) == b"\x01\0\0\0" + (P - 1).to_bytes(4, "little")
    back = field.from_bytes(field.to_bytes(a), 2, "share")
    assert np.array_equal(back, a)
    back[0] = 5  # a fresh array, not a view of the message
    with pytest.raises(FieldError, match="share: 8 bytes, expected 12"):
        field.from_bytes(field.to_bytes(a), 3, "share")
    with pytest.raises(FieldError, match=f"share: element 1 is {P}"):
        field.from_bytes(b"\0\0\0\0" + P.to_bytes(4, "little"), 2, "share")
    assert field.from_bytes(b"", 0, "share").size == 0


def expand_by_definition(seed: bytes, label: bytes, n: int) -> list[int]:
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=label).derive(seed)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(5 * n + 256))
    words = (int.from_bytes(stream[i : i + 4], "little") & 0x7FFFFFFF for i in range(0, len(stream), 4))
    return [word for word in words if word < P][:n]


def test_hkdf_is_the_rfc_construction() -> None:
    key = hmac.new(hmac.new(bytes(32), b"s" * 32, hashlib.sha256).digest(), b"mask\x01", hashlib.sha256)
    assert HKDF(hashes.SHA256(), 32, None, b"mask").derive(b"s" * 32) == key.digest()


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000, 40_000])
def test_expansion_by_definition(n: int) -> None:
    seed = hashlib.sha256(b"seed").digest()
    assert field.expand(seed, b"pair", n).tolist() == expand_by_definition(seed, b"pair", n)


def test_expansion_is_one_stream_per_seed_and_label() -> None:
    seed = bytes(range(32))
    long = field.expand(seed, b"pair", 5000)
    for n in (1, 100, 3333):
        assert np.array_equal(field.expand(seed, b"pair", n), long[:n])
    assert not np.array_equal(field.expand(seed, b"self", 5000), long)
    assert not np.array_equal(field.expand(bytes(32), b"pair", 5000), long)


@pytest.mark.parametrize("n", [1, 31, 20_000])
def test_expand_into_adds_and_subtracts(n: int) -> None:
    start = random_vector(n)
    stream = field.expand(bytes(32), b"pair", n)
    acc = start.copy()
    field.expand_into(acc, bytes(32), b"pair", 1)
    assert np.array_equal(acc, field.add(start, stream))
    field.expand_into(acc, bytes(32), b"pair", -1)
    assert np.array_equal(acc, start)
    field.expand_into(acc, bytes(32), b"pair", -1)
    assert np.array_equal(acc, field.sub(start, stream))


def test_expansion_refuses_bad_arguments() -> None:
    acc = np.zeros(4, dtype=np.uint32)
    with pytest.raises(FieldError, match="31 bytes"):
        field.expand(bytes(31), b"pair", 4)
    with pytest.raises(FieldError, match="sign 0"):
        field.expand_into(acc, bytes(32), b"pair", 0)
    with pytest.raises(FieldError, match="negative length"):
        field.expand(bytes(32), b"pair", -1)
    frozen = acc.copy()
    frozen.flags.writeable = False
    for wrong in (acc.reshape(2, 2), acc[::2], acc.astype(np.int64), frozen):
        with pytest.raises(FieldError, match="accumulator"):
            field.expand_into(wrong, bytes(32), b"pair", 1)


def test_expansion_is_uniform() -> None:
    counts = np.bincount(field.expand(bytes(32), b"uniform", 1_000_000) // (P // 256 + 1), minlength=256)
    expected = np.array([min(P, (k + 1) * (P // 256 + 1)) - k * (P // 256 + 1) for k in range(256)]) / P * 1e6
    # 255 degrees of freedom; 341 is the 1 - 2.5e-4 quantile.
    assert ((counts - expected) ** 2 / expected).sum() < 341


def test_kernels_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        field.warm()
