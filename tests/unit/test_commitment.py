"""Both commitments against their definitions: polynomial products and matrix products over the integers."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.algebra import field as gf
from protocol.algebra import ntt
from protocol.algebra.field import P
from protocol.secagg.commitment import (
    Commitment,
    CommitmentError,
    LatticeCommitment,
    SingularCommitment,
    blind,
    challenge_vector,
    lattice_key,
    unblind,
)
from protocol.secagg.rejection import first_accepted

N = 2048
NETWORK = b"n" * 32
Int64Vec = npt.NDArray[np.int64]

lattice = LatticeCommitment(NETWORK, 5000, 20)
singular = SingularCommitment(b"u" * 32, 90, 16, 3, bits=20)
both = pytest.mark.parametrize("commitment", [lattice, singular], ids=["lattice", "singular"])


def negacyclic_product(a: npt.NDArray[np.uint32], x: Int64Vec) -> Int64Vec:
    """a(X) x(X) modulo X^n + 1 and p, by convolution: |x| <= 2^20, so every sum stays below 2^62."""
    full = np.convolve(a.astype(np.int64), x)
    full = np.append(full, 0)
    return (full[:N] - full[N:]) % P


def honest_update(commitment: Commitment, seed: int) -> Int64Vec:
    """An extended update with the full range of its bits."""
    rng = np.random.default_rng(seed)
    half = 2 ** (commitment.bits - 1)
    randomness = commitment.opening_randomness(seed.to_bytes(32, "big"))
    return np.concatenate([rng.integers(-half, half, commitment.length), randomness])


# --- lattice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2047, 2048, 2049, 5000])
def test_lattice_commitment_is_the_sum_of_polynomial_products(length: int) -> None:
    commitment = LatticeCommitment(NETWORK, length, 20)
    extended = honest_update(commitment, length)
    blocks = -(-length // N)
    a_prime, *a = gf.expand(NETWORK, b"lattice key", (blocks + 1) * N).reshape(-1, N)
    padded = np.zeros(blocks * N, dtype=np.int64)
    padded[:length] = extended[:length]
    e, s = extended[length : length + N], extended[length + N :]
    expected = e + negacyclic_product(a_prime, s)
    for a_j, x_j in zip(a, padded.reshape(-1, N), strict=True):
        expected = expected + negacyclic_product(a_j, x_j)
    assert np.array_equal(commitment.commit(extended), expected % P)


def test_lattice_key_of_a_shorter_update_is_a_prefix() -> None:
    assert np.array_equal(lattice_key(NETWORK, 2), lattice_key(NETWORK, 5)[:3])
    coefficients = gf.expand(NETWORK, b"lattice key", 3 * N).reshape(3, N)
    assert np.array_equal(ntt.negacyclic_intt(lattice_key(NETWORK, 2)), coefficients)
    assert not np.array_equal(lattice_key(b"m" * 32, 2), lattice_key(NETWORK, 2))
    with pytest.raises(ValueError, match="read-only"):
        lattice_key(NETWORK, 2)[0, 0] = 1


@pytest.mark.parametrize("bits", [13, 20])
def test_opening_randomness_fills_the_range_of_the_data(bits: int) -> None:
    commitment = LatticeCommitment(NETWORK, 10, bits)
    drawn = commitment.opening_randomness(b"s" * 32)
    half = 2 ** (bits - 1)
    words = [word for word in gf.expand(b"s" * 32, b"opening", 2 * N + 9).tolist() if word != P - 1]
    assert drawn.tolist() == [word % (2 * half) - half for word in words[: 2 * N]]
    assert drawn.dtype == np.int64
    assert drawn.size == commitment.extra() == 2 * N
    assert drawn.min() < -0.99 * half
    assert drawn.max() > 0.99 * half
    assert not np.array_equal(drawn, commitment.opening_randomness(b"t" * 32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, lattice.length + 2 * N - 1), st.integers(-(2**21), 2**21).filter(bool))
def test_no_coordinate_of_a_lattice_opening_can_be_changed(index: int, change: int) -> None:
    """Update, e and s alike; a change out of bounds fails too."""
    extended = honest_update(lattice, 1)
    total = lattice.commit(extended)
    assert lattice.opens(total, extended, 1, None)
    extended[index] += change
    assert not lattice.opens(total, extended, 1, None)


def test_a_lattice_opening_beyond_the_bound_is_refused_although_the_equation_holds() -> None:
    extended = honest_update(lattice, 2)
    extended[7] += P
    total = lattice.commit(extended)
    assert not lattice.within_bound(extended, 1)
    assert not lattice.opens(total, extended, 1, None)
    extended[7] -= P
    assert np.array_equal(lattice.commit(extended), total)
    assert lattice.opens(total, extended, 1, None)


# --- singular ---------------------------------------------------------------------------------------------


def padded_groups(commitment: SingularCommitment, x: npt.NDArray[np.generic]) -> list[list[int]]:
    m = commitment.group_size
    flat = [int(v) for v in x]
    flat += [0] * (-len(flat) % m)
    return [flat[k : k + m] for k in range(0, len(flat), m)]


def rank_over_field(matrix: list[list[int]]) -> int:
    rows = [row[:] for row in matrix]
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        inverse = pow(rows[rank][column], -1, P)
        for r in range(rank + 1, len(rows)):
            factor = rows[r][column] * inverse
            rows[r] = [(a - factor * b) % P for a, b in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


def test_singular_commitment_and_equation_19_by_the_papers_definition() -> None:
    """C_i[k] = U q_i[k]; S[k] = R[k] U; S . g = sum_i R . C_i, with all M' numbers of each C_i[k]."""
    updates = [honest_update(singular, i) for i in range(3)]
    left = gf.expand(b"u" * 32, b"singular left", 16 * 3).reshape(16, 3).astype(object)
    right = gf.expand(b"u" * 32, b"singular right", 3 * 16).reshape(3, 16).astype(object)
    u = (left @ right) % P
    assert np.array_equal(singular.matrix(), u)
    assert rank_over_field(u.tolist()) == 3
    seeds = [bytes([i]) * 32 for i in range(3)]
    challenge = singular.challenge(seeds)
    assert challenge.size == singular.challenge_length == 96
    assert np.array_equal(challenge, sum(challenge_vector(s, 96).astype(object) for s in seeds) % P)
    big_r = padded_groups(singular, challenge)
    right_side = 0
    for update in updates:
        sent = singular.commit(update).reshape(-1, 3)
        for k, group in enumerate(padded_groups(singular, update)):
            assert sent[k].tolist() == [sum(map(int.__mul__, row, group)) % P for row in right.tolist()]
            full = [sum(map(int.__mul__, row, group)) % P for row in u.tolist()]
            assert full == [sum(map(int.__mul__, row, sent[k].tolist())) % P for row in left.tolist()]
            right_side += sum(map(int.__mul__, big_r[k], full))
    total = np.sum(updates, axis=0)
    left_side = 0
    for k, group in enumerate(padded_groups(singular, total)):
        s = [sum(map(int.__mul__, big_r[k], column)) for column in u.T.tolist()]
        left_side += sum(map(int.__mul__, s, group))
    assert left_side % P == right_side % P
    assert singular.opens(singular.add([singular.commit(q) for q in updates]), total, 3, challenge)
    total[5] += 1
    assert not singular.opens(singular.add([singular.commit(q) for q in updates]), total, 3, challenge)


