"""Eq. 18 and the verdict table by definition; the manipulations behind each verdict are property tests."""

import numpy as np
import pytest

from protocol.algebra import field as gf
from protocol.secagg.interpolation import Interpolation, InterpolationError, check_values
from protocol.secagg.verification import Verdict, eq18_holds, proposer_check_holds, verdict

LENGTH = 100
SEEDS = [bytes([i]) * 32 for i in range(4)]


@pytest.mark.parametrize(
    ("eq18", "eq19", "bounded", "expected"),
    [
        (True, True, True, Verdict.TRUSTED),
        (False, False, True, Verdict.LAZY_AGGREGATOR),
        (True, False, True, Verdict.COLLUDING_AGGREGATOR),
        (False, True, True, Verdict.CHECK_FAULT),
        (True, True, False, Verdict.UNBOUNDED),
        (True, False, False, Verdict.UNBOUNDED),
        (False, True, False, Verdict.UNBOUNDED),
        (False, False, False, Verdict.LAZY_AGGREGATOR),
    ],
)
def test_the_verdict_table(eq18: bool, eq19: bool, bounded: bool, expected: Verdict) -> None:
    assert verdict(eq18, eq19, bounded) is expected


def test_verdicts_have_fixed_numbers_on_the_wire() -> None:
    assert [(v.name, v.value) for v in Verdict] == [
        ("TRUSTED", 0),
        ("LAZY_AGGREGATOR", 1),
        ("COLLUDING_AGGREGATOR", 2),
        ("CHECK_FAULT", 3),
        ("UNBOUNDED", 4),
    ]


@pytest.mark.parametrize("layout", [Interpolation("roots", 16), Interpolation("arbitrary", 12)])
def test_eq18_compares_hidden_values_with_the_sum_of_check_values(layout: Interpolation) -> None:
    points = layout.points_from(b"z" * 32, LENGTH)
    groups = layout.groups(LENGTH)
    uploads = [
        layout.interpolate(gf.expand(s, b"values", LENGTH), check_values(s, groups), points) for s in SEEDS
    ]
    total = np.zeros_like(uploads[0])
    for upload in uploads:
        gf.accumulate(total, upload)
    by_definition = [sum(int(check_values(s, groups)[k]) for s in SEEDS) % gf.P for k in range(groups)]
    assert layout.evaluate_hidden(total, points).tolist() == by_definition
    assert eq18_holds(total, points, layout, SEEDS)
    assert not eq18_holds(total, points, layout, SEEDS[:-1])
    assert not eq18_holds(total, points, layout, [*SEEDS, SEEDS[0]])
    assert all(proposer_check_holds(u, points, layout, s) for u, s in zip(uploads, SEEDS, strict=True))
    assert not proposer_check_holds(uploads[0], points, layout, SEEDS[1])
    for k in range(groups):
        changed = total.copy()
        changed[k, 2] = (int(changed[k, 2]) + 1) % gf.P
        assert not eq18_holds(changed, points, layout, SEEDS)
    with pytest.raises(InterpolationError, match="coefficients"):
        eq18_holds(total[:-1], points, layout, SEEDS)
