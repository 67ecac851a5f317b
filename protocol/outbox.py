"""Effects in the order in which they are to be performed, and the signing of what leaves the node."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from protocol import durable
from protocol.envelope import Statement, make_statement
from protocol.events import Broadcast, Effect, Notify, Penalise, Persist, Send
from protocol.keys import Identity
from protocol.messages import Body, Kind
from protocol.pool import Pool


@define(eq=False)
class Outbox:
    """Collects the effects of one event. `note_signed` hears of every message that is signed."""

    identity: Identity
    network: bytes
    pool: Pool
    note_signed: Callable[[Statement], None]
    effects: list[Effect] = field(factory=list, init=False)

    def add(self, effect: Effect) -> None:
        self.effects.append(effect)

    def take(self) -> list[Effect]:
        """All effects since the last call."""
        taken, self.effects = self.effects, []
        return taken

    def persist(self, bucket: str, key: bytes, value: bytes | None) -> None:
        self.add(Persist(bucket, key, value))

    def notify(self, topic: str, **fields: object) -> None:
        self.add(Notify(topic, fields))

    def penalise(self, peer: bytes, reason: str) -> None:
        """Report a peer for one of `protocol.offences.OFFENCES`. A node never reports itself.

        What bears its own name may be a twin's, or what more than 1/3 have led it to repeat.
        """
        if peer != self.identity.peer:
            self.add(Penalise(peer, reason))

    def publish(self, round_: int, kind: Kind, body: Body, payload: bytes = b"") -> Statement:
        """Make an own statement: durable first, then in the pool, then to everyone."""
        statement = self._sign(round_, kind, body, payload)
        self.spread(statement)
        return statement

    def spread(self, statement: Statement) -> None:
        """Publish an own statement that is signed already."""
        data = statement.to_bytes()
        self.persist(durable.STATEMENT, durable.round_key(statement.round, statement.id), data)
        self.pool.add(statement)
        self.add(Broadcast(data))

    def send(self, peer: bytes, round_: int, kind: Kind, body: Body, payload: bytes = b"") -> None:
        """A message for one peer; nothing is kept."""
        statement = self._sign(round_, kind, body, payload)
        self.add(Send(peer, statement.to_bytes()))

    def announce(self, round_: int, kind: Kind, body: Body, payload: bytes = b"") -> Statement:
        """A message for everyone that is no statement; nothing is kept."""
        statement = self._sign(round_, kind, body, payload)
        self.add(Broadcast(statement.to_bytes()))
        return statement

    def signed(self, round_: int, kind: Kind, body: Body) -> Statement:
        """A message that is signed and not sent."""
        return self._sign(round_, kind, body, b"")

    def send_statement(self, peer: bytes, statement: Statement) -> None:
        """Send what is signed already."""
        self.add(Send(peer, statement.to_bytes()))

    def _sign(self, round_: int, kind: Kind, body: Body, payload: bytes) -> Statement:
        statement = make_statement(self.identity, self.network, round_, kind, body, payload)
        self.note_signed(statement)
        return statement
