"""Vectors over the prime field F_p, p = 2^31 - 2^24 + 1 (KoalaBear), and their pseudo-random expansion.

docs/PROTOCOL.md section 2. An element is the canonical representative in [0, p), stored and sent as a
little-endian uint32. The arithmetic kernels assume canonical input and return canonical output; vectors
from outside enter through `from_bytes`, which checks it.

Products are reduced by Montgomery's method (Math. Comp. 44, 1985) rather than with `%`, because 64-bit
division does not vectorise.
"""

import hmac
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocol.algebra.kernel import elementwise, kernel, operand

P = 2**31 - 2**24 + 1
GENERATOR = 3
TWO_ADICITY = 24
SEED_BYTES = 32
ELEMENT_BYTES = 4

FieldVec: TypeAlias = npt.NDArray[np.uint32]
Int64Vec: TypeAlias = npt.NDArray[np.int64]
Operand: TypeAlias = FieldVec | np.uint32 | int

MONTGOMERY_ONE = 2**32 % P

_P32 = np.uint32(P)
_P64 = np.uint64(P)
_NEGATED_INVERSE = np.uint64(-pow(P, -1, 2**32) % 2**32)
_MONTGOMERY_SQUARE = np.uint64(2**64 % P)
_LOW = np.uint64(2**32 - 1)
_HALF_WORD = np.uint64(32)
_WORD_MASK = np.uint32(2**31 - 1)
_BLOCK = np.uint64(64)

# 128 words hold one rejected value on average; the stream is produced in pieces that stay in the L2 cache.
_PIECE_WORDS = 2**16
_ZEROS = bytes(ELEMENT_BYTES * _PIECE_WORDS)


class FieldError(ValueError):
    """A vector, a seed or an operand that is not what the field arithmetic requires."""


# --- scalar rules, shared by every kernel of the package ---------------------------------------------------


@kernel
def settle(x: np.uint32) -> np.uint32:
    """Bring x in [0, 2p) into [0, p) without a branch: x - p wraps round to something huge when x < p."""
    x = np.uint32(x)
    return np.uint32(min(x, np.uint32(x - _P32)))


@kernel
def montgomery_reduce(product: np.uint64) -> np.uint64:
    """`product / 2^32` modulo p, in [0, 2p), for product < 2^32 p (Montgomery 1985, function REDC)."""
    quotient = ((product & _LOW) * _NEGATED_INVERSE) & _LOW
    return np.uint64((product + quotient * _P64) >> _HALF_WORD)


@kernel
def montgomery_product(x: np.uint32, factor: np.uint32) -> np.uint32:
    """`x * factor / 2^32` modulo p, canonical. x is any uint32; factor < p, usually `2^32 w mod p`."""
    return settle(np.uint32(montgomery_reduce(np.uint64(x) * np.uint64(factor))))


@kernel
def product(x: np.uint32, y: np.uint32) -> np.uint32:
    """`x * y` modulo p, canonical: two reductions, the second one against 2^64 mod p."""
    reduced = montgomery_reduce(np.uint64(x) * np.uint64(y))
    return settle(np.uint32(montgomery_reduce(reduced * _MONTGOMERY_SQUARE)))


@kernel
def difference(x: np.uint32, y: np.uint32) -> np.uint32:
    """`x - y` modulo p, canonical."""
    return settle(np.uint32(np.uint32(x) - np.uint32(y) + _P32))


@elementwise("uint32(uint32,uint32)")
def _add(x: np.uint32, y: np.uint32) -> np.uint32:
    return settle(np.uint32(np.uint32(x) + np.uint32(y)))


@elementwise("uint32(uint32,uint32)")
def _sub(x: np.uint32, y: np.uint32) -> np.uint32:
    return difference(x, y)


@elementwise("uint32(uint32,uint32)")
def _mul(x: np.uint32, y: np.uint32) -> np.uint32:
    return product(x, y)


@elementwise("uint32(int64)")
def _from_signed(x: np.int64) -> np.uint32:
    return np.uint32(x % np.int64(P))


@elementwise("int64(uint32)")
def _to_signed(x: np.uint32) -> np.int64:
    centred = np.int64(x)
    if centred > P // 2:
        centred -= P
    return centred


# --- vectors ---------------------------------------------------------------------------------------------


def add(a: FieldVec, b: Operand) -> FieldVec:
    """a + b, uint32 of the broadcast shape. A Python int b must already be in [0, p)."""
    return cast(FieldVec, _add(a, b))


def sub(a: FieldVec, b: Operand) -> FieldVec:
    """a - b, uint32 of the broadcast shape."""
    return cast(FieldVec, _sub(a, b))


