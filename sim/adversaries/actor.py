"""What an adversary that a scenario names is made from.

A behaviour is a filter around an honest engine (docs/PROTOCOL.md section 1): it knows what its own node
knows, and what its coalition tells it. Roles are those of round 1, which sortition makes public at genesis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from protocol.keys import Identity
from sim.adversaries.coalition import Coalition
from sim.filters import Filter
from sim.founding import Founding
from sim.scenario.manifest import ScenarioError
from sim.scenario.selectors import Parts


@frozen(kw_only=True)
class Actor:
    """Who is to misbehave. `coalition` is shared by all adversaries of the scenario.

    `alone`: nobody can be told anything, as in the lab, where every node is a process of its own.
    """

    founding: Founding
    member: int
    parts: Parts
    coalition: Coalition
    options: Mapping[str, Any] = field(factory=dict)
    alone: bool = False

    @property
    def identity(self) -> Identity:
        return self.founding.identities[self.member]

    @property
    def network(self) -> bytes:
        return self.founding.genesis.network

    def peer(self, member: int) -> bytes:
        return self.founding.identities[member].peer

    def peers(self, members: tuple[int, ...]) -> tuple[bytes, ...]:
        """In the order of peers."""
        return tuple(sorted(self.peer(member) for member in members))

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(i for i in range(self.parts.nodes) if i != self.member)

    @property
    def victim(self) -> bytes:
        """The peer that it is after: node number `victim` of the options, else the first other proposer."""
        number = self.option("victim", -1)
        if number >= self.parts.nodes:
            raise ScenarioError(f"option 'victim': there is no node {number}")
        if number < 0:
            number = next(i for i in (*self.parts.proposers, *self.others) if i != self.member)
        return self.peer(number)

    @property
    def misled(self) -> tuple[bytes, ...]:
        """The peers that are shown another statement: the last `misled` of the others, a third by default."""
        count = self.option("misled", len(self.others) // 3)
        if not 0 <= count <= len(self.others):
            raise ScenarioError(f"option 'misled' must be within 0 and {len(self.others)}, not {count}")
        return self.peers(self.others[len(self.others) - count :])

    @property
    def told(self) -> tuple[bytes, ...]:
        """The others, who are shown the first."""
        misled = set(self.misled)
        return tuple(peer for peer in self.peers(self.others) if peer not in misled)

    def option(self, name: str, default: Any) -> Any:
        """An option of the type of its default; raises `ScenarioError` for another type."""
        value = self.options.get(name, default)
        if type(value) is not type(default):
            raise ScenarioError(f"option {name!r} must be {type(default).__name__}, not {value!r}")
        return value


@frozen(kw_only=True)
class Behaviour:
    """`needs`: what the scenario must give it. `colludes`: it is told things by accomplices."""

    about: str
    make: Callable[[Actor], Filter]
    options: frozenset[str] = frozenset()
    colludes: bool = False
