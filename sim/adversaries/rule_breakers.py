"""Adversaries that break one rule each, so that a network without that rule would be seen to go wrong."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve, field

from protocol.certificates import quorum
from protocol.codec import encode
from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Send
from protocol.ledger.block import BallotBody, Block, BlockBody, BlockKind
from protocol.messages import (
    CertificateNotice,
    DealerEvidence,
    Kind,
    Ready,
    ReleaseStage,
    ShareRelease,
    Timeout,
    VotePhase,
)
from protocol.sharing import DealerFault, HeldShare, ShareKind
from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.leaders import CitingLeader, RewritingLeader
from sim.adversaries.tampering import StatementTampering
from sim.filters import Filter
from sim.reading import read_statement


@define(eq=False)
class SecretCertifier(StatementTampering):
    """Shows its commit certificates to one victim only, and passes no block on: the others go on without.

    docs/PROTOCOL.md section 7.2, "Safety", is about what they may decide then.
    """

    victim: bytes

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [shown for effect in super().effects(effects) for shown in self._kept_secret(effect)]

    def _kept_secret(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast | Send):
            return [effect]
        body = read_statement(effect.data).body
        if isinstance(body, CertificateNotice) and body.certificate.vote.phase is VotePhase.COMMIT:
            return [Send(self.victim, effect.data)]
        return [effect]

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        return None if statement.kind is Kind.BLOCKS else statement


@define(eq=False)
class ReadyRepeater(RewritingLeader):
    """Proposes on one Ready less than a quorum, with the last of them repeated (section 3.6, "distinct")."""

    validators: int

    def rewritten(self, block: Block) -> Block:
        fewer = block.readys[: quorum(self.validators) - 1]
        return evolve(block, readys=(*fewer, fewer[-1]))


@define(eq=False)
class TimeoutFlooder(StatementTampering):
    """With its first Ready of a height it signs Timeouts of `views` views to come (section 7.2, rule 5)."""

    views: int
    _heights: set[int] = field(factory=set, init=False)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        for effect in list(performed):
            body = read_statement(effect.data).body if isinstance(effect, Send) else None
            if isinstance(body, Ready) and body.height not in self._heights:
                self._heights.add(body.height)
                round_ = read_statement(effect.data).round if isinstance(effect, Send) else 0
                performed += [
                    Broadcast(self.signed(round_, Kind.TIMEOUT, Timeout(body.height, view, None)).to_bytes())
                    for view in range(2, 2 + self.views)
                ]
        return performed


@define(eq=False)
class FalseAccuser(StatementTampering):
    """With its shares it publishes evidence against an honest dealer: shares that it made up (section 6)."""

    victim: bytes
    proposers: tuple[bytes, ...]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        for effect in list(performed):
            if isinstance(effect, Broadcast):
                statement = read_statement(effect.data)
                body = statement.body
                if isinstance(body, ShareRelease) and body.shares and body.stage is ReleaseStage.UNMASK:
                    evidence = DealerEvidence(self.victim, encode(self._fault(body)))
                    accusation = self.signed(statement.round, Kind.DEALER_EVIDENCE, evidence)
                    performed.append(Broadcast(accusation.to_bytes()))
        return performed

    def _fault(self, release: ShareRelease) -> DealerFault:
        """One share that it holds, said to be those of T holders."""
        held, threshold = release.shares[0], 2 * len(self.proposers) // 3 + 1
        shares = tuple(HeldShare(holder, held.share, held.proof) for holder in range(threshold))
        dealer = self.proposers.index(self.victim) if self.victim in self.proposers else 0
        return DealerFault(dealer, ShareKind(held.share_kind), shares)


@define(eq=False)
class ByteBender(Filter):
    """Serves every blob with its last byte changed (section 7.6, "A chunk is verified by itself")."""

    def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
        return data[:-1] + bytes((data[-1] ^ 1,))


def other_candidate(body: BlockBody) -> BlockBody:
    """A ballot about a model that nobody has worked out."""
    return evolve(body, candidate=bytes(32)) if isinstance(body, BallotBody) else body


def _verdict_liar(actor: Actor) -> Filter:
    return CitingLeader(
        actor.identity, actor.network, actor.founding.genesis, BlockKind.BALLOT, other_candidate
    )


def _false_accuser(actor: Actor) -> Filter:
    return FalseAccuser(actor.identity, actor.network, actor.victim, actor.peers(actor.parts.proposers))


VICTIM = frozenset({"victim"})

RULE_BREAKERS: Mapping[str, Behaviour] = {
    "secret-certifier": Behaviour(
        about="shows its commit certificates to one peer only",
        make=lambda actor: SecretCertifier(actor.identity, actor.network, actor.victim),
        options=VICTIM,
    ),
    "ready-repeater": Behaviour(
        about="proposes blocks in which one Ready stands twice",
        make=lambda actor: ReadyRepeater(actor.identity, actor.network, actor.parts.nodes),
    ),
    "timeout-flooder": Behaviour(
        about="gives up on many views to come",
        make=lambda actor: TimeoutFlooder(actor.identity, actor.network, actor.option("views", 8)),
        options=frozenset({"views"}),
    ),
    "verdict-liar": Behaviour(
        about="proposes ballots about a model that nobody has worked out", make=_verdict_liar
    ),
    "false-accuser": Behaviour(
        about="publishes evidence of its own making against a dealer", make=_false_accuser, options=VICTIM
    ),
    "byte-bender": Behaviour(
        about="serves every blob with one byte changed", make=lambda actor: ByteBender()
    ),
}
