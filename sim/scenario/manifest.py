"""A scenario as it stands in a TOML file: a network, who misbehaves, what breaks when, and what must hold.

The same manifest is run in virtual time (`flocknode sim run`) and by real processes (`flocknode lab run`).
Whatever is wrong with one is a `ScenarioError` that names the file and the key. docs/SCENARIOS.md explains
every key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen
from attrs.validators import ge, gt, in_, instance_of, le, matches_re

from flocknode.learning.models import MODELS
from flocknode.learning.task import PARTITIONS, TASK_NAMES
from flocknode.tables import Record, read_record
from protocol.ledger.adaptive import AdaptiveGamma
from protocol.ledger.judgement import Judgement
from protocol.ledger.pace import Pace
from protocol.messages import STATEMENT_KINDS, Kind, TransactionKind
from protocol.params import PROFILES, ParamsError, ProtocolParams
from protocol.sortition import SortitionError, default_roles
from sim.scenario.expectations import Expectation as Expectation
from sim.scenario.expectations import ExpectationReader
from sim.scenario.moments import MomentError, Place, parse_place
from sim.scenario.selectors import Part, Selector, SelectorError, parse_selector

SYNTHETIC = "synthetic"
TABLES = ("name", "about", "network", "link", "machine", "params", "nodes", "faults", "expect")
MAX_NODES = 256
MAX_ROUNDS = 10_000
DAY_S = 86_400.0
OPTIONS: Mapping[str, type[Any]] = {"adaptive_gamma": AdaptiveGamma, "judgement": Judgement, "pace": Pace}
"""Parameters that are tables of their own."""


class ScenarioError(Exception):
    """A manifest is malformed or contradicts itself; the message names the file and the key."""


class FaultKind(Enum):
    """What can be done to a network. docs/SCENARIOS.md says what each does, here and in the lab."""

    KILL = "kill"
    RESTART = "restart"
    PAUSE = "pause"
    DISCONNECT = "disconnect"
    PARTITION = "partition"
    CUT = "cut"
    LOSS = "loss"
    SLOW = "slow"
    BUSY = "busy"
    CLOCK = "clock"
    CORRUPT = "corrupt"
    TRUNCATE = "truncate"
    WIPE = "wipe"
    DISK_FULL = "disk-full"
    ORDER = "order"


NEEDS: Mapping[FaultKind, frozenset[str]] = {
    FaultKind.KILL: frozenset({"who"}),
    FaultKind.RESTART: frozenset({"who"}),
    FaultKind.PAUSE: frozenset({"who", "for_s"}),
    FaultKind.DISCONNECT: frozenset({"who", "for_s"}),
    FaultKind.PARTITION: frozenset({"groups", "for_s"}),
    FaultKind.CUT: frozenset({"who", "to", "for_s"}),
    FaultKind.LOSS: frozenset({"who", "rate", "for_s"}),
    FaultKind.SLOW: frozenset({"who", "for_s"}),
    FaultKind.BUSY: frozenset({"who", "factor", "for_s"}),
    FaultKind.CLOCK: frozenset({"who", "factor"}),
    FaultKind.CORRUPT: frozenset({"who"}),
    FaultKind.TRUNCATE: frozenset({"who"}),
    FaultKind.WIPE: frozenset({"who"}),
    FaultKind.DISK_FULL: frozenset({"who", "for_s"}),
    FaultKind.ORDER: frozenset({"who", "order"}),
}
"""Keys that a fault of a kind cannot do without."""

TAKES: Mapping[FaultKind, frozenset[str]] = {
    FaultKind.KILL: frozenset({"for_s", "after_effects"}),
    FaultKind.SLOW: frozenset({"delay_ms", "bytes_per_s"}),
    FaultKind.CLOCK: frozenset({"for_s"}),
    FaultKind.CORRUPT: frozenset({"for_s"}),
    FaultKind.TRUNCATE: frozenset({"for_s"}),
    FaultKind.WIPE: frozenset({"for_s"}),
    FaultKind.ORDER: frozenset({"tokens", "to", "replaces"}),
}
"""Keys that it may have besides, and besides those of every fault."""

ALWAYS = frozenset({"at", "at_s", "after_s", "do", "every_s", "until_round", "sends"})


@frozen(kw_only=True)
class NetworkTable:
    """[network]. `patience_s`: how long, in virtual or real seconds, all rounds may take together."""

    nodes: int = field(validator=[ge(4), le(MAX_NODES)])
    rounds: int = field(default=3, validator=[ge(1), le(MAX_ROUNDS)])
    profile: str = field(default="hardened", validator=in_(tuple(PROFILES)))
    task: str = field(default=SYNTHETIC, validator=in_((SYNTHETIC, *TASK_NAMES)))
    dimension: int = field(default=64, validator=[ge(1), le(1 << 24)])
    partition: str = field(default="iid", validator=in_(PARTITIONS))
    stake_tokens: float = field(default=64.0, validator=[ge(8.0), le(1e9)])
    pool_tokens: float = field(default=100.0, validator=[ge(0.0), le(1e9)])
    patience_s: float = field(default=900.0, validator=[gt(0.0), le(DAY_S)])


@frozen(kw_only=True)
class LinkTable:
    """[link]: every direction of every link. Latency is uniform; reordering costs up to `late_ms`."""

    latency_min_ms: int = field(default=5, validator=[ge(0), le(60_000)])
    latency_max_ms: int = field(default=40, validator=[ge(0), le(60_000)])
    bytes_per_s: int = field(default=12_500_000, validator=[ge(1_000), le(10**12)])
    loss: float = field(default=0.0, validator=[ge(0.0), le(0.9)])
    duplicate: float = field(default=0.0, validator=[ge(0.0), le(0.9)])
    reorder: float = field(default=0.0, validator=[ge(0.0), le(1.0)])
    late_ms: int = field(default=1_000, validator=[ge(0), le(60_000)])

    def __attrs_post_init__(self) -> None:
        if self.latency_max_ms < self.latency_min_ms:
            raise ValueError("'latency_max_ms' must not be below 'latency_min_ms'")


@frozen(kw_only=True)
class MachineTable:
    """[machine]: what a node's processor takes, in microseconds of virtual time; events wait for each other.

    `message_us`: to take a message in. `kilobyte_us`: for each 1,000 bytes of messages that come or go.
    `block_us`: to check and apply a block. `read_us`: to read a stored block for a peer.
    """

    message_us: int = field(default=0, validator=[ge(0), le(10**7)])
    kilobyte_us: int = field(default=0, validator=[ge(0), le(10**7)])
    block_us: int = field(default=0, validator=[ge(0), le(10**7)])
    read_us: int = field(default=0, validator=[ge(0), le(10**7)])


@frozen(kw_only=True)
class NodeTable:
    """One of [[nodes]]: how some nodes differ from the others. Roles are those of round 1.

    `behaviour`: a name of `sim.adversaries.registry`; `options` are its own. `twin`: a second machine runs
    with the same key.
    """

    who: tuple[Selector, ...]
    behaviour: str = field(default="honest", validator=matches_re(r"[a-z][a-z0-9-]{0,48}"))
    options: Mapping[str, Any] = field(factory=dict)
    stake_tokens: float | None = None
    twin: bool = field(default=False, validator=instance_of(bool))


@frozen(kw_only=True)
class Fault:
    """One of [[faults]]. It strikes `after_s` after its moment, and is undone `for_s` later (None: never).

    The moment is `place` or the second `at_s`; `every_s` repeats it until round `until_round` begins. With
    `sends` it strikes each of `who` when that node itself sends its first statement of this kind in the
    round, between that effect and the next. `after_effects` crashes between two effects of one event.
    `order`: the transaction that the operators of `who` ask for, of `tokens` and, in a transfer, for `to`;
    in place of the waiting one of the number `replaces`.
    `groups`: the sides of a partition; nodes in none of them are one more side. `to`: the far ends of a cut.
    """

    do: FaultKind
    place: Place | None = None
    at_s: float | None = None
    after_s: float = 0.0
    who: tuple[Selector, ...] = ()
    to: tuple[Selector, ...] = ()
    groups: tuple[tuple[Selector, ...], ...] = ()
    for_s: float | None = None
    rate: float = 0.0
    factor: float = 1.0
    delay_ms: int = 0
    bytes_per_s: int | None = None
    after_effects: int | None = None
    sends: Kind | None = None
    order: TransactionKind | None = None
    tokens: float = 0.0
    replaces: int | None = None
    every_s: float | None = None
    until_round: int | None = None


@frozen(kw_only=True)
class Scenario:
    """A manifest that was read and found consistent."""

    name: str
    about: str
    network: NetworkTable
    params: ProtocolParams
    link: LinkTable = field(factory=LinkTable)
    machine: MachineTable = field(factory=MachineTable)
    nodes: tuple[NodeTable, ...] = ()
    faults: tuple[Fault, ...] = ()
    expect: Expectation

    @property
    def twins(self) -> tuple[NodeTable, ...]:
        return tuple(table for table in self.nodes if table.twin)


def load_scenario(path: Path) -> Scenario:
    """Read and check a manifest. Raises `ScenarioError` naming the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return parse_scenario(text, str(path))


