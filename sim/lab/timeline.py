"""When the faults of a scenario strike and when they are lifted. Pure: it is told the time and the ledger.

Seconds count from the moment at which all nodes are up. A place strikes the first time that the ledger gets
there; phases of one round may come back, faults do not.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from attrs import define, field, frozen

from protocol.ledger.state import LedgerState
from sim.scenario.manifest import Fault


@frozen
class Strike:
    """Fault number `number` of the manifest is due."""

    number: int


@frozen
class Lift:
    """What strike number `strike` did is to be undone."""

    strike: int


@define(eq=False)
class Timeline:
    """`begin` when all nodes are up, `reached` for every state of the ledger, `due` again and again."""

    faults: Sequence[Fault]
    _due: list[tuple[float, int, Strike | Lift]] = field(factory=list, init=False)
    _reached: set[int] = field(factory=set, init=False)
    _issued: int = field(default=0, init=False)
    _round: int = field(default=0, init=False)

    def begin(self, now_s: float) -> None:
        for number, fault in enumerate(self.faults):
            if fault.at_s is not None:
                self._push(now_s + fault.at_s + fault.after_s, Strike(number))

    def reached(self, state: LedgerState, now_s: float) -> None:
        """The ledger has got to this state."""
        self._round = max(self._round, state.round)
        for number, fault in enumerate(self.faults):
            if number not in self._reached and fault.place is not None and fault.place.is_reached(state):
                self._reached.add(number)
                self._push(now_s + fault.after_s, Strike(number))

    def lift_later(self, strike: int, when_s: float) -> None:
        self._push(when_s, Lift(strike))

    def due(self, now_s: float) -> list[Strike | Lift]:
        """What is to happen by now, in order. A repeated fault is due again until its round begins."""
        due: list[Strike | Lift] = []
        while self._due and self._due[0][0] <= now_s:
            when_s, _, what = heapq.heappop(self._due)
            if isinstance(what, Strike):
                fault = self.faults[what.number]
                if fault.until_round is not None and self._round >= fault.until_round:
                    continue
                if fault.every_s is not None:
                    # A machine that is late does not strike twice at once.
                    on_time_s = when_s + fault.every_s
                    self._push(on_time_s if on_time_s > now_s else now_s + fault.every_s, what)
            due.append(what)
        return due

    def missed(self) -> list[int]:
        """Faults whose place the ledger never reached, or whose second has not come."""
        waiting = {what.number for _, _, what in self._due if isinstance(what, Strike)}
        return [
            number
            for number, fault in enumerate(self.faults)
            if (number in waiting and fault.every_s is None)
            or (fault.place is not None and number not in self._reached)
        ]

    def _push(self, when_s: float, what: Strike | Lift) -> None:
        self._issued += 1
        heapq.heappush(self._due, (when_s, self._issued, what))
