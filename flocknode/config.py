"""A node directory: everything one node is started from, written once and validated strictly when it is read.

node.toml     where it listens, whom it knows, what it learns
genesis.bin   the network, alike at every node
node.key      its signing key; dealer.key and network.key where the network has them
blobs/        the initial model, and later all others;  ledger.db  node.log  appear when it runs
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
from attrs import field, frozen
from attrs.validators import ge, in_, le, matches_re, optional

from flocknode import keystore
from flocknode.blobs import BlobStore
from flocknode.files import write_file
from flocknode.learning.synthetic import SYNTHETIC
from flocknode.learning.task import (
    MAX_BATCH_SIZE,
    MAX_EPOCHS,
    MAX_SEED,
    PARTITIONS,
    TASK_NAMES,
    Scalar,
)
from flocknode.observe.log import LEVELS
from flocknode.tables import Record, read_record
from flocknode.transport.base import InvalidAddressError, Member, parse_address
from protocol.blob import blob_digest
from protocol.codec import DecodeError
from protocol.keys import Identity, PeerNameError, peer_from_name, peer_name
from protocol.params import Genesis, Setup
from protocol.secrets import DealerPackage

CONFIG_FILE = "node.toml"
GENESIS_FILE = "genesis.bin"
MAX_SHARDS = 4096
BroadcastMode = Literal["push", "gossipsub"]
BehaviourKind = Literal["honest", "poison"]


class ConfigError(Exception):
    """A node directory is incomplete or contradicts itself; the message names the file and the key."""


def _finite(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not isfinite(value):
        raise ValueError(f"'{attribute.name}' must be finite: {value}")


def _multiaddr(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        parse_address(value)
    except InvalidAddressError as error:
        raise ValueError(f"'{attribute.name}': {error}") from error


@frozen(kw_only=True)
class NodeSettings:
    """The table [node]. `listen`: a TCP multiaddr, port 0 for any free port."""

    name: str = field(validator=matches_re(r"[A-Za-z0-9._-]{1,64}"))
    listen: str = field(validator=_multiaddr)
    broadcast: BroadcastMode = field(default="push", validator=in_(get_args(BroadcastMode)))
    log_level: str = field(default="info", validator=in_(tuple(LEVELS)))
    torch_threads: int = field(default=1, validator=[ge(1), le(256)])


@frozen(kw_only=True)
class LearningSettings:
    """The table [learning]: the task, this node's shard of its data, and what overrides the task's defaults.

    All nodes of a network share `shards`, `seed`, `partition` and `alpha`, or their shards overlap.
    `training_seed` orders the samples in place of the node's own secret, so that a run can be compared.
    """

    task: str = field(validator=in_((*TASK_NAMES, SYNTHETIC)))
    shard: int = field(validator=ge(0))
    shards: int = field(validator=[ge(1), le(MAX_SHARDS)])
    seed: int = field(default=0, validator=[ge(0), le(MAX_SEED)])
    partition: str = field(default="iid", validator=in_(PARTITIONS))
    alpha: float = field(default=0.5, validator=[_finite, ge(1e-6), le(1e6)])
    epochs: int | None = field(default=None, validator=optional([ge(1), le(MAX_EPOCHS)]))
    batch_size: int | None = field(default=None, validator=optional([ge(1), le(MAX_BATCH_SIZE)]))
    learning_rate: float | None = field(default=None, validator=optional([_finite, ge(0.0), le(100.0)]))
    momentum: float | None = field(default=None, validator=optional([_finite, ge(0.0), le(0.999)]))
    training_seed: int | None = field(default=None, validator=optional([ge(0), le(MAX_SEED)]))

    def __attrs_post_init__(self) -> None:
        if self.shard >= self.shards:
            raise ValueError(f"'shard' must be below 'shards': {self.shard} of {self.shards}")

    def hyperparameters(self) -> dict[str, Scalar]:
        """What is set of the keys that `Task.fit` reads from its configuration."""
        chosen = {name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate", "momentum")}
        chosen["seed"] = self.training_seed
        return {name: value for name, value in chosen.items() if value is not None}


@frozen(kw_only=True)
class Behaviour:
    """The table [behaviour]: how this node misbehaves, for demos and experiments.

    "poison" trains on flipped labels, scales its update, and votes against its own judgement. Training waits
    for `train_delay_ms` in every round that is a multiple of `delay_every`.
    """

    kind: BehaviourKind = field(default="honest", validator=in_(get_args(BehaviourKind)))
    scale: float = field(default=1.0, validator=_finite)
    train_delay_ms: int = field(default=0, validator=[ge(0), le(3_600_000)])
    delay_every: int = field(default=1, validator=[ge(1), le(1_000_000)])


@frozen(kw_only=True)
class NodeConfig:
    """node.toml. `members` lists everyone this node admits, with their addresses; itself as well."""

    node: NodeSettings
    learning: LearningSettings
    behaviour: Behaviour = field(factory=Behaviour)
    members: tuple[Member, ...]


@frozen(kw_only=True)
class NodeDirectory:
    """A directory that was read and found consistent. `psk`: 32 bytes, in a closed network."""

    path: Path
    config: NodeConfig
    genesis: Genesis
    identity: Identity
    dealer: DealerPackage | None = field(default=None, repr=False)
    psk: bytes | None = field(default=None, repr=False)

    @property
    def peer(self) -> bytes:
        """Who this node is."""
        return self.identity.peer


@frozen(kw_only=True)
class Invitation:
    """A directory that lacks its key, which the node of `peer` keeps to itself until it puts it there."""

    path: Path
    config: NodeConfig
    genesis: Genesis
    peer: bytes
    dealer: DealerPackage | None = field(default=None, repr=False)
    psk: bytes | None = field(default=None, repr=False)


def write_node_dir(directory: NodeDirectory, initial_model: bytes) -> None:
    """Create the directory of a new node; `initial_model` is the blob that the genesis names.

    node.toml is written last, so that what an interruption leaves is not taken for a node. Raises
    `ConfigError` where the directory is not empty or the parts do not fit together, `KeystoreError`,
    `BlobStoreError`.
    """
    invitation = Invitation(
        path=directory.path,
        config=directory.config,
        genesis=directory.genesis,
        peer=directory.identity.peer,
        dealer=directory.dealer,
        psk=directory.psk,
    )
    _write(invitation, initial_model, directory.identity)


def write_invitation(invitation: Invitation, initial_model: bytes) -> None:
    """As `write_node_dir`, for a node whose key somebody else holds."""
    _write(invitation, initial_model, None)


def _write(directory: Invitation, initial_model: bytes, identity: Identity | None) -> None:
    path = directory.path
    if blob_digest(initial_model) != directory.genesis.model_digest:
        raise ConfigError(f"{path}: the initial model is not the one that the genesis names")
    _check_consistent(directory)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(f"{path}: not empty; a node's directory is never written over")
        write_file(path / GENESIS_FILE, [directory.genesis.to_bytes()])
        if identity is not None:
            keystore.save_identity(path, identity)
        if directory.dealer is not None:
            keystore.save_dealer_package(path, directory.dealer)
        if directory.psk is not None:
            keystore.save_psk(path, directory.psk)
        BlobStore(path).put(directory.genesis.model_digest, initial_model)
        write_file(path / CONFIG_FILE, [to_toml(directory.config).encode()])
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def load_node_dir(path: Path) -> NodeDirectory:
    """Read and check a node's directory. Raises `ConfigError` or `KeystoreError`, naming file and key."""
    config = from_toml(_read(path / CONFIG_FILE), path / CONFIG_FILE)
    try:
        genesis = Genesis.from_bytes(_read(path / GENESIS_FILE))
    except DecodeError as error:
        raise ConfigError(f"{path / GENESIS_FILE}: {error}") from error
    directory = NodeDirectory(
        path=path,
        config=config,
        genesis=genesis,
        identity=keystore.load_identity(path),
        dealer=keystore.load_dealer_package(path),
        psk=keystore.load_psk(path),
    )
    _check_consistent(directory)
    return directory


