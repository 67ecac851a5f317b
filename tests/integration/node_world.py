"""Nodes on a hub of one process, as the tests of the shell run them: with toy engines or the real one."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from flocknode.blobs import BlobStore
from flocknode.learner import Learner
from flocknode.learning.models import MODELS
from flocknode.node import Node
from flocknode.observe.log import make_logger
from flocknode.startup import Resume
from flocknode.store import Store
from flocknode.transport.base import Member
from flocknode.transport.memory import Hub, MemoryTransport
from flocknode.transport.standing import Limits
from protocol import jobs
from protocol.blob import CHUNK_BYTES
from protocol.checkpoint import initial_checkpoint
from protocol.events import Command, Effect, Event, Notify
from protocol.keys import Identity
from protocol.params import hardened

IDENTITIES = [Identity.from_seed(bytes([i + 1]) * 32) for i in range(6)]
PEERS = [identity.peer for identity in IDENTITIES]
DIGITS = MODELS["digits"]
PARAMS = hardened(dimension=DIGITS.dimension, n_proposers=4, n_voters=2)
MODEL = initial_checkpoint(PARAMS, DIGITS.initial_weights(1))
GO = Command(b"go")
Rule = Callable[[Event], Iterable[Effect]]


@define(eq=False)
class Toy:
    """An engine that is a function from events to effects, and remembers the events."""

    rule: Rule
    events: list[Event] = field(factory=list)
    changed: asyncio.Event = field(factory=asyncio.Event)

    def handle(self, event: Event, now: int) -> list[Effect]:
        assert type(now) is int
        self.events.append(event)
        self.changed.set()
        return list(self.rule(event))

    def of(self, *kinds: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class Lines(io.StringIO):
    """A log that is read while it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, list[dict[str, Any]]] = {}

    def write(self, line: str) -> int:
        record = json.loads(line)
        self.records.setdefault(record["event"], []).append(record)
        return len(line)


@define(eq=False)
class Running:
    node: Node
    store: Store
    transport: MemoryTransport
    task: "asyncio.Task[None]"
    stop: asyncio.Event
    log: Lines

    def logged(self, event: str) -> list[dict[str, Any]]:
        return self.log.records.get(event, [])


class NoTask:
    """A learner's task where nothing is learned."""

    name = "none"
    dimension = PARAMS.dimension


NO_TASK = NoTask()


@asynccontextmanager
async def living(
    directory: Path,
    engine: Any,
    hub: Hub | None = None,
    number: int = 0,
    members: Sequence[int] = range(6),
    task: Any = NO_TASK,
    run_aggregation: Any = jobs.run,
    params: Any = PARAMS,
    resume: Resume | None = None,
    observers: Sequence[Callable[[Notify], None]] = (),
    new_engine: Callable[[], Any] | None = None,
    limits: Limits | None = None,
    transport_class: type[MemoryTransport] = MemoryTransport,
) -> AsyncIterator[Running]:
    """A node, from its start to its clean stop; whatever ended it before that is raised."""
    await asyncio.to_thread(directory.mkdir, exist_ok=True)
    blobs, store, stop, log = BlobStore(directory), await Store.open(directory), asyncio.Event(), Lines()
    transport = transport_class(hub or Hub(), PEERS[number], f"memory-{number}", limits=limits)
    node = Node(
        engine=engine,
        store=store,
        blobs=blobs,
        transport=transport,
        members=[Member(PEERS[i], f"memory-{i}") for i in members],
        learner=Learner(task, params, blobs.read),
        run_aggregation=run_aggregation,
        log=make_logger([log], f"n{number}", "info"),
        max_blob_bytes=3 * CHUNK_BYTES,
        resume=resume,
        commands=directory,
        observers=observers,
        new_engine=new_engine,
    )
    running = Running(node, store, transport, asyncio.create_task(node.run(stop)), stop, log)
    ready = asyncio.create_task(node.ready.wait())
    await asyncio.wait({running.task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        yield running
    finally:
        stop.set()
        await running.task


def on(trigger: Event, *effects: Effect) -> Rule:
    return lambda event: effects if event == trigger else ()
