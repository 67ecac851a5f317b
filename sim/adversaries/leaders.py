"""Dishonest leaders and time-outs (docs/PROTOCOL.md section 7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from attrs import define, evolve, field

from protocol.codec import encode
from protocol.envelope import Statement, make_statement, open_envelope
from protocol.events import Broadcast, Effect, Send
from protocol.keys import Identity
from protocol.ledger.block import (
    AbortBody,
    AggregateBody,
    Block,
    BlockBody,
    BlockKind,
    OpenBody,
    OutcomeBody,
    SetupBody,
    decode_block,
    decode_body,
)
from protocol.messages import Body, Kind, Proposal, ShareBundle, Timeout, Transaction, Vote
from sim.adversaries.following import Following
from sim.adversaries.tampering import StatementTampering
from sim.reading import read_statement


@define(eq=False)
class RewritingLeader(StatementTampering, ABC):
    """Proposes another block than the one that its engine made."""

    @abstractmethod
    def rewritten(self, block: Block) -> Block:
        """What the subclass does."""

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, Proposal):
            return statement
        block = decode_block(statement.envelope.payload)
        other = self.rewritten(block)
        if other == block:
            return statement
        body = evolve(statement.body, block_hash=other.hash)
        return self.signed(statement.round, Kind.PROPOSAL, body, encode(other))


@define(eq=False)
class FramingLeader(RewritingLeader):
    """Proposes blocks that break a rule, and that name somebody else as their leader."""

    victim: bytes

    def rewritten(self, block: Block) -> Block:
        return evolve(block, leader=self.victim, state_root=bytes(32))


@define(eq=False)
class CitingLeader(Following, RewritingLeader):
    """Puts into its blocks of one kind what no honest node would take, and works out where that leads."""

    kind: BlockKind
    change: Callable[[BlockBody], BlockBody]

    def rewritten(self, block: Block) -> Block:
        if block.kind is not self.kind or block.parent != self.chain.head:
            return block
        return self.rebuilt(block, self.change(decode_body(block)))


def with_own_entry(
    identity: Identity, network: bytes, entries: tuple[bytes, ...], change: Callable[[Body], Body]
) -> tuple[bytes, ...]:
    """The entries of a block, with another statement of the liar in the place of its own, if it has one."""
    opened = [open_envelope(data, network, stripped=True) for data in entries]
    return tuple(
        make_statement(identity, network, own.round, own.kind, change(own.body)).cited()
        if own.sender == identity.peer
        else data
        for own, data in zip(opened, entries, strict=True)
    )


def heavy_bundle(identity: Identity, network: bytes, weight: int) -> Callable[[BlockBody], BlockBody]:
    """What a `CitingLeader` makes of a SETUP block, to have the sum divided by as much as it likes."""

    def heavier(body: Body) -> Body:
        assert isinstance(body, ShareBundle)
        return evolve(body, weight=weight)

    def change(body: BlockBody) -> BlockBody:
        assert isinstance(body, SetupBody)
        return SetupBody(with_own_entry(identity, network, body.bundles, heavier))

    return change


def copied_keys(identity: Identity, network: bytes) -> Callable[[BlockBody], BlockBody]:
    """What a `CitingLeader` makes of the adverts in a block: its own keys are those of somebody else."""

    def copied(entries: tuple[bytes, ...]) -> tuple[bytes, ...]:
        opened = (open_envelope(data, network, stripped=True) for data in entries)
        victim = next((each.body for each in opened if each.sender != identity.peer), None)
        if victim is None:
            return entries
        return with_own_entry(identity, network, entries, lambda own: victim)

    def change(body: BlockBody) -> BlockBody:
        match body:
            case OpenBody():
                return OpenBody(evolve(body.closing, adverts=copied(body.closing.adverts)))
            case AggregateBody():
                return evolve(body, adverts=copied(body.adverts))
            case _:
                return body

    return change


@define(eq=False)
class TwoBlockLeader(StatementTampering):
    """Signs two valid blocks whenever it leads, and shows the peers in `misled` the second one."""

    misled: tuple[bytes, ...]
    others: tuple[bytes, ...]
    struck: int = field(default=0, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [shown for effect in super().effects(effects) for shown in self._two_faced(effect)]

    def _two_faced(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast):
            return [effect]
        statement = read_statement(effect.data)
        body = statement.body
        if not isinstance(body, Proposal) or statement.sender != self.identity.peer or body.qc is not None:
            return [effect]
        block = decode_block(statement.envelope.payload)
        other = evolve(block, view=block.view + 1)  # no rule is about this number
        lie = self.signed(statement.round, Kind.PROPOSAL, evolve(body, block_hash=other.hash), encode(other))
        self.struck += 1
        return [
            *(Send(peer, effect.data) for peer in self.others),
            *(Send(peer, lie.to_bytes()) for peer in self.misled),
        ]


@define(eq=False)
class Censor(Following, RewritingLeader):
    """Leaves the transactions of a victim out of its blocks, and does not pass them on."""

    victim: bytes
    struck: int = field(default=0, init=False)

    def relays(self, statement: Statement, to: bytes | None) -> bool:
        return not isinstance(statement.body, Transaction) or statement.sender != self.victim

    def rewritten(self, block: Block) -> Block:
        body = decode_body(block)
        if not isinstance(body, OpenBody | OutcomeBody | AbortBody):
            return block
        kept = tuple(data for data in body.closing.transactions if read_statement(data).sender != self.victim)
        if kept == body.closing.transactions:
            return block
        self.struck += 1
        return self.rebuilt(block, evolve(body, closing=evolve(body.closing, transactions=kept)))


@define(eq=False)
class DoubleVoter(StatementTampering):
    """Signs a vote for a block that there is not, beside every vote of the agreement."""

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [shown for effect in super().effects(effects) for shown in self._doubled(effect)]

    def _doubled(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Send):
            return [effect]
        statement = read_statement(effect.data)
        if not isinstance(statement.body, Vote) or statement.sender != self.identity.peer:
            return [effect]
        other = evolve(statement.body, block_hash=bytes(32))
        lie = self.signed(statement.round, Kind.VOTE, other)
        return [effect, Send(effect.peer, lie.to_bytes())]


@define(eq=False)
class TimeoutClimber(StatementTampering):
    """Claims to have given up on a view `ahead` of the one that it gives up on, as high as others keep."""

    ahead: int

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, Timeout):
            return statement
        body = evolve(statement.body, view=statement.body.view + self.ahead)
        return self.signed(statement.round, Kind.TIMEOUT, body, statement.envelope.payload)
