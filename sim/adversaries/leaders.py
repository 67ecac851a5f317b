"""Dishonest leaders and time-outs (docs/PROTOCOL.md section 7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from attrs import define, evolve

from protocol.codec import encode
from protocol.engine import Engine
from protocol.envelope import Statement, open_envelope
from protocol.ledger.block import Block, BlockBody, BlockKind, decode_block, decode_body
from protocol.messages import Kind, Proposal, Timeout
from protocol.pinning import Rules
from protocol.round import BlockError, block_effect
from sim.adversaries.tampering import StatementTampering


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
class CitingLeader(RewritingLeader):
    """Puts into its blocks of one kind what no honest node would take, and works out where that leads."""

    engine: Callable[[], Engine]
    kind: BlockKind
    change: Callable[[BlockBody], BlockBody]

    def rewritten(self, block: Block) -> Block:
        engine = self.engine()
        body = decode_body(block)
        if block.kind is not self.kind or block.parent != engine.head:
            return block
        other = evolve(block, body=encode(self.change(body)), state_root=bytes(32))
        rules = Rules(engine.genesis.params, self.network)
        try:
            after = block_effect(
                engine.state,
                other,
                engine.head,
                rules,
                lambda data: open_envelope(data, self.network, stripped=True),
            )
        except BlockError:
            return other
        return evolve(other, state_root=after.root)


@define(eq=False)
class TimeoutClimber(StatementTampering):
    """Claims to have given up on a view `ahead` of the one that it gives up on, as high as others keep."""

    ahead: int

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if not isinstance(statement.body, Timeout):
            return statement
        body = evolve(statement.body, view=statement.body.view + self.ahead)
        return self.signed(statement.round, Kind.TIMEOUT, body, statement.envelope.payload)
