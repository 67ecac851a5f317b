"""Bad sources of blocks, and askers that want too many (docs/PROTOCOL.md section 7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar

from attrs import define, evolve, field

from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Event, Send, TimerFired
from protocol.messages import BlockRequest, Blocks, Have, Kind
from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.tampering import StatementTampering, heard
from sim.filters import Filter
from sim.reading import read_statement


class Serves(Enum):
    """What a bad source does with the blocks that an asker lacks."""

    NOTHING = "nothing"
    GARBAGE = "garbage"
    BENT = "bent"
    UNLINKED = "unlinked"
    ONE = "one"
    LATE = "late"


@define(eq=False)
class BadSource(StatementTampering):
    """Tells a height of its own making, `ahead` above the real one, and serves blocks as `serves` has it.

    Late: a reply leaves with the next event of its repair timer but one, after up to two intervals.
    """

    serves: Serves
    ahead: int = 0
    _held: list[Send] = field(factory=list, init=False)
    _ripe: list[Send] = field(factory=list, init=False)
    _is_due: bool = field(default=False, init=False)

    def events(self, event: Event) -> list[Event]:
        self._is_due |= isinstance(event, TimerFired) and event.key == "repair"
        return [event]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        if self.serves is Serves.LATE:
            replies = [e for e in performed if isinstance(e, Send) and _is_reply(e.data)]
            performed = [e for e in performed if e not in replies]
            self._held += replies
            if self._is_due:
                performed += self._ripe
                self._ripe, self._held = self._held, []
        self._is_due = False
        return performed

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        body = statement.body
        if isinstance(body, Have) and self.ahead:
            return self.signed(statement.round, Kind.HAVE, evolve(body, height=body.height + self.ahead))
        if not isinstance(body, Blocks) or self.serves is Serves.LATE:
            return statement
        blocks = self._bent(body.blocks)
        return self.signed(statement.round, Kind.BLOCKS, Blocks(blocks)) if blocks else None

    def _bent(self, blocks: tuple[bytes, ...]) -> tuple[bytes, ...]:
        match self.serves:
            case Serves.GARBAGE:
                return (bytes(len(blocks[0])),)
            case Serves.BENT:
                return tuple(data[:-1] + bytes((data[-1] ^ 1,)) for data in blocks)
            case Serves.UNLINKED:
                return blocks[1:]
            case Serves.ONE:
                return blocks[:1]
            case _:
                return ()


def _is_reply(data: bytes) -> bool:
    return isinstance(read_statement(data).body, Blocks)


@define(eq=False)
class GreedyAsker(StatementTampering):
    """Asks everybody it hears of for blocks again and again, `count` times with each of its broadcasts."""

    count: int
    _known: dict[bytes, None] = field(factory=dict, init=False)
    STRIDE: ClassVar[int] = 3

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            self._known.setdefault(statement.sender, None)
        return [event]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        spoken = next((e for e in performed if isinstance(e, Broadcast)), None)
        if spoken is not None:
            round_ = read_statement(spoken.data).round
            for number in range(self.count):
                request = self.signed(round_, Kind.BLOCK_REQUEST, BlockRequest(1 + number * self.STRIDE))
                performed += [
                    Send(peer, request.to_bytes()) for peer in self._known if peer != self.identity.peer
                ]
        return performed


def _source(about: str, serves: Serves, ahead: int = 0) -> Behaviour:
    def make(actor: Actor) -> Filter:
        return BadSource(actor.identity, actor.network, serves, actor.option("ahead", ahead))

    return Behaviour(about=about, make=make, options=frozenset({"ahead"}))


SOURCES: Mapping[str, Behaviour] = {
    "boasting-source": _source("tells a height that nobody has, and serves no block", Serves.NOTHING, 1_000),
    "silent-source": _source("serves no block", Serves.NOTHING),
    "garbage-source": _source("serves bytes that are no blocks", Serves.GARBAGE),
    "bending-source": _source("serves every block with one byte changed", Serves.BENT),
    "unlinked-source": _source("serves blocks that do not follow", Serves.UNLINKED),
    "stingy-source": _source("serves one block at a time", Serves.ONE),
    "late-source": _source("serves blocks when nobody waits for them any more", Serves.LATE),
    "greedy-asker": Behaviour(
        about="asks for the same blocks again and again",
        make=lambda actor: GreedyAsker(actor.identity, actor.network, actor.option("count", 8)),
        options=frozenset({"count"}),
    ),
}
