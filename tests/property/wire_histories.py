"""Rounds of a small network, written down: every message, and one member in every phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

import attrs
from attrs import frozen

from protocol.algebra import field as fp
from protocol.codec import decode, encode
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
from protocol.ledger.state import Phase
from protocol.messages import (
    MESSAGE_BYTES,
    Kind,
    Proposal,
    StatementRequest,
    Transaction,
    TransactionKind,
)
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
