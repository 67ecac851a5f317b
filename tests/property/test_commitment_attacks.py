"""Attacks on both commitments: what breaks the paper's, and how the same fails on the lattice."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_round import (
    ARBITRARY,
    BITS,
    LATTICE,
    LENGTH,
    NETWORK,
    ROOTS,
    SINGULAR,
    MaskedRound,
    random_update,
    seed,
)

from protocol.algebra import field as gf
from protocol.algebra import ntt
from protocol.algebra.field import P
from protocol.secagg.commitment import Commitment, LatticeCommitment, SingularCommitment, challenge_vector
from protocol.secagg.interpolation import Interpolation
from protocol.secagg.verification import Verdict
from sim.adversaries.forgery import reduce_lattice
from sim.adversaries.linear import kernel_basis, reduced_rows, solve
from sim.adversaries.reading import spread

Int64Vec = npt.NDArray[np.int64]
N = 4

both = pytest.mark.parametrize("commitment", [LATTICE, SINGULAR], ids=["lattice", "singular"])


def honest_round(
    commitment: Commitment, interpolation: Interpolation = ROOTS, blinded: bool = True
) -> MaskedRound:
    return MaskedRound(commitment, interpolation, [random_update(i) for i in range(N)], blinded=blinded)


LATTICE_ROUND = honest_round(LATTICE)
LATTICE_SUM = LATTICE_ROUND.aggregate()
LATTICE_COMMITMENTS = LATTICE_ROUND.honest_commitments()


def small_kernel_vector(matrix: list[list[int]]) -> list[int]:
    """A short nonzero integer x with matrix x = 0 modulo p."""
    rows, pivots = reduced_rows(matrix)
    modulus_rows = [[P if i == pivot else 0 for i in range(len(matrix[0]))] for pivot in pivots]
    basis = np.array(modulus_rows + kernel_basis(rows), dtype=object)
    return [int(x) for x in min(reduce_lattice(basis), key=lambda row: int(row @ row))]


def in_group(vector: list[int], group: int, total_length: int) -> Int64Vec:
    """A change of the sum that touches one group of the singular commitment, centred modulo p."""
    delta = np.zeros(total_length, dtype=np.int64)
    start = group * SINGULAR.group_size
    delta[start : start + len(vector)] = gf.to_signed(gf.from_signed(np.array(vector, dtype=np.int64)))
    return delta


# --- the kernel of U --------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", [ROOTS, ARBITRARY], ids=["roots", "arbitrary"])
@pytest.mark.parametrize("group", [0, 17])
def test_kernel_of_u_passes_both_equations_under_the_singular_commitment(
    interpolation: Interpolation, group: int
) -> None:
    """An aggregator that learned U and z from one client adds any delta with U delta = 0, for every R."""
    round_ = honest_round(SINGULAR, interpolation)
    total = SINGULAR.add([SINGULAR.commit(opening) for opening in round_.openings])
    u = SINGULAR.matrix().tolist()
    basis = kernel_basis(u)
    assert len(basis) == SINGULAR.group_size - SINGULAR.rank
    for vector in basis[:3]:
        assert all(sum(a * b for a, b in zip(row, vector, strict=True)) % P == 0 for row in u)
        delta = in_group(vector, group, round_.masked_length)
        findings = round_.verify(gf.add(round_.aggregate(), round_.forge(delta)))
        assert not np.array_equal(findings.extended_sum, round_.true_sum)
        assert findings.eq18
        assert findings.eq19
        for who in range(5):
            challenge = challenge_vector(seed("R", who), SINGULAR.challenge_length)
            assert SINGULAR.opens(total, round_.true_sum + delta, N, challenge)


def test_short_kernel_vectors_are_trusted_under_the_singular_commitment() -> None:
    """A bound on the sum does not save the paper's scheme: lattice reduction of a small kernel is easy."""
    round_ = honest_round(SINGULAR)
    vector = small_kernel_vector(SINGULAR.matrix().tolist())
    assert 0 < max(map(abs, vector)) < 2**8
    delta = in_group(vector, 5, round_.masked_length)
    findings = round_.verify(gf.add(round_.aggregate(), round_.forge(100 * delta)))
    assert np.array_equal(findings.extended_sum, round_.true_sum + 100 * delta)
    assert findings.verdict is Verdict.TRUSTED


def test_the_very_same_forgeries_are_caught_under_the_lattice_commitment() -> None:
    round_ = honest_round(LATTICE)
    u = SINGULAR.matrix().tolist()
    for vector, reading in [
        (kernel_basis(u)[0], Verdict.UNBOUNDED),
        (small_kernel_vector(u), Verdict.COLLUDING_AGGREGATOR),
    ]:
        delta = in_group(vector, 5, round_.masked_length)
        findings = round_.verify(gf.add(round_.aggregate(), round_.forge(delta)))
        assert findings.eq18
        assert not findings.eq19
        assert findings.verdict is reading


