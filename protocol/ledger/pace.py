"""The pace and the end of training: options of a network (docs/PROTOCOL.md section 3.9).

The interval is a clock's, so it decides when a dealing is sent and never whether a block is valid
(`protocol.pacing`). Whether training rests is a function of the ledger alone, and stands here: integers only,
no clock.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import evolve, field, frozen

from protocol.codec import int_range
from protocol.ledger.economy import UNITS

MAX_ROUNDS = 1 << 31
DAY_MS = 86_400_000


class Rest(IntEnum):
    """Why training rests."""

    NONE = 0
    ROUNDS = 1
    PATIENCE = 2
    DONE = 3


@frozen(kw_only=True)
class Pace:
    """When the rounds of a network begin, and when training rests.

    `interval_ms`: from one round's dealing to the next one's, at least; 0: as fast as the phases go.
    `rounds`: after the end of this round training rests; 0: without end. `patience`: training rests after so
    many judged rounds in a row without a better model; 0: never. `heeds_done`: training rests once more than
    half of all voters say in their openings that the task is done. `resume_units`: what a FUND must bring for
    each round that training goes on for after it rested; 0: nothing wakes it.
    """

    interval_ms: int = field(default=0, validator=int_range(0, DAY_MS))
    rounds: int = field(default=0, validator=int_range(0, MAX_ROUNDS))
    patience: int = field(default=0, validator=int_range(0, MAX_ROUNDS))
    heeds_done: bool = False
    resume_units: int = field(default=10 * UNITS, validator=int_range(0, 1 << 50))

    def begin(self) -> Training:
        """Return the training state of a network that begins."""
        return Training(last_round=self.rounds)


@frozen(kw_only=True)
class Training:
    """How far training has come, as part of the ledger's state.

    `last_round`: after this one training rests; 0: without end. `paid`: the rounds until then are paid for,
    and neither patience nor voters end them. `stale`: judged rounds since the last better model. `rest`: why
    training rests. `funded_units`: what FUND transactions brought while it rests.
    """

    last_round: int = field(default=0, validator=int_range(0, 1 << 40))
    paid: bool = False
    stale: int = field(default=0, validator=int_range(0, 1 << 40))
    rest: Rest = Rest.NONE
    funded_units: int = field(default=0, validator=int_range(0, 1 << 60))

    def after_round(self, pace: Pace, *, ended: int, judged: bool, better: bool, done: bool) -> Training:
        """§3.9. Return the state after round `ended`; if it was `judged`, a better model was found or not."""
        stale = self.stale if not judged else 0 if better else self.stale + 1
        rest = Rest.NONE
        if self.last_round and ended >= self.last_round:
            rest = Rest.ROUNDS
        elif pace.heeds_done and done and not self.paid:
            rest = Rest.DONE
        elif pace.patience and stale >= pace.patience and not self.paid:
            rest = Rest.PATIENCE
        return evolve(self, stale=stale, rest=rest, funded_units=0)

    def after_funding(self, pace: Pace, *, round_: int, units: int) -> Training:
        """§3.9. Return the state once FUND transactions brought `units`, where `round_` is the next one."""
        funded = self.funded_units + units
        if self.rest is Rest.NONE or not pace.resume_units or funded < pace.resume_units:
            return evolve(self, funded_units=funded if self.rest else 0)
        paid = min(funded // pace.resume_units, MAX_ROUNDS)
        return Training(last_round=round_ + paid - 1, paid=True)