def test_singular_needs_its_challenge() -> None:
    update = honest_update(singular, 0)
    total = singular.commit(update)
    for challenge in (None, challenge_vector(bytes(32), singular.length)):
        with pytest.raises(CommitmentError, match="challenge"):
            singular.opens(total, update, 1, challenge)


# --- both -------------------------------------------------------------------------------------------------


@both
def test_commitments_are_linear(commitment: Commitment) -> None:
    x, y = honest_update(commitment, 1), honest_update(commitment, 2)
    summed = commitment.add([commitment.commit(x), commitment.commit(y)])
    assert np.array_equal(summed, commitment.commit(x + y))
    assert np.array_equal(gf.neg(commitment.commit(x)), commitment.commit(-x))
    assert not commitment.commit(np.zeros_like(x)).any()
    assert not commitment.add([]).any()


@both
def test_the_sum_of_updates_opens_the_sum_of_commitments(commitment: Commitment) -> None:
    updates = [honest_update(commitment, i) for i in range(5)]
    total = commitment.add([commitment.commit(x) for x in updates])
    challenge = commitment.challenge([bytes([i]) * 32 for i in range(5)])
    assert total.shape == (commitment.size,)
    assert commitment.opens(total, np.sum(updates, axis=0), 5, challenge)
    assert not commitment.opens(total, np.sum(updates[:-1], axis=0), 5, challenge)


