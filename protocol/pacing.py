"""How long a node holds a phase back: the round interval, and the gap between OPEN blocks (section 3.9).

All of it is one node's clock. It says when this node speaks, never whether a block is valid; so a node whose
clock is wrong, or that has just started, costs the others nothing.
"""

from __future__ import annotations

from protocol.certificates import more_than_third
from protocol.compose import applicable_transactions
from protocol.duties.desk import Desk
from protocol.events import Millis
from protocol.ledger.settlement import LEAST_SURVIVORS
from protocol.ledger.state import LedgerState, Phase
from protocol.messages import Kind

OPEN_GAP_MS = 1_000
"""Between two OPEN blocks without roles: who sends transactions one by one shares blocks with others."""


def waits_for_transactions(state: LedgerState) -> bool:
    """§3.9. Return whether only transactions bring the next block: training rests, or too few may vote."""
    if state.learning.phase is not Phase.ADVERT:
        return False
    return state.rests or len(state.validators) <= LEAST_SURVIVORS


class Pacing:
    """Tells how long this node holds back what it says in the phase that begins."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._life_began_ms: Millis | None = None
        self._dealt_ms: Millis | None = None
        self._dealt_round = 0
        self._is_holding = False

    def begin_life(self, now: Millis) -> None:
        """Note when this life began: the last dealing of the life before it was no later."""
        self._life_began_ms = now

    def hold_ms(self, now: Millis) -> Millis:
        """§3.9. Return for how long, in ms, the phase that begins now is held back; 0: not at all."""
        state = self.desk.state
        if self._is_holding:  # the others went on without this node: their interval was over by now
            self._dealt_ms, self._is_holding = now, False
        if state.learning.phase is Phase.ADVERT:
            return OPEN_GAP_MS if state.learning.reformed and waits_for_transactions(state) else 0
        if state.learning.phase is not Phase.SHARE or self.is_overtaken():
            return 0
        last_ms = self._dealt_ms if self._dealt_ms is not None else self._life_began_ms
        if last_ms is None or state.round == 1:
            return 0
        hold_ms = max(0, last_ms + self._interval_ms - now)
        self._is_holding = hold_ms > 0
        return hold_ms

    @property
    def _interval_ms(self) -> Millis:
        pace = self.desk.rules.params.pace
        return 0 if pace is None else pace.interval_ms

    def is_overtaken(self) -> bool:
        """§3.9. Return whether this node has dealt already, or others who cannot all be faulty have.

        More than 1/3 of the validators, or all other proposers where they are fewer: then the interval is
        over for an honest one of them, and this node's clock is behind.
        """
        state, pool, me = self.desk.state, self.desk.pool, self.desk.me
        proposers = state.learning.proposers
        if pool.get(state.round, Kind.SHARE_BUNDLE, me) is not None:
            return True
        dealt = sum(pool.get(state.round, Kind.SHARE_BUNDLE, peer) is not None for peer in proposers)
        others = len(proposers) - (me in proposers)
        return dealt >= min(more_than_third(len(state.validators)), others)

    def note_dealing(self, now: Millis) -> None:
        """Note that the dealing of this round begins, where a SHARE phase does."""
        state = self.desk.state
        if state.learning.phase is Phase.SHARE and self._dealt_round < state.round:
            self._dealt_ms, self._dealt_round, self._is_holding = now, state.round, False

    def has_to_say(self) -> bool:
        """§3.9. Return whether a Ready is due: not in a hold, nor before the transaction it waits for."""
        return not self.desk.clock.held and (
            not waits_for_transactions(self.desk.state) or self.has_applicable_transaction()
        )

    def has_applicable_transaction(self) -> bool:
        """Return whether any transaction at hand applies now."""
        return bool(applicable_transactions(self.desk.state, self.desk.rules, self.desk.pool, most=1))
