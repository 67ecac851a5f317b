"""Every verdict of docs/PROTOCOL.md section 5, brought about by tampering with real uploads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_round import ARBITRARY, LATTICE, LENGTH, ROOTS, SINGULAR, MaskedRound, random_update

from protocol.algebra import field as gf
from protocol.algebra import ntt
from protocol.secagg.commitment import Commitment
from protocol.secagg.interpolation import Interpolation
from protocol.secagg.verification import Verdict, proposer_check_holds

N = 4

in_every_scheme = pytest.mark.parametrize(
    ("commitment", "interpolation"),
    [(LATTICE, ROOTS), (LATTICE, ARBITRARY), (SINGULAR, ROOTS), (SINGULAR, ARBITRARY)],
    ids=["lattice-roots", "lattice-arbitrary", "singular-roots", "singular-arbitrary"],
)


def honest_round(commitment: Commitment, interpolation: Interpolation) -> MaskedRound:
    return MaskedRound(commitment, interpolation, [random_update(i) for i in range(N)])


@in_every_scheme
@pytest.mark.parametrize("blinded", [True, False])
def test_an_honest_sum_is_trusted(
    commitment: Commitment, interpolation: Interpolation, blinded: bool
) -> None:
    round_ = honest_round(commitment, interpolation)
    round_.blinded = blinded
    findings = round_.verify(round_.aggregate())
    assert findings.verdict is Verdict.TRUSTED
    assert np.array_equal(findings.extended_sum, round_.true_sum)


@in_every_scheme
def test_touching_the_sum_without_the_keys_reads_as_lazy(
    commitment: Commitment, interpolation: Interpolation
) -> None:
    """Adding 5 to a constant coefficient moves every value of the group by 5, and the hidden one too."""
    round_ = honest_round(commitment, interpolation)
    tampered = round_.aggregate()
    tampered[0, 0] = (int(tampered[0, 0]) + 5) % gf.P
    findings = round_.verify(tampered)
    assert (findings.eq18, findings.eq19) == (False, False)
    assert findings.verdict is Verdict.LAZY_AGGREGATOR


@pytest.mark.parametrize("commitment", [LATTICE, SINGULAR], ids=["lattice", "singular"])
def test_leaving_out_a_client_whose_masks_are_known_reads_as_lazy(commitment: Commitment) -> None:
    """It gave the aggregator its masks but not z, so that the sum stays small and A_i is missing."""
    round_ = honest_round(commitment, ROOTS)
    groups, size = round_.points.hidden.size, ROOTS.group_size
    masks = np.zeros(groups * size, dtype=np.uint32)
    masks[: round_.masked_length] = gf.sub(round_.masked(2), gf.from_signed(round_.openings[2]))
    partial = round_.sum_of([round_.upload(i) for i in (0, 1, 3)])
    gf.accumulate(partial[:, :size], ntt.intt(masks.reshape(groups, size)))
    findings = round_.verify(partial)
    assert np.array_equal(findings.extended_sum, round_.true_sum - round_.openings[2])
    assert findings.verdict is Verdict.LAZY_AGGREGATOR


@in_every_scheme
def test_leaving_out_a_client_leaves_its_masks_in(
    commitment: Commitment, interpolation: Interpolation
) -> None:
    """Both equations fail over a sum that is noise all over the field: the paper's weak attacker."""
    round_ = honest_round(commitment, interpolation)
    findings = round_.verify(round_.sum_of([round_.upload(i) for i in (0, 1, 3)]))
    assert (findings.eq18, findings.eq19) == (False, False)
    assert not findings.bounded
    assert findings.verdict is Verdict.LAZY_AGGREGATOR


@in_every_scheme
def test_moving_the_sum_with_the_hidden_points_reads_as_collusion(
    commitment: Commitment, interpolation: Interpolation
) -> None:
    round_ = honest_round(commitment, interpolation)
    delta = np.zeros(round_.masked_length, dtype=np.int64)
    delta[[3, 200]] = [-700, 41]
    findings = round_.verify(gf.add(round_.aggregate(), round_.forge(delta)))
    assert np.array_equal(findings.extended_sum, round_.true_sum + delta)
    assert (findings.eq18, findings.eq19) == (True, False)
    assert findings.verdict is Verdict.COLLUDING_AGGREGATOR


