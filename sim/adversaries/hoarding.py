"""A node that keeps the first version of each transaction, whatever replaces it."""

from __future__ import annotations

from attrs import define, field

from protocol.envelope import WireError
from protocol.events import Event, Received
from protocol.messages import Kind, Statements, Transaction
from sim.filters import Filter
from sim.reading import read_statement


@define(eq=False)
class VersionKeeper(Filter):
    """Lets no later version of a transaction, and no batch with one in it, through to its engine.

    As a leader it so carries the old version where that applies. `kept` counts what it withheld.
    """

    kept: int = field(default=0, init=False)
    _first: dict[tuple[bytes, int], bytes] = field(factory=dict, init=False)

    def events(self, event: Event) -> list[Event]:
        if not isinstance(event, Received):
            return [event]
        try:
            statement = read_statement(event.data)
            inner = statement.body.envelopes if isinstance(statement.body, Statements) else (event.data,)
            opened = [read_statement(data) for data in inner]
        except (WireError, ValueError):
            return [event]
        later = 0
        for each in opened:
            if each.kind is Kind.TRANSACTION and isinstance(each.body, Transaction):
                first = self._first.setdefault((each.sender, each.body.nonce), each.id)
                later += first != each.id
        self.kept += later > 0
        return [] if later else [event]
