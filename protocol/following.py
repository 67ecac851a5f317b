"""Sets of peers that follow the pool: each statement that comes in changes what holds of one peer only."""

from __future__ import annotations

from collections.abc import Callable, Set

from attrs import define, field

from protocol.messages import Kind
from protocol.pool import Pool


@define(eq=False)
class Following:
    """The peers of whom `holds` is true, brought up to date statement by statement.

    A statement is about its subject, or else its sender. Whatever `holds` looks at besides the statements of
    `kinds` must follow from the height: a new height starts afresh.
    """

    pool: Pool
    kinds: tuple[Kind, ...]
    holds: Callable[[bytes], bool]
    _height: int = field(default=-1, init=False)
    _read: list[int] = field(factory=list, init=False)
    _peers: set[bytes] = field(factory=set, init=False)

    def peers(self, height: int, round_: int) -> Set[bytes]:
        """Of the statements of this round; one set that goes on changing: copy what is to stay."""
        if self._height != height:
            self._height, self._read, self._peers = height, [0] * len(self.kinds), set()
        for place, kind in enumerate(self.kinds):
            changes = self.pool.changes(round_, kind)
            if len(changes) > self._read[place]:
                for slot in changes[self._read[place] :]:
                    self._judge(slot.subject or slot.sender)
                self._read[place] = len(changes)
        return self._peers

    def _judge(self, peer: bytes) -> None:
        if self.holds(peer):
            self._peers.add(peer)
        else:
            self._peers.discard(peer)
