"""The target over a whole node: from the transport's callback through queue and engine to the disk.

The node is the one that operators run (`flocknode.node.Node`) with its SQLite store, its blobs, its threads
and its log; only the wire is a hub in memory. Members say whatever they can sign, and what nobody would sign.
The node must live on, and neither the engine nor the handler may fail on a message: that such a failure is
contained is the last line of defence, and a crash to be mended all the same.
"""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import weakref
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import define, field

from flocknode.blobs import BlobStore
from flocknode.learner import Learner
from flocknode.node import Node
from flocknode.observe.log import make_logger
from flocknode.store import Store
from flocknode.transport.base import MAX_MESSAGE_BYTES, Member, Transport
from flocknode.transport.memory import Hub, MemoryTransport
from flocknode.transport.standing import Limits, Standing
from protocol import jobs
from protocol.blob import chunked
from protocol.codec import encode
from protocol.engine import Engine
from protocol.events import (
    Command,
    Event,
    JobDone,
    JobFailed,
    Notify,
    PeerDown,
    PeerUp,
    Persist,
    TimerFired,
)
from protocol.jobs import Job
from protocol.ledger.resume import resume
from sim.fuzzing.bending import Bender
from sim.fuzzing.bounds import check_bounds
from sim.fuzzing.chances import Chances
from sim.fuzzing.histories import VICTIM, Moment, ground
from sim.fuzzing.inputs import bent_input, moment_of, seeds_of
from sim.fuzzing.steps import Steps

PROFILES = ("hardened",)
MOST_STEPS = 3
INPUTS_OF_A_LIFE = 50
INPUT_BYTES = 256
SETTLED = "settled"
"""A timer that no engine has: once it is told unknown, all that was said before it has had its effects."""
PATIENT = Limits(
    throttle_at=-1e12, refuse_at=-2e12, messages=1e9, size_bytes=1e15, repeats=1e9, messages_per_s=1e9
)
"""A fuzzer that were refused after three broken messages would try nothing more."""
CONTAINED = frozenset({"engine_fault", "observer_failed", "monitor_failed", "library", "crashed"})
"""Lines of the log that tell of a failure that was contained."""


class ContainedFailureError(AssertionError):
    """The node lives on, but something failed on what a member said; the message has the line of its log."""


@define(eq=False)
class _Bystander:
    """A member of the hub that hears nothing, and serves the blobs of its network."""

    blobs: dict[bytes, bytes]

    def received(self, peer: bytes, message: bytes) -> None: ...

    def peer_up(self, peer: bytes) -> None: ...

    def peer_down(self, peer: bytes) -> None: ...

    def standing_changed(self, peer: bytes, standing: Standing) -> None: ...

    async def read_blob(self, peer: bytes, digest: bytes, index: int) -> bytes | None:
        data = self.blobs.get(digest)
        return None if data is None or index else encode(chunked(data).chunk(0))


@define(eq=False)
class _Task:
    """A learner's task without data: a draw for an update, and a loss that goes down."""

    dimension: int
    name: str = "drawn"
    train_count: int = 1
    validation_count: int = 1
    test_count: int = 1

    def initial_weights(self, seed: int) -> npt.NDArray[np.float32]:
        return np.zeros(self.dimension, np.float32)

    def fit(self, weights: npt.NDArray[np.float32], config: Any) -> Any:
        update = np.random.default_rng(config["seed"]).normal(0, 0.01, self.dimension)
        return (weights + update).astype(np.float32), 1, {}

    def evaluate(self, weights: npt.NDArray[np.float32], config: Any) -> Any:
        return 1.0, 1, {}


