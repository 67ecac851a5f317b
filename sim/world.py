"""The simulator's kernel: many engines under one virtual clock and one seed (docs/PROTOCOL.md section 1).

A run is a function of the scenario and the seed. Events stand in one queue ordered by virtual time, then by
the order in which they were caused; every draw comes from one `random.Random(seed)`; nothing iterates over a
set. Engines see what a real shell would show them: effects are performed in order, each `Persist` is durable
before the next effect, and a crash may fall between any two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar

from attrs import frozen

from protocol import durable
from protocol.blob import blob_digest
from protocol.events import (
    Broadcast,
    CancelJob,
    CancelTimer,
    Command,
    Digest,
    DropBlob,
    Effect,
    Event,
    Fetch,
    JobDone,
    JobFailed,
    Millis,
    Notify,
    PeerId,
    Penalise,
    Persist,
    PutBlob,
    ReadBlocks,
    Received,
    RunJob,
    Send,
    SetTimer,
    ShowOrders,
    TimerFired,
)
from protocol.ledger.chain import ChainError
from protocol.params import Genesis
from sim.clock import Clock
from sim.connections import Connections
from sim.costs import Costs
from sim.errors import (
    AdversaryRaisedError,
    BlobMissingError,
    BrokenInvariantError,
    EngineRaisedError,
    SimulationError,
    SimulationStalled,
    WorldError,
)
from sim.fetching import Fetching
from sim.filters import Filter
from sim.injection import Injection
from sim.invariants.base import Invariant, InvariantError, name_of
from sim.network import LinkModel, Network
from sim.node import EngineLike, Node
from sim.schedule import Delays, Schedule
from sim.trace import Trace, effect_text, event_text

if TYPE_CHECKING:
    from protocol.jobs import Job, JobResult

ReadBlob = Callable[[Digest], bytes]
Shown = TypeVar("Shown")
Bent = TypeVar("Bent")

DISK_RETRY_MS = 1_000
"""How soon whoever looks after a node starts it again when its disk was full."""

READ_MS = 1
"""How long a node reads blocks for a peer."""

CLOCK_SPREAD_MS = 10**6
"""Monotonic clocks start anywhere below this in each life: no engine may carry a time across a restart."""


class Worker(Protocol):
    """Who runs jobs. `run` may raise anything: the job has failed then."""

    def duration_ms(self, node: int, job: Job, random: Random) -> Millis: ...

    def run(self, node: int, job: Job, read_blob: ReadBlob) -> JobResult: ...


@frozen
class Report:
    """A `Notify` or `Penalise` effect, and when which node had it performed."""

    at_ms: Millis
    node: int
    effect: Notify | Penalise


@frozen
class FailedJob:
    """A job that raised."""

    at_ms: Millis
    node: int
    key: str
    why: str


class World(Injection):
    """N nodes, their network and their time.

    `worker` runs jobs. `costs`: what processors take, None for nothing. `invariants` are called after every
    event that had effects, with the node and these. `keep_trace` lines of the trace stay readable; its digest
    is over all of them. With 0 there is no trace, only marks of what the scenario did.
    """

    def __init__(
        self,
        seed: int,
        worker: Worker,
        *,
        model: LinkModel | None = None,
        costs: Costs | None = None,
        delays: Delays | None = None,
        invariants: Sequence[Invariant] = (),
        keep_trace: int = 20_000,
    ) -> None:
        self.seed = seed
        self.schedule = Schedule(seed)
        self.nodes: list[Node] = []
        self.network = Network(model or LinkModel(), self.schedule.random)
        self.trace = Trace(keep_trace)
        self._tracing = keep_trace > 0
        self.invariants = list(invariants)
        self.watchers: list[Invariant] = []
        """Those of the invariants that look at what nodes keep, and not only at what they do."""
        self.reports: list[Report] = []
        self.failed_jobs: list[FailedJob] = []
        self.watch: Callable[[Node, Effect], None] | None = None
        """Called after each effect; it may crash the node, which then performs no further one."""
        self._worker = worker
        self._costs = costs
        self._by_peer: dict[PeerId, list[Node]] = {}
        self._names: dict[PeerId, str] = {}
        delays = delays or Delays()
        around = (self.schedule, self.network, delays, self.nodes, self._by_peer)
        self._connections = Connections(*around, self._deliver)
        self._fetching = Fetching(*around, self._to_life)

    @property
    def now(self) -> Millis:
        """Virtual time."""
        return self.schedule.now

    # -- the scenario --------------------------------------------------------------------------------

    def add_node(
        self,
        peer: PeerId,
        make_engine: Callable[[Node], EngineLike],
        *,
        filter: Filter | None = None,
        honest: bool | None = None,
        blobs: Iterable[tuple[Digest, bytes]] = (),
        genesis: Genesis | None = None,
    ) -> Node:
        """A node that is down until `start`. A second one with the same key is its twin; neither is honest.

        `make_engine` is called once for each life, which begins from the ledger of `genesis`, if any.
        `honest` defaults to whether there is no filter.
        """
        node = Node(
            index=len(self.nodes),
            peer=peer,
            make_engine=make_engine,
            entropy=Random(self.schedule.random.getrandbits(256)),
            filter=filter,
            honest=filter is None if honest is None else honest,
            blobs=dict(blobs),
            genesis=genesis,
        )
        twins = self._by_peer.setdefault(peer, [])
        twins.append(node)
        if len(twins) > 1:
            for twin in twins:
                twin.honest = False
        self.nodes.append(node)
        self._names.clear()
        return node

    def at(self, at_ms: Millis, action: Callable[[], None]) -> None:
        """Let the scenario act at a virtual time."""
        if at_ms < self.now:
            raise WorldError(f"{at_ms} ms has passed, it is {self.now} ms")
        self.schedule.push(at_ms - self.now, action)

    def start(self, index: int) -> None:
        """Begin a node's first or next life: a new engine, the records that survived, then connections."""
        node = self.nodes[index]
        if not node.down:
            raise WorldError(f"node {index} is running")
        node.starting = True
        self.schedule.push(0, self._begin, node, node.life)

    restart = start

    def start_all(self) -> None:
        for node in self.nodes:
            self.start(node.index)

    def command(self, index: int, order: bytes) -> None:
        """Give the operator's order (`protocol.order.Order`, encoded) to a node."""
        node = self.nodes[index]
        self.schedule.push(0, self._to_life, node, node.life, Command(order))

    def spread(self, index: int, message: bytes) -> None:
        """Bring a message of a node, which its engine knows nothing of, to every node."""
        for node in self.nodes:
            self.schedule.push(0, self._to_life, node, node.life, Received(self.nodes[index].peer, message))

    # -- running -------------------------------------------------------------------------------------

    def run(
        self,
        until: Callable[[World], bool],
        max_virtual_ms: Millis = 3_600_000,
        max_events: int = 10_000_000,
    ) -> None:
        """Let time pass until the goal is reached, asked after each event.

        Both limits are budgets of this call. Raises `SimulationStalled` where the goal is not reached,
        `BrokenInvariantError` and `EngineRaisedError` where something is wrong, all with the seed.
        """
        deadline = self.now + max_virtual_ms
        last = self.schedule.happened + max_events
        schedule, times = self.schedule, self.schedule.times
        while not until(self):
            if not times:
                raise SimulationStalled(self, "nothing is left to happen")
            if times[0] > deadline:
                raise SimulationStalled(self, f"not there after {max_virtual_ms} virtual ms")
            if schedule.happened >= last:
                raise SimulationStalled(self, f"not there after {max_events} events")
            schedule.step()

    def run_for(self, virtual_ms: Millis) -> None:
        """Let an amount of time pass, whatever happens in it."""
        deadline = self.now + virtual_ms
        while (due := self.schedule.next_due()) is not None and due <= deadline:
            self.schedule.step()
        self.schedule.now = deadline

    def trace_digest(self) -> str:
        """Hex digest of everything that happened."""
        return self.trace.digest()

    def name(self, peer: PeerId) -> str:
        """A peer as the indices of its nodes."""
        known = self._names.get(peer)
        if known is None:
            nodes = self._by_peer.get(peer)
            known = "+".join(str(node.index) for node in nodes) if nodes else peer.hex()[:8]
            self._names[peer] = known
        return known

    def check_invariants(self, node: Node, performed: Sequence[Effect]) -> None:
        """Called after each handled event. Where it had no effect, only what nodes keep can be new."""
        for invariant in self.invariants if performed else self.watchers:
            try:
                invariant(node, performed)
            except InvariantError as error:
                name = error.invariant or name_of(invariant)
                raise BrokenInvariantError(self, str(error), name) from error

    # -- events into engines, effects out of them ------------------------------------------------------

    def _mark(self, text: str) -> None:
        self.trace.add(self.now, -1, text)

    def _to_life(self, node: Node, life: int, event: Event) -> None:
        """Deliver what was meant for one life of a node."""
        if node.life == life:
            self._deliver(node, event)

    def _deliver(self, node: Node, event: Event) -> None:
        if node.paused:
            node.waiting.append(event)
        elif node.slowness > 1.0:
            node.busy_until_ms = max(self.now, node.busy_until_ms) + int(node.slowness) - 1
            self.schedule.push(node.busy_until_ms - self.now, self._show_to_life, node, node.life, event)
        elif self._costs is not None:
            node.queue.append(event)
            if len(node.queue) == 1:
                self.schedule.push(max(0, node.busy_until_ms - self.now), self._work, node, node.life)
        elif node.filter is None and node.engine is not None:
            self._handle(node, node.engine, event)
        else:
            self._show(node, event)

    def _work(self, node: Node, life: int) -> None:
        """The processor is free for the next event that waits for it; events keep their order."""
        if node.life != life:
            return
        if node.paused:
            node.waiting.extendleft(reversed(node.queue))
            node.queue.clear()
            return
        self._show(node, node.queue[0])
        if node.life == life:
            node.queue.popleft()
            if node.queue:
                self.schedule.push(max(0, node.busy_until_ms - self.now), self._work, node, life)

    def _show_to_life(self, node: Node, life: int, event: Event) -> None:
        if node.life != life:
            return
        if node.paused:
            node.waiting.append(event)
        else:
            self._show(node, event)

    def _show(self, node: Node, event: Event) -> None:
        for each in [event] if node.filter is None else self._bent(node, node.filter.events, event):
            if node.engine is None:
                return
            self._handle(node, node.engine, each)

    def _handle(self, node: Node, engine: EngineLike, event: Event) -> None:
        if self._tracing:
            self.trace.add(self.now, node.index, event_text(event, self.name))
        if isinstance(event, Received):
            node.received_bytes += len(event.data)
        try:
            effects = engine.handle(event, node.clock.read(self.now))
        except Exception as error:
            raise EngineRaisedError(self, f"node {node.index} raised {error!r} on {event!r}") from error
        if node.filter is not None:
            effects = self._bent(node, node.filter.effects, effects)
        crash = None
        if node.crash_next is not None or node.crash_at is not None:
            crash = node.due_crash(len(effects))
        performed: Sequence[Effect] = effects
        if effects:
            performed = self._perform_all(node, effects if crash is None else effects[: crash.effects])
        if self._costs is not None:
            self._charge(node, self._costs.of(event, performed, len(node.connections)))
        if crash is not None and node.alive:
            self._crash(node, crash.restart_ms)
        if performed or self.watchers:
            self.check_invariants(node, performed)

    def _charge(self, node: Node, spent_us: int) -> None:
        """The processor is busy for so long."""
        ms, node.owed_us = divmod(node.owed_us + spent_us, 1_000)
        node.busy_until_ms = max(self.now, node.busy_until_ms) + ms

    def _bent(self, node: Node, bend: Callable[[Shown], list[Bent]], shown: Shown) -> list[Bent]:
        """What an adversary makes of it; a mistake in its own code is none of the engine's."""
        try:
            return bend(shown)
        except Exception as error:
            raise AdversaryRaisedError(self, f"the adversary at node {node.index}: {error!r}") from error

    def _perform_all(self, node: Node, effects: Sequence[Effect]) -> Sequence[Effect]:
        """Perform effects in order, as far as the node gets: those that it has performed."""
        life = node.life
        for count, effect in enumerate(effects):
            if node.disk_full and isinstance(effect, Persist | PutBlob):
                self._mark(f"disk of {node.index} is full")
                self._crash(node, DISK_RETRY_MS)
                return effects[:count]
            node.performed += 1
            if self._tracing:
                self.trace.add(self.now, node.index, effect_text(effect, self.name))
            self._perform(node, effect)
            if self.watch is not None:
                self.watch(node, effect)
                if node.life != life:
                    return effects[: count + 1]
        return effects

    def _perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case Persist():
                node.persist(effect)
            case Send(peer, data):
                for target in self._by_peer.get(peer, ()):
                    self._connections.send(node, target, data)
            case Broadcast(data):
                self._connections.broadcast(node, data)
            case Fetch(digest, holders, reserves):
                self._fetching.fetch(node, digest, holders, reserves)
            case PutBlob(digest, data):
                if node.honest and blob_digest(data) != digest:
                    raise SimulationError(self, f"node {node.index} puts a blob under a wrong digest")
                node.blobs[digest] = data
            case DropBlob(digest):
                node.blobs.pop(digest, None)
                self._fetching.abandon(node, digest)
            case ReadBlocks():
                read = durable.read_blocks(node.records.get(durable.BLOCK, {}), effect)
                self.schedule.push(READ_MS, self._to_life, node, node.life, read)
            case SetTimer(key, delay_ms):
                token = self.schedule.issued + 1
                delay_ms = node.clock.virtual(max(0, delay_ms))
                node.timers[key] = self.schedule.push(delay_ms, self._fire, node, node.life, key, token)
            case CancelTimer(key):
                node.timers.pop(key, None)
            case RunJob(key, job):
                duration = self._worker.duration_ms(node.index, job, self.schedule.random)
                duration = int(duration * node.slowness)
                token = self.schedule.issued + 1
                node.jobs[key] = self.schedule.push(
                    duration, self._finish_job, node, node.life, key, job, token
                )
            case CancelJob(key):
                node.jobs.pop(key, None)
            case Penalise() | Notify():
                self.reports.append(Report(self.now, node.index, effect))
            case ShowOrders(_, view):
                node.orders = view

    def _fire(self, node: Node, life: int, key: str, token: int) -> None:
        if node.life == life and node.timers.get(key) == token:
            del node.timers[key]
            self._deliver(node, TimerFired(key))

    def _finish_job(self, node: Node, life: int, key: str, job: Job, token: int) -> None:
        """Computed when it is due, so that a job cancelled or lost in a crash costs nothing."""
        if node.life != life or node.jobs.get(key) != token:
            return
        del node.jobs[key]

        def read_blob(digest: Digest) -> bytes:
            if digest not in node.blobs:
                raise BlobMissingError(digest.hex())
            return node.blobs[digest]

        event: Event
        try:
            event = JobDone(key, self._worker.run(node.index, job, read_blob))
        except Exception as error:  # whatever a worker raises, the engine has to live with
            self.failed_jobs.append(FailedJob(self.now, node.index, key, repr(error)))
            event = JobFailed(key, repr(error))
        self._deliver(node, event)

    def _begin(self, node: Node, life: int) -> None:
        if node.life != life:
            return
        node.starting = False
        if node.damaged:
            self.trace.add(self.now, node.index, "refuses its damaged store")
            return
        node.clock = Clock(self.now, node.entropy.randrange(CLOCK_SPREAD_MS), node.clock_rate)
        node.engine = node.make_engine(node)
        try:
            start = node.start_event()
        except ChainError as error:
            raise EngineRaisedError(self, f"node {node.index} finds its ledger damaged: {error}") from error
        self._deliver(node, start)
        for other in self.nodes:
            self._connections.connect_soon(node, other)

    def _crash(self, node: Node, restart_ms: Millis | None) -> None:
        self.trace.add(self.now, node.index, "crash")
        self._connections.break_all(node)
        node.lose_volatile()
        if restart_ms is not None:
            self.schedule.push(restart_ms, self._start_if_down, node, node.life)

    def _start_if_down(self, node: Node, life: int) -> None:
        if node.down and node.life == life:
            self.start(node.index)
