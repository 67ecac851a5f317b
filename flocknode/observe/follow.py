"""Following a running network from outside: its nodes' logs as they grow, and one replay of its ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from flocknode.observe.ledger import LedgerError, Step, stored_blocks
from flocknode.observe.nodelog import NodeLog
from flocknode.observe.rounds import PHASE_NAMES, RoundCollector, RoundRecord
from protocol.ledger.chain import Chain, ChainError
from protocol.ledger.state import LedgerState
from protocol.params import Genesis


@define(eq=False)
class Follower:
    """Reads node directories of one network; `poll` again and again. Blocks are checked before they count.

    `rounds`: those that have ended. `fault`: why no further block was taken. `on_step` hears of every block:
    one look may take in several.
    """

    genesis: Genesis
    directories: Sequence[Path]
    on_step: Callable[[Step], None] = lambda step: None
    logs: list[NodeLog] = field(init=False)
    rounds: list[RoundRecord] = field(factory=list, init=False)
    fault: str | None = field(default=None, init=False)
    _chain: Chain = field(init=False)
    _collector: RoundCollector = field(factory=RoundCollector, init=False)

    def __attrs_post_init__(self) -> None:
        self.logs = [NodeLog(directory) for directory in self.directories]
        self._chain = Chain.at_genesis(self.genesis)

    @property
    def state(self) -> LedgerState:
        """After the last block taken."""
        return self._chain.state

    @property
    def phase(self) -> str:
        """What the network waits for, in the words of docs/PROTOCOL.md section 3."""
        return PHASE_NAMES[self.state.learning.phase]

    def poll(self) -> list[tuple[int, dict[str, Any]]]:
        """Take in what is new; the new log entries, each with the number of its directory."""
        entries = [(index, entry) for index, log in enumerate(self.logs) for entry in log.read()]
        ahead = max(self.logs, key=lambda log: log.height)
        if ahead.height > self._chain.height and self.fault is None:
            self._take_blocks(ahead.directory, ahead.height)
        return entries

    def _take_blocks(self, directory: Path, last: int) -> None:
        try:
            for stored in stored_blocks(directory, self._chain.height + 1, last):
                before = self._chain.state
                step = Step(stored, before, self._chain.append(stored))
                record = self._collector.take(step)
                if record is not None:
                    self.rounds.append(record)
                self.on_step(step)
        except (ChainError, LedgerError) as error:
            self.fault = f"{directory}: {error}"