@in_every_scheme
def test_breaking_only_the_hidden_point_reads_as_a_check_fault(
    commitment: Commitment, interpolation: Interpolation
) -> None:
    """By the aggregator, with a multiple of the polynomial that vanishes at the values of one group."""
    round_ = honest_round(commitment, interpolation)
    checks = np.zeros(round_.points.hidden.size, dtype=np.uint32)
    checks[1] = 99
    nothing = np.zeros(round_.masked_length, dtype=np.uint32)
    findings = round_.verify(
        gf.add(round_.aggregate(), interpolation.interpolate(nothing, checks, round_.points))
    )
    assert np.array_equal(findings.extended_sum, round_.true_sum)
    assert findings.verdict is Verdict.CHECK_FAULT


@in_every_scheme
def test_a_proposer_that_breaks_its_own_check_is_found_in_the_dispute(
    commitment: Commitment, interpolation: Interpolation
) -> None:
    round_ = honest_round(commitment, interpolation)
    wrong = round_.checks(2)
    wrong[0] = (int(wrong[0]) + 1) % gf.P
    uploads = [round_.upload(i, wrong if i == 2 else None) for i in range(N)]
    findings = round_.verify(round_.sum_of(uploads))
    assert findings.verdict is Verdict.CHECK_FAULT
    honest = [
        proposer_check_holds(upload, round_.points, interpolation, round_.rho(i))
        for i, upload in enumerate(uploads)
    ]
    assert honest == [True, True, False, True]


@in_every_scheme
@pytest.mark.parametrize("excess", [1, 2**26])
def test_a_client_out_of_range_makes_the_sum_unbounded(
    commitment: Commitment, interpolation: Interpolation, excess: int
) -> None:
    """It commits to what it sends, so that both linear equations hold; one client alone may push so far."""
    updates = [np.zeros(LENGTH, dtype=np.int64) for _ in range(N)]
    updates[1][17] = -(N * 2 ** (commitment.bits - 1) + excess)
    round_ = MaskedRound(commitment, interpolation, updates)
    findings = round_.verify(round_.aggregate())
    assert findings.eq18
    assert findings.verdict is Verdict.UNBOUNDED
    updates[1][17] += excess + 2**commitment.bits
    within = MaskedRound(commitment, interpolation, updates)
    assert within.verify(within.aggregate()).verdict is Verdict.TRUSTED


@in_every_scheme
def test_a_commitment_to_something_else_reads_as_collusion(
    commitment: Commitment, interpolation: Interpolation
) -> None:
    """The proposer is at fault, and the aggregator looks guilty: why a first reading punishes nobody."""
    round_ = honest_round(commitment, interpolation)
    published = round_.honest_commitments()
    other = round_.openings[0].copy()
    other[0] += 1
    published[0] = round_.publish(0, commitment.commit(other))
    assert round_.verify(round_.aggregate(), published).verdict is Verdict.COLLUDING_AGGREGATOR


def test_values_hidden_in_the_padding_are_not_trusted() -> None:
    round_ = honest_round(LATTICE, ROOTS)
    groups, size = round_.points.hidden.size, ROOTS.group_size
    assert round_.masked_length < groups * size
    smuggled = np.zeros(groups * size, dtype=np.uint32)
    smuggled[-1] = 1
    silent = np.zeros(groups, dtype=np.uint32)
    findings = round_.verify(gf.add(round_.aggregate(), ROOTS.interpolate(smuggled, silent, round_.points)))
    assert np.array_equal(findings.extended_sum, round_.true_sum)
    assert findings.verdict is Verdict.COLLUDING_AGGREGATOR


@settings(max_examples=12, deadline=None)
@given(
    layout=st.sampled_from([ROOTS, ARBITRARY]),
    cells=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, gf.P - 1)),
        min_size=1,
        max_size=4,
        unique_by=lambda cell: cell[:2],
    ),
)
def test_no_change_of_coefficients_is_trusted(
    layout: Interpolation, cells: list[tuple[int, int, int]]
) -> None:
    round_ = honest_round(LATTICE, layout)
    tampered = round_.aggregate()
    honest = tampered.copy()
    for row, column, change in cells:
        row, column = row % tampered.shape[0], column % tampered.shape[1]
        tampered[row, column] = (int(tampered[row, column]) + change) % gf.P
    if not np.array_equal(tampered, honest):
        assert round_.verify(tampered).verdict is not Verdict.TRUSTED
