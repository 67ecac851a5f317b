"""Members that send too much, too large or too late, or starve one victim (docs/PROTOCOL.md section 7.4)."""

from __future__ import annotations

import hashlib

from attrs import define, field

from protocol.codec import encode
from protocol.envelope import Envelope, Statement, signing_digest
from protocol.events import Broadcast, Effect, Event
from protocol.messages import (
    STATEMENT_KINDS,
    BlockRequest,
    Blocks,
    Complaint,
    Kind,
    SealedVote,
    Statements,
    Transaction,
    TransactionKind,
)
from sim.adversaries.tampering import StatementTampering, heard
from sim.reading import read_statement


@define(eq=False)
class Replayer(StatementTampering):
    """Says everything of a round once more in the next: its own messages, and statements of all others."""

    _said: dict[int, list[bytes]] = field(factory=dict, init=False)
    _done: set[int] = field(factory=set, init=False)
    replayed: int = field(default=0, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            if statement.kind in STATEMENT_KINDS:
                self._said.setdefault(statement.round, []).append(statement.to_bytes())
        return [event]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        for effect in list(performed):
            if not isinstance(effect, Broadcast):
                continue
            statement = read_statement(effect.data)
            self._said.setdefault(statement.round, []).append(effect.data)
            old = statement.round - 1
            if statement.kind is not Kind.KEY_ADVERT and old in self._said and old not in self._done:
                self._done.add(old)
                again = list(dict.fromkeys(self._said[old]))
                self.replayed += len(again)
                performed += [Broadcast(data) for data in again]
        return performed


@define(eq=False)
class Flooder(StatementTampering):
    """With everything that it says it says `count` things more: noise, requests, and statements.

    The statements are valid, of its own, and no two alike: contradictions, complaints, transactions.
    """

    count: int
    sent: int = field(default=0, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        spoken = next((e for e in performed if isinstance(e, Broadcast)), None)
        if spoken is None:
            return performed
        round_ = read_statement(spoken.data).round
        for _ in range(self.count):
            self.sent += 1
            performed.append(Broadcast(self._more(round_, self.sent)))
        return performed

    def _more(self, round_: int, number: int) -> bytes:
        noise = hashlib.sha256(number.to_bytes(8, "big")).digest()
        match number % 5:
            case 0:
                return noise
            case 1:
                return self.signed(round_, Kind.BLOCK_REQUEST, BlockRequest(1)).to_bytes()
            case 2:
                return self.signed(round_, Kind.SEALED_VOTE, SealedVote(0, noise)).to_bytes()
            case 3:
                return self.signed(round_, Kind.COMPLAINT, Complaint(noise)).to_bytes()
            case _:
                fund = Transaction(TransactionKind.FUND, number, self.identity.peer, 1)
                return self.signed(0, Kind.TRANSACTION, fund).to_bytes()


@define(eq=False)
class Oversender(StatementTampering):
    """With everything that it says it sends two messages of `size` bytes: a payload that none may have, and a
    body.
    """

    size: int
    sent: int = field(default=0, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        spoken = next((e for e in performed if isinstance(e, Broadcast)), None)
        if spoken is None:
            return performed
        round_ = read_statement(spoken.data).round
        self.sent += 2
        heavy = self.signed(round_, Kind.COMPLAINT, Complaint(self.identity.peer), bytes(self.size))
        return [*performed, Broadcast(heavy.to_bytes()), Broadcast(self._long(round_))]

    def _long(self, round_: int) -> bytes:
        body = bytes(self.size)
        digest = signing_digest(self.network, round_, Kind.COMPLAINT, self.identity.peer, body)
        envelope = Envelope(
            1,
            self.network,
            round_,
            int(Kind.COMPLAINT),
            self.identity.peer,
            body,
            self.identity.sign(digest),
        )
        return encode(envelope)


@define(eq=False)
class Eclipser(StatementTampering):
    """Tells a victim nothing of anybody else, and nobody anything of the victim."""

    victim: bytes

    def relays(self, statement: Statement, to: bytes | None) -> bool:
        return self.victim not in (statement.sender, to)

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        starved = isinstance(statement.body, Blocks | Statements) and to == self.victim
        return None if starved else statement
