"""Adversaries that follow the ledger, so as to make blocks of their own (docs/PROTOCOL.md section 3)."""

from __future__ import annotations

from attrs import define, evolve, field

from protocol import durable
from protocol.codec import encode
from protocol.events import Effect, Event, Persist, Start
from protocol.ledger.block import Block, BlockBody, decode_stored_block
from protocol.ledger.chain import Chain
from protocol.params import Genesis
from protocol.round import BlockError, block_effect
from sim.adversaries.tampering import StatementTampering


@define(eq=False)
class Following(StatementTampering):
    """Keep a ledger of its own, from where its node's ends at start and by the blocks that it stores."""

    genesis: Genesis
    chain: Chain = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chain = Chain.at_genesis(self.genesis)

    def events(self, event: Event) -> list[Event]:
        if isinstance(event, Start):
            self.chain = Chain.at_genesis(self.genesis)
            if event.ledger is not None:
                self.chain.state, self.chain.head = event.ledger.state, event.ledger.head
        return super().events(event)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Persist) and effect.bucket == durable.BLOCK and effect.value is not None:
                self._take(effect.value)
        return super().effects(effects)

    def _take(self, value: bytes) -> None:
        block = decode_stored_block(value).block
        self.chain.take(block, self.chain.effect(block))

    def rebuilt(self, block: Block, body: BlockBody) -> Block:
        """The block with another body, and the state root that this leads to where it is valid at all."""
        chain = self.chain
        other = evolve(block, body=encode(body), state_root=bytes(32))
        try:
            after = block_effect(chain.state, other, chain.head, chain.rules, chain.opener)
        except BlockError:
            return other
        return evolve(other, state_root=after.root)