def _check_consistent(directory: NodeDirectory | Invitation) -> None:
    config, genesis = directory.config, directory.genesis
    file = directory.path / CONFIG_FILE
    if config.learning.task != genesis.task:
        raise ConfigError(
            f"{file}: learning.task is {config.learning.task!r}, the genesis is for {genesis.task!r}"
        )
    listed = {member.peer for member in config.members}
    if len(listed) != len(config.members):
        raise ConfigError(f"{file}: members: a peer is listed twice")
    for member in genesis.members:
        if member.peer not in listed:
            raise ConfigError(f"{file}: members: {peer_name(member.peer)} of the genesis is not listed")
    if directory.peer not in listed:
        raise ConfigError(f"{file}: members: this node itself, {peer_name(directory.peer)}, is not listed")
    if (genesis.params.setup is Setup.DEALER) != (directory.dealer is not None):
        word = "lacks" if directory.dealer is None else "has no use for"
        raise ConfigError(f"{directory.path / keystore.DEALER_FILE}: this network {word} a dealer's package")


# -- TOML ----------------------------------------------------------------------------------------


def to_toml(config: NodeConfig) -> str:
    """node.toml, with a comment on top of each table; `from_toml` reads it back."""
    return "\n".join(_lines(config)) + "\n"


def _lines(config: NodeConfig) -> Iterator[str]:
    for table in ("node", "learning", "behaviour"):
        record = getattr(config, table)
        yield f"[{table}]"
        for name, value in attrs.asdict(record).items():
            if value is not None:
                yield f"{name} = {_literal(value)}"
        yield ""
    for member in config.members:
        yield "[[members]]"
        yield f"peer = {_literal(peer_name(member.peer))}"
        yield f"address = {_literal(member.address)}"
        yield ""


def _literal(value: str | int | float) -> str:
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def from_toml(data: bytes, file: Path) -> NodeConfig:
    """The configuration in `data`; `file` is for messages. Raises `ConfigError` naming file and key."""
    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if unknown := sorted(tables.keys() - {"node", "learning", "behaviour", "members"}):
        raise ConfigError(f"{file}: unknown key {unknown[0]!r}")
    return NodeConfig(
        node=_record(NodeSettings, tables.get("node", {}), file, "node"),
        learning=_record(LearningSettings, tables.get("learning", {}), file, "learning"),
        behaviour=_record(Behaviour, tables.get("behaviour", {}), file, "behaviour"),
        members=tuple(_members(tables.get("members", []), file)),
    )


def _members(entries: Any, file: Path) -> Iterator[Member]:
    if not isinstance(entries, list):
        raise ConfigError(f"{file}: 'members' must be an array of tables, [[members]]")
    for number, entry in enumerate(entries):
        where = f"members[{number}]"
        listed = _record(_ListedMember, entry, file, where)
        try:
            yield Member(peer_from_name(listed.peer), listed.address)
        except PeerNameError as error:
            raise ConfigError(f"{file}: {where}.peer: {error}") from error
        except ValueError as error:
            raise ConfigError(f"{file}: {where}: {error}") from error


@frozen(kw_only=True)
class _ListedMember:
    peer: str
    address: str = field(validator=_multiaddr)


def _record(cls: type[Record], table: Any, file: Path, where: str) -> Record:
    return read_record(cls, table, where, lambda what: ConfigError(f"{file}: {what}"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