@pytest.mark.parametrize("repaired", ["e", "s"])
def test_the_lattice_commitments_own_kernel_is_out_of_bounds(repaired: str) -> None:
    """Its kernel is as easy to find (move q, solve for e or for s), and the linear equation does hold.

    The solution is spread over all of F_p. A short one is what the ring-SIS assumption says nobody finds.
    """
    round_ = honest_round(LATTICE)
    delta = np.zeros(round_.masked_length, dtype=np.int64)
    delta[:3] = [1, -1, 5]
    moved = gf.neg(LATTICE.commit(delta))
    if repaired == "e":
        delta[LENGTH : LENGTH + LATTICE.size] = gf.to_signed(moved)
    else:
        a_prime = gf.expand(NETWORK, b"lattice key", LATTICE.size)
        delta[LENGTH + LATTICE.size :] = gf.to_signed(ring_quotient(moved, a_prime))
    assert not LATTICE.commit(delta).any()
    findings = round_.verify(gf.add(round_.aggregate(), round_.forge(delta)))
    assert findings.eq18
    assert not findings.eq19
    assert findings.verdict is Verdict.UNBOUNDED


def ring_quotient(a: gf.FieldVec, b: gf.FieldVec) -> gf.FieldVec:
    """a / b in F_p[X]/(X^n + 1)."""
    quotient = gf.mul(ntt.negacyclic_ntt(a), gf.invert(ntt.negacyclic_ntt(b)))
    return ntt.negacyclic_intt(quotient)


@settings(max_examples=25, deadline=None)
@given(
    changes=st.dictionaries(
        st.integers(0, LENGTH + LATTICE.extra() - 1),
        st.integers(-(2**29), 2**29).filter(bool) | st.integers(-8, 8).filter(bool),
        min_size=1,
        max_size=30,
    )
)
def test_no_change_of_the_sum_is_trusted_under_the_lattice_commitment(changes: dict[int, int]) -> None:
    """Single coordinates, small and large ones, of the update and of its opening, with z known."""
    round_ = LATTICE_ROUND
    delta = np.zeros(round_.masked_length, dtype=np.int64)
    delta[list(changes)] = list(changes.values())
    findings = round_.verify(gf.add(LATTICE_SUM, round_.forge(delta)), LATTICE_COMMITMENTS)
    moved = round_.true_sum + delta
    bounded = bool(np.abs(moved).max() <= N * 2 ** (BITS - 1))
    assert findings.eq18
    assert not findings.eq19
    assert findings.verdict is (Verdict.COLLUDING_AGGREGATOR if bounded else Verdict.UNBOUNDED)


# --- the last to commit -----------------------------------------------------------------------------------


def chosen_sum(commitment: Commitment) -> Int64Vec:
    """What the attacker wants the network to believe: a constant sum, with an opening of its own."""
    return np.concatenate(
        [np.full(LENGTH, 1234, dtype=np.int64), commitment.opening_randomness(seed("rogue"))]
    )


def rogue_commitments(round_: MaskedRound, target: Int64Vec) -> list[gf.FieldVec]:
    """The last proposer waits for the others and commits to the target minus their sum, unknown to it."""
    published = round_.honest_commitments()
    others = round_.commitment.add(published[:-1])
    published[-1] = round_.publish(N - 1, gf.sub(round_.commitment.commit(target), others))
    return published


@both
def test_rogue_commitment_forges_any_sum_when_commitments_are_in_the_clear(commitment: Commitment) -> None:
    """The aggregator learns the sum by unmasking and knows z from the rogue proposer."""
    round_ = honest_round(commitment, blinded=False)
    target = chosen_sum(commitment)
    forged = gf.add(round_.aggregate(), round_.forge(target - round_.true_sum))
    findings = round_.verify(forged, rogue_commitments(round_, target))
    assert np.array_equal(findings.extended_sum, target)
    assert findings.verdict is Verdict.TRUSTED


@both
def test_rogue_commitment_opens_to_nothing_when_commitments_are_blinded(commitment: Commitment) -> None:
    """What it subtracts is noise until rho_i is revealed, and by then every commitment is pinned."""
    round_ = honest_round(commitment, blinded=True)
    target = chosen_sum(commitment)
    commitments = rogue_commitments(round_, target)
    forged = gf.add(round_.aggregate(), round_.forge(target - round_.true_sum))
    assert round_.verify(forged, commitments).verdict is Verdict.COLLUDING_AGGREGATOR
    assert round_.verify(round_.aggregate(), commitments).verdict is Verdict.COLLUDING_AGGREGATOR


