"""Envelopes that stand in blocks, each opened and verified once."""

from __future__ import annotations

from collections import OrderedDict

from attrs import evolve

from protocol.envelope import Statement, open_envelope

CACHE_SIZE = 4096


class Cited:
    """Opens envelopes without payload. What a node received or made itself is remembered as opened."""

    def __init__(self, network: bytes) -> None:
        self.network = network
        self._opened: OrderedDict[bytes, Statement] = OrderedDict()

    def open(self, data: bytes) -> Statement:
        """Raises `WireError`."""
        known = self._opened.get(data)
        if known is not None:
            self._opened.move_to_end(data)
            return known
        statement = open_envelope(data, self.network, stripped=True)
        self._keep(data, statement)
        return statement

    def remember(self, statement: Statement) -> None:
        """A statement whose signature is known to hold."""
        bare = evolve(statement.envelope, payload=b"")
        self._keep(statement.cited(), Statement(bare, statement.body, statement.id))

    def _keep(self, data: bytes, statement: Statement) -> None:
        self._opened[data] = statement
        if len(self._opened) > CACHE_SIZE:
            self._opened.popitem(last=False)
