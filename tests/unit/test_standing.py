"""How a peer stands: what lowers it, what time does, what honest peers may do (PROTOCOL.md section 8.7)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flocknode.transport.base import MAX_MESSAGE_BYTES
from flocknode.transport.standing import OTHER_WEIGHT, WEIGHTS, Level, Limits, Standings
from protocol.early import EARLY_MESSAGES
from protocol.offences import HARMLESS, OFFENCES
from protocol.repair import REPLY_BYTES

PEER, OTHER = b"p" * 32, b"o" * 32
LIMITS = Limits()
reasons = st.sampled_from(sorted({*OFFENCES, *HARMLESS, "something new"}))


def test_every_reason_of_the_engine_has_a_weight() -> None:
    assert WEIGHTS.keys() >= OFFENCES | HARMLESS
    assert all(WEIGHTS[reason] == 0 for reason in HARMLESS)
    assert all(WEIGHTS[reason] > 0 for reason in OFFENCES)
    assert (
        WEIGHTS["signature"]
        == WEIGHTS["malformed"]
        > WEIGHTS["block"]
        > WEIGHTS["slot"]
        > WEIGHTS["stranger"]
        > 0
    )
    assert OTHER_WEIGHT > 0


@pytest.mark.parametrize("wrong", [{"refuse_at": -15.0}, {"longest_refusal_s": 1.0}, {"messages": 0.0}])
def test_limits_that_contradict_each_other_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


def test_a_peer_is_throttled_then_refused_then_back_on_trial() -> None:
    standings = Standings()
    levels = [standings.offend(PEER, "signature", 10.0) for _ in range(3)]
    assert levels == [Level.THROTTLED, Level.THROTTLED, Level.REFUSED]
    assert standings.refused_for_s(PEER, 10.0) == LIMITS.refusal_s
    assert not standings.admits(PEER, b"let me in", 20.0)
    back_s = 10.0 + LIMITS.refusal_s
    assert standings.refused_for_s(PEER, back_s) == 0
    assert standings.level(PEER, back_s) is Level.THROTTLED
    assert standings.admits(PEER, b"sorry", back_s)
    assert standings.level(PEER, back_s + 1.0) is Level.GOOD
    assert standings.level(OTHER, back_s) is Level.GOOD


def test_refusals_grow_at_repetition_up_to_a_cap_and_are_forgiven_one_by_one() -> None:
    standings, now_s, seen = Standings(), 0.0, []
    for _ in range(8):
        while standings.offend(PEER, "signature", now_s) is not Level.REFUSED:
            pass
        seen.append(standings.refused_for_s(PEER, now_s))
        now_s += seen[-1]
    assert seen == [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1800.0, 1800.0]
    assert standings.standing(PEER, now_s).refusals == 8
    for _ in range(8):
        now_s += LIMITS.forgive_s
        standings.level(PEER, now_s)
    while standings.offend(PEER, "signature", now_s) is not Level.REFUSED:
        pass
    assert standings.refused_for_s(PEER, now_s) == LIMITS.refusal_s


def test_a_flood_is_cut_to_the_allowance_and_ends_in_a_refusal() -> None:
    """Of messages that are all different and all valid."""
    standings, passed, sent = Standings(), 0, 0
    while standings.level(PEER, sent / 10_000) is not Level.REFUSED:
        passed += standings.admits(PEER, sent.to_bytes(8, "big"), sent / 10_000)
        sent += 1
    assert passed <= LIMITS.messages + LIMITS.messages_per_s * sent / 10_000 + 1
    standing = standings.standing(PEER, sent / 10_000)
    assert standing.dropped == sent - passed > 0
    assert standing.used == pytest.approx(1.0, abs=0.01)


def test_the_same_message_again_and_again_is_a_flood_sooner() -> None:
    standings = Standings()
    passed = sum(standings.admits(PEER, b"once more", 0.0) for _ in range(700))
    assert passed == 1 + LIMITS.repeats
    assert standings.admits(PEER, b"something else", 0.0)


def test_large_messages_are_measured_in_bytes() -> None:
    standings, message = Standings(), bytes(MAX_MESSAGE_BYTES)
    passed = sum(standings.admits(PEER, message, 0.0) for _ in range(100))
    assert passed == LIMITS.size_bytes // MAX_MESSAGE_BYTES
    assert standings.admits(OTHER, message, 0.0)


def test_a_throttled_peer_is_still_heard_a_little() -> None:
    standings = Standings()
    for _ in range(2):
        standings.offend(PEER, "signature", 0.0)
    assert standings.admits(PEER, bytes(MAX_MESSAGE_BYTES), 0.0)
    passed = sum(standings.admits(PEER, number.to_bytes(4, "big"), 0.0) for number in range(300))
    assert passed == LIMITS.messages * LIMITS.throttled_share - 1
    assert standings.level(PEER, 0.0) is Level.THROTTLED
    assert standings.level(PEER, 1_000.0) is Level.GOOD


@given(st.lists(st.tuples(st.floats(0, 50), reasons), max_size=60))
def test_a_score_is_never_above_zero_and_time_heals_it(offences: list[tuple[float, str]]) -> None:
    standings, now_s = Standings(), 0.0
    for after_s, reason in offences:
        now_s += after_s
        standings.offend(PEER, reason, now_s)
        assert standings.standing(PEER, now_s).score <= 0
        assert 0 <= standings.refused_for_s(PEER, now_s) <= LIMITS.longest_refusal_s
    now_s += standings.refused_for_s(PEER, now_s)
    now_s += -standings.standing(PEER, now_s).score / LIMITS.recovery_per_s + 1e-3
    assert standings.standing(PEER, now_s).level is Level.GOOD
    assert standings.standing(PEER, now_s).score == pytest.approx(0.0, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), max_size=40))
def test_a_clock_that_steps_back_gains_nobody_anything(steps: list[tuple[float, bool]]) -> None:
    """Not even one: monotonic clocks do not, so this is about arithmetic."""
    standings, now_s = Standings(Limits(messages=3.0, messages_per_s=1.0)), 100.0
    passed = 0
    for step_s, offends in steps:
        now_s = max(0.0, now_s + step_s)
        if offends:
            standings.offend(PEER, "slot", now_s)
        passed += standings.admits(PEER, str(passed).encode(), now_s)
    highest_s = 100.0 + sum(max(0.0, step_s) for step_s, _ in steps)
    assert passed <= 3 + (highest_s - 100.0) + 1


busy_second = st.tuples(
    st.integers(0, 100),  # statements, votes, Readys, each another
    st.integers(0, 20),  # the same again, for want of an answer
    st.integers(0, 16),  # replies of repair and sync
    st.sampled_from([0, 0, 0, EARLY_MESSAGES]),  # what another height or round brings at once
    st.integers(0, 20),  # offences that are none
)


@settings(max_examples=25, deadline=None)
@given(st.lists(busy_second, max_size=20), st.integers(0, 2**32))
def test_an_honest_mix_is_never_throttled(seconds: list[tuple[int, int, int, int, int]], salt: int) -> None:
    """Five times and more of what honest nodes were seen to send, second after second, after a partition."""
    standings, count = Standings(), salt
    for second, (small, repeated, replies, early, stale) in enumerate([(1_000, 64, 64, 64, 64), *seconds]):
        now_s = float(second)
        for _ in range(small + early):
            count += 1
            assert standings.admits(PEER, count.to_bytes(8, "big") + bytes(1_000), now_s)
        for _ in range(repeated):
            assert standings.admits(PEER, b"Ready", now_s)
        for _ in range(replies):
            count += 1
            assert standings.admits(PEER, count.to_bytes(8, "big") + bytes(REPLY_BYTES), now_s)
        for number in range(stale):
            standings.offend(PEER, sorted(HARMLESS)[number % len(HARMLESS)], now_s)
        assert standings.level(PEER, now_s) is Level.GOOD
    assert standings.standing(PEER, float(len(seconds))).score == 0
