"""A scenario put on its feet in virtual time: real engines, the cast, the timeline, and every invariant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from attrs import asdict, define, evolve, field

from protocol import durable
from protocol.engine import Engine
from protocol.events import Effect, Persist
from protocol.ledger.block import stored_block_id
from protocol.ledger.state import genesis_state
from protocol.params import MICRO, ProtocolParams
from sim.adversaries.actor import Actor
from sim.adversaries.coalition import Coalition
from sim.adversaries.registry import make_filter
from sim.casting import first_roles
from sim.costs import Costs
from sim.filters import Watched
from sim.founding import Founding, found, make_engine, supply_of, total_units
from sim.invariants.agreement import Agreement
from sim.invariants.base import StepRule
from sim.invariants.beacon import Beacon
from sim.invariants.blame import Blame
from sim.invariants.blinding import Blinding
from sim.invariants.blobs import Blobs
from sim.invariants.catch_up import CatchUp
from sim.invariants.conduct import Conduct
from sim.invariants.contract import Contract
from sim.invariants.durability import Durability
from sim.invariants.holdings import Holdings
from sim.invariants.integrity import Integrity
from sim.invariants.ledger import Ledger
from sim.invariants.memory import Memory
from sim.invariants.pace import PaceKept
from sim.invariants.phases import Phases
from sim.invariants.pins import Pins
from sim.invariants.privacy import Privacy
from sim.invariants.quorums import Quorums
from sim.invariants.rest import Rest
from sim.invariants.resumption import Resumption
from sim.invariants.roles import Roles
from sim.invariants.shares import Shares
from sim.invariants.supply import Supply
from sim.invariants.verdicts import Verdicts
from sim.invariants.votes import Votes
from sim.invariants.waiting import Waiting
from sim.learner import SyntheticLearner
from sim.network import LinkModel
from sim.node import Node
from sim.notes import Notes
from sim.scenario.manifest import SYNTHETIC, LinkTable, MachineTable, NodeTable, Scenario, ScenarioError
from sim.scenario.returns import Returns
from sim.scenario.selectors import Parts, parts_of_roles, select
from sim.scenario.timeline import Timeline
from sim.worker import JobWorker, Learner
from sim.world import World

if TYPE_CHECKING:
    from flocknode.learning.trainer import LocalTask
    from sim.learning import RealLearner


@define(eq=False)
class Watching:
    """An invariant that holds nothing, and sees how nodes come back."""

    seen: Returns
    world: World
    _lives: dict[int, tuple[int, int]] = field(factory=dict, init=False)
    """The life of each node that was seen last, and what had been received before it."""

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not isinstance(node.engine, Engine):
            return
        life, before = self._lives.get(node.index, (0, 0))
        if life != node.life + 1:
            life, before = self._lives[node.index] = node.life + 1, node.received_bytes
            self.seen.started(node.index, node.engine.height, self.world.now / 1_000)
        for effect in performed:
            if isinstance(effect, Persist) and effect.bucket == durable.BLOCK:
                height = durable.height_of_key(effect.key)
                self.seen.took_block(node.index, height, self.world.now / 1_000, node.received_bytes - before)


@define(eq=False)
class Stage:
    """`numbers`: members' nodes by peer; `parts`: those of round 1; `cast`: who misbehaves, by node.

    `round_of`: the round that each node's engine was in when it last committed a block.
    """

    scenario: Scenario
    seed: int
    founding: Founding
    parts: Parts
    numbers: Mapping[bytes, int]
    world: World
    notes: Notes
    ledger: Ledger
    timeline: Timeline
    integrity: Integrity
    privacy: Privacy
    blame: Blame
    memory: Memory
    returns: Watching
    cast: dict[int, tuple[str, Watched]] = field(factory=dict)
    round_of: dict[int, int] = field(factory=dict)

    def note_round(self, node: Node, performed: Sequence[Effect]) -> None:
        """An invariant that holds nothing, and keeps count."""
        if any(isinstance(e, Persist) and e.bucket == durable.BLOCK for e in performed) and isinstance(
            node.engine, Engine
        ):
            self.round_of[node.index] = node.engine.state.round


def build_stage(scenario: Scenario, seed: int, keep_trace: int = 20_000) -> Stage:
    """Everything but the passing of time. Raises `ScenarioError` for a cast that cannot be."""
    params, tasks = scenario.params, _tasks(scenario, seed)
    if tasks:
        largest = max(task.train_count for task in tasks)
        params = evolve(params, max_weight=min(1 << 16, 1 << (largest - 1).bit_length()))
    founding = _found(scenario, seed, params, tasks)
    numbers = {identity.peer: number for number, identity in enumerate(founding.identities)}
    parts = parts_of_roles(first_roles(founding), numbers)
    notes = Notes()
    learner: Learner = (
        _real_learner(params, tasks) if tasks else SyntheticLearner(params, founding.bytes32("learner"))
    )
    world = World(
        seed,
        JobWorker(learner, notes=notes),
        model=_link_model(scenario.link),
        costs=_costs(scenario.machine),
        keep_trace=keep_trace,
    )
    timeline = Timeline(
        world, scenario.faults, numbers, genesis_state(founding.genesis), Random(f"timeline {seed}")
    )
    stage = Stage(
        scenario=scenario,
        seed=seed,
        founding=founding,
        parts=parts,
        numbers=numbers,
        world=world,
        notes=notes,
        ledger=Ledger(founding.genesis),
        timeline=timeline,
        integrity=Integrity(params, notes, lambda digest: _blob_of(world, digest)),
        privacy=Privacy(
            params, notes, lambda peer: _is_honest(world, peer), lambda digest: _blob_of(world, digest)
        ),
        blame=Blame(
            lambda peer: _is_honest(world, peer),
            lambda peer: timeline.disturbed(numbers[peer], timeline.state.round) or scenario.link.loss > 0,
            lambda peer: str(numbers[peer]),
        ),
        memory=Memory(params),
        returns=Watching(Returns(scenario.network.nodes), world),
    )
    _add_nodes(stage, tasks)
    _add_invariants(stage)
    return stage


def _add_invariants(stage: Stage) -> None:
    world, params, notes = stage.world, stage.founding.genesis.params, stage.notes
    network = stage.founding.genesis.network

    def blob_of(digest: bytes) -> bytes | None:
        return _blob_of(world, digest)

    waiting = Waiting()
    rules: list[StepRule] = [
        Quorums(),
        Phases(),
        Pins(params),
        Beacon(params, network),
        Roles(params),
        Contract(params),
        Rest(params),
        stage.privacy.at_step,
        stage.blame,
        Verdicts(params, notes, blob_of, lambda peer: _is_honest(world, peer)),
        stage.integrity,
        waiting.at_step,
        stage.timeline.at_step,
    ]
    stage.ledger.rules = rules
    stage.world.invariants = [
        Agreement(stored_block_id),
        Supply(supply_of, total_units(stage.founding.genesis)),
        Durability(),
        Resumption(),
        Holdings(),
        Conduct(),
        waiting,
        CatchUp(params.repair_interval_ms, lambda: world.now, world.nodes),
        PaceKept(params, lambda: world.now),
        Votes(params, notes),
        Shares(network),
        Blobs(),
        Blinding(params, notes, blob_of),
        stage.privacy,
        stage.ledger,
        stage.memory,
        stage.note_round,
        stage.returns,
    ]
    stage.world.watchers = [stage.memory]


def _tasks(scenario: Scenario, seed: int) -> tuple[LocalTask, ...]:
    network = scenario.network
    if network.task == SYNTHETIC:
        return ()
    from sim.learning import real_tasks

    return real_tasks(network.task, network.nodes, seed, network.partition)


def _real_learner(params: ProtocolParams, tasks: tuple[LocalTask, ...]) -> RealLearner:
    import torch

    from sim.learning import RealLearner

    torch.set_num_threads(1)
    return RealLearner(params, tasks)


def _found(scenario: Scenario, seed: int, params: ProtocolParams, tasks: Sequence[LocalTask]) -> Founding:
    """Stakes may depend on roles, which depend on stakes: roles are then those of equal stakes."""
    network = scenario.network
    units = round(network.stake_tokens * MICRO)
    weights = tasks[0].initial_weights(seed % (1 << 31)) if tasks else None

    def founded(stakes: Mapping[int, int]) -> Founding:
        return found(
            network.nodes,
            seed,
            params,
            task=network.task,
            weights=weights,
            stakes=stakes,
            stake_units=units,
            pool_units=round(network.pool_tokens * MICRO),
        )

    equal = founded({})
    stakes = stakes_of(scenario, parts_of_founding(equal))
    return founded(stakes) if stakes else equal


def parts_of_founding(founding: Founding) -> Parts:
    """Who has which part in round 1 if everybody advertises in time."""
    numbers = {identity.peer: number for number, identity in enumerate(founding.identities)}
    return parts_of_roles(first_roles(founding), numbers)


def stakes_of(scenario: Scenario, parts: Parts) -> dict[int, int]:
    """Stakes in units that differ from the network's, by node."""
    return {
        number: round(table.stake_tokens * MICRO)
        for table in scenario.nodes
        if table.stake_tokens is not None
        for number in select(table.who, parts, Random(0))
    }


