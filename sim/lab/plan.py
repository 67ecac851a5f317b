"""From a manifest to a network of real nodes, and what of a manifest real nodes cannot do.

What would make the scenario mean something else is refused before anything starts; what merely makes it
milder is noticed. docs/SCENARIOS.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import attrs
from attrs import frozen

from flocknode.blobs import BlobStore
from flocknode.config import NodeDirectory, load_node_dir
from flocknode.demo.plan import training_seed
from flocknode.founding import Plan, found
from protocol.params import MICRO, PROFILES, ProtocolParams
from sim.adversaries.actor import Actor
from sim.adversaries.coalition import Coalition
from sim.adversaries.registry import make_filter
from sim.casting import first_roles
from sim.filters import Filter
from sim.founding import Founding, seeded_bytes
from sim.lab.links import base_of
from sim.lab.machine import LabError
from sim.lab.wires import listen_address
from sim.scenario.manifest import FaultKind, LinkTable, Scenario
from sim.scenario.selectors import Part, Parts, parts_of_roles, select

IMPOSSIBLE: Mapping[FaultKind, str] = {
    FaultKind.BUSY: "how fast a process runs is up to the machine; use 'pause' to let it stand still",
    FaultKind.CLOCK: "all nodes share the machine's clock",
}
"""Faults that only virtual time can do, and why."""


@frozen(kw_only=True)
class Network:
    """What was founded. `directories` stand in the order of nodes; `parts`: those of round 1.

    `behaviours` and `filters`: of dishonest nodes, by number.
    """

    directories: tuple[NodeDirectory, ...]
    numbers: Mapping[bytes, int]
    parts: Parts
    behaviours: Mapping[int, str]
    filters: Mapping[int, Filter]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(directory.path for directory in self.directories)


def refusals(scenario: Scenario) -> Iterator[str]:
    """One line for each key that would mean something else with real nodes."""
    for number, fault in enumerate(scenario.faults):
        where = f"faults[{number}]"
        if fault.do in IMPOSSIBLE:
            yield f"{where}.do: the lab has no {fault.do.value!r}: {IMPOSSIBLE[fault.do]}"
        if fault.sends is not None:
            yield f"{where}.sends: the lab sees nodes from outside only; use 'at' with a phase"
        if fault.after_effects is not None:
            yield f"{where}.after_effects: the lab cannot stop a node between two effects"
    for number, table in enumerate(scenario.nodes):
        where = f"nodes[{number}]"
        if table.twin:
            yield f"{where}.twin: the lab runs one machine for each key"
        if table.stake_tokens is not None and any(
            selector.part not in (Part.NODE, Part.ALL) for selector in table.who
        ):
            yield f"{where}.stake_tokens: name nodes by number, because roles depend on stakes"


def notices(scenario: Scenario, has_netem: bool) -> Iterator[str]:
    """One line for each key that the lab leaves out, or does in another way."""
    link, usual = scenario.link, LinkTable()
    if link.duplicate:
        yield "link.duplicate: left out, TCP hides duplicates from nodes"
    if link.reorder:
        yield "link.reorder: left out, TCP hides it from nodes"
    if link.bytes_per_s != usual.bytes_per_s:
        yield "link.bytes_per_s: all links of a node share one wire of this speed here"
    if has_delays(scenario) and not has_netem:
        yield "delays: this kernel has no netem, so each node delays its own messages before and after libp2p"


def has_delays(scenario: Scenario) -> bool:
    """Whether any message of the scenario is to be delayed."""
    base, _ = base_of(scenario.link)
    return base.delay_max_ms > 0 or any(fault.delay_ms for fault in scenario.faults)


def check(scenario: Scenario) -> None:
    """Raises `LabError` with the first refusal."""
    for refusal in refusals(scenario):
        raise LabError(refusal)


def plan_of(scenario: Scenario, seed: int) -> Plan:
    """The network of a scenario, at the addresses that `sim.lab.wires` gives its nodes."""
    network, params = scenario.network, scenario.params
    return Plan(
        name="lab",
        task=network.task,
        addresses=tuple(listen_address(node) for node in range(network.nodes)),
        profile=network.profile,
        proposers=params.n_proposers,
        voters=params.n_voters,
        seed=seed % 2**31,
        partition=network.partition,
        dimension=network.dimension,
        stake_units=_units(network.stake_tokens),
        pool_units=_units(network.pool_tokens),
        settings=settings_of(params),
        training_seeds=tuple(training_seed(seed, node) for node in range(network.nodes)),
        stakes={
            node: _units(table.stake_tokens)
            for table in scenario.nodes
            if table.stake_tokens is not None
            for node in select(table.who, Parts(nodes=network.nodes), Random(seed))
        },
    )


def settings_of(params: ProtocolParams) -> dict[str, object]:
    """The fields in which these parameters differ from those of their profile."""
    usual = PROFILES[params.profile](
        dimension=params.dimension, n_proposers=params.n_proposers, n_voters=params.n_voters
    )
    return {
        attribute.name: getattr(params, attribute.name)
        for attribute in attrs.fields(ProtocolParams)
        if getattr(params, attribute.name) != getattr(usual, attribute.name)
    }


def found_network(scenario: Scenario, seed: int, root: Path) -> Network:
    """Create the nodes' directories in `root`. Raises `LabError`, `ScenarioError`, `ConfigError`."""
    plan = plan_of(scenario, seed)
    paths = found(root, plan, lambda label: seeded_bytes(seed, label))
    directories = tuple(load_node_dir(path) for path in paths)
    numbers = {directory.peer: number for number, directory in enumerate(directories)}
    genesis = directories[0].genesis
    founding = Founding(
        seed=seed,
        genesis=genesis,
        identities=tuple(directory.identity for directory in directories),
        checkpoint=BlobStore(paths[0]).read(genesis.model_digest),
        packages={d.peer: d.dealer for d in directories if d.dealer is not None},
    )
    parts = parts_of_roles(first_roles(founding), numbers)
    cast = dict(_cast(scenario, founding, parts))
    return Network(
        directories=directories,
        numbers=numbers,
        parts=parts,
        behaviours={node: name for node, (name, _) in cast.items()},
        filters={node: made for node, (_, made) in cast.items()},
    )


def _cast(scenario: Scenario, founding: Founding, parts: Parts) -> Iterator[tuple[int, tuple[str, Filter]]]:
    """Who misbehaves, how, and the filter that does it."""
    for table in scenario.nodes:
        for member in select(table.who, parts, Random(founding.seed)):
            actor = Actor(
                founding=founding,
                member=member,
                parts=parts,
                coalition=Coalition(),
                options=table.options,
                alone=True,
            )
            made = make_filter(table.behaviour, actor)
            if made is not None:
                yield member, (table.behaviour, made)


def _units(tokens: float) -> int:
    return round(tokens * MICRO)