@both
def test_rogue_commitment_cannot_reuse_the_others_blinding(commitment: Commitment) -> None:
    """Sent with no blinding of its own, or with that of a victim, it is no better."""
    round_ = honest_round(commitment, blinded=True)
    target = chosen_sum(commitment)
    published = round_.honest_commitments()
    wanted = gf.sub(commitment.commit(target), commitment.add(published[:-1]))
    forged = gf.add(round_.aggregate(), round_.forge(target - round_.true_sum))
    assert round_.verify(forged, [*published[:-1], wanted]).verdict is Verdict.COLLUDING_AGGREGATOR
    replayed = [*published[:-1], published[0]]
    assert round_.verify(forged, replayed).verdict is Verdict.COLLUDING_AGGREGATOR


# --- guessing an update from its commitment ---------------------------------------------------------------

CANDIDATES = [np.sign(random_update(100 + guess)) * 2000 for guess in range(16)]
SECRET = 11


def without_randomness(commitment: Commitment, update: Int64Vec) -> Int64Vec:
    return np.concatenate([update, np.zeros(commitment.extra(), dtype=np.int64)])


def test_low_entropy_update_is_recognised_in_its_singular_commitment() -> None:
    """One of sixteen possible updates (say, one for each class a client may hold) is told by comparison."""
    commitment = SINGULAR.commit(CANDIDATES[SECRET])
    same = [np.array_equal(SINGULAR.commit(update), commitment) for update in CANDIDATES]
    assert np.flatnonzero(same).tolist() == [SECRET]


def test_sparse_update_is_solved_from_its_singular_commitment() -> None:
    """Where a public support leaves at most rank(U) unknowns in each group, they are read off exactly."""
    commitment = SingularCommitment(seed("U"), LENGTH, group_size=20, rank=6, bits=BITS)
    support = [1, 4, 9, 10, 15, 19]
    update = np.zeros(LENGTH, dtype=np.int64)
    for group in range(commitment.groups):
        update[20 * group + np.array(support)] = random_update(200 + group, len(support))
    sent = commitment.commit(update).reshape(commitment.groups, commitment.rank).tolist()
    right = gf.expand(seed("U"), b"singular right", 6 * 20).reshape(6, 20)
    recovered = np.zeros(LENGTH, dtype=np.int64)
    for group, equations in enumerate(sent):
        solution = np.array(solve(right[:, support].tolist(), equations), dtype=np.uint32)
        recovered[20 * group + np.array(support)] = gf.to_signed(solution)
    assert np.array_equal(recovered, update)


def test_guessing_does_not_work_on_the_lattice_commitment() -> None:
    """The right guess leaves e + a' s, which looks like what a wrong guess leaves."""
    client = np.concatenate([CANDIDATES[SECRET], LATTICE.opening_randomness(seed("client"))])
    commitment = LATTICE.commit(client)
    bare = [LATTICE.commit(without_randomness(LATTICE, update)) for update in CANDIDATES]
    residuals = [gf.sub(commitment, guess) for guess in bare]
    assert all(residual.any() for residual in residuals)
    assert all(0.9 < spread(residual) < 1.1 for residual in residuals)
    # The control: without e and s the same test does find the client.
    unprotected = LATTICE.commit(without_randomness(LATTICE, CANDIDATES[SECRET]))
    assert [spread(gf.sub(unprotected, guess)) < 0.1 for guess in bare].index(True) == SECRET
    # Nor does e alone, however wide it is against the data.
    only_e = client.copy()
    only_e[LENGTH + LATTICE.size :] = 0
    unprotected = LATTICE.commit(only_e)
    assert [spread(gf.sub(unprotected, guess)) < 0.1 for guess in bare].index(True) == SECRET


def test_published_sums_of_two_honest_openings_do_not_make_the_guess_testable() -> None:
    """With E = e_1 + e_2 and S = s_1 + s_2 known, 2 (C_1 - A q) - (E + a' S) is still noise for every q."""
    client, other = (
        np.concatenate([CANDIDATES[guess], LATTICE.opening_randomness(seed("honest", guess))])
        for guess in (SECRET, 3)
    )
    sums = client + other
    sums[:LENGTH] = 0
    known = LATTICE.commit(sums)
    for update in CANDIDATES:
        residual = gf.sub(LATTICE.commit(client), LATTICE.commit(without_randomness(LATTICE, update)))
        assert 0.9 < spread(gf.sub(gf.add(residual, residual), known)) < 1.1


@pytest.mark.parametrize("bits", [13, 16, 20])
def test_the_right_guess_looks_like_noise_at_every_width_of_the_encoding(bits: int) -> None:
    commitment = LatticeCommitment(NETWORK, LENGTH, bits)
    client = np.concatenate([CANDIDATES[SECRET], commitment.opening_randomness(seed("client"))])
    guess = commitment.commit(without_randomness(commitment, CANDIDATES[SECRET]))
    assert 0.9 < spread(gf.sub(commitment.commit(client), guess)) < 1.1
