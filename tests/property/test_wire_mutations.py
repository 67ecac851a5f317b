"""Whatever a member sends, a live engine counts it or takes it, says little, and goes on.

The messages are those of real rounds, some of them of other histories of the same network; they are bent
as bytes, and as bodies that a dishonest member signs. docs/PROTOCOL.md section 8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

import attrs
import msgpack
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.algebra import field as fp
from protocol.codec import DecodeError, decode, encode
from protocol.engine import Engine
from protocol.envelope import Envelope, make_statement, signing_digest
from protocol.events import (
    Broadcast,
    Effect,
    Fetch,
    JobDone,
    JobFailed,
    PeerUp,
    PutBlob,
    Received,
    RunJob,
    Send,
    Start,
    TimerFired,
)
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult, run
from protocol.ledger.block import Block, BlockKind, StoredBlock, decode_block
from protocol.ledger.state import Phase
from protocol.messages import (
    KIND_RULES,
    MESSAGE_BYTES,
    Blocks,
    Certificate,
    Kind,
    Proposal,
    StatementRequest,
    Transaction,
    TransactionKind,
    Vote,
    VotePhase,
)
from protocol.round import BlockError, block_effect
from protocol.sharing import ShareKind
from sim.adversaries.aggregators import BlindForger, RefusingAggregator
from sim.adversaries.dealers import BoxSpoiler, GarbageDealer, ZSpoiler
from sim.casting import first_roles, member_of
from sim.filters import Filter
from sim.founding import Founding, build_world, found, small_params
from sim.network import LinkModel
from sim.node import Node
from sim.world import World

NODES = 5
SEED = 11
VICTIM, LIAR = 0, 1
MOST_EFFECTS = 60
MOST_BYTES = 3 * (256 << 10)
"""What one message may make a node do and say: a few repair replies' worth."""

PARAMS = small_params(NODES)
FOUNDING: Founding = found(NODES, SEED, PARAMS)
NETWORK = FOUNDING.genesis.network
PEERS = [identity.peer for identity in FOUNDING.identities]


@frozen
class Moment:
    """What survives of the victim at some point of a history, and the proposals that followed."""

    phase: Phase
    height: int
    records: Mapping[str, Mapping[bytes, bytes]] = attrs.field(repr=False)
    blobs: Mapping[bytes, bytes] = attrs.field(repr=False)
    history: History = attrs.field(repr=False)

    def proposals(self) -> list[Envelope]:
        """What leaders put before the victim next."""
        return self.history.proposals().get(self.height + 1, [])


class History:
    """One run of the network: every message in it, and the victim in every phase."""

    def __init__(self, filters: Mapping[int, Filter], rounds: int, model: LinkModel | None = None) -> None:
        self.messages: dict[bytes, None] = {}
        self.moments: dict[tuple[Phase, int], Moment] = {}
        world = build_world(NODES, SEED, params=PARAMS, filters=filters, model=model, invariants=[self._note])
        body = Transaction(TransactionKind.TRANSFER, 0, PEERS[2], 5)
        world.at(600, lambda: world.command(3, encode(body)))
        world.at(700, lambda: world.crash(4, restart_ms=900))
        world.run(lambda world: rounds_ended(world) >= rounds, max_virtual_ms=300_000)

    @cache  # noqa: B019
    def proposals(self) -> dict[int, list[Envelope]]:
        """By height."""
        by_height: dict[int, list[Envelope]] = defaultdict(list)
        for data in self.messages:
            envelope = decode(Envelope, data, MESSAGE_BYTES)
            if envelope.kind == Kind.PROPOSAL:
                by_height[decode(Proposal, envelope.body, MESSAGE_BYTES).height].append(envelope)
        return by_height

    def _note(self, node: Node, performed: Sequence[Effect]) -> None:
        for effect in performed:
            if isinstance(effect, Broadcast | Send):
                self.messages[effect.data] = None
        if node.index == VICTIM and isinstance(node.engine, Engine):
            learning = node.engine.state.learning
            key = (learning.phase, learning.ballot)
            if key not in self.moments:
                records = {bucket: dict(rows) for bucket, rows in node.records.items()}
                height = node.engine.height
                self.moments[key] = Moment(learning.phase, height, records, dict(node.blobs), self)


def rounds_ended(world: World) -> int:
    """How many rounds the victim has seen."""
    engine = world.nodes[VICTIM].engine
    return engine.state.round - 1 if isinstance(engine, Engine) else 0


