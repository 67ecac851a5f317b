"""Founding a simulated network: identities, genesis, initial model, and a world of real engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.checks import Checks
from protocol.codec import digest
from protocol.engine import Engine
from protocol.keys import Identity
from protocol.ledger.block import stored_block_id
from protocol.params import MICRO, PROFILES, Genesis, GenesisMember, ProtocolParams, Setup, sort_members
from protocol.secrets import DealerPackage, issue_packages
from protocol.sortition import default_roles
from sim.checks import SharedChecks
from sim.filters import Filter
from sim.invariants.agreement import Agreement
from sim.invariants.base import Invariant
from sim.invariants.supply import Supply
from sim.learner import SyntheticLearner, sample_count
from sim.network import LinkModel
from sim.node import EngineLike, Node
from sim.schedule import Delays
from sim.worker import JobWorker
from sim.world import Worker, World

STAKE_UNITS = 64 * MICRO

Weights = npt.NDArray[np.float32]

Factory = Callable[["Founding", int, Node], EngineLike]
"""Makes the engine of member `int` for one life of a node."""


@frozen
class Founding:
    """What exists before the first node starts. Member i holds `identities[i]`."""

    seed: int
    genesis: Genesis
    identities: tuple[Identity, ...]
    checkpoint: bytes
    packages: Mapping[bytes, DealerPackage]
    checks: Checks = field(factory=SharedChecks, eq=False, repr=False)

    def bytes32(self, label: str) -> bytes:
        """32 bytes that follow from the seed, for one use."""
        return seeded_bytes(self.seed, label)


def seeded_bytes(seed: int, label: str) -> bytes:
    """32 bytes from a simulation's seed, independent of the world's own draws."""
    return digest("sim", seed.to_bytes(16, "big", signed=True), label.encode())


def small_params(nodes: int, profile: str = "hardened", *, dimension: int = 64) -> ProtocolParams:
    """A cheap network of `nodes` with the roles of its size and short deadlines."""
    n_proposers, n_voters = default_roles(nodes)
    params = PROFILES[profile](dimension=dimension, n_proposers=n_proposers, n_voters=n_voters)
    return evolve(
        params,
        singular_group_size=16,
        singular_rank=4,
        phase_deadline_ms=4_000,
        train_deadline_ms=8_000,
        view_timeout_ms=1_000,
        max_view_timeout_ms=8_000,
    )


def found(
    nodes: int,
    seed: int,
    params: ProtocolParams,
    *,
    task: str = "synthetic",
    weights: Weights | None = None,
    stakes: Mapping[int, int] | None = None,
    stake_units: int = STAKE_UNITS,
    pool_units: int = 100 * MICRO,
) -> Founding:
    """Identities, a genesis, and a model, all from the seed.

    `weights`, float32[d]: the first model; by default it is near the origin. `stakes`: those that differ
    from `stake_units`, by member.
    """
    identities = tuple(Identity.from_seed(seeded_bytes(seed, f"identity {i}")) for i in range(nodes))
    draws = Random(seed)
    if weights is None:
        weights = np.array([draws.uniform(-0.1, 0.1) for _ in range(params.dimension)], dtype=np.float32)
    checkpoint = initial_checkpoint(params, weights)
    peers = [identity.peer for identity in identities]
    genesis = Genesis(
        name="sim",
        task=task,
        params=params,
        members=sort_members(
            [GenesisMember(peer, (stakes or {}).get(i, stake_units)) for i, peer in enumerate(peers)]
        ),
        beacon=seeded_bytes(seed, "beacon"),
        model_digest=blob_digest(checkpoint),
        pool_units=pool_units,
    )
    dealt = params.setup is Setup.DEALER
    packages = issue_packages(seeded_bytes(seed, "dealer"), peers) if dealt else {}
    return Founding(seed, genesis, identities, checkpoint, packages)


def make_engine(founding: Founding, member: int, node: Node, weight: int | None = None) -> Engine:
    """The real engine, with the node's own stream of entropy. `weight`: by default a synthetic one."""
    identity = founding.identities[member]
    return Engine(
        identity,
        founding.genesis,
        node.entropy.randbytes,
        founding.packages.get(identity.peer),
        sample_count(founding.genesis.params, member) if weight is None else weight,
        founding.checks,
    )


def supply_of(node: Node) -> int:
    """All units in the ledger state of a node that runs the real engine."""
    assert isinstance(node.engine, Engine)
    return node.engine.state.supply_units


def total_units(genesis: Genesis) -> int:
    """All units that a network starts with."""
    return sum(member.stake_units for member in genesis.members) + genesis.pool_units


def build_world(
    nodes: int,
    seed: int,
    *,
    params: ProtocolParams | None = None,
    profile: str = "hardened",
    model: LinkModel | None = None,
    delays: Delays | None = None,
    filters: Mapping[int, Filter] | None = None,
    twins: Sequence[int] = (),
    worker: Worker | None = None,
    invariants: Sequence[Invariant] = (),
    factory: Factory = make_engine,
    start: bool = True,
    keep_trace: int = 20_000,
) -> World:
    """A network of `nodes` members, checked for agreement and supply after every event.

    `filters` makes adversaries of members, by index. For each member in `twins` a second node with its key
    follows after the others. `params` defaults to `small_params(nodes, profile)`; `keep_trace`: see `World`.
    """
    params = params or small_params(nodes, profile)
    founding = found(nodes, seed, params)
    learner = SyntheticLearner(params, founding.bytes32("learner"))
    standard: list[Invariant] = [Agreement(stored_block_id)]
    if factory is make_engine:
        standard.append(Supply(supply_of, total_units(founding.genesis)))
    world = World(
        seed,
        worker or JobWorker(learner),
        model=model,
        delays=delays,
        invariants=[*standard, *invariants],
        keep_trace=keep_trace,
    )
    held = [(founding.genesis.model_digest, founding.checkpoint)]
    for member in [*range(nodes), *twins]:
        world.add_node(
            founding.identities[member].peer,
            lambda node, member=member: factory(founding, member, node),  # type: ignore[misc]
            filter=(filters or {}).get(member),
            blobs=held,
            genesis=founding.genesis if factory is make_engine else None,
        )
    if start:
        world.start_all()
    return world