@both
def test_the_bound_is_inclusive_and_grows_with_the_contributors(commitment: Commitment) -> None:
    extended = np.zeros(commitment.length + commitment.extra(), dtype=np.int64)
    for sign, index in itertools.product((1, -1), (0, extended.size - 1)):
        extended[index] = sign * 3 * 2**19
        assert commitment.within_bound(extended, 3)
        extended[index] += sign
        assert not commitment.within_bound(extended, 3)
        assert commitment.within_bound(extended, 4)
        extended[index] = 0


@both
def test_blinding_is_the_labelled_expansion_and_comes_off(commitment: Commitment) -> None:
    committed = commitment.commit(honest_update(commitment, 3))
    rho, peer = b"r" * 32, b"p" * 32
    blinded = blind(committed, rho, NETWORK, 7, peer)
    label = b"commit" + NETWORK + (7).to_bytes(8, "big") + peer
    assert np.array_equal(blinded, gf.add(committed, gf.expand(rho, label, commitment.size)))
    assert np.array_equal(unblind(blinded, rho, NETWORK, 7, peer), committed)
    for arguments in (
        (b"q" * 32, NETWORK, 7, peer),
        (rho, b"m" * 32, 7, peer),
        (rho, NETWORK, 8, peer),
        (rho, NETWORK, 7, b"o" * 32),
    ):
        assert not np.array_equal(unblind(blinded, *arguments), committed)


@both
def test_vectors_of_another_shape_are_refused(commitment: Commitment) -> None:
    extended = honest_update(commitment, 1)
    total = commitment.commit(extended)
    challenge = commitment.challenge([bytes(32)])
    with pytest.raises(CommitmentError, match="extended update"):
        commitment.commit(extended[:-1])
    with pytest.raises(CommitmentError, match="extended update"):
        commitment.commit(extended.astype(np.int32))
    with pytest.raises(CommitmentError, match="extended update"):
        commitment.within_bound(extended[1:], 1)
    with pytest.raises(CommitmentError, match="commitment"):
        commitment.opens(total[:-1], extended, 1, challenge)
    with pytest.raises(CommitmentError, match="commitment"):
        commitment.add([total, total.astype(np.int64)])


def test_impossible_commitments_are_refused() -> None:
    with pytest.raises(CommitmentError, match="network"):
        LatticeCommitment(b"short", 10, 20)
    with pytest.raises(CommitmentError, match="u_seed"):
        SingularCommitment(b"", 10, 4, 2)
    with pytest.raises(CommitmentError, match="rank 4"):
        SingularCommitment(bytes(32), 10, 4, 4)
    for bits in (0, 21):
        with pytest.raises(CommitmentError, match="bits"):
            LatticeCommitment(NETWORK, 10, bits)
    for make in (lambda: LatticeCommitment(NETWORK, 0, 20), lambda: SingularCommitment(bytes(32), 0, 4, 2)):
        with pytest.raises(ValueError, match="length"):
            make()


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 200), st.integers(1, 64))
def test_first_accepted_by_definition(seed: bytes, count: int, modulus: int) -> None:
    """Also where most words are refused and the expansion has to be prolonged again and again."""
    drawn = first_accepted(seed, b"label", count, lambda words: words % modulus == 0)
    stream = gf.expand(seed, b"label", 20_000 + 200 * modulus).tolist()
    assert drawn.tolist() == [word for word in stream if word % modulus == 0][:count]
