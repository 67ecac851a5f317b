"""Vectors of the stake contract: gammas and judgements (section 6), and their bytes (section 8.5)."""

from __future__ import annotations

import attrs
from attrs import evolve

from flocknode.vectors.agreement import example_genesis
from flocknode.vectors.values import Document
from protocol.codec import encode
from protocol.ledger.adaptive import AdaptiveGamma, Tally
from protocol.ledger.judgement import BestModel, Judgement, Losses, Yardstick, grade_of
from protocol.ledger.pace import Pace, Rest, Training
from protocol.ledger.state import genesis_state
from protocol.messages import VoteOpening

RULES = (AdaptiveGamma(), AdaptiveGamma(lowest_units=3, calm_units=1_001, highest_units=90_007, window=2))
CLEAR, THIN, SPLIT = Tally(12, 12), Tally(7, 12), Tally(6, 12)
PAST: tuple[tuple[Tally, ...], ...] = ((), (CLEAR,) * 3, (SPLIT,) * 9, (CLEAR, THIN, SPLIT, Tally(2, 7)))


def gamma() -> Document:
    """Gammas by what was voted before, and a genesis and a state with the option."""
    cases = [
        {
            "rule": attrs.asdict(rule),
            "recent": [[entry.winning, entry.seats] for entry in past],
            "tally": [tally.winning, tally.seats],
            "gamma_units": rule.gamma_units(past, tally),
            "kept": [[entry.winning, entry.seats] for entry in rule.recent(past, tally)],
        }
        for rule in RULES
        for past in PAST
        for tally in (CLEAR, Tally(8, 12), THIN, SPLIT, Tally(1, 12))
    ]
    plain = example_genesis()
    genesis = evolve(plain, params=evolve(plain.params, adaptive_gamma=RULES[1]))
    state = evolve(genesis_state(genesis), tallies=(CLEAR, THIN))
    encoded = [
        {
            "genesis": genesis.to_bytes().hex(),
            "network": genesis.network.hex(),
            "state": encode(state).hex(),
            "state_root": state.root.hex(),
        }
    ]
    return {"adaptive_gamma": cases, "genesis": encoded}


JUDGEMENTS = (Judgement(), Judgement(tolerance_permille=7, floor_permille=0, free_step=0, full_step=16))
CALM = Yardstick(2.5, (0.0625, -0.0625) * 8)
WILD = Yardstick(2.5, (1.5, -0.25, 0.5, -1.0, 4.0))
LOSSES = (
    (1.0, 1.09375, 1.0),
    (1.0, 1.125, None),
    (1.0, 1.125, 0.5),
    (30.0, 8.0, 0.75),
    (1.0, 0.9375, 0.5),
    (-2.0, -1.5, -2.0),
    (-2.0, -3.0, -2.5),
    (0.0, 0.015625, 0.0),
    (1.0, 30.0, 0.75),
    (1.0, float("inf"), 1.0),
    (1.0, float("nan"), 1.0),
    (float("inf"), 2.0, float("inf")),
    (float("nan"), float("nan"), 1.0),
    (1.0, None, 1.0),
)


def judgement() -> Document:
    """Votes and opinions by what was measured, prices by grade, and bytes with the option.

    Losses and what a voter remembers are doubles, in C's hexadecimal notation.
    """
    votes = [
        {
            "rule": attrs.asdict(rule),
            "largest": yardstick.largest.hex(),
            "changes": [change.hex() for change in yardstick.changes],
            "current": _hex(current),
            "candidate": _hex(candidate),
            "best": _hex(best),
            "vote": vote,
            "change": opinion.change,
            "improves": opinion.improves,
        }
        for rule in JUDGEMENTS
        for yardstick in (Yardstick(), CALM, WILD)
        for current, candidate, best in LOSSES
        for vote, opinion in [rule.form_opinion(Losses(current, candidate, best), yardstick)]
    ]
    prices = [
        {
            "rule": attrs.asdict(rule),
            "changes": list(changes),
            "gamma_units": 8_000_001,
            "grade": grade_of(changes),
            "age": age,
            "alert": alert,
            "member_units": rule.member_price(grade_of(changes), 8_000_001, age, alert),
            "contrary_units": rule.contrary_price(len(changes) - 1, 1, 8_000_001),
        }
        for rule in JUDGEMENTS
        for changes in ((5, -3), (5, 7, -16), (16, 16, 16, 0), (-2, 6, 7, 8, 9))
        for age, alert in ((1, 8), (100, 32))
    ]
    plain = example_genesis()
    genesis = evolve(plain, params=evolve(plain.params, judgement=JUDGEMENTS[1]))
    state = evolve(genesis_state(genesis), best=BestModel(7, bytes(range(32))), alert=9)
    opening = VoteOpening(0, -1, 0, bytes(32), 9, False, True)
    encoded = [
        {
            "genesis": genesis.to_bytes().hex(),
            "network": genesis.network.hex(),
            "state": encode(state).hex(),
            "state_root": state.root.hex(),
            "opening": encode(opening).hex(),
        }
    ]
    return {"votes": votes, "prices": prices, "genesis": encoded}


PACES = (
    Pace(rounds=3, resume_units=10),
    Pace(patience=2, resume_units=0),
    Pace(interval_ms=60_000, rounds=4, patience=1, heeds_done=True, resume_units=7),
)
ENDS = (
    # (judged, better, done) of rounds 1, 2, ...
    ((True, True, False), (True, False, False), (False, False, False), (True, False, True)),
    ((True, False, True), (True, False, False), (True, True, False)),
)


def pace() -> Document:
    """States of training by how rounds end and what is funded (section 3.9), and bytes with the option."""
    courses = []
    for rule in PACES:
        for ends in ENDS:
            state, states = rule.begin(), []
            for ended, (judged, better, done) in enumerate(ends, 1):
                state = state.after_round(rule, ended=ended, judged=judged, better=better, done=done)
                states.append(attrs.asdict(state))
                if state.rest:
                    break
            funded = [
                {"units": units, "training": attrs.asdict(after)}
                for units in (6, 10, 25)
                for after in [state.after_funding(rule, round_=len(states) + 1, units=units)]
            ]
            courses.append({"rule": attrs.asdict(rule), "ends": ends, "states": states, "funded": funded})
    plain = example_genesis()
    genesis = evolve(plain, params=evolve(plain.params, judgement=Judgement(), pace=PACES[2]))
    start = genesis_state(genesis)
    asleep = evolve(start, training=Training(last_round=4, stale=1, rest=Rest.PATIENCE, funded_units=6))
    reformed = evolve(asleep, learning=evolve(asleep.learning, reformed=True))
    encoded = [
        {
            "genesis": genesis.to_bytes().hex(),
            "network": genesis.network.hex(),
            "state": encode(state).hex(),
            "state_root": state.root.hex(),
        }
        for state in (start, asleep, reformed)
    ]
    return {"training": courses, "genesis": encoded}


def _hex(loss: float | None) -> str | None:
    return None if loss is None else loss.hex()