def mul(a: FieldVec, b: Operand) -> FieldVec:
    """a * b element by element, uint32 of the broadcast shape."""
    return cast(FieldVec, _mul(a, b))


def neg(a: FieldVec) -> FieldVec:
    """-a, same shape."""
    return cast(FieldVec, _sub(np.uint32(0), a))


def accumulate(acc: FieldVec, x: Operand) -> None:
    """acc += x, in place."""
    _add(acc, x, out=acc)


def deduct(acc: FieldVec, x: Operand) -> None:
    """acc -= x, in place."""
    _sub(acc, x, out=acc)


@kernel
def _inner_product(a: FieldVec, b: FieldVec) -> np.uint32:
    # The two halves of each 62-bit product are summed apart, so 2^32 terms fit before any reduction.
    low = np.uint64(0)
    high = np.uint64(0)
    for i in range(a.size):
        term = np.uint64(a[i]) * np.uint64(b[i])
        low += term & _LOW
        high += term >> _HALF_WORD
    return np.uint32((low % _P64 + (high % _P64) * np.uint64(MONTGOMERY_ONE)) % _P64)


@kernel
def _matmul(a: FieldVec, b_transposed: FieldVec, out: FieldVec) -> None:
    for i in range(a.shape[0]):
        for j in range(b_transposed.shape[0]):
            out[i, j] = _inner_product(a[i], b_transposed[j])


