"""Whether training rests, in words."""

from __future__ import annotations

from protocol.ledger.economy import UNITS
from protocol.ledger.pace import Rest
from protocol.ledger.state import LedgerState
from protocol.params import ProtocolParams

REASONS = {
    Rest.ROUNDS: "the last round has ended",
    Rest.PATIENCE: "no better model was found for long enough",
    Rest.DONE: "most voters say that the task is done",
}


def describe_rest(state: LedgerState, params: ProtocolParams) -> str:
    """Return why training rests and what goes on with it; empty while it does not rest."""
    training, pace = state.training, params.pace
    if training is None or pace is None or not state.rests:
        return ""
    price = pace.resume_units
    further = (
        f"a FUND of {price / UNITS:,.2f} tokens buys one more round" if price else "nothing goes on with it"
    )
    return f"training rests since round {state.round - 1}: {REASONS[training.rest]}; {further}"