def cast_of(scenario: Scenario, parts: Parts) -> dict[int, NodeTable]:
    """Who misbehaves, by node. `ScenarioError` where a node has two behaviours, or a table selects nobody."""
    cast: dict[int, NodeTable] = {}
    for table in scenario.nodes:
        chosen = select(table.who, parts, Random(0))
        if not chosen:
            raise ScenarioError(f"nobody is {' or '.join(map(str, table.who))} in round 1")
        if table.behaviour == "honest":
            continue
        for number in chosen:
            if number in cast:
                raise ScenarioError(
                    f"node {number} is to be both {cast[number].behaviour} and {table.behaviour}: "
                    "select nodes that do not overlap"
                )
            cast[number] = table
    return cast


def _add_nodes(stage: Stage, tasks: Sequence[LocalTask]) -> None:
    scenario, founding, world = stage.scenario, stage.founding, stage.world
    coalition, cast = Coalition(), cast_of(scenario, stage.parts)
    held = [(founding.genesis.model_digest, founding.checkpoint)]
    twins = [n for table in scenario.twins for n in select(table.who, stage.parts, Random(0))]
    for place, member in enumerate([*range(scenario.network.nodes), *twins]):
        watched = None
        if member in cast and place < scenario.network.nodes:
            table = cast[member]
            actor = Actor(
                founding=founding,
                member=member,
                parts=stage.parts,
                coalition=coalition,
                options=table.options,
            )
            made = make_filter(table.behaviour, actor)
            watched = None if made is None else Watched(made)
            if watched is not None:
                stage.cast[member] = (table.behaviour, watched)
        weight = tasks[member].train_count if tasks else None
        world.add_node(
            founding.identities[member].peer,
            lambda node, m=member, w=weight: make_engine(founding, m, node, w),  # type: ignore[misc]
            filter=watched,
            blobs=held,
            genesis=founding.genesis,
        )


def _link_model(link: LinkTable) -> LinkModel:
    return LinkModel(
        latency_min_ms=link.latency_min_ms,
        latency_max_ms=link.latency_max_ms,
        bytes_per_ms=max(1, link.bytes_per_s // 1_000),
        loss=link.loss,
        duplicate=link.duplicate,
        reorder=link.reorder,
        late_ms=link.late_ms,
    )


def _costs(machine: MachineTable) -> Costs | None:
    """None where nothing costs anything."""
    return None if machine == MachineTable() else Costs(**asdict(machine))


def _blob_of(world: World, digest: bytes) -> bytes | None:
    return next((node.blobs[digest] for node in world.nodes if digest in node.blobs), None)


def _is_honest(world: World, peer: bytes) -> bool:
    """Whether every machine with this key is honest."""
    return all(node.honest for node in world.nodes if node.peer == peer)
