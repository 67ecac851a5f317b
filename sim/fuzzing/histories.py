"""Rounds of a small network, written down: every message, and one member in every phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, cached_property

from attrs import define, field, frozen

from protocol.codec import decode, encode
from protocol.engine import Engine
from protocol.envelope import Envelope, make_statement, signing_digest
from protocol.events import Broadcast, Effect, PutBlob, Send
from protocol.keys import Identity
from protocol.ledger.state import Phase
from protocol.messages import (
    MESSAGE_BYTES,
    Kind,
    Proposal,
    StatementRequest,
    TransactionKind,
)
from protocol.order import Order
from protocol.params import ProtocolParams
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
RESTARTED = 4
MESSAGES_OF_A_KIND = 20
"""Of each kind and history, for the corpus."""


@frozen(eq=False)
class Moment:
    """What survives of the victim at some point of a history, and the proposals that followed."""

    history: History = field(repr=False)
    phase: Phase
    height: int
    records: Mapping[str, Mapping[bytes, bytes]] = field(repr=False)
    blobs: Mapping[bytes, bytes] = field(repr=False)

    @property
    def ground(self) -> Ground:
        return self.history.ground

    def proposals(self) -> Sequence[Envelope]:
        """What leaders put before the victim next."""
        return self.history.proposals.get(self.height + 1, ())


@define(eq=False)
class History:
    """One run of the network: every message and every blob in it, and the victim in every phase."""

    ground: Ground = field(repr=False)
    messages: dict[bytes, None] = field(factory=dict, init=False, repr=False)
    blobs: dict[bytes, bytes] = field(factory=dict, init=False, repr=False)
    moments: dict[tuple[Phase, int], Moment] = field(factory=dict, init=False, repr=False)

    def run(self, filters: Mapping[int, Filter], rounds: int, model: LinkModel | None = None) -> None:
        ground = self.ground
        world = build_world(
            NODES, SEED, params=ground.params, filters=filters, model=model, invariants=[self._note]
        )
        order = Order(bytes(16), TransactionKind.TRANSFER, ground.peers[2], 5)
        world.at(600, lambda: world.command(3, encode(order)))
        world.at(700, lambda: world.crash(RESTARTED, restart_ms=900))
        world.run(lambda world: _rounds_ended(world) >= rounds, max_virtual_ms=300_000)

    @cached_property
    def proposals(self) -> Mapping[int, Sequence[Envelope]]:
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
            elif isinstance(effect, PutBlob):
                self.blobs[effect.digest] = effect.data
        if node.index == VICTIM and isinstance(node.engine, Engine):
            learning = node.engine.state.learning
            key = (learning.phase, learning.ballot)
            if key not in self.moments:
                records = {bucket: dict(rows) for bucket, rows in node.records.items()}
                height = node.engine.height
                self.moments[key] = Moment(self, learning.phase, height, records, dict(node.blobs))


def _rounds_ended(world: World) -> int:
    """How many rounds the victim has seen."""
    engine = world.nodes[VICTIM].engine
    return engine.state.round - 1 if isinstance(engine, Engine) else 0


@define(eq=False)
class Ground:
    """A network of one profile, and what was heard and held in some of its histories.

    The same seed gives the same network every time, so its members' keys sign whatever a fuzzer makes up.
    """

    profile: str

    @cached_property
    def params(self) -> ProtocolParams:
        return small_params(NODES, self.profile)

    @cached_property
    def founding(self) -> Founding:
        return found(NODES, SEED, self.params)

    @property
    def network(self) -> bytes:
        return self.founding.genesis.network

    @property
    def identities(self) -> tuple[Identity, ...]:
        return self.founding.identities

    @cached_property
    def peers(self) -> list[bytes]:
        return [identity.peer for identity in self.identities]

    @cached_property
    def histories(self) -> Sequence[History]:
        """An honest one over bad links, and three in which somebody cheats."""
        roles = first_roles(self.founding)
        aggregator = member_of(self.founding, roles.aggregators[0])
        assert aggregator != VICTIM
        spared = (self.peers[VICTIM], self.peers[LIAR], self.peers[RESTARTED])
        dealer, other = (peer for peer in roles.proposers if peer not in spared)
        first = member_of(self.founding, dealer)
        kind = ShareKind.SELF if self.profile == "hardened" else ShareKind.MASK
        casts: list[tuple[dict[int, Filter], int, LinkModel | None]] = [
            ({}, 2, LinkModel(loss=0.1)),
            ({aggregator: BlindForger(), first: BoxSpoiler(self.peers[VICTIM])}, 1, None),
            ({aggregator: RefusingAggregator(other), first: ZSpoiler((self.peers[VICTIM],))}, 1, None),
            ({first: GarbageDealer(kind)}, 1, None),
        ]
        made = []
        for filters, rounds, model in casts:
            history = History(self)
            history.run(filters, rounds, model)
            made.append(history)
        return made

    @cached_property
    def moments(self) -> Sequence[Moment]:
        return [moment for history in self.histories for _, moment in sorted(history.moments.items())]

    @cached_property
    def blobs(self) -> Mapping[bytes, bytes]:
        """All blobs of all histories, by digest."""
        return {digest: data for history in self.histories for digest, data in history.blobs.items()}

    @cached_property
    def corpus(self) -> Mapping[Kind, Sequence[Envelope]]:
        """Real messages by kind, a few of each."""
        by_kind: dict[Kind, list[Envelope]] = defaultdict(list)
        for history in self.histories:
            fresh: dict[Kind, list[Envelope]] = defaultdict(list)
            for data in history.messages:
                envelope = decode(Envelope, data, MESSAGE_BYTES)
                fresh[Kind(envelope.kind)].append(envelope)
            for kind, envelopes in fresh.items():
                by_kind[kind] += envelopes[:: max(1, len(envelopes) // MESSAGES_OF_A_KIND)]
        asked = tuple(by_id(envelope) for envelope in by_kind[Kind.CONTRIBUTION])
        liar = self.identities[LIAR]
        request = make_statement(liar, self.network, 1, Kind.STATEMENT_REQUEST, StatementRequest(asked))
        by_kind[Kind.STATEMENT_REQUEST].append(request.envelope)
        return dict(sorted(by_kind.items()))


@cache
def ground(profile: str = "hardened") -> Ground:
    """The one network of this profile in this process; its histories run when they are first asked for."""
    return Ground(profile)


def by_id(envelope: Envelope) -> bytes:
    """The id that the envelope's statement has."""
    return signing_digest(envelope.network, envelope.round, envelope.kind, envelope.sender, envelope.body)
