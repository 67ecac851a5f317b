"""Who a line of a scenario is about: a node by number, or by the part it has when the line takes effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from random import Random

from attrs import frozen

from protocol.consensus import leader_of
from protocol.ledger.state import LedgerState
from protocol.sortition import Roles


class SelectorError(ValueError):
    """Words that select nobody; the message says which, and what may stand there."""


class Part(Enum):
    """What a node can be selected by. Roles are those of the round at the moment."""

    NODE = "node"
    PROPOSER = "proposer"
    AGGREGATOR = "aggregator"
    VOTER = "voter"
    LEADER = "leader"
    PROPOSERS = "proposers"
    VOTERS = "voters"
    ALL = "all"
    RANDOM = "random"


NUMBERED = (Part.NODE, Part.PROPOSER, Part.AGGREGATOR, Part.VOTER, Part.RANDOM)
_FORM = re.compile(r"([a-z]+)(?: (\d{1,4}))?")


@frozen
class Selector:
    """`number`: which node, place in a role (aggregator 0 is the active one), or how many at random."""

    part: Part
    number: int = 0

    def __str__(self) -> str:
        return f"{self.part.value} {self.number}" if self.part in NUMBERED else self.part.value


def parse_selector(text: object) -> Selector:
    """`3`, "node 3", "proposer 0", "aggregator", "voter 1", "leader", "all", "random 2". `SelectorError`."""
    if type(text) is int and text >= 0:
        return Selector(Part.NODE, text)
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    words = [part.value for part in Part]
    if match is None or match[1] not in words:
        raise SelectorError(f"{text!r} selects nobody: write a node's number, or one of {', '.join(words)}")
    part = Part(match[1])
    if match[2] is not None and part not in NUMBERED:
        raise SelectorError(f"{text!r}: {part.value} takes no number")
    if part is Part.NODE and match[2] is None:
        raise SelectorError(f"{text!r}: which node? Write its number")
    return Selector(part, int(match[2] or (1 if part is Part.RANDOM else 0)))


@frozen(kw_only=True)
class Parts:
    """Who has which part at a moment, as numbers of nodes. `aggregators`: the active one first."""

    nodes: int
    proposers: tuple[int, ...] = ()
    aggregators: tuple[int, ...] = ()
    voters: tuple[int, ...] = ()
    leader: int | None = None
    running: tuple[int, ...] = ()


def parts_of_roles(roles: Roles, numbers: Mapping[bytes, int]) -> Parts:
    """The parts of a round that has not begun; everybody runs."""
    everyone = len(numbers)
    return Parts(
        nodes=everyone,
        proposers=tuple(numbers[peer] for peer in roles.proposers),
        aggregators=tuple(numbers[peer] for peer in roles.aggregators),
        voters=tuple(numbers[peer] for peer in roles.voters),
        running=tuple(range(everyone)),
    )


def parts_of_state(
    state: LedgerState, numbers: Mapping[bytes, int], running: Iterable[int], view: int = 1
) -> Parts:
    """The parts after a block; the leader is that of a view of the next height."""
    learning, roles = state.learning, state.learning.roles
    order = tuple(advert.peer for advert in learning.adverts if advert.peer in state.validators)
    leader = leader_of(order or state.validators, state.height + 1, view)

    def known(peers: Sequence[bytes]) -> tuple[int, ...]:
        return tuple(numbers[peer] for peer in peers if peer in numbers)

    return Parts(
        nodes=len(numbers),
        proposers=known(learning.proposers),
        aggregators=known(roles.aggregators[learning.attempt :]) if roles else (),
        voters=known(learning.voters),
        leader=numbers.get(leader),
        running=tuple(sorted(running)),
    )


def select(selectors: Iterable[Selector], parts: Parts, random: Random) -> tuple[int, ...]:
    """The nodes that are meant, ascending; a place that nobody has now selects nobody."""
    chosen: set[int] = set()
    for selector in selectors:
        chosen.update(_select(selector, parts, random))
    return tuple(sorted(chosen))


def _select(selector: Selector, parts: Parts, random: Random) -> Sequence[int]:
    match selector.part:
        case Part.NODE:
            return (selector.number,) if selector.number < parts.nodes else ()
        case Part.PROPOSER:
            return parts.proposers[selector.number : selector.number + 1]
        case Part.AGGREGATOR:
            return parts.aggregators[selector.number : selector.number + 1]
        case Part.VOTER:
            return parts.voters[selector.number : selector.number + 1]
        case Part.LEADER:
            return () if parts.leader is None else (parts.leader,)
        case Part.PROPOSERS:
            return parts.proposers
        case Part.VOTERS:
            return parts.voters
        case Part.ALL:
            return range(parts.nodes)
        case Part.RANDOM:
            return random.sample(parts.running, min(selector.number, len(parts.running)))
