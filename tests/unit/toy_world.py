"""An engine small enough to see through, and worlds full of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field

from protocol.events import Effect, Event, PeerDown, PeerUp, Received, Start
from sim.node import Node
from sim.world import World

Script = Callable[[Event], list[Effect]]


@define
class Toy:
    """Answers each event with what its script says, and writes everything down.

    It insists on what a shell promises: `Start` comes first and once, messages come only between `PeerUp` and
    `PeerDown`, and these two alternate.
    """

    script: Script
    seen: list[tuple[Event, int]]
    up: set[bytes] = field(factory=set)
    started: bool = False

    def handle(self, event: Event, now: int) -> list[Effect]:
        assert self.started != isinstance(event, Start)
        self.started = True
        match event:
            case PeerUp(peer):
                assert peer not in self.up
                self.up.add(peer)
            case PeerDown(peer):
                self.up.remove(peer)
            case Received(peer, _):
                assert peer in self.up
        self.seen.append((event, now))
        return self.script(event)


class ToyWorker:
    """A job is a string here: it comes back in capitals, or fails."""

    def duration_ms(self, node: int, job: object, random: Random) -> int:
        return 100

    def run(self, node: int, job: object, read_blob: Callable[[bytes], bytes]) -> object:
        if job == "fail":
            raise RuntimeError("as asked")
        if isinstance(job, bytes):
            return read_blob(job)
        return str(job).upper()


def silent(event: Event) -> list[Effect]:
    return []


def peer(index: int) -> bytes:
    return bytes([index]) * 32


class Toys:
    """A world of toys; `seen[i]` is what node i saw in all its lives."""

    def __init__(self, scripts: list[Script], seed: int = 1, **options: Any) -> None:
        filters = options.pop("filters", {})
        peers = options.pop("peers", [peer(index) for index in range(len(scripts))])
        self.world = World(seed, ToyWorker(), **options)
        self.seen: list[list[tuple[Event, int]]] = [[] for _ in scripts]
        for index, script in enumerate(scripts):
            self.world.add_node(peers[index], self._engine(index, script), filter=filters.get(index))
        self.world.start_all()

    def _engine(self, index: int, script: Script) -> Callable[[Node], Toy]:
        return lambda node: Toy(script, self.seen[index])

    def events(self, index: int, kind: type[Event]) -> list[Event]:
        return [event for event, _ in self.seen[index] if isinstance(event, kind)]

    def data(self, index: int) -> list[bytes]:
        return [event.data for event in self.events(index, Received)]


def on(kind: type[Event], *effects: Effect) -> Script:
    """The script that answers every event of one kind with these effects, and others with nothing."""
    return lambda event: list(effects) if isinstance(event, kind) else []