class _Failures(io.StringIO):
    """A log that keeps the lines about failures only."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def write(self, line: str) -> int:
        if json.loads(line)["event"] in CONTAINED:
            self.lines.append(line)
        return len(line)


@define(eq=False)
class ShellVictim:
    """A running node, and the members around it. It has what `Steps` asks of a victim."""

    moment: Moment
    loop: asyncio.AbstractEventLoop
    jobs: dict[str, Job] = field(factory=dict, init=False)
    """Always empty, as `fetches`: a real node runs its jobs and fetches itself."""
    fetches: dict[bytes, tuple[bytes, ...]] = field(factory=dict, init=False)
    blobs: dict[bytes, bytes] = field(factory=dict, init=False)
    forged: int = field(default=0, init=False)
    ended: str | None = field(default=None, init=False)
    engine: Engine = field(init=False)
    _directory: tempfile.TemporaryDirectory[str] = field(init=False)
    _log: _Failures = field(init=False)
    _node: Node = field(init=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False)
    _stop: asyncio.Event = field(init=False)
    _settled: asyncio.Event = field(init=False)
    _others: dict[bytes, MemoryTransport] = field(factory=dict, init=False)
    _hub: Hub = field(init=False)
    _transport: Transport = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="flocknode-fuzz-")
        self.loop.run_until_complete(self._fill())
        self.start()

    async def _fill(self) -> None:
        """Make durable what the node held at its moment."""
        path = Path(self._directory.name)
        store, blobs = await Store.open(path), BlobStore(path)
        await store.commit(
            [
                Persist(bucket, key, value)
                for bucket, rows in self.moment.records.items()
                for key, value in rows.items()
            ]
        )
        await store.close()
        for digest, data in self.moment.blobs.items():
            blobs.put(digest, data)

    def start(self) -> None:
        """Begin a new life with what is durable."""
        self.loop.run_until_complete(self._restart())

    async def _restart(self) -> None:
        await self._end()
        ground = self.moment.ground
        identity, genesis, params = ground.identities[VICTIM], ground.founding.genesis, ground.params
        path = Path(self._directory.name)
        members = [Member(peer, f"memory-{peer.hex()[:8]}") for peer in ground.peers]

        def new_engine() -> Engine:
            self.engine = Engine(
                identity, genesis, Random(1).randbytes, ground.founding.packages.get(identity.peer)
            )
            return self.engine

        self._hub, self._stop, self._settled, self._log = Hub(), asyncio.Event(), asyncio.Event(), _Failures()
        store, blobs = await Store.open(path), BlobStore(path)
        self._transport = MemoryTransport(self._hub, identity.peer, members[VICTIM].address, limits=PATIENT)
        self._node = Node(
            engine=new_engine(),
            new_engine=new_engine,
            store=store,
            blobs=blobs,
            transport=self._transport,
            members=members,
            learner=Learner(_Task(params.dimension), params, blobs.read),
            run_aggregation=jobs.run,
            log=make_logger([self._log], "victim", "debug"),
            max_blob_bytes=1 << 24,
            commands=path,
            resume=partial(resume, genesis),
            observers=[self._observe],
        )
        self._running = self.loop.create_task(self._node.run(self._stop))
        for member in members:
            if member.peer != identity.peer:
                other = self._others[member.peer] = MemoryTransport(self._hub, member.peer, member.address)
                other.set_members(members)
                await other.start(_Bystander(dict(ground.blobs)))
        await self._settle()

    def _observe(self, notice: Notify) -> None:
        if notice.kind == "unknown_timer" and notice.fields["key"] == SETTLED:
            self._settled.set()
        elif notice.kind == "fatal":
            self.ended = str(notice.fields["why"])

    def done(self, key: str, job: Job) -> JobDone | JobFailed:
        """Return what a job comes to; a node runs its own."""
        return JobFailed(key, "the node runs its jobs itself")

    def handle(self, event: Event, after_ms: int = 1) -> None:
        """Let happen to the node what is no message."""
        self.loop.run_until_complete(self._let_happen(event))

    async def _let_happen(self, event: Event) -> None:
        me = self._transport.peer
        match event:
            case PeerUp(peer):
                self._hub.mend(me, peer)
            case PeerDown(peer):
                self._hub.cut(me, peer)
            case Command(transaction):
                self._node.command(transaction)
            case TimerFired() if self.ended is None:
                self._node._inbox.put(event)
            case _:
                pass
        await self._settle()

    def hear(self, data: bytes, peer: bytes, times: int = 1) -> None:
        """Let a member say this, `times` at once, if a transport carries it; for the node itself another."""
        if len(data) > MAX_MESSAGE_BYTES:
            return
        if peer not in self._others:
            peer = min(self._others)
        self.loop.run_until_complete(self._say(data, peer, times))

    async def _say(self, data: bytes, peer: bytes, times: int) -> None:
        for _ in range(times):
            self._others[peer].send(self._transport.peer, data)
        for _ in range(3):  # from pipe to dispatcher to queue
            await asyncio.sleep(0)
        await self._settle()

    async def _settle(self) -> None:
        """Wait until what was said has had its effects. Raises what ended the node, or what it contained."""
        assert self._running is not None
        if self.ended is None:
            ready = self.loop.create_task(self._node.ready.wait())
            await asyncio.wait({ready, self._running}, return_when=asyncio.FIRST_COMPLETED)
            self._settled.clear()
            self._node._inbox.put(TimerFired(SETTLED))
            settled = self.loop.create_task(self._settled.wait())
            await asyncio.wait({settled, self._running}, return_when=asyncio.FIRST_COMPLETED)
            settled.cancel()
            ready.cancel()
        if self._running.done() and self.ended is None:
            self._running.result()
            raise AssertionError("the node stopped by itself")
        if self._log.lines:
            raise ContainedFailureError(self._log.lines[0])
        rejects = self._transport.stats().rejects
        for reason in ("fault", "handler-error"):
            if rejects.get(reason):
                raise ContainedFailureError(f"{rejects[reason]} x {reason}")

    async def _end(self) -> None:
        if self._running is not None:
            self._stop.set()
            await asyncio.wait({self._running})
            self._running.exception()
        for other in self._others.values():
            await other.stop()
        self._others.clear()

    def close(self) -> None:
        """Stop the node and remove its directory."""
        self.loop.run_until_complete(self._end())
        self._directory.cleanup()


@define(eq=False)
class _Life:
    victim: ShellVictim
    index: int
    inputs: list[bytes] = field(factory=list)


@define(eq=False)
class ShellTarget:
    """An input names a moment by its first two bytes, the rest decides the steps. One node lives at once."""

    input_bytes: int = INPUT_BYTES
    moments: list[Moment] = field(init=False)
    _life: _Life | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.new_event_loop, init=False)

    def __attrs_post_init__(self) -> None:
        self.moments = [moment for profile in PROFILES for moment in ground(profile).moments]
        weakref.finalize(self, self._loop.close)

    def __call__(self, data: bytes) -> None:
        """Run one input. Raises whatever the node does wrong."""
        index = moment_of(data, len(self.moments))
        life = self._life
        if life is None or life.index != index or len(life.inputs) >= INPUTS_OF_A_LIFE or life.victim.ended:
            self.close()
            life = self._life = _Life(ShellVictim(self.moments[index], self._loop), index)
        life.inputs.append(data)
        draw, victim = Chances(data[2:]), life.victim
        steps = Steps(victim, Bender(victim.moment.ground))
        for _ in range(1 + draw.randrange(MOST_STEPS)):
            steps.take(draw)
            if victim.ended is not None:
                return
        check_bounds(victim.engine, victim.forged)

    def history(self) -> list[bytes]:
        """Return the inputs that the node of the last execution has heard, that one included."""
        return [] if self._life is None else list(self._life.inputs)

    def seeds(self) -> list[bytes]:
        """Return one input for each moment."""
        return seeds_of(len(self.moments))

    def bent(self, data: bytes, draw: Random) -> bytes:
        """Return an input near this one, mostly at the same moment: a node takes long to make."""
        return bent_input(data, draw, self.input_bytes, 16)

    def close(self) -> None:
        """End the node of the last execution."""
        if self._life is not None:
            self._life.victim.close()
            self._life = None
