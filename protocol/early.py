"""Messages that came before their height: kept by height, looked at once (docs/PROTOCOL.md section 8.6)."""

from __future__ import annotations

from collections import Counter

from protocol.envelope import Statement

EARLY_MESSAGES = 64
EARLY_BYTES = 4 << 20
"""Messages of later heights that are kept of each peer, and what they may weigh together."""
EARLY_BOXES = 4
"""Sealed boxes of a phase to come that are kept of each peer: two of this round, two of the next."""


class EarlyMessages:
    """What validators said of heights, or of rounds, that this node has yet to reach.

    Each message is given out once, when its place is reached, and is gone when its place has passed. Where a
    peer's room is full, its messages of the lowest place make way: a node that is far behind passes that
    height with blocks, and meets the later one. `most`: messages of one peer.
    """

    def __init__(self, most: int = EARLY_MESSAGES) -> None:
        self._most = most
        self._of_peer: dict[bytes, dict[int, list[Statement]]] = {}
        self._weights: Counter[bytes] = Counter()

    def keep(self, peer: bytes, place: int, statement: Statement) -> None:
        """Keep a message until its height (or round) is reached, within the peer's bounds."""
        kept = self._of_peer.setdefault(peer, {})
        if statement.kept_bytes > EARLY_BYTES or statement in kept.get(place, ()):
            return
        while kept and not self._fits(peer, statement):
            lowest = min(kept)
            if lowest >= place:
                return
            self._drop(peer, lowest)
        if self._fits(peer, statement):
            kept.setdefault(place, []).append(statement)
            self._weights[peer] += statement.kept_bytes

    def _fits(self, peer: bytes, statement: Statement) -> bool:
        count = sum(map(len, self._of_peer[peer].values()))
        return count < self._most and self._weights[peer] + statement.kept_bytes <= EARLY_BYTES

    def take(self, place: int) -> list[tuple[bytes, Statement]]:
        """Return what waits for this place, by peer, and forget it and what waits for passed places."""
        taken = [
            (peer, statement)
            for peer in sorted(self._of_peer)
            for statement in self._of_peer[peer].get(place, ())
        ]
        for peer in list(self._of_peer):
            for passed in [other for other in self._of_peer[peer] if other <= place]:
                self._drop(peer, passed)
            if not self._of_peer[peer]:
                del self._of_peer[peer]
        return taken

    def _drop(self, peer: bytes, place: int) -> None:
        self._weights[peer] -= sum(statement.kept_bytes for statement in self._of_peer[peer].pop(place))
        if not self._weights[peer]:
            del self._weights[peer]

    def counts(self) -> dict[bytes, int]:
        """Return how many messages are kept of each peer."""
        return {peer: sum(map(len, kept.values())) for peer, kept in self._of_peer.items()}

    def weights(self) -> dict[bytes, int]:
        """Return what the kept messages of each peer weigh, in bytes."""
        return dict(self._weights)