def parse_scenario(text: str, file: str) -> Scenario:
    """As `load_scenario`; `file` is for messages."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{file}: {error}") from error
    return _Reader(file).scenario(tables)


@define
class _Reader:
    """Reads one file; every error carries its name. `nodes`: how many there are, once [network] is read."""

    file: str
    nodes: int = MAX_NODES

    def error(self, what: str) -> ScenarioError:
        return ScenarioError(f"{self.file}: {what}")

    def record(self, cls: type[Record], table: Any, where: str) -> Record:
        return read_record(cls, table, where, self.error)

    # -- tables ----------------------------------------------------------------------------------

    def scenario(self, tables: Mapping[str, Any]) -> Scenario:
        if unknown := sorted(tables.keys() - set(TABLES)):
            raise self.error(f"unknown key {unknown[0]!r}")
        if "network" not in tables:
            raise self.error("[network] is missing")
        network = self.record(NetworkTable, tables["network"], "network")
        self.nodes = network.nodes
        nodes = tuple(self._node(t, f"nodes[{i}]") for i, t in enumerate(self._array(tables, "nodes")))
        faults = tuple(self._fault(t, f"faults[{i}]") for i, t in enumerate(self._array(tables, "faults")))
        for number, fault in enumerate(faults):
            if fault.place is not None and fault.place.round > network.rounds:
                raise self.error(f"faults[{number}].at: the network runs {network.rounds} rounds only")
        return Scenario(
            name=self._text(tables, "name"),
            about=self._text(tables, "about"),
            network=network,
            params=self._params(network, tables.get("params", {})),
            link=self.record(LinkTable, tables.get("link", {}), "link"),
            machine=self.record(MachineTable, tables.get("machine", {}), "machine"),
            nodes=nodes,
            faults=faults,
            expect=self._expectation(tables.get("expect", {}), network.rounds),
        )

    def _expectation(self, table: Any, rounds: int) -> Expectation:
        return ExpectationReader(rounds, self._selectors, self.error).read(table)

    def _text(self, table: Mapping[str, Any], key: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"'{key}' must be a text")
        return value

    def _array(self, tables: Mapping[str, Any], key: str) -> Sequence[Any]:
        value = tables.get(key, [])
        if not isinstance(value, list):
            raise self.error(f"'{key}' must be an array of tables, [[{key}]]")
        return value

    def _params(self, network: NetworkTable, table: Any) -> ProtocolParams:
        """Short deadlines, so that a fault costs seconds; [params] overrides any field."""
        if not isinstance(table, Mapping):
            raise self.error("'params' must be a table")
        attrs.resolve_types(ProtocolParams)
        known = {a.name: a for a in attrs.fields(ProtocolParams) if a.name not in ("profile", "dimension")}
        if unknown := sorted(table.keys() - known.keys()):
            raise self.error(f"unknown key 'params.{unknown[0]}'")
        values: dict[str, Any] = dict(SHORT_DEADLINES)
        for key, value in table.items():
            kind = known[key].type
            if isinstance(kind, type) and issubclass(kind, Enum):
                try:
                    value = kind(value)
                except ValueError:
                    choices = ", ".join(str(member.value) for member in kind)
                    raise self.error(f"'params.{key}' must be one of {choices}") from None
            elif key in OPTIONS:
                value = self.record(OPTIONS[key], value, f"params.{key}")
            elif type(value) is not kind:
                raise self.error(f"'params.{key}' must be {getattr(kind, '__name__', kind)}")
            values[key] = value
        try:
            n_proposers, n_voters = default_roles(network.nodes)
            values.setdefault("n_proposers", n_proposers)
            values.setdefault("n_voters", n_voters)
            base = PROFILES[network.profile](
                dimension=network.dimension if network.task == SYNTHETIC else MODELS[network.task].dimension,
                n_proposers=values.pop("n_proposers"),
                n_voters=values.pop("n_voters"),
            )
            params = attrs.evolve(base, **values)
        except (ParamsError, SortitionError, ValueError) as error:
            raise self.error(f"params: {error}") from error
        if params.n_proposers >= network.nodes:
            raise self.error(f"params.n_proposers: at most {network.nodes - 1}, an aggregator never proposes")
        return params

    def _node(self, table: Any, where: str) -> NodeTable:
        values = self._with_selectors(table, where, ("who",))
        if "options" in values and not isinstance(values["options"], Mapping):
            raise self.error(f"'{where}.options' must be a table")
        stake = values.get("stake_tokens")
        if stake is not None and (type(stake) not in (int, float) or not 0 < stake <= 1e9):
            raise self.error(f"'{where}.stake_tokens' must be a positive number")
        try:
            return NodeTable(**values)
        except (TypeError, ValueError) as error:
            raise self.error(f"{where}: {_reason(error)}") from error

    def _fault(self, table: Any, where: str) -> Fault:
        values = self._with_selectors(table, where, ("who", "to"))
        try:
            kind = FaultKind(values.get("do"))
        except ValueError:
            choices = ", ".join(k.value for k in FaultKind)
            raise self.error(f"'{where}.do' must be one of {choices}, not {values.get('do')!r}") from None
        present = values.keys() - ALWAYS
        if missing := sorted(NEEDS[kind] - present):
            raise self.error(f"{where}: a {kind.value} needs '{missing[0]}'")
        if strange := sorted(present - NEEDS[kind] - TAKES.get(kind, frozenset())):
            raise self.error(f"{where}: a {kind.value} takes no '{strange[0]}'")
        self._check_numbers(values, where)
        values["do"] = kind
        if "groups" in values:
            values["groups"] = tuple(self._selectors(group, f"{where}.groups") for group in values["groups"])
        if "sends" in values:
            values["sends"] = self._statement_kind(values["sends"], f"{where}.sends")
            if "at" not in values or "who" not in values:
                raise self.error(f"{where}: 'sends' needs 'at' and 'who'")
            if ignored := sorted({"after_s", "every_s"} & values.keys()):
                raise self.error(f"{where}: with 'sends' there is no '{ignored[0]}'")
        if "order" in values:
            values["order"] = self._order(values, where)
        at = values.pop("at", None)
        if (at is None) == ("at_s" not in values):
            raise self.error(f"{where}: write either 'at' or 'at_s'")
        if at is not None:
            try:
                values["place"] = parse_place(str(at))
            except MomentError as error:
                raise self.error(f"{where}.at: {error}") from error
        return Fault(**values)

    def _order(self, values: Mapping[str, Any], where: str) -> TransactionKind:
        names = {kind.name.lower(): kind for kind in TransactionKind}
        if values["order"] not in names:
            raise self.error(f"'{where}.order' must be one of {', '.join(names)}")
        kind = names[values["order"]]
        if (kind is TransactionKind.TRANSFER) != ("to" in values):
            raise self.error(f"{where}: a transfer needs 'to', and no other order has it")
        if kind is TransactionKind.CANCEL and "replaces" not in values:
            raise self.error(f"{where}: a cancel needs 'replaces'")
        return kind

    def _check_numbers(self, values: Mapping[str, Any], where: str) -> None:
        for key, (kinds, least, most) in _NUMBERS.items():
            value = values.get(key, least)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                raise self.error(
                    f"'{where}.{key}' must be a number from {least:g} to {most:g}, not {value!r}"
                )
        if not isinstance(values.get("groups", []), list):
            raise self.error(f"'{where}.groups' must be a list of lists")
        if ("every_s" in values) != ("until_round" in values):
            raise self.error(f"{where}: 'every_s' and 'until_round' go together")

    def _statement_kind(self, name: Any, where: str) -> Kind:
        names = [kind.name for kind in sorted(STATEMENT_KINDS)]
        if name not in names:
            raise self.error(f"'{where}' must be one of {', '.join(names)}")
        return Kind[name]

    # -- selectors -------------------------------------------------------------------------------

    def _with_selectors(self, table: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
        if not isinstance(table, Mapping):
            raise self.error(f"{where!r} must be a table")
        cls = NodeTable if where.startswith("nodes") else Fault
        known = {attribute.name for attribute in attrs.fields(cls)} - {"place"}
        if cls is Fault:
            known.add("at")
        if unknown := sorted(table.keys() - known):
            raise self.error(f"unknown key '{where}.{unknown[0]}'")
        if cls is NodeTable and "who" not in table:
            raise self.error(f"'{where}.who' is missing")
        selected = {key: self._selectors(table[key], f"{where}.{key}") for key in keys if key in table}
        return {**table, **selected}

    def _selectors(self, value: Any, where: str) -> tuple[Selector, ...]:
        try:
            chosen = tuple(parse_selector(entry) for entry in (value if isinstance(value, list) else [value]))
        except SelectorError as error:
            raise self.error(f"{where}: {error}") from error
        for selector in chosen:
            if selector.part is Part.NODE and selector.number >= self.nodes:
                raise self.error(
                    f"{where}: there is no node {selector.number}, they are 0 to {self.nodes - 1}"
                )
        return chosen


SHORT_DEADLINES: Mapping[str, int] = {
    "phase_deadline_ms": 4_000,
    "train_deadline_ms": 8_000,
    "view_timeout_ms": 1_000,
    "max_view_timeout_ms": 8_000,
    "singular_group_size": 16,
    "singular_rank": 4,
}
"""What scenarios have in place of the defaults of `ProtocolParams`."""

_NUMBERS: Mapping[str, tuple[Any, float, float]] = {
    "at_s": (int | float, 0.0, DAY_S),
    "after_s": (int | float, 0.0, DAY_S),
    "for_s": (int | float, 0.0, DAY_S),
    "rate": (int | float, 0.0, 1.0),
    "factor": (int | float, 0.01, 1_000.0),
    "delay_ms": (int, 0, 600_000),
    "bytes_per_s": (int, 100, 10**12),
    "after_effects": (int, 0, 10_000),
    "tokens": (int | float, 0.0, 1e9),
    "replaces": (int, 0, 1 << 40),
    "every_s": (int | float, 0.05, DAY_S),
    "until_round": (int, 1, MAX_ROUNDS),
}


def _reason(error: Exception) -> object:
    return error.args[0] if error.args else error
