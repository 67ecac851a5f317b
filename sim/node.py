"""One simulated machine: what survives a crash (records, blobs) and what does not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import Protocol

from attrs import define, evolve, field, frozen

from protocol import durable
from protocol.events import Digest, Effect, Event, Millis, PeerId, Persist, Start
from protocol.ledger.resume import start_from
from protocol.params import Genesis
from sim.clock import Clock
from sim.filters import Filter

JOURNAL = 64
"""How many of the last writes a store that lied about its disk may lose."""


class EngineLike(Protocol):
    """`protocol.engine.Engine`, or a toy in its place."""

    def handle(self, event: Event, now: Millis) -> list[Effect]: ...


@frozen
class CrashPlan:
    """Crash after so many effects, and start again after so long (None: stay down)."""

    effects: int
    restart_ms: Millis | None


@define
class FetchState:
    """A blob on its way: holders by node index that are still to be asked, at once, later, and at last."""

    slow_ms: Millis | None
    """How long a holder may take now while others are left; None: as long as it likes."""
    untried: list[int] = field(factory=list)
    reserves: list[int] = field(factory=list)
    slow: list[int] = field(factory=list)
    asked: set[int] = field(factory=set)


@define(kw_only=True, eq=False)
class Node:
    """A machine and its key. `life` counts starts; what was issued in one life is stale in the next.

    `performed` counts effects over all lives. Of the planned crashes, `crash_next` counts the effects of the
    next event, `crash_at` those of all lives. `honest` nodes are those that the invariants speak of.
    `genesis`: of the ledger that a life begins from, None for a toy that has none.
    """

    index: int
    peer: PeerId
    make_engine: Callable[[Node], EngineLike]
    entropy: Random = field(repr=False)
    filter: Filter | None = None
    honest: bool = True
    genesis: Genesis | None = field(default=None, repr=False)
    # durable
    records: dict[str, dict[bytes, bytes]] = field(factory=dict, repr=False)
    blobs: dict[Digest, bytes] = field(factory=dict, repr=False)
    # what its operator sees
    orders: Mapping[str, object] = field(factory=dict, repr=False)
    # of this life
    engine: EngineLike | None = None
    starting: bool = False
    life: int = 0
    clock: Clock = field(factory=Clock)
    waiting: deque[Event] = field(factory=deque, repr=False)
    busy_until_ms: Millis = 0
    queue: deque[Event] = field(factory=deque, repr=False)
    """What waits for the processor, where its work costs time (`sim.costs`)."""
    owed_us: int = 0
    """What the processor has taken beyond whole milliseconds."""
    timers: dict[str, int] = field(factory=dict)
    jobs: dict[str, int] = field(factory=dict)
    fetches: dict[Digest, FetchState] = field(factory=dict)
    connections: dict[int, int] = field(factory=dict)
    # faults and counts
    performed: int = 0
    received_bytes: int = 0
    """Of messages that were taken in, over all lives."""
    height: int = 0
    crash_next: CrashPlan | None = None
    crash_at: CrashPlan | None = None
    paused: bool = False
    slowness: float = 1.0
    clock_rate: float = 1.0
    disk_full: bool = False
    damaged: bool = False
    _founding_blobs: dict[Digest, bytes] = field(init=False, repr=False)
    _journal: deque[tuple[str, bytes, bytes | None]] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._founding_blobs = dict(self.blobs)
        self._journal = deque(maxlen=JOURNAL)

    @property
    def alive(self) -> bool:
        """Whether the engine has seen its `Start`."""
        return self.engine is not None

    @property
    def down(self) -> bool:
        """Whether the node is not even about to start."""
        return self.engine is None and not self.starting

    def start_event(self) -> Start:
        """What a new life finds: copies, so that nothing undone by the crash can leak through a reference.

        Raises `ChainError` for a damaged ledger.
        """
        records = {bucket: dict(rows) for bucket, rows in self.records.items()}
        if self.genesis is None:
            return Start(records, frozenset(self.blobs))
        return start_from(self.genesis, records, frozenset(self.blobs))

    def persist(self, effect: Persist) -> None:
        rows = self.records.setdefault(effect.bucket, {})
        self._journal.append((effect.bucket, effect.key, rows.get(effect.key)))
        if effect.value is None:
            rows.pop(effect.key, None)
            return
        rows[effect.key] = effect.value
        if effect.bucket == durable.BLOCK:
            self.height = max(self.height, durable.height_of_key(effect.key))

    def lose_last_writes(self, count: int) -> None:
        """The disk never had the last `count` writes, whatever it said: the store is what it was before."""
        self.honest = False
        for _ in range(min(count, len(self._journal))):
            bucket, key, before = self._journal.pop()
            if before is None:
                self.records[bucket].pop(key, None)
            else:
                self.records[bucket][key] = before

    def lose_store(self) -> None:
        """The operator starts over, with the directory that the founder gave out and the same key."""
        self.honest = False
        self.damaged = False
        self.records = {}
        self.blobs = dict(self._founding_blobs)
        self._journal.clear()

    def lose_volatile(self) -> None:
        """The process is gone."""
        self.engine = None
        self.paused = False
        self.waiting.clear()
        self.queue.clear()
        self.busy_until_ms = self.owed_us = 0
        self.starting = False
        self.life += 1
        self.timers.clear()
        self.jobs.clear()
        self.fetches.clear()
        self.connections.clear()
        self.crash_next = None

    def due_crash(self, offered: int) -> CrashPlan | None:
        """The planned crash among the next `offered` effects, with how many of them are performed."""
        if self.crash_next is not None:
            return evolve(self.crash_next, effects=min(self.crash_next.effects, offered))
        if self.crash_at is not None and self.performed + offered >= self.crash_at.effects:
            plan = evolve(self.crash_at, effects=max(0, self.crash_at.effects - self.performed))
            self.crash_at = None
            return plan
        return None

    def summary(self) -> str:
        """One line for a report of a stalled run."""
        if not self.alive:
            return f"node {self.index}: down, height {self.height}, {self.performed} effects"
        return (
            f"node {self.index}: life {self.life}, height {self.height}, {self.performed} effects, "
            f"connected {sorted(self.connections)}, timers {sorted(self.timers)}, jobs {sorted(self.jobs)}, "
            f"fetching {[digest.hex()[:12] for digest in sorted(self.fetches)]}"
        )
