"""Agreement under every fault that it is made for, in the simulator; each failure names its seed.

Every world checks after every event that no two honest nodes commit different blocks at one height, that no
honest node contradicts itself or acts on an uncommitted block, and that no money appears or vanishes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from attrs import define, evolve, fields

from protocol.codec import decode, encode
from protocol.envelope import Envelope, make_statement
from protocol.events import Broadcast, Effect, Notify, Penalise, Persist, Send
from protocol.keys import Identity
from protocol.ledger.block import decode_block, decode_stored_block
from protocol.messages import (
    KIND_RULES,
    MAX_VIEW,
    MESSAGE_BYTES,
    STATEMENT_KINDS,
    Body,
    Kind,
    Proposal,
    Timeout,
)
from sim.filters import Filter
from sim.founding import build_world, seeded_bytes
from sim.invariants.base import InvariantError
from sim.invariants.conduct import Conduct
from sim.network import LinkModel
from sim.world import World

NODES = 4
HISTORIES = 312
HISTORIES_A_TEST = 26
SWEEP = 192
SWEEP_A_TEST = 48

CALM_AFTER_MS = 5_000
BLOCKS_AFTER_CALM = 2
PATIENCE_MS = 180_000
HIGH_VIEW = 30
"""No honest node has reason to get there in the time of a history."""

ABOUT = ("proposer", "dealer", "holder", "peer")
"""Fields that name a peer: a slot is about it."""


def kind_of(data: bytes) -> Kind:
    return Kind(decode(Envelope, data, MESSAGE_BYTES).kind)


class SilentLeader(Filter):
    """Never shows a proposal to anyone."""

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [
            effect
            for effect in effects
            if not (isinstance(effect, Broadcast | Send) and kind_of(effect.data) is Kind.PROPOSAL)
        ]


@define(eq=False)
class TwoFacedLeader(Filter):
    """Shows half of the network another block in its stead, and Timeouts to nobody."""

    identity: Identity
    peers: tuple[bytes, ...]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [changed for effect in effects for changed in self._changed(effect)]

    def _changed(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast):
            return [effect]
        envelope = decode(Envelope, effect.data, MESSAGE_BYTES)
        if envelope.kind == Kind.TIMEOUT:
            return []
        if envelope.kind != Kind.PROPOSAL:
            return [effect]
        body = decode(Proposal, envelope.body, MESSAGE_BYTES)
        block = decode_block(envelope.payload)
        other = evolve(block, readys=block.readys[1:])
        lie = make_statement(
            self.identity,
            envelope.network,
            envelope.round,
            Kind.PROPOSAL,
            evolve(body, block_hash=other.hash),
            encode(other),
        )
        half = len(self.peers) // 2
        told = [Send(peer, effect.data) for peer in self.peers[:half]]
        return [*told, *(Send(peer, lie.to_bytes()) for peer in self.peers[half:])]


@define(eq=False)
class Alarmist(Filter):
    """Claims to have given up on a view `ahead` in the future whenever it gives up on one."""

    identity: Identity
    ahead: int

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [self._changed(effect) for effect in effects]

    def _changed(self, effect: Effect) -> Effect:
        if not isinstance(effect, Broadcast) or kind_of(effect.data) is not Kind.TIMEOUT:
            return effect
        envelope = decode(Envelope, effect.data, MESSAGE_BYTES)
        body = decode(Timeout, envelope.body, MESSAGE_BYTES)
        body = evolve(body, view=min(MAX_VIEW, body.view + self.ahead))
        lie = make_statement(
            self.identity, envelope.network, envelope.round, Kind.TIMEOUT, body, envelope.payload
        )
        return Broadcast(lie.to_bytes())


@define(eq=False)
class TwoFacedSpeaker(Filter):
    """Signs two statements for each of its slots, of every kind, and tells each half of the network one."""

    identity: Identity
    peers: tuple[bytes, ...]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return [changed for effect in effects for changed in self._changed(effect)]

    def _changed(self, effect: Effect) -> list[Effect]:
        if not isinstance(effect, Broadcast) or kind_of(effect.data) not in STATEMENT_KINDS:
            return [effect]
        envelope = decode(Envelope, effect.data, MESSAGE_BYTES)
        kind = Kind(envelope.kind)
        body = decode(KIND_RULES[kind].body, envelope.body, MESSAGE_BYTES)
        other = another(body)
        lie = make_statement(self.identity, envelope.network, envelope.round, kind, other, envelope.payload)
        return [
            Send(peer, effect.data if index % 2 else lie.to_bytes()) for index, peer in enumerate(self.peers)
        ]


def another(body: Body) -> Body:
    """A body of the same form that differs in its last 32-byte field, if it has one."""
    for attribute in reversed(fields(type(body))):
        value = getattr(body, attribute.name)
        if isinstance(value, bytes) and len(value) == 32 and attribute.name not in ABOUT:
            return evolve(body, **{attribute.name: bytes(value[:31]) + bytes([value[31] ^ 1])})
    return body


def history(seed: int) -> World:
    """Four nodes, of which at most one is dishonest; crashes, losses and partitions until all is calm.

    Who contradicts itself is found out and loses its stake; with five nodes the others can go on.
    """
    draws = Random(f"history {seed}")
    adversary = seed % 6
    nodes = NODES + (adversary >= 4)
    identities = [Identity.from_seed(seeded_bytes(seed, f"identity {i}")) for i in range(nodes)]
    peers = tuple(identity.peer for identity in identities)
    faulty = draws.randrange(nodes)
    filters: dict[int, Filter] = {}
    if adversary == 1:
        filters[faulty] = SilentLeader()
    elif adversary == 2:
        filters[faulty] = TwoFacedLeader(identities[faulty], peers)
    elif adversary == 3:
        filters[faulty] = Alarmist(identities[faulty], draws.choice([2 * HIGH_VIEW, MAX_VIEW]))
    elif adversary == 5:
        filters[faulty] = TwoFacedSpeaker(identities[faulty], peers)
    rough = LinkModel(
        loss=draws.choice([0.0, 0.05, 0.2]),
        duplicate=draws.choice([0.0, 0.1]),
        reorder=draws.choice([0.0, 0.3]),
        late_ms=draws.choice([200, 2_000]),
    )
    world = build_world(
        nodes,
        seed,
        profile=draws.choice(["hardened", "hardened", "hardened", "vcdfl"]),
        model=rough,
        filters=filters,
        twins=[faulty] if adversary == 4 else [],
        invariants=[Conduct()],
    )
    machines = range(len(world.nodes))
    for _ in range(draws.randrange(4)):
        world.crash_at_effect(draws.choice(machines), draws.randrange(300), draws.randrange(1, 2_000))
    if draws.random() < 0.5 or adversary == 4:
        side = draws.sample(machines, 2)
        world.at(draws.randrange(2_000), lambda: world.partition([side]))
        world.at(draws.randrange(2_500, CALM_AFTER_MS), world.heal)
    if draws.random() < 0.3:
        source, target = draws.sample(machines, 2)
        world.at(draws.randrange(2_000), lambda: world.cut(source, target))
    if draws.random() < 0.25:
        world.at(draws.randrange(CALM_AFTER_MS), lambda: blackout(world, draws))
    world.at(CALM_AFTER_MS, lambda: calm(world))
    return world


def blackout(world: World, draws: Random) -> None:
    """Everyone crashes at once and comes back."""
    for node in world.nodes:
        if not node.down:
            world.crash(node.index, restart_ms=draws.randrange(1, 1_000))


def calm(world: World) -> None:
    """The faults are over: what is down comes up, what was cut is mended, nothing more is lost."""
    world.network.model = LinkModel()
    world.heal()
    for node in world.nodes:
        node.crash_at = None
        if node.down:
            world.start(node.index)


def lowest(world: World) -> int:
    return min(node.height for node in world.nodes if node.honest)


def finish(world: World) -> World:
    """Let the rough time pass; afterwards everyone honest has to get on."""
    world.run_for(CALM_AFTER_MS + 1)
    goal = max(node.height for node in world.nodes if node.honest) + BLOCKS_AFTER_CALM
    world.run(lambda world: lowest(world) >= goal, max_virtual_ms=PATIENCE_MS)
    assert_good_neighbours(world)
    return world


def assert_good_neighbours(world: World) -> None:
    """No honest node reports another honest one, nor finds its records or the ledger in disorder."""
    honest = {node.peer for node in world.nodes if node.honest}
    for report in world.reports:
        if world.nodes[report.node].honest:
            match report.effect:
                case Penalise(peer, why):
                    assert peer not in honest, f"seed {world.seed}: node {report.node}: {why}"
                case Notify(kind, fields):
                    assert kind not in ("fatal", "damaged_record"), f"seed {world.seed}: {dict(fields)}"
                    if kind == "view":
                        assert int(str(fields["view"])) < HIGH_VIEW, f"seed {world.seed}: {dict(fields)}"


@pytest.mark.parametrize("first", range(0, HISTORIES, HISTORIES_A_TEST))
def test_one_block_a_height_and_progress_resumes(first: int) -> None:
    for seed in range(first, first + HISTORIES_A_TEST):
        finish(history(seed))


def crash_after(ordinal: int) -> None:
    """Node `ordinal % 4` crashes after its first `ordinal` effects and comes back."""
    world = build_world(NODES, ordinal, invariants=[Conduct()])
    victim = world.nodes[ordinal % NODES]
    world.crash_at_effect(victim.index, ordinal, restart_ms=1 + 37 * ordinal % 1_000)
    world.run(lambda world: victim.life == 1 and victim.alive, max_virtual_ms=PATIENCE_MS)
    goal = max(node.height for node in world.nodes) + BLOCKS_AFTER_CALM
    world.run(lambda world: lowest(world) >= goal, max_virtual_ms=PATIENCE_MS)
    assert_good_neighbours(world)


@pytest.mark.parametrize("first", range(0, SWEEP, SWEEP_A_TEST))
def test_crash_and_restart_at_every_effect(first: int) -> None:
    for ordinal in range(first, first + SWEEP_A_TEST):
        crash_after(ordinal)


def test_a_fork_would_be_noticed() -> None:
    """The check can fail: another block at a height that is committed."""
    world = build_world(NODES, 0)
    world.run(lambda world: lowest(world) >= 1, max_virtual_ms=PATIENCE_MS)
    (key, value), *_ = sorted(world.nodes[0].records["block"].items())
    agreement = world.invariants[0]
    stored = decode_stored_block(value)
    forged = encode(evolve(stored, block=evolve(stored.block, state_root=bytes(32))))
    with pytest.raises(InvariantError, match="height 1"):
        agreement(world.nodes[1], [Persist("block", key, forged)])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_trace_does_not_depend_on_the_hash_seed(seed: int) -> None:
    code = (
        f"from test_agreement_histories import finish, history; print(finish(history({seed})).trace_digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
