"""Vectors of the stake contract: a gamma that follows the votes (section 6), and its bytes (section 8.5)."""

from __future__ import annotations

import attrs
from attrs import evolve

from flocknode.vectors.agreement import example_genesis
from flocknode.vectors.values import Document
from protocol.codec import encode
from protocol.ledger.adaptive import AdaptiveGamma, Tally
from protocol.ledger.state import genesis_state

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
