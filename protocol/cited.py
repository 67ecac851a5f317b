"""Envelopes that stand in blocks, each opened and verified once."""

from __future__ import annotations

from protocol.checks import Checks
from protocol.envelope import Statement

CACHE_SIZE = 4096
CACHE_BYTES = 32 << 20
"""What the remembered envelopes may weigh: a leader's proposal may cite whatever its friends sign."""


class Cited:
    """Opens envelopes without payload. What a node received or made itself is remembered as opened."""

    def __init__(self, network: bytes, checks: Checks) -> None:
        self.network = network
        self._checks = checks
        self._opened: dict[bytes, Statement] = {}
        """The one used longest ago comes first."""
        self.held_bytes = 0

    def open(self, data: bytes) -> Statement:
        """Raises `WireError`."""
        known = self._opened.get(data)
        if known is not None:
            self._opened[data] = self._opened.pop(data)
            return known
        statement = self._checks.open(data, self.network, stripped=True)
        self._keep(data, statement)
        return statement

    def remember(self, statement: Statement) -> None:
        """A statement whose signature is known to hold."""
        bare = statement.bare
        self._keep(bare.encoded, bare)

    def forget_before(self, round_: int) -> None:
        """No later block cites statements of earlier rounds, save transactions, which are opened again."""
        for data in [data for data, statement in self._opened.items() if statement.round < round_]:
            del self._opened[data]
            self.held_bytes -= len(data)

    def _keep(self, data: bytes, statement: Statement) -> None:
        if data not in self._opened:
            self.held_bytes += len(data)
        self._opened[data] = statement
        if self.held_bytes > CACHE_BYTES or len(self._opened) > CACHE_SIZE:
            self._shrink()

    def _shrink(self) -> None:
        while len(self._opened) > CACHE_SIZE or self.held_bytes > CACHE_BYTES:
            oldest = next(iter(self._opened))
            del self._opened[oldest]
            self.held_bytes -= len(oldest)
