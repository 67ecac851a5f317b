"""Founding a network: genesis, initial model, and a directory for each node, to be copied to its machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from flocknode.config import (
    Behaviour,
    ConfigError,
    Invitation,
    LearningSettings,
    NodeConfig,
    NodeDirectory,
    NodeSettings,
    write_invitation,
    write_node_dir,
)
from flocknode.defaults import STAKE_TOKENS
from flocknode.learning.datasets import SOURCES
from flocknode.learning.models import MODELS
from flocknode.learning.synthetic import SAMPLES, SYNTHETIC, SyntheticTask
from flocknode.learning.task import Weights
from flocknode.transport.base import Member
from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.keys import Identity
from protocol.ledger.transactions import tokens_text
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

STAKE_UNITS = round(STAKE_TOKENS * MICRO)
"""FLock's initial stake: 64 tokens a node."""

FEWEST_VALIDATORS = 4
"""With fewer no round is ever opened (docs/PROTOCOL.md section 3.1)."""

Draw = Callable[[str], bytes]
"""32 bytes for one named use: from the operating system, or from a seed where a run is to be repeated."""


@frozen(kw_only=True)
class Plan:
    """What a network is founded from. Node i listens at `addresses[i]` and holds shard i of the task's data.

    `proposers` and `voters`: by default those of the network's size (docs/PROTOCOL.md section 3). `seed`
    deals the data out and draws the initial model; `training_seeds`: see `LearningSettings`. `settings`
    overrides fields of `ProtocolParams`. `peers`: those nodes, by number, that bring their own keys.
    `dimension`: of a synthetic task. `stakes`: of nodes, by number, whose stake is not `stake_units`.
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
    dimension: int = 50_000
    stake_units: int = STAKE_UNITS
    pool_units: int = 0
    settings: Mapping[str, Any] = field(factory=dict)
    training_seeds: tuple[int, ...] | None = None
    behaviours: Mapping[int, Behaviour] = field(factory=dict)
    stakes: Mapping[int, int] = field(factory=dict)
    peers: Mapping[int, bytes] = field(factory=dict)
    psk: bytes | None = field(default=None, repr=False)

    @property
    def nodes(self) -> int:
        return len(self.addresses)


def network_params(plan: Plan) -> ProtocolParams:
    """The parameters that a plan leads to. Raises `ConfigError` where they do not fit together."""
    if plan.profile not in PROFILES:
        raise ConfigError(f"unknown profile {plan.profile!r}: choose one of {', '.join(PROFILES)}")
    if plan.task not in (*MODELS, SYNTHETIC):
        raise ConfigError(f"unknown task {plan.task!r}: choose one of {', '.join(MODELS)}")
    try:
        n_proposers, n_voters = default_roles(plan.nodes)
        n_proposers = n_proposers if plan.proposers is None else plan.proposers
        params = PROFILES[plan.profile](
            dimension=plan.dimension if plan.task == SYNTHETIC else MODELS[plan.task].dimension,
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
    if params.n_voters >= plan.nodes:
        raise ConfigError(
            f"{params.n_voters} voters among {plan.nodes} nodes: "
            f"at most {plan.nodes - 1}, all but the aggregator"
        )
    stakes = [plan.stakes.get(index, plan.stake_units) for index in range(plan.nodes)]
    if sum(stake >= params.min_stake_units for stake in stakes) < FEWEST_VALIDATORS:
        raise ConfigError(
            f"stakes of {', '.join(tokens_text(stake) for stake in sorted(set(stakes)))} tokens: "
            f"a validator needs {tokens_text(params.min_stake_units)}, and a network four validators"
        )
    return params


def found(root: Path, plan: Plan, draw: Draw) -> tuple[Path, ...]:
    """Create `root`/node-0, `root`/node-1 and so on, and return them.

    Whoever runs this sees the keys of all nodes but `plan.peers`, whose directories lack node.key. Raises
    `ConfigError`, `KeystoreError`, `BlobStoreError`.
    """
    params = network_params(plan)
    identities = {
        i: Identity.from_seed(draw(f"identity {i}")) for i in range(plan.nodes) if i not in plan.peers
    }
    peers = [plan.peers[i] if i in plan.peers else identities[i].peer for i in range(plan.nodes)]
    model = initial_checkpoint(params, _initial_weights(plan))
    try:
        genesis = Genesis(
            name=plan.name,
            task=plan.task,
            params=params,
            members=sort_members(
                [GenesisMember(peer, plan.stakes.get(i, plan.stake_units)) for i, peer in enumerate(peers)]
            ),
            beacon=draw("beacon"),
            model_digest=blob_digest(model),
            pool_units=plan.pool_units,
        )
    except ParamsError as error:
        raise ConfigError(str(error)) from error
    packages: Mapping[bytes, DealerPackage] = {}
    if params.setup is Setup.DEALER:
        packages = issue_packages(draw("dealer"), peers)
    paths = []
    for index, peer in enumerate(peers):
        path = root / f"node-{index}"
        config, dealer = _config(plan, index, peers), packages.get(peer)
        if index in identities:
            directory = NodeDirectory(
                path=path,
                config=config,
                genesis=genesis,
                identity=identities[index],
                dealer=dealer,
                psk=plan.psk,
            )
            write_node_dir(directory, model)
        else:
            invitation = Invitation(
                path=path, config=config, genesis=genesis, peer=peer, dealer=dealer, psk=plan.psk
            )
            write_invitation(invitation, model)
        paths.append(path)
    return tuple(paths)


def _config(plan: Plan, index: int, peers: Sequence[bytes]) -> NodeConfig:
    return NodeConfig(
        node=NodeSettings(name=f"node-{index}", listen=plan.addresses[index]),
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
        members=tuple(Member(peer, address) for peer, address in zip(peers, plan.addresses, strict=True)),
    )


def _initial_weights(plan: Plan) -> Weights:
    if plan.task == SYNTHETIC:
        return SyntheticTask(plan.dimension, plan.seed).initial_weights(plan.seed)
    return MODELS[plan.task].initial_weights(plan.seed)


def _weight_bound(plan: Plan) -> int:
    """The least power of two that is no smaller than any node's sample count.

    Updates are encoded in proportion to w_i / w_max: a loose bound costs them precision.
    """
    if plan.task == SYNTHETIC:
        largest = SAMPLES
    elif plan.partition == "iid":
        largest = -(-SOURCES[plan.task].samples // plan.nodes)
    else:
        largest = SOURCES[plan.task].samples
    return min(1 << 16, 1 << (largest - 1).bit_length())
