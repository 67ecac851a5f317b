"""Adversaries of a network's pace: who hurries it, who makes blocks for nothing, who keeps it busy at rest.

docs/PROTOCOL.md section 3.9.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve, field

from protocol import durable
from protocol.events import Broadcast, Effect, Persist, SetTimer
from protocol.ledger.block import Block, BlockBody, BlockKind, OpenBody, decode_body
from protocol.messages import Kind, Transaction, TransactionKind
from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.following import Following
from sim.adversaries.leaders import CitingLeader, RewritingLeader
from sim.filters import Filter


class EarlyDealer(Filter):
    """Deals as soon as a round's SHARE phase begins, whatever the interval."""

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [
            SetTimer("hold", 0) if isinstance(effect, SetTimer) and effect.key == "hold" else effect
            for effect in effects
        ]


@define(eq=False)
class EmptyOpener(Following, RewritingLeader):
    """Leaves the transactions out of its OPEN blocks that draw no roles: blocks for nothing."""

    def rewritten(self, block: Block) -> Block:
        body = decode_body(block)
        if not isinstance(body, OpenBody) or not body.closing.transactions or body.closing.adverts:
            return block
        return self.rebuilt(block, OpenBody(evolve(body.closing, transactions=())))


@define(eq=False)
class Spammer(Following):
    """Asks for a transfer of one unit behind every block without roles, `count` times in all."""

    count: int
    recipient: bytes
    asked: int = field(default=0, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        state = self.chain.state
        account = state.account(self.identity.peer)
        took = any(isinstance(e, Persist) and e.bucket == durable.BLOCK for e in performed)
        if took and state.rests and account is not None and self.asked < self.count:
            self.asked += 1
            body = Transaction(TransactionKind.TRANSFER, account.nonce, self.recipient, 1)
            performed.append(Broadcast(self.signed(0, Kind.TRANSACTION, body).to_bytes()))
        return performed


def _with_evidence_of_nothing(body: BlockBody) -> BlockBody:
    """An OPEN block that cites the same advert twice as a contradiction."""
    assert isinstance(body, OpenBody)
    entries = body.closing.transactions[:1] or body.closing.adverts[:1]
    return OpenBody(evolve(body.closing, equivocations=((entries[0], entries[0]),))) if entries else body


def _spammer(actor: Actor) -> Filter:
    peers = [identity.peer for identity in actor.founding.identities]
    recipient = next(peer for peer in peers if peer != actor.identity.peer)
    return Spammer(
        actor.identity, actor.network, actor.founding.genesis, actor.option("count", 20), recipient
    )


PACE_BREAKERS: Mapping[str, Behaviour] = {
    "early-dealer": Behaviour(
        about="deals as soon as a round begins, whatever the interval", make=lambda actor: EarlyDealer()
    ),
    "empty-opener": Behaviour(
        about="proposes OPEN blocks that draw no roles and carry nothing",
        make=lambda actor: EmptyOpener(actor.identity, actor.network, actor.founding.genesis),
    ),
    "spammer": Behaviour(
        about="asks for a transfer of one unit behind every block while training rests",
        make=_spammer,
        options=frozenset({"count"}),
    ),
    "accusing-opener": Behaviour(
        about="puts evidence into its OPEN blocks",
        make=lambda actor: CitingLeader(
            actor.identity,
            actor.network,
            actor.founding.genesis,
            BlockKind.OPEN,
            _with_evidence_of_nothing,
        ),
    ),
}
