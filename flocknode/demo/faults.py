"""Killing proposers where it hurts: after they have shared their secrets, before they upload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from attrs import define, field

from flocknode.demo.fleet import Fleet
from protocol.ledger.state import LedgerState, Phase


@define(eq=False)
class Dropper:
    """In every `every`-th round kills `count` members of U1 once the setup block pins them.

    They are in training then (`Behaviour.train_delay_ms`), and are started again when the contribution block
    has gone without them. `members`: node index by peer.
    """

    fleet: Fleet
    members: Mapping[bytes, int]
    count: int
    every: int
    killed: list[tuple[int, int]] = field(factory=list, init=False)
    """(round, node index), in the order of the kills."""
    down: list[int] = field(factory=list, init=False)
    _last_round: int = field(default=0, init=False)

    def step(self, state: LedgerState) -> None:
        """Do what is due in this state of the ledger."""
        contributing = state.learning.phase is Phase.CONTRIBUTE
        if self.down and (state.round > self._last_round or not contributing):
            for index in self.down:
                self.fleet.start(index)
            self.down = []
        if self.count and contributing and state.round % self.every == 0 and state.round > self._last_round:
            self._last_round = state.round
            for index in self._victims(state):
                self.fleet.kill(index)
                self.killed.append((state.round, index))
                self.down.append(index)

    def _victims(self, state: LedgerState) -> list[int]:
        """Those that were killed least often."""
        past = Counter(index for _, index in self.killed)
        sharers = [self.members[bundle.peer] for bundle in state.learning.sharers]
        return sorted(sharers, key=lambda index: (past[index], index))[: self.count]
