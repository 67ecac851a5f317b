"""Two survivor sets, and false dropouts: what double masks and final blocks are for.

docs/PROTOCOL.md sections 3.5, 3.6 and 4.1.
"""

from __future__ import annotations

from attrs import define, evolve, field

from protocol.codec import encode
from protocol.compose import Findings, compose
from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Event, Send
from protocol.ledger.block import Block, BlockKind, ContributionBody, decode_block
from protocol.messages import STATEMENT_KINDS, Contribution, Kind, Proposal, Ready
from protocol.pool import Pool
from protocol.tally import Tally
from sim.adversaries.following import Following
from sim.adversaries.tampering import StatementTampering, heard
from sim.reading import read_statement


@define(eq=False)
class ContributionSilencer(StatementTampering):
    """Passes on no contribution of a victim, which it hopes to see declared dropped."""

    victim: bytes

    def relays(self, statement: Statement, to: bytes | None) -> bool:
        return not isinstance(statement.body, Contribution) or statement.sender != self.victim


@define(eq=False)
class SurvivorSplitter(Following):
    """A leader with a CONTRIBUTION block without a late victim, who waits until it can make one with it too.

    Both are valid, for each rests on Readys that were signed. Those in `misled` see the second one only.
    """

    misled: tuple[bytes, ...]
    others: tuple[bytes, ...]
    proposals: list[Statement] = field(factory=list, init=False)
    _pool: Pool = field(factory=Pool, init=False)
    _readys: dict[bytes, Statement] = field(factory=dict, init=False)
    _held: Statement | None = field(default=None, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            self._note(statement)
        return super().events(event)

    def _note(self, statement: Statement) -> None:
        if statement.kind in STATEMENT_KINDS:
            self._pool.add(statement)
        elif isinstance(statement.body, Ready) and statement.body.height == self.chain.height + 1:
            self._readys[statement.sender] = statement

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        if isinstance(statement.body, Proposal) and not self.proposals:
            block = decode_block(statement.envelope.payload)
            if block.kind is BlockKind.CONTRIBUTION and block.view == 1:
                self._held = statement
                return None
        return statement

    def effects(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Broadcast):
                self._note(read_statement(effect.data))
        performed = super().effects(effects)
        if self._held is not None:
            first = decode_block(self._held.envelope.payload)
            second = self._larger(first)
            if second is not None:
                assert isinstance(self._held.body, Proposal)
                body = evolve(self._held.body, block_hash=second.hash)
                other = self.signed(self._held.round, Kind.PROPOSAL, body, encode(second))
                self.proposals = [self._held, other]
                performed += [Send(peer, self._held.to_bytes()) for peer in self.others]
                performed += [Send(peer, other.to_bytes()) for peer in self.misled]
                self._held = None
        return performed

    def _larger(self, first: Block) -> Block | None:
        """The block that the latest Readys call for, if more stand in it than in the first."""
        chain = self.chain
        if first.parent != chain.head:
            return None
        readys = {s.sender: s for s in map(chain.opener, first.readys)} | self._readys
        current = [(peer, readys[peer]) for peer in sorted(readys)]
        tally = Tally(chain.state.validators, [(p, s.body) for p, s in current if isinstance(s.body, Ready)])
        body = compose(chain.state, chain.rules, tally, self._pool, Findings())
        if not isinstance(body, ContributionBody) or encode(body) == first.body:
            return None
        return self.rebuilt(evolve(first, readys=tuple(s.cited() for _, s in current)), body)