def matmul(a: FieldVec, b: FieldVec) -> FieldVec:
    """Matrix product of uint32 [m, k] and [k, n]; uint32 [m, n]. FieldError when the shapes do not chain."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise FieldError(f"matmul: shapes {a.shape} and {b.shape} do not chain")
    out = np.empty((a.shape[0], b.shape[1]), dtype=np.uint32)
    _matmul(operand(a), operand(b.T), out)
    return out


def dot(a: FieldVec, b: FieldVec) -> int:
    """Inner product of two vectors of one length, in [0, p)."""
    if a.ndim != 1 or a.shape != b.shape:
        raise FieldError(f"dot: shapes {a.shape} and {b.shape} differ or are not vectors")
    return int(_inner_product(operand(a), operand(b)))


def power(base: int, exponent: int) -> int:
    """base^exponent in [0, p); a negative exponent inverts (FieldError for base 0)."""
    if exponent < 0 and base % P == 0:
        raise FieldError("power: zero has no inverse")
    return pow(base, exponent, P)


@kernel
def _running_products(a: FieldVec, out: FieldVec) -> np.uint32:
    running = np.uint32(1)
    for i in range(a.size):
        out[i] = running
        running = product(running, a[i])
    return running


@kernel
def _unwind(a: FieldVec, inverse_of_all: np.uint32, out: FieldVec) -> None:
    inverse = np.uint32(inverse_of_all)
    for i in range(a.size - 1, -1, -1):
        out[i] = product(out[i], inverse)
        inverse = product(inverse, a[i])


def invert(a: FieldVec) -> FieldVec:
    """Inverses of all elements, same shape, with one field inversion (Montgomery's trick).

    FieldError names the first zero by its index in the flattened array.
    """
    flat = operand(a).reshape(-1)
    zeros = np.flatnonzero(flat == 0)
    if zeros.size:
        raise FieldError(f"invert: element {int(zeros[0])} is zero")
    out = np.empty_like(flat)
    _unwind(flat, np.uint32(pow(int(_running_products(flat, out)), -1, P)), out)
    return out.reshape(a.shape)


# --- conversions -----------------------------------------------------------------------------------------


def from_signed(x: Int64Vec) -> FieldVec:
    """Residues of int64 values, uint32 of the same shape."""
    return cast(FieldVec, _from_signed(x))


def to_signed(x: FieldVec) -> Int64Vec:
    """Centred representatives in (-p/2, p/2], int64 of the same shape."""
    return cast(Int64Vec, _to_signed(x))


def to_bytes(x: FieldVec) -> bytes:
    """The elements in C order, four little-endian bytes each."""
    return x.astype("<u4", copy=False).tobytes()


def from_bytes(data: bytes, count: int, what: str) -> FieldVec:
    """A fresh uint32[count] from `to_bytes` form.

    FieldError names `what` when the length is not 4 * count or when a value is not below p.
    """
    if len(data) != ELEMENT_BYTES * count:
        raise FieldError(f"{what}: {len(data)} bytes, expected {ELEMENT_BYTES * count}")
    values = np.frombuffer(data, dtype="<u4").astype(np.uint32)
    if values.size and int(values.max()) >= P:
        where = int(np.flatnonzero(values >= P)[0])
        raise FieldError(f"{what}: element {where} is {int(values[where])}, not below p")
    return values


# --- pseudo-random expansion -----------------------------------------------------------------------------


def _hkdf(seed: bytes, label: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) of a 32-byte seed, no salt, info = label, 32 bytes out.

    Two one-shot HMACs, because the general object costs more than the keystream of a short vector.
    """
    extracted = hmac.digest(bytes(32), seed, "sha256")
    return hmac.digest(extracted, label + b"\x01", "sha256")


@kernel
def _next_rejected(words: FieldVec, start: np.uint64) -> np.uint64:
    """The place of the first word from `start` on that stands for no element; `words.size` if none does.

    One in 128 is rejected, so whole blocks are looked at together. Unsigned indices spare the test for
    negative ones, which would stop vectorisation.
    """
    at, size = start, np.uint64(words.size)
    while at + _BLOCK <= size:
        largest = np.uint32(0)
        for i in range(_BLOCK):
            largest = max(largest, np.uint32(words[at + i] & _WORD_MASK))
        if largest >= _P32:
            break
        at += _BLOCK
    while at < size and np.uint32(words[at] & _WORD_MASK) < _P32:
        at += np.uint64(1)
    return at


@kernel
def _absorb(acc: FieldVec, start: int, words: FieldVec, negate: bool) -> int:
    """Add (or subtract) the accepted words to acc[start:]; the position after the last one used."""
    position, room = np.uint64(start), np.uint64(acc.size)
    first, size = np.uint64(0), np.uint64(words.size)
    while first < size and position < room:
        rejected = _next_rejected(words, first)
        count = min(rejected - first, room - position)
        if negate:
            for i in range(count):
                word = np.uint32(_P32 - np.uint32(words[first + i] & _WORD_MASK))
                acc[position + i] = settle(np.uint32(acc[position + i] + word))
        else:
            for i in range(count):
                word = np.uint32(words[first + i] & _WORD_MASK)
                acc[position + i] = settle(np.uint32(acc[position + i] + word))
        position += count
        first = rejected + np.uint64(1)
    return int(position)


def _piece(missing: int) -> int:
    """Words to draw at once: enough for the missing elements and the rejections to expect, up to a bound."""
    return min(_PIECE_WORDS, missing + missing // 64 + 8)


def expand_into(acc: FieldVec, seed: bytes, label: bytes, sign: int) -> None:
    """acc += sign * expand(seed, label, acc.size), in place, without holding the expansion.

    acc is a contiguous uint32 vector; sign is +1 or -1. FieldError for a seed that is not 32 bytes, another
    sign, or an accumulator of another kind.
    """
    if len(seed) != SEED_BYTES:
        raise FieldError(f"seed for {label!r}: {len(seed)} bytes, expected {SEED_BYTES}")
    if sign not in (1, -1):
        raise FieldError(f"expand_into: sign {sign} is neither +1 nor -1")
    if acc.ndim != 1 or acc.dtype != np.uint32 or not acc.flags.carray:
        raise FieldError("expand_into: the accumulator is not a contiguous, writable uint32 vector")
    keystream = Cipher(algorithms.AES256(_hkdf(seed, label)), modes.CTR(bytes(16))).encryptor()
    # The cipher's interface demands room for one more block than it writes, less a byte.
    buffer = bytearray(ELEMENT_BYTES * _piece(acc.size) + 16)
    zeros = memoryview(_ZEROS)
    position = 0
    while position < acc.size:
        wanted = _piece(acc.size - position)
        written = keystream.update_into(zeros[: ELEMENT_BYTES * wanted], buffer)
        words = np.frombuffer(buffer, dtype="<u4", count=written // ELEMENT_BYTES)
        position = _absorb(acc, position, words, sign < 0)


def expand(seed: bytes, label: bytes, n: int) -> FieldVec:
    """n uniform field elements, uint32[n], from a 32-byte seed. docs/PROTOCOL.md section 2.

    AES-256-CTR keystream (key HKDF-SHA256(seed, info=label), zero initial counter block), read as
    little-endian 32-bit words of which 31 bits are kept; values >= p are rejected. One infinite stream:
    a shorter expansion is a prefix of a longer one.
    """
    if n < 0:
        raise FieldError(f"expand {label!r}: negative length {n}")
    out = np.zeros(n, dtype=np.uint32)
    expand_into(out, seed, label, 1)
    return out


def warm() -> None:
    """Compile (or load from the cache) every kernel of this module."""
    x = np.ones(2, dtype=np.uint32)
    matmul(x.reshape(1, 2), x.reshape(2, 1))
    dot(x, x)
    invert(x)
    expand(bytes(SEED_BYTES), b"warm", 2)
