"""Founding a network: genesis, initial model, and a directory for each node, to be copied to its machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from flocknode.config import (
    Behaviour,
    ConfigError,
    LearningSettings,
    NodeConfig,
    NodeDirectory,
    NodeSettings,
    write_node_dir,
)
from flocknode.learning.datasets import SOURCES
from flocknode.learning.models import MODELS
from flocknode.transport.base import Member
from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.keys import Identity
from protocol.params import (
    MICRO,
    PROFILES,
    Genesis,
    GenesisMember,
    ParamsError,
    ProtocolParams,
    Setup,
    sort_members,
)
from protocol.secrets import DealerPackage, issue_packages
from protocol.sortition import SortitionError, default_roles

STAKE_UNITS = 64 * MICRO
"""FLock's initial stake: 64 tokens a node."""

Draw = Callable[[str], bytes]
"""32 bytes for one named use: from the operating system, or from a seed where a run is to be repeated."""


@frozen(kw_only=True)
class Plan:
    """What a network is founded from. Node i listens at `addresses[i]` and holds shard i of the task's data.

    `proposers` and `voters`: by default those of the network's size (docs/PROTOCOL.md section 3). `seed`
    deals the data out and draws the initial model; `training_seeds`: see `LearningSettings`. `settings`
    overrides fields of `ProtocolParams`.
    """

    task: str
    addresses: tuple[str, ...]
    name: str = "flocknode"
    profile: str = "hardened"
    proposers: int | None = None
    voters: int | None = None
    seed: int = 0
    partition: str = "iid"
    alpha: float = 0.5
    stake_units: int = STAKE_UNITS
    pool_units: int = 0
    settings: Mapping[str, Any] = field(factory=dict)
    training_seeds: tuple[int, ...] | None = None
    behaviours: Mapping[int, Behaviour] = field(factory=dict)
    psk: bytes | None = field(default=None, repr=False)

    @property
    def nodes(self) -> int:
        return len(self.addresses)


def network_params(plan: Plan) -> ProtocolParams:
    """The parameters that a plan leads to. Raises `ConfigError` where they do not fit together."""
    if plan.profile not in PROFILES:
        raise ConfigError(f"unknown profile {plan.profile!r}: choose one of {', '.join(PROFILES)}")
    if plan.task not in MODELS:
        raise ConfigError(f"unknown task {plan.task!r}: choose one of {', '.join(MODELS)}")
    try:
        n_proposers, n_voters = default_roles(plan.nodes)
        n_proposers = n_proposers if plan.proposers is None else plan.proposers
        params = PROFILES[plan.profile](
            dimension=MODELS[plan.task].dimension,
            n_proposers=n_proposers,
            n_voters=n_voters if plan.voters is None else plan.voters,
        )
        params = evolve(params, max_weight=_weight_bound(plan), **plan.settings)
    except (SortitionError, ParamsError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if n_proposers >= plan.nodes:
        raise ConfigError(
            f"{n_proposers} proposers leave no aggregator among {plan.nodes} nodes: "
            f"at most {plan.nodes - 1}, because an aggregator never proposes"
        )
    return params


def found(root: Path, plan: Plan, draw: Draw) -> tuple[NodeDirectory, ...]:
    """Create `root`/node-0, `root`/node-1 and so on. Raises `ConfigError`, `KeystoreError`, `BlobStoreError`.

    Whoever runs this sees every key. Nodes that trust nobody with theirs are founded by `invite`.
    """
    params = network_params(plan)
    identities = [Identity.from_seed(draw(f"identity {i}")) for i in range(plan.nodes)]
    model = initial_checkpoint(params, MODELS[plan.task].initial_weights(plan.seed))
    genesis = Genesis(
        name=plan.name,
        task=plan.task,
        params=params,
        members=sort_members([GenesisMember(identity.peer, plan.stake_units) for identity in identities]),
        beacon=draw("beacon"),
        model_digest=blob_digest(model),
        pool_units=plan.pool_units,
    )
    packages: Mapping[bytes, DealerPackage] = {}
    if params.setup is Setup.DEALER:
        packages = issue_packages(draw("dealer"), [identity.peer for identity in identities])
    members = tuple(
        Member(identity.peer, address) for identity, address in zip(identities, plan.addresses, strict=True)
    )
    directories = []
    for index, identity in enumerate(identities):
        name = f"node-{index}"
        directory = NodeDirectory(
            path=root / name,
            config=NodeConfig(
                node=NodeSettings(name=name, listen=plan.addresses[index]),
                learning=LearningSettings(
                    task=plan.task,
                    shard=index,
                    shards=plan.nodes,
                    seed=plan.seed,
                    partition=plan.partition,
                    alpha=plan.alpha,
                    training_seed=None if plan.training_seeds is None else plan.training_seeds[index],
                ),
                behaviour=plan.behaviours.get(index, Behaviour()),
                members=members,
            ),
            genesis=genesis,
            identity=identity,
            dealer=packages.get(identity.peer),
            psk=plan.psk,
        )
        write_node_dir(directory, model)
        directories.append(directory)
    return tuple(directories)


def _weight_bound(plan: Plan) -> int:
    """The least power of two that is no smaller than any node's sample count.

    Updates are encoded in proportion to w_i / w_max: a loose bound costs them precision.
    """
    samples = SOURCES[plan.task].samples
    largest = -(-samples // plan.nodes) if plan.partition == "iid" else samples
    return min(1 << 16, 1 << (largest - 1).bit_length())