@cache
def histories() -> list[History]:
    roles = first_roles(FOUNDING)
    aggregator = member_of(FOUNDING, roles.aggregators[0])
    dealer, other = (p for p in roles.proposers if p not in (PEERS[VICTIM], PEERS[LIAR], PEERS[4]))
    first = member_of(FOUNDING, dealer)
    assert aggregator != VICTIM
    return [
        History({}, 2, LinkModel(loss=0.1)),
        History({aggregator: BlindForger(), first: BoxSpoiler(PEERS[VICTIM])}, 1),
        History({aggregator: RefusingAggregator(other), first: ZSpoiler((PEERS[VICTIM],))}, 1),
        History({first: GarbageDealer(ShareKind.SELF)}, 1),
    ]


@cache
def moments() -> list[Moment]:
    return [moment for history in histories() for _, moment in sorted(history.moments.items())]


@cache
def corpus() -> dict[Kind, list[Envelope]]:
    """Real messages by kind, a few of each."""
    by_kind: dict[Kind, list[Envelope]] = defaultdict(list)
    for history in histories():
        fresh: dict[Kind, list[Envelope]] = defaultdict(list)
        for data in history.messages:
            envelope = decode(Envelope, data, MESSAGE_BYTES)
            fresh[Kind(envelope.kind)].append(envelope)
        for kind, envelopes in fresh.items():
            by_kind[kind] += envelopes[:: max(1, len(envelopes) // 20)]
    asked = tuple(by_id(envelope) for envelope in by_kind[Kind.CONTRIBUTION])
    request = make_statement(
        FOUNDING.identities[LIAR], NETWORK, 1, Kind.STATEMENT_REQUEST, StatementRequest(asked)
    )
    by_kind[Kind.STATEMENT_REQUEST].append(request.envelope)
    return dict(sorted(by_kind.items()))


def by_id(envelope: Envelope) -> bytes:
    return signing_digest(envelope.network, envelope.round, envelope.kind, envelope.sender, envelope.body)


# -- the victim --------------------------------------------------------------------------------------


class Victim:
    """An engine that takes up its life at a moment, with its jobs done as they come."""

    def __init__(self, moment: Moment) -> None:
        self.blobs = dict(moment.blobs)
        self.now = 1_000
        identity = FOUNDING.identities[VICTIM]
        self.engine = Engine(identity, FOUNDING.genesis, Random(1).randbytes)
        self.handle(Start(moment.records, frozenset(self.blobs)))
        for peer in PEERS:
            if peer != identity.peer:
                self.handle(PeerUp(peer))

    def handle(self, event: Any) -> list[Effect]:
        """The effects of the event itself; jobs it leads to are done afterwards."""
        self.now += 1
        effects = self.engine.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, PutBlob):
                self.blobs[effect.digest] = effect.data
            elif isinstance(effect, RunJob):
                self.handle(self._done(effect))
        return effects

    def _done(self, effect: RunJob) -> JobDone | JobFailed:
        match effect.job:
            case TrainJob():
                update = fp.expand(effect.job.seed, b"update", PARAMS.dimension).astype("float32") / fp.P
                return JobDone(effect.key, TrainResult(update, 1))
            case EvaluateJob():
                return JobDone(effect.key, EvaluateResult(2, 1))
        try:
            return JobDone(effect.key, run(effect.job, self.blobs.__getitem__))
        except (ValueError, KeyError) as error:
            return JobFailed(effect.key, repr(error))

    def hear(self, data: bytes, peer: bytes) -> int:
        """Take one message; returns how many refusals it led to. What it makes the node do is bounded."""
        before = self.engine.rejects.total()
        effects = self.handle(Received(peer, data))
        said = sum(len(effect.data) for effect in effects if isinstance(effect, Broadcast | Send))
        asked = sum(isinstance(effect, Fetch) for effect in effects)
        assert len(effects) <= MOST_EFFECTS
        assert said <= MOST_BYTES
        assert asked <= NODES
        return self.engine.rejects.total() - before

    def live_on(self) -> None:
        """Deadlines pass, repair goes round, views end: nothing that was heard makes that fail."""
        for key in ("soft", "witness", "release", "late", "repair", "view", "repair", "unknown"):
            self.now += 2_000
            self.handle(TimerFired(key))


# -- bending messages --------------------------------------------------------------------------------

INTEGERS = [
    0,
    1,
    -1,
    2,
    3,
    15,
    16,
    127,
    128,
    255,
    256,
    2**20,
    2**20 + 1,
    2**40,
    2**44,
    2**60,
    2**63,
    2**64 - 1,
]


def signed(envelope: Envelope, member: int | None = None) -> Envelope:
    """The envelope under a true signature: its sender's, or in another member's name."""
    if member is None:
        member = PEERS.index(envelope.sender)
    identity = FOUNDING.identities[member]
    changed = attrs.evolve(envelope, sender=identity.peer)
    return attrs.evolve(changed, signature=identity.sign(by_id(changed)))


def bent_bytes(data: bytes, draw: Random) -> bytes:
    at, length = draw.randrange(len(data)), draw.choice([1, 1, 2, 8, 40])
    match draw.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + draw.randbytes(length) + data[at:]
        case 2:
            return data[:at] + data[at + length :]
        case 3:
            return data[:at]
        case _:
            return data[: at + length] + data[at:]


def bent_value(value: Any, draw: Random) -> Any:
    """One place of a decoded body, changed."""
    if isinstance(value, list):
        if value and draw.random() < 0.8:
            at = draw.randrange(len(value))
            return [*value[:at], bent_value(value[at], draw), *value[at + 1 :]]
        match draw.randrange(4):
            case 0:
                return value[:-1]
            case 1:
                return value + value[:1]
            case 2:
                return value[::-1]
            case _:
                return value * 3
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice([*INTEGERS, value + 1, value - 1])
    if isinstance(value, bytes):
        choices: list[Callable[[], bytes]] = [
            lambda: bytes(len(value)),
            lambda: draw.randbytes(len(value)),
            lambda: draw.choice(PEERS),
            lambda: value[:-1],
            lambda: b"",
            lambda: bent_bytes(value, draw) if value else b"\x00",
            lambda: bent_packed(value, draw),
            lambda: bent_inner(value, draw),
        ]
        return draw.choice(choices)()
    return draw.choice([None, 0, b"", [], True])


def bent_packed(data: bytes, draw: Random) -> bytes:
    """A body inside a body, if that is what it is."""
    try:
        return bytes(msgpack.packb(bent_value(msgpack.unpackb(data, strict_map_key=False), draw)))
    except (ValueError, OverflowError, TypeError, msgpack.exceptions.UnpackException):
        return data[::-1]


def bent_inner(data: bytes, draw: Random) -> bytes:
    """If it is a member's envelope: with another body, truly signed."""
    try:
        envelope = decode(Envelope, data, MESSAGE_BYTES)
    except DecodeError:
        return data[:-1]
    if envelope.sender not in PEERS:
        return data[:-1]
    return encode(signed(attrs.evolve(envelope, body=bent_packed(envelope.body, draw))))


def bent_block(block: Block, draw: Random) -> Block:
    """A block with some places of its body changed, now and then one of its frame."""
    for _ in range(draw.choice([1, 1, 2, 3])):
        block = attrs.evolve(block, body=bent_packed(block.body, draw))
    match draw.randrange(8):
        case 0:
            readys = list(block.readys)
            at = draw.randrange(len(readys))
            readys[at] = bent_inner(readys[at], draw)
            block = attrs.evolve(block, readys=tuple(readys))
        case 1:
            block = attrs.evolve(block, readys=block.readys[1:])
        case 2:
            block = attrs.evolve(block, kind=draw.choice(list(BlockKind)))
        case 3:
            block = attrs.evolve(block, leader=draw.choice([*PEERS, bytes(32)]))
        case _:
            pass
    return block


def bent_body(envelope: Envelope, draw: Random) -> Envelope:
    """A message of the liar's with some places of its body, or its frame, changed: truly signed."""
    changed = envelope
    for _ in range(draw.choice([0, 1, 1, 1, 2, 4])):
        changed = attrs.evolve(changed, body=bent_packed(changed.body, draw))
    match draw.randrange(8):
        case 0:
            changed = attrs.evolve(changed, round=max(0, changed.round + draw.choice([-1, 1, 2, 10])))
        case 1:
            changed = attrs.evolve(changed, kind=int(draw.choice(list(Kind))))
        case 2:
            changed = attrs.evolve(changed, payload=bent_packed(changed.payload, draw))
        case 3:
            changed = attrs.evolve(changed, payload=draw.randbytes(40))
        case _:
            pass
    return signed(changed, draw.choice([LIAR, None]))


# -- properties --------------------------------------------------------------------------------------

chances = st.integers(0, 2**64 - 1).map(Random)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def a_message(draw: Random) -> Envelope:
    """Of any kind alike, however rare it is."""
    return draw.choice(corpus()[draw.choice(list(corpus()))])


def test_the_corpus_has_every_kind_and_the_moments_every_phase() -> None:
    assert set(corpus()) == set(Kind)
    assert {moment.phase for moment in moments()} == set(Phase)
    assert {kind for kind in Kind if KIND_RULES[kind].payload_bytes} == {
        Kind(envelope.kind) for entries in corpus().values() for envelope in entries if envelope.payload
    }


@quick
@given(chances)
def test_bent_bytes_are_refused_and_counted(draw: Random) -> None:
    victim = Victim(draw.choice(moments()))
    for _ in range(10):
        envelope = attrs.evolve(a_message(draw), payload=b"")
        data = encode(envelope)
        bent = bent_bytes(data, draw)
        if bent != data:
            assert victim.hear(bent, envelope.sender) == 1
    victim.live_on()


@quick
@given(chances)
def test_bent_payloads_are_refused_or_of_no_consequence(draw: Random) -> None:
    """A payload is not signed: the body binds it by digest."""
    victim = Victim(draw.choice(moments()))
    for kind in (Kind.CONTRIBUTION, Kind.PROPOSAL, Kind.TIMEOUT):
        envelope = draw.choice([entry for entry in corpus()[kind] if entry.payload])
        bent = attrs.evolve(envelope, payload=bent_bytes(envelope.payload, draw))
        height = victim.engine.height
        victim.hear(encode(bent), envelope.sender)
        assert victim.engine.height == height
        if kind is Kind.CONTRIBUTION:
            held = victim.engine.pool.get(envelope.round, kind, envelope.sender)
            assert held is None or held.envelope.payload != bent.payload
    victim.live_on()


@settings(quick, max_examples=150)
@given(chances)
def test_a_member_that_signs_bent_messages_does_no_harm(draw: Random) -> None:
    victim = Victim(draw.choice(moments()))
    for _ in range(12):
        envelope = bent_body(a_message(draw), draw)
        victim.hear(encode(envelope), envelope.sender)
    victim.live_on()


@settings(quick, max_examples=150)
@given(chances)
def test_a_leader_that_proposes_bent_blocks_is_refused(draw: Random) -> None:
    """With true signatures wherever members have a say. What follows from it must stand in the block."""
    moment = draw.choice([moment for moment in moments() if moment.proposals()])
    victim = Victim(moment)
    for envelope in moment.proposals():
        block = bent_block(decode_block(envelope.payload), draw)
        proposal = decode(Proposal, envelope.body, MESSAGE_BYTES)
        body = encode(attrs.evolve(proposal, block_hash=block.hash))
        lie = signed(attrs.evolve(envelope, body=body, payload=encode(block)))
        if block != decode_block(envelope.payload):
            victim.hear(encode(lie), lie.sender)
            assert victim.engine.height == moment.height
    victim.live_on()


@quick
@given(chances)
def test_bent_blocks_that_all_members_certify_are_taken_only_if_they_are_valid(draw: Random) -> None:
    """More than 1/3 are dishonest, so anything may be final: still no rule is broken and no node breaks."""
    moment = draw.choice([moment for moment in moments() if moment.proposals()])
    victim = Victim(moment)
    supply = victim.engine.state.supply_units
    envelope = draw.choice(moment.proposals())
    block = with_its_root(victim.engine, bent_block(decode_block(envelope.payload), draw))
    stored = encode(StoredBlock(block, certified(block)))
    blocks = signed(
        attrs.evolve(envelope, kind=int(Kind.BLOCKS), body=encode(Blocks((stored,))), payload=b"")
    )
    refused = victim.hear(encode(blocks), blocks.sender)
    assert victim.engine.height == moment.height + (not refused)
    assert victim.engine.state.supply_units == supply
    victim.live_on()


def with_its_root(engine: Engine, block: Block) -> Block:
    """The block with the root of the state that it leads to, if it leads to one."""
    try:
        after = block_effect(engine.state, block, engine.head, engine.chain.rules, engine.cited.open)
    except BlockError:
        return block
    return attrs.evolve(block, state_root=after.root)


def certified(block: Block) -> Certificate:
    """Everyone's COMMIT signature."""
    vote = Vote(VotePhase.COMMIT, block.height, 1, block.hash)
    covered = [
        (identity, signing_digest(NETWORK, block.round, Kind.VOTE, identity.peer, encode(vote)))
        for identity in sorted(FOUNDING.identities, key=lambda identity: identity.peer)
    ]
    return Certificate(block.round, vote, tuple((who.peer, who.sign(digest)) for who, digest in covered))


@quick
@given(chances)
def test_replays_of_any_history_by_anyone_do_no_harm(draw: Random) -> None:
    """Messages as they were sent, to any moment, in any order, some through another member, some twice."""
    victim = Victim(draw.choice(moments()))
    for _ in range(25):
        envelope = a_message(draw)
        peer = draw.choice(PEERS[1:]) if draw.random() < 0.2 else envelope.sender
        for _ in range(draw.choice([1, 1, 2])):
            victim.hear(encode(envelope), peer)
    victim.live_on()


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    assert NOISE_VICTIM().hear(data, PEERS[LIAR]) == 1


@cache
def NOISE_VICTIM() -> Victim:  # noqa: N802
    return Victim(moments()[0])
