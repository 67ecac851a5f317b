"""What must hold at the end of a scenario: the [expect] table of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import attrs
from attrs import field, frozen

from flocknode.tables import Fault as ErrorOf
from flocknode.tables import read_record
from protocol.ledger.block import BlockKind, Reason
from protocol.ledger.state import Fault
from protocol.secagg.verification import Verdict
from sim.scenario.returns import CaughtUp
from sim.scenario.selectors import Selector

Reader = Callable[[Any, str], Any]
"""Reads one value, given it and its key."""


@frozen(kw_only=True)
class Expectation:
    """[expect], read off the ledgers at the end. Rounds are numbers; `paid` names who by round 1's roles.

    `ended`: at least so many rounds at every node that is up. `accepted`, `refused`, `aborted`: rounds that
    must have ended so, and `reasons`: why they were aborted. `verdicts`: first readings by round. `blocks`:
    kinds that must stand in a round. `views`: the least that the highest view of a round's blocks must be.
    `sharers`, `contributors`: the sizes of U1 and U2 by round. `votes`: those that counted, +1 first.
    `paid`: faults that must stand against somebody, and `unpaid`: nodes against whom none may. `evicted`:
    nodes that are no validators in the end. `down`: nodes that must have refused to run. `caught_up`: how
    nodes that were away must have come back.
    """

    ended: int
    accepted: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    aborted: tuple[int, ...] = ()
    verdicts: Mapping[int, Verdict] = field(factory=dict)
    blocks: Mapping[int, tuple[BlockKind, ...]] = field(factory=dict)
    reasons: Mapping[int, Reason] = field(factory=dict)
    sharers: Mapping[int, int] = field(factory=dict)
    contributors: Mapping[int, int] = field(factory=dict)
    votes: Mapping[int, tuple[int, ...]] = field(factory=dict)
    views: Mapping[int, int] = field(factory=dict)
    paid: tuple[tuple[Selector, Fault], ...] = ()
    unpaid: tuple[Selector, ...] = ()
    evicted: tuple[Selector, ...] = ()
    down: tuple[Selector, ...] = ()
    caught_up: tuple[tuple[Selector, CaughtUp], ...] = ()


@frozen
class ExpectationReader:
    """`rounds`: how many the network runs; `select` reads selectors, given them and their key.

    `error` makes the manifest's own error of a message that names the key.
    """

    rounds: int
    select: Callable[[Any, str], tuple[Selector, ...]]
    error: ErrorOf

    def read(self, table: Any) -> Expectation:
        """Raises what `error` makes of the first thing that is wrong."""
        if not isinstance(table, Mapping):
            raise self.error("'expect' must be a table")
        known = {attribute.name for attribute in attrs.fields(Expectation)}
        if unknown := sorted(table.keys() - known):
            raise self.error(f"unknown key 'expect.{unknown[0]}'")
        values: dict[str, Any] = {"ended": table.get("ended", self.rounds)}
        if type(values["ended"]) is not int or not 0 <= values["ended"] <= self.rounds:
            raise self.error(f"'expect.ended' must be a number from 0 to {self.rounds}")
        values |= self._endings(table)
        readers: Mapping[str, Reader] = {
            "verdicts": self._name_of(Verdict),
            "blocks": self._block_kinds,
            "reasons": self._name_of(Reason),
            "votes": self._votes,
            "sharers": self._count,
            "contributors": self._count,
            "views": self._count,
        }
        values |= {key: dict(self._by_round(table, key, read)) for key, read in readers.items()}
        values["paid"] = tuple(self._paid(table.get("paid", {})))
        values["caught_up"] = tuple(self._caught_up(table.get("caught_up", {})))
        for key in ("unpaid", "evicted", "down"):
            values[key] = self.select(table.get(key, []), f"expect.{key}")
        return Expectation(**values)

    def _endings(self, table: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """How rounds must end; none in two ways."""
        endings: dict[str, tuple[int, ...]] = {}
        for key in ("accepted", "refused", "aborted"):
            rounds = table.get(key, [])
            if not isinstance(rounds, list) or not all(
                type(r) is int and 0 < r <= self.rounds for r in rounds
            ):
                raise self.error(f"'expect.{key}' must be a list of rounds from 1 to {self.rounds}")
            for other, taken in endings.items():
                if both := sorted(set(rounds) & set(taken)):
                    raise self.error(f"'expect.{key}': round {both[0]} is to be {other} already")
            endings[key] = tuple(rounds)
        return endings

    def _by_round(self, table: Mapping[str, Any], key: str, read: Reader) -> Iterator[tuple[int, Any]]:
        entries = table.get(key, {})
        if not isinstance(entries, Mapping):
            raise self.error(f"'expect.{key}' must be a table of rounds")
        for round_, value in entries.items():
            if not round_.isdecimal() or not 1 <= int(round_) <= self.rounds:
                raise self.error(f"'expect.{key}.{round_}': a round is a number from 1 to {self.rounds}")
            yield int(round_), read(value, f"expect.{key}.{round_}")

    def _name_of(self, choices: type[Enum]) -> Reader:
        def read(value: Any, where: str) -> Enum:
            if not isinstance(value, str) or value not in choices.__members__:
                raise self.error(f"'{where}' must be one of {', '.join(choices.__members__)}, not {value!r}")
            return choices[value]

        return read

    def _block_kinds(self, value: Any, where: str) -> tuple[Enum, ...]:
        read = self._name_of(BlockKind)
        return tuple(read(entry, where) for entry in (value if isinstance(value, list) else [value]))

    def _count(self, value: Any, where: str) -> int:
        if type(value) is not int or value < 0:
            raise self.error(f"'{where}' must be a number")
        return value

    def _votes(self, value: Any, where: str) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(type(vote) is int and vote in (1, -1) for vote in value):
            raise self.error(f"'{where}' must be a list of votes, 1 or -1")
        return tuple(sorted(value, reverse=True))

    def _paid(self, table: Any) -> Iterator[tuple[Selector, Fault]]:
        if not isinstance(table, Mapping):
            raise self.error("'expect.paid' must be a table of who = fault")
        read = self._name_of(Fault)
        for who, faults in table.items():
            (selector,) = self.select(who, "expect.paid")
            for fault in faults if isinstance(faults, list) else [faults]:
                yield selector, read(fault, f"expect.paid.{who}")

    def _caught_up(self, table: Any) -> Iterator[tuple[Selector, CaughtUp]]:
        if not isinstance(table, Mapping):
            raise self.error("'expect.caught_up' must be a table of who = how")
        for who, how in table.items():
            (selector,) = self.select(who, "expect.caught_up")
            yield selector, read_record(CaughtUp, how, f"expect.caught_up.{who}", self.error)
