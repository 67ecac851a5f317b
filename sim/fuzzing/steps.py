"""What a fuzzer does to a node, step by step; the draws decide what, and with what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any, Protocol

import attrs
from attrs import frozen

from protocol.codec import decode, encode
from protocol.consensus import leader_of
from protocol.engine import Engine
from protocol.envelope import Envelope, make_statement
from protocol.events import (
    BlobFailed,
    BlobReady,
    Command,
    Event,
    JobDone,
    JobFailed,
    PeerDown,
    PeerUp,
    TimerFired,
)
from protocol.jobs import Job
from protocol.ledger.block import Block, StoredBlock, decode_block
from protocol.messages import (
    KIND_RULES,
    MESSAGE_BYTES,
    STATEMENT_KINDS,
    Blocks,
    Body,
    Certificate,
    CertificateNotice,
    Have,
    Kind,
    Proposal,
    Statements,
    Timeout,
    Transaction,
    Vote,
    VotePhase,
)
from protocol.order import Order
from sim.fuzzing.bending import Bender, bent_bytes
from sim.fuzzing.histories import LIAR, VICTIM, Ground
from sim.fuzzing.victim import TIMERS

MOST_IN_A_BATCH = 6
LENGTHS = (0, 0, 0, 0, 1, 1, 2, 64, MESSAGE_BYTES - 1, MESSAGE_BYTES, MESSAGE_BYTES + 1)
COMMON_VIEWS = (1, 1, 1, 2, 2, 3, 7, 2**20)


class Hearer(Protocol):
    """A node that is fuzzed, as steps know it: an engine alone (`Victim`) or a whole node (`ShellVictim`)."""

    jobs: dict[str, Job]
    fetches: dict[bytes, tuple[bytes, ...]]
    blobs: dict[bytes, bytes]
    forged: int
    engine: Engine

    def start(self) -> None: ...

    def hear(self, data: bytes, peer: bytes, times: int = 1) -> object: ...

    def handle(self, event: Event, after_ms: int = 1) -> object: ...

    def done(self, key: str, job: Job) -> JobDone | JobFailed: ...


@frozen(eq=False)
class Steps:
    """On one node of one network."""

    victim: Hearer
    bender: Bender

    @property
    def ground(self) -> Ground:
        return self.bender.ground

    def take(self, draw: Random) -> None:
        """One step."""
        draw.choice(_table())(self, draw)

    # -- what others say ---------------------------------------------------------------------------

    def hear_bent(self, draw: Random) -> None:
        """A genuine message with some places changed, truly signed."""
        self._hear(self.bender.bent_body(self._message(draw), draw))

    def hear_bent_now(self, draw: Random) -> None:
        """The same, of the round and the height that the node is in."""
        self._hear(self.bender.bent_body(self._of_now(self._message(draw), draw), draw))

    def hear_now(self, draw: Random) -> None:
        """A genuine message made over for the round and the height that the node is in."""
        self._hear(self.bender.signed(self._of_now(self._message(draw), draw)))

    def hear_again(self, draw: Random) -> None:
        """A genuine message, at whatever moment, from its sender or through another member."""
        envelope = self._message(draw)
        peer = draw.choice(self._others()) if draw.randrange(4) == 0 else envelope.sender
        self.victim.hear(encode(envelope), peer)

    def hear_broken(self, draw: Random) -> None:
        """Broken bytes."""
        envelope = self._message(draw)
        self.victim.hear(bent_bytes(encode(envelope), draw), envelope.sender)

    def hear_bytes(self, draw: Random) -> None:
        """Hear bytes of no message, a few times at once: none at all, one, or as many as anybody carries."""
        length = draw.choice(LENGTHS)
        data, peer = bytes([draw.randrange(256)]) * length, draw.choice(self._others())
        self.victim.hear(data, peer, times=1 + draw.randrange(3))

    def hear_proposal(self, draw: Random) -> None:
        """A leader's own block, bent, or another leader's unchanged."""
        proposals = self._proposals()
        if not proposals:
            return
        envelope = draw.choice(proposals)
        block = decode_block(envelope.payload)
        if draw.randrange(4):
            block = self.bender.bent_block(block, draw)
        if draw.randrange(2):
            block = self.bender.with_its_root(self.victim.engine, block)
        engine = self.victim.engine
        view = draw.choice([engine.agreement.view, *COMMON_VIEWS])
        leader = leader_of(engine.agreement.order, engine.height + 1, view)
        body = Proposal(
            engine.height + 1, view, block.hash, self._qc(draw, block, view), self._tc(draw, view)
        )
        self._say(leader, Kind.PROPOSAL, body, encode(block))

    def hear_vote(self, draw: Random) -> None:
        """A vote on a block that the node knows, or on none."""
        engine = self.victim.engine
        view = draw.choice([engine.agreement.view, *COMMON_VIEWS])
        vote = Vote(draw.choice(list(VotePhase)), engine.height + 1, view, self._block_hash(draw))
        self._say(draw.choice(self._others()), Kind.VOTE, vote)

    def hear_timeout(self, draw: Random) -> None:
        engine = self.victim.engine
        view = draw.choice([engine.agreement.view, *COMMON_VIEWS])
        proposals = self._proposals()
        block = decode_block(draw.choice(proposals).payload) if proposals else None
        qc = self._qc(draw, block, view) if block is not None else None
        payload = encode(block) if block is not None and draw.randrange(2) else b""
        self._say(draw.choice(self._others()), Kind.TIMEOUT, Timeout(engine.height + 1, view, qc), payload)

    def hear_certificate(self, draw: Random) -> None:
        """Everybody's signature under whatever it is."""
        engine = self.victim.engine
        view = draw.choice([engine.agreement.view, *COMMON_VIEWS])
        vote = Vote(draw.choice(list(VotePhase)), engine.height + 1, view, self._block_hash(draw))
        self.victim.forged += 1
        certificate = self.bender.certificate(engine.state.round, vote)
        self._say(draw.choice(self._others()), Kind.CERTIFICATE, CertificateNotice(certificate))

    def hear_blocks(self, draw: Random) -> None:
        """A bent block that everybody certifies: more than 1/3 are dishonest, and still nothing breaks."""
        proposals = self._proposals()
        if not proposals:
            return
        block = self.bender.bent_block(decode_block(draw.choice(proposals).payload), draw)
        block = self.bender.with_its_root(self.victim.engine, block)
        self.victim.forged += 1
        stored = encode(StoredBlock(block, self.bender.certified(block)))
        giver = self.ground.peers[LIAR]
        if draw.randrange(8):
            self._say(giver, Kind.HAVE, Have(self.victim.engine.height + 1, (), b"", True))
            giver = self.victim.engine.sync.outstanding or giver
        self._say(giver, Kind.BLOCKS, Blocks((stored,)))

    def hear_statements(self, draw: Random) -> None:
        """A batch of statements, some bent, relayed by somebody."""
        batch = []
        for _ in range(1 + draw.randrange(MOST_IN_A_BATCH)):
            envelope = self._message(draw, [kind for kind in self.ground.corpus if kind in STATEMENT_KINDS])
            match draw.randrange(4):
                case 0:
                    pass
                case 1:
                    envelope = self.bender.bent_body(envelope, draw)
                case 2:
                    envelope = self.bender.bent_body(self._of_now(envelope, draw), draw)
                case _:
                    envelope = self.bender.signed(self._of_now(envelope, draw))
            batch.append(encode(envelope))
        if draw.randrange(8) == 0:
            batch[-1] = bent_bytes(batch[-1], draw)
        self._say(draw.choice(self._others()), Kind.STATEMENTS, Statements(tuple(batch)))

    # -- what happens otherwise --------------------------------------------------------------------

    def pass_time(self, draw: Random) -> None:
        """A timer fires, whether it was set or not."""
        self.victim.handle(TimerFired(draw.choice(TIMERS)), draw.choice([1, 500, 2_000, 20_000]))

    def end_job(self, draw: Random) -> None:
        """A job that waits is done, perhaps told twice, or fails."""
        victim = self.victim
        if not victim.jobs:
            return
        key = draw.choice(sorted(victim.jobs))
        job = victim.jobs.pop(key)
        if draw.randrange(8) == 0:
            victim.handle(JobFailed(key, "drawn"))
            return
        event = victim.done(key, job)
        for _ in range(1 + (draw.randrange(8) == 0)):
            victim.handle(event)

    def end_fetch(self, draw: Random) -> None:
        """A blob arrives, in whatever order, or is not to be had."""
        victim = self.victim
        if not victim.fetches:
            return
        digest = draw.choice(sorted(victim.fetches))
        del victim.fetches[digest]
        data = self.ground.blobs.get(digest)
        if data is None or draw.randrange(4) == 0:
            victim.handle(BlobFailed(digest))
        else:
            victim.blobs[digest] = data
            victim.handle(BlobReady(digest))

    def reconnect(self, draw: Random) -> None:
        peer = draw.choice(self._others())
        changes: list[list[PeerUp | PeerDown]] = [[PeerUp(peer)], [PeerDown(peer)]]
        for event in draw.choice([*changes, [*changes[1], *changes[0]]]):
            self.victim.handle(event)

    def command(self, draw: Random) -> None:
        """The operator's order, or what is none."""
        wish = decode(Transaction, self._message(draw, [Kind.TRANSACTION]).body, 128)
        name, replaces = draw.randrange(256), draw.choice([None, None, 0, 1])
        order = encode(Order(bytes([name]) * 16, wish.kind, wish.peer, wish.amount_units, replaces))
        self.victim.handle(Command(draw.choice([order, self.bender.bent_packed(order, draw)])))

    def restart(self, draw: Random) -> None:
        """A crash, and a new life with what is durable."""
        if draw.randrange(4) == 0:
            self.victim.start()

    # -- parts -------------------------------------------------------------------------------------

    def _others(self) -> list[bytes]:
        return [peer for peer in self.ground.peers if peer != self.ground.peers[VICTIM]]

    def _message(self, draw: Random, kinds: Sequence[Kind] = ()) -> Envelope:
        """Of any kind alike, however rare it is."""
        corpus = self.ground.corpus
        return draw.choice(corpus[draw.choice(kinds or list(corpus))])

    def _of_now(self, envelope: Envelope, draw: Random) -> Envelope:
        """Of the node's round (now and then the next one), and of its height if it names one."""
        engine, kind = self.victim.engine, Kind(envelope.kind)
        round_ = 0 if kind is Kind.TRANSACTION else engine.state.round + (draw.randrange(8) == 0)
        rule = KIND_RULES[kind]
        body: Any = decode(rule.body, envelope.body, rule.body_bytes)
        height = engine.height + draw.choice([0, 1, 1, 1, 1, 2])
        for field in ("height", "first_height"):
            if hasattr(body, field):
                body = attrs.evolve(body, **{field: max(height, 1)})
        return attrs.evolve(envelope, round=round_, body=encode(body))

    def _hear(self, envelope: Envelope) -> None:
        self.victim.hear(encode(envelope), envelope.sender)

    def _say(self, peer: bytes, kind: Kind, body: Body, payload: bytes = b"") -> None:
        """Somebody but the node itself says it, in the node's round."""
        member = self.ground.peers.index(peer)
        if member == VICTIM:
            member = LIAR
        identity = self.ground.identities[member]
        round_ = self.victim.engine.state.round
        statement = make_statement(identity, self.ground.network, round_, kind, body, payload)
        self.victim.hear(statement.to_bytes(), identity.peer)

    def _proposals(self) -> list[Envelope]:
        height = self.victim.engine.height + 1
        histories = self.ground.histories
        return [envelope for history in histories for envelope in history.proposals.get(height, ())]

    def _block_hash(self, draw: Random) -> bytes:
        known = sorted(self.victim.engine.agreement._blocks)
        return draw.choice([*known, draw.randbytes(32)])

    def _qc(self, draw: Random, block: Block, view: int) -> Certificate | None:
        """Now and then everybody's PREPARE certificate of an earlier view."""
        if view == 1 or draw.randrange(2):
            return None
        self.victim.forged += 1
        earlier = draw.choice([view - 1, max(1, view // 2)])
        vote = Vote(VotePhase.PREPARE, self.victim.engine.height + 1, earlier, block.hash)
        return self.bender.certificate(self.victim.engine.state.round, vote)

    def _tc(self, draw: Random, view: int) -> tuple[bytes, ...]:
        """Time-outs of the view before, of a quorum or of fewer."""
        if view == 1 or draw.randrange(2):
            return ()
        engine, network = self.victim.engine, self.ground.network
        body = Timeout(engine.height + 1, view - 1, None)
        signers = self.ground.identities[: draw.choice([3, 4, 5])]
        made = (make_statement(who, network, engine.state.round, Kind.TIMEOUT, body) for who in signers)
        return tuple(statement.cited() for statement in made)


Step = Callable[[Steps, Random], None]


@cache
def _table() -> tuple[Step, ...]:
    """Every step, as often as it is to be taken among the others."""
    shares: list[tuple[int, Step]] = [
        (6, Steps.hear_bent),
        (8, Steps.hear_bent_now),
        (6, Steps.hear_now),
        (5, Steps.hear_again),
        (1, Steps.hear_broken),
        (2, Steps.hear_bytes),
        (4, Steps.hear_proposal),
        (2, Steps.hear_vote),
        (2, Steps.hear_timeout),
        (1, Steps.hear_certificate),
        (1, Steps.hear_blocks),
        (4, Steps.hear_statements),
        (6, Steps.pass_time),
        (6, Steps.end_job),
        (4, Steps.end_fetch),
        (1, Steps.reconnect),
        (1, Steps.command),
        (1, Steps.restart),
    ]
    return tuple(step for share, step in shares for _ in range(share))
