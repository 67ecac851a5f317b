"""The shell around the engine: order and durability of effects, timers, jobs, blobs, crashes, processes.

Toy engines show the rules of the shell; the real engine then runs whole networks on it.
"""

import asyncio
import io
import json
import multiprocessing
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import define, evolve, field

from flocknode import inbox as inbox_module
from flocknode import spool
from flocknode.blobs import BlobStore
from flocknode.config import (
    LearningSettings,
    NodeConfig,
    NodeDirectory,
    NodeSettings,
    load_node_dir,
    write_node_dir,
)
from flocknode.learner import Learner
from flocknode.learning.models import MODELS
from flocknode.learning.task import load_task
from flocknode.node import FatalError, Node
from flocknode.observe.log import make_logger
from flocknode.process import main
from flocknode.store import DirectoryInUseError, Store, StoreError, open_reader
from flocknode.transport.base import Member
from flocknode.transport.memory import Hub, MemoryTransport
from protocol import jobs
from protocol.blob import CHUNK_BYTES, blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.codec import encode
from protocol.engine import Engine
from protocol.events import (
    BlobFailed,
    BlobReady,
    Broadcast,
    CancelJob,
    CancelTimer,
    Command,
    DropBlob,
    Effect,
    Event,
    Fetch,
    JobDone,
    JobFailed,
    Notify,
    PeerDown,
    PeerUp,
    Penalise,
    Persist,
    PutBlob,
    Received,
    RunJob,
    Send,
    SetTimer,
    Start,
    TimerFired,
)
from protocol.keys import Identity
from protocol.messages import Transaction, TransactionKind
from protocol.params import MICRO, Genesis, GenesisMember, hardened, sort_members
from protocol.sortition import default_roles

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
    observers: Sequence[Callable[[Notify], None]] = (),
) -> AsyncIterator[Running]:
    """A node, from its start to its clean stop; whatever ended it before that is raised."""
    await asyncio.to_thread(directory.mkdir, exist_ok=True)
    blobs, store, stop, log = BlobStore(directory), await Store.open(directory), asyncio.Event(), Lines()
    transport = MemoryTransport(hub or Hub(), PEERS[number], f"memory-{number}", penalty_s=0.05)
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
        commands=directory,
        observers=observers,
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


# -- order and durability --------------------------------------------------------------------------


def record(height: int) -> Persist:
    return Persist("block", height.to_bytes(8, "big"), b"block %d" % height)


async def test_effects_run_in_order_and_records_are_durable_before_the_next(tmp_path: Path) -> None:
    data = [b"first", b"second"]
    seen: list[tuple[str, list[int], int]] = []

    def look(notice: Notify) -> None:
        with open_reader(tmp_path) as ledger:
            heights = [height for height, _ in ledger.blocks()]
        files = len(list((tmp_path / "blobs").iterdir()))
        seen.append((notice.kind, heights, files))

    effects: list[Effect] = [
        Notify("before", {}),
        record(1),
        Notify("one", {}),
        record(2),
        PutBlob(blob_digest(data[0]), data[0]),
        record(3),
        Notify("three", {}),
        Notify("still", {}),
        PutBlob(blob_digest(data[1]), data[1]),
        DropBlob(blob_digest(data[0])),
        Persist("block", (1).to_bytes(8, "big"), None),
        Notify("last", {}),
        record(9),
    ]
    toy = Toy(on(GO, *effects))
    commits: list[int] = []
    async with living(tmp_path, toy, observers=[look]) as n:
        commit = n.store.commit

        async def counting(batch: Sequence[Persist]) -> None:
            commits.append(len(batch))
            await commit(batch)

        n.store.commit = counting  # type: ignore[method-assign]
        n.node.command(b"go")
        n.node.command(b"after")
        await toy.until(lambda: Command(b"after") in toy.events)
    assert seen == [
        ("before", [], 0),
        ("one", [1], 0),
        ("three", [1, 2, 3], 1),
        ("still", [1, 2, 3], 1),
        ("last", [2, 3], 1),
    ]
    assert commits == [1, 2, 1, 1]
    with open_reader(tmp_path) as ledger:
        assert [height for height, _ in ledger.blocks()] == [2, 3, 9]


async def test_a_restart_gives_back_records_and_blobs_before_anything_else(tmp_path: Path) -> None:
    toy = Toy(on(GO, record(4), Persist("meta", b"k", b"v"), PutBlob(blob_digest(MODEL), MODEL)))
    async with living(tmp_path, toy) as n:
        n.node.command(b"go")
        await toy.until(lambda: GO in toy.events)
    assert toy.events[0] == Start({}, frozenset())
    again = Toy(lambda event: ())
    async with living(tmp_path, again):
        await again.until(lambda: again.events)
    records = {"block": {(4).to_bytes(8, "big"): b"block 4"}, "meta": {b"k": b"v"}}
    assert again.events[0] == Start(records, frozenset([blob_digest(MODEL)]))


async def test_events_are_handled_one_at_a_time(tmp_path: Path) -> None:
    """Even while an event's commit is awaited, the next event waits."""
    order: list[str] = []

    def rule(event: Event) -> list[Effect]:
        if not isinstance(event, Command):
            return []
        name = event.transaction.decode()
        order.append(f"handle {name}")
        return [Persist("meta", b"k", event.transaction), Notify(name, {})]

    toy = Toy(rule)
    async with living(tmp_path, toy, observers=[lambda notice: order.append(f"done {notice.kind}")]) as n:
        for name in "abc":
            n.node.command(name.encode())
        await toy.until(lambda: len(toy.of(Command)) == 3)
    assert order[:5] == ["handle a", "done a", "handle b", "done b", "handle c"]


# -- timers ------------------------------------------------------------------------------------


async def test_a_timer_restarted_or_cancelled_does_not_fire_for_its_earlier_setting(tmp_path: Path) -> None:
    def rule(event: Event) -> Iterable[Effect]:
        match event:
            case Command(b"set"):
                yield SetTimer("again", 1)
                yield SetTimer("cancelled", 1)
                yield SetTimer("kept", 1)
            case Command(b"late"):
                # All three have fired by now and wait in the queue behind this event.
                yield SetTimer("again", 1)
                yield CancelTimer("cancelled")
                yield CancelTimer("unknown")
                yield SetTimer("end", 60)

    toy = Toy(rule)
    async with living(tmp_path, toy) as n:
        n.node.command(b"set")
        await toy.until(lambda: Command(b"set") in toy.events)
        await asyncio.sleep(0)
        n.node.command(b"late")
        time.sleep(0.02)  # noqa: ASYNC251  the loop must not run while the timers expire
        await toy.until(lambda: TimerFired("end") in toy.events)
    fired = [event.key for event in toy.of(TimerFired) if isinstance(event, TimerFired)]
    assert sorted(fired) == ["again", "end", "kept"]


# -- jobs --------------------------------------------------------------------------------------


def deal_job() -> Any:
    return object()  # the aggregation of these tests is a function of the test


async def test_small_jobs_do_not_wait_for_training_and_each_job_is_answered_once(tmp_path: Path) -> None:
    release = threading.Event()

    class Slow(NoTask):
        def fit(self, weights: Any, config: Mapping[str, Any]) -> Any:
            assert release.wait(30)
            return weights + np.float32(config["round"]), 5, {}

    train = [RunJob(f"train{i}", jobs.TrainJob(i, blob_digest(MODEL), bytes(32))) for i in (1, 2)]
    small = [RunJob(f"small{i}", deal_job()) for i in range(3)]
    toy = Toy(on(GO, PutBlob(blob_digest(MODEL), MODEL), *train, *small))
    results = iter(range(10))
    async with living(tmp_path, toy, task=Slow(), run_aggregation=lambda job, read: next(results)) as n:
        n.node.command(b"go")
        await toy.until(lambda: len(toy.of(JobDone)) == 3)
        assert toy.of(JobDone) == [JobDone(f"small{i}", i) for i in range(3)]  # type: ignore[arg-type]
        release.set()
        await toy.until(lambda: len(toy.of(JobDone)) == 5)
    one, two = toy.of(JobDone)[3:]
    assert isinstance(one, JobDone)
    assert isinstance(two, JobDone)
    assert (one.key, two.key) == ("train1", "train2")
    assert isinstance(two.result, jobs.TrainResult)
    assert np.allclose(two.result.update, 2.0, atol=1e-6)
    assert two.result.weight == 5


async def test_a_cancelled_or_replaced_job_is_not_answered(tmp_path: Path) -> None:
    began, release = threading.Event(), threading.Event()
    ran: list[object] = []

    def work(job: Any, read: Any) -> Any:
        began.set()
        assert release.wait(30)
        ran.append(job)
        return job

    def rule(event: Event) -> Iterable[Effect]:
        if event == GO:
            yield RunJob("running", "first")  # type: ignore[arg-type]
            yield RunJob("queued", "never")  # type: ignore[arg-type]
            yield RunJob("replaced", "old")  # type: ignore[arg-type]
        if event == Command(b"cancel"):
            yield CancelJob("running")
            yield CancelJob("queued")
            yield CancelJob("unknown")
            yield RunJob("replaced", "new")  # type: ignore[arg-type]
            yield RunJob("last", "last")  # type: ignore[arg-type]

    toy = Toy(rule)
    async with living(tmp_path, toy, run_aggregation=work) as n:
        n.node.command(b"go")
        await asyncio.to_thread(began.wait)
        n.node.command(b"cancel")
        await toy.until(lambda: Command(b"cancel") in toy.events)
        await asyncio.sleep(0)
        release.set()
        await toy.until(lambda: len(toy.of(JobDone)) >= 2)
    assert toy.of(JobDone, JobFailed) == [JobDone("replaced", "new"), JobDone("last", "last")]  # type: ignore[arg-type]
    assert ran == ["first", "new", "last"]


async def test_a_job_that_raises_is_reported_and_the_node_lives_on(tmp_path: Path) -> None:
    def work(job: Any, read: Callable[[bytes], bytes]) -> Any:
        return read(bytes(32))

    toy = Toy(on(GO, RunJob("bad", deal_job()), RunJob("train", jobs.TrainJob(0, bytes(32), bytes(32)))))
    async with living(tmp_path, toy, run_aggregation=work) as n:
        n.node.command(b"go")
        await toy.until(lambda: len(toy.of(JobFailed)) == 2)
    failures = {event.key: event.why for event in toy.of(JobFailed) if isinstance(event, JobFailed)}
    assert failures.keys() == {"bad", "train"}
    assert all(f"BlobMissingError: blob {bytes(32).hex()} is not held" in why for why in failures.values())
    assert {line["job"] for line in n.logged("job_raised")} == {"bad", "train"}


# -- between nodes -------------------------------------------------------------------------------


async def test_messages_blobs_and_penalties_go_between_nodes(tmp_path: Path) -> None:
    hub = Hub()
    large = np.random.default_rng(1).bytes(2 * CHUNK_BYTES + 5)
    oversized = bytes(3 * CHUNK_BYTES + 1)

    def rule(event: Event) -> Iterable[Effect]:
        match event:
            case Command(b"ask"):
                yield Fetch(blob_digest(large), (PEERS[0],))
                yield Fetch(blob_digest(oversized), (PEERS[0],))
                yield Fetch(bytes(32), (PEERS[0], PEERS[5]))
            case Command(b"talk"):
                yield Send(PEERS[0], b"to you")
                yield Broadcast(b"to all")
                yield Send(PEERS[5], b"lost")
            case Command(b"long"):
                yield Broadcast(bytes(2**21))
                yield Send(PEERS[0], bytes(2**21))
                yield Broadcast(b"short")
            case Command(b"punish"):
                yield Penalise(PEERS[0], "test")

    toys = [Toy(on(GO, *(PutBlob(blob_digest(data), data) for data in (large, oversized)))), Toy(rule)]
    async with (
        living(tmp_path / "0", toys[0], hub, 0, range(2)) as first,
        living(tmp_path / "1", toys[1], hub, 1, range(2)) as second,
    ):
        await toys[1].until(lambda: toys[1].of(PeerUp))
        assert toys[1].of(PeerUp) == [PeerUp(PEERS[0])]
        first.node.command(b"go")
        await toys[0].until(lambda: GO in toys[0].events)
        first.node.command(b"blobs are there")
        await toys[0].until(lambda: toys[0].of(Command)[1:])
        second.node.command(b"ask")
        await toys[1].until(lambda: len(toys[1].of(BlobReady, BlobFailed)) == 3)
        assert toys[1].of(BlobReady) == [BlobReady(blob_digest(large))]
        assert set(toys[1].of(BlobFailed)) == {BlobFailed(blob_digest(oversized)), BlobFailed(bytes(32))}
        assert (tmp_path / "1" / "blobs" / blob_digest(large).hex()).read_bytes() == large
        for command in (b"talk", b"long"):
            second.node.command(command)
        await toys[0].until(lambda: Received(PEERS[1], b"short") in toys[0].events)
        talk = [b"to you", b"to all", b"short"]
        assert toys[0].of(Received) == [Received(PEERS[1], data) for data in talk]
        assert len(second.logged("message_too_large")) == 2
        second.node.command(b"punish")
        await toys[1].until(lambda: toys[1].of(PeerDown))
        await toys[1].until(lambda: len(toys[1].of(PeerUp)) == 2)
    assert second.logged("penalised")[0]["why"] == "test"
    (stopped,) = first.logged("stopped")
    assert stopped["bytes_in"] == sum(map(len, talk))
    assert stopped["bytes_out"] > 3 * CHUNK_BYTES


async def test_a_flood_of_one_peer_is_dropped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_BYTES", 10_000)
    hub = Hub()
    flood = [Send(PEERS[1], bytes(999)) for _ in range(50)]
    toys = [Toy(on(GO, *flood)), Toy(lambda event: ())]
    async with (
        living(tmp_path / "0", toys[0], hub, 0, range(2)) as first,
        living(tmp_path / "1", toys[1], hub, 1, range(2)) as second,
    ):
        await toys[0].until(lambda: toys[0].of(PeerUp))
        first.node.command(b"go")
        await toys[1].until(lambda: len(toys[1].of(Received)) == 10)
    assert len(second.logged("message_dropped")) == 40


async def test_a_command_left_in_the_directory_is_heard_once(tmp_path: Path) -> None:
    transaction = encode(Transaction(TransactionKind.FUND, 0, PEERS[0], 5))
    spool.submit(tmp_path, transaction)  # while the node is down
    (tmp_path / "commands" / "0-too-long").write_bytes(bytes(5000))
    toy = Toy(lambda event: ())
    async with living(tmp_path, toy):
        await toy.until(lambda: toy.of(Command))
        spool.submit(tmp_path, b"second")
        await toy.until(lambda: len(toy.of(Command)) == 2)
        while spool.waiting(tmp_path):  # noqa: ASYNC110  the file goes after the command was heard
            await asyncio.sleep(0.01)
    assert toy.of(Command) == [Command(transaction), Command(b"second")]
    again = Toy(lambda event: ())
    async with living(tmp_path, again):
        await again.until(lambda: again.events)
    assert not again.of(Command)
    assert list((tmp_path / "commands").iterdir()) == []


# -- crashes -------------------------------------------------------------------------------------


async def crash(directory: Path, rule: Rule) -> tuple[Running, BaseException]:
    try:
        async with living(directory, Toy(rule)) as n:
            n.node.command(b"go")
            await asyncio.wait({n.task})
    except BaseExceptionGroup as group:
        (error,) = group.exceptions
        return n, error
    raise AssertionError("the node stopped cleanly")


async def test_whatever_breaks_a_promise_ends_the_node_and_frees_its_directory(tmp_path: Path) -> None:
    def broken(event: Event) -> list[Effect]:
        if event == GO:
            raise ZeroDivisionError("in the engine")
        return []

    cases: list[tuple[Rule, type[Exception], str]] = [
        (broken, ZeroDivisionError, "in the engine"),
        (on(GO, Persist("block", b"short", b"")), StoreError, "height"),
        (on(GO, Notify("fatal", {"why": "two certified blocks"})), FatalError, "two certified blocks"),
        (on(GO, PutBlob(bytes(32), b"other")), Exception, "are blob"),
        (on(GO, "no effect"), TypeError, "no effect"),  # type: ignore[arg-type]
    ]
    for rule, kind, message in cases:
        n, error = await crash(tmp_path, rule)
        assert isinstance(error, kind)
        assert message in str(error)
        assert not n.transport.connected()
        await (await Store.open(tmp_path)).close()


async def test_a_node_that_cannot_start_says_so_and_frees_its_directory(tmp_path: Path) -> None:
    hub = Hub()
    async with living(tmp_path / "0", Toy(lambda event: ()), hub, 0):
        with pytest.raises(DirectoryInUseError):
            await Store.open(tmp_path / "0")
        with pytest.raises(Exception, match="memory-0"):
            async with living(tmp_path / "1", Toy(lambda event: ()), hub, 0):
                pass
    await (await Store.open(tmp_path / "1")).close()


# -- whole networks ------------------------------------------------------------------------------


def genesis_of(count: int) -> Genesis:
    proposers, voters = default_roles(count)
    params = hardened(dimension=DIGITS.dimension, n_proposers=proposers, n_voters=voters)
    return Genesis(
        name="shell",
        task="digits",
        params=evolve(params, phase_deadline_ms=3_000, view_timeout_ms=1_000),
        members=sort_members([GenesisMember(peer, 64 * MICRO) for peer in PEERS[:count]]),
        beacon=bytes(32),
        model_digest=blob_digest(MODEL),
    )


@define(eq=False)
class Network:
    """Real engines on one hub, each in a directory of its own."""

    base: Path
    count: int
    hub: Hub = field(factory=Hub)
    engines: dict[int, Engine] = field(factory=dict)

    @asynccontextmanager
    async def node(self, number: int) -> AsyncIterator[Running]:
        genesis, directory = genesis_of(self.count), self.base / f"node{number}"
        task = load_task("digits", number, self.count, seed=1)
        entropy = np.random.default_rng(number).bytes
        engine = Engine(IDENTITIES[number], genesis, entropy, weight=task.train_count)
        self.engines[number] = engine
        if not directory.exists():
            directory.mkdir()
            BlobStore(directory).put(blob_digest(MODEL), MODEL)
        members = range(self.count)
        async with living(
            directory, engine, self.hub, number, members, task, params=genesis.params
        ) as running:
            yield running

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110  the condition is about several engines at once
            await asyncio.sleep(0.02)

    def blocks(self, number: int) -> list[tuple[int, bytes]]:
        with open_reader(self.base / f"node{number}") as ledger:
            return list(ledger.blocks())


async def test_five_engines_learn_and_a_node_that_was_away_catches_up(tmp_path: Path) -> None:
    network = Network(tmp_path, 5)
    async with network.node(0) as n0, network.node(1) as n1, network.node(2), network.node(3):
        async with network.node(4) as n4:
            await network.until(lambda: len(n0.logged("evaluation")) >= 1 and n4.logged("settled"))
        away_at = network.engines[4].height
        await network.until(lambda: network.engines[0].height >= away_at + 3)
        async with network.node(4) as n4:
            assert network.engines[4].height == away_at
            round_ = network.engines[0].state.round
            await network.until(lambda: all(e.state.round > round_ for e in network.engines.values()))
            await network.until(lambda: n4.logged("evaluation"))
    chains = [network.blocks(number) for number in range(5)]
    shortest = min(map(len, chains))
    assert shortest > away_at + 3
    # Certificates may differ from node to node, blocks may not: their hashes are compared below.
    for chain in chains:
        assert [height for height, _ in chain[:shortest]] == list(range(1, shortest + 1))
    heads = {line["height"]: line["hash"] for line in n0.logged("block")}
    for n in (n1, n4):
        told = {line["height"]: line["hash"] for line in n.logged("block")}
        assert told.items() <= heads.items() or heads.items() <= told.items()
    first, *_ = n0.logged("evaluation")
    assert first["round"] == 1
    assert first["num_examples"] == 54
    assert 0.5 < first["accuracy"] <= 1
    (block, *_), (settled, *_) = n0.logged("block"), n0.logged("traffic")
    assert block["bytes_out"] > 0
    assert len(settled["peers"]) == 4
    assert {"time", "node", "level"} <= block.keys()


# -- processes -----------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def write_network(base: Path, count: int) -> list[Path]:
    members = tuple(
        Member(peer, f"/ip4/127.0.0.1/tcp/{port}")
        for peer, port in zip(PEERS, free_ports(count), strict=False)
    )
    paths = [base / f"node{i}" for i in range(count)]
    for i, path in enumerate(paths):
        config = NodeConfig(
            node=NodeSettings(name=f"node{i}", listen=members[i].address),
            learning=LearningSettings(task="digits", shard=i, shards=count, seed=1),
            members=members,
        )
        directory = NodeDirectory(
            path=path, config=config, genesis=genesis_of(count), identity=IDENTITIES[i], psk=b"p" * 32
        )
        write_node_dir(directory, MODEL)
        assert load_node_dir(path) == directory
    return paths


def start(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flocknode.process", str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def start_forked(path: Path) -> ForkServerProcess:
    """As `start`, from a process that has imported everything once: a node costs seconds of imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flocknode.assembly", "flocknode.learning.trainer"])
    process = context.Process(target=main, args=(path,), daemon=True)
    process.start()
    return process


def logged(path: Path, event: str) -> list[dict[str, Any]]:
    with suppress(FileNotFoundError):
        lines = (path / "node.log").read_text().splitlines()
        return [json.loads(line) for line in lines if f'"event":"{event}"' in line]
    return []


def wait_until(condition: Callable[[], object], processes: Iterable[Callable[[], int | None]]) -> None:
    """Until `condition` holds; fails when a process, given as what tells its exit code, has ended."""
    while not condition():
        assert [exit_code() for exit_code in processes] == [None] * 4
        time.sleep(0.2)


def test_processes_learn_survive_kill_9_and_stop_cleanly(tmp_path: Path) -> None:
    paths = write_network(tmp_path, 4)
    first, others = start(paths[0]), [start_forked(path) for path in paths[1:]]
    try:
        exit_codes = [lambda: first.poll(), *(lambda process=process: process.exitcode for process in others)]
        wait_until(lambda: all(logged(path, "settled") for path in paths), exit_codes)
        (ready,) = logged(paths[1], "ready")
        assert ready["address"] == load_node_dir(paths[1]).config.node.listen
        second = start(paths[1])
        _, told = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"{paths[1]} is in use by process {others[0].pid}" in told

        height = len(logged(paths[1], "block"))
        first.send_signal(signal.SIGKILL)
        first.communicate()
        first = start(paths[0])
        # Four nodes cannot agree with one of them gone for good: that rounds go on shows that it is back.
        round_ = logged(paths[1], "settled")[-1]["round"]
        wait_until(lambda: all(logged(p, "settled")[-1]["round"] > round_ + 1 for p in paths), exit_codes)
        with open_reader(paths[0]) as ledger:
            heights = [number for number, _ in ledger.blocks()]
        assert heights == list(range(1, len(heights) + 1))
        assert len(heights) > height
    finally:
        first.send_signal(signal.SIGTERM)
        for process in others:
            process.terminate()
        _, told = first.communicate(timeout=60)
        for process in others:
            process.join(60)
    assert (first.returncode, told) == (0, "")
    assert [process.exitcode for process in others] == [0, 0, 0]
    for path in paths:
        assert logged(path, "stopped")
        assert not logged(path, "crashed")
        assert not list(path.glob("ledger.db-*"))


def test_a_process_that_cannot_run_names_the_reason(tmp_path: Path) -> None:
    (path, *_) = write_network(tmp_path, 4)
    (path / "node.key").chmod(0o644)
    assert refusal(path).startswith(f"flocknode: {path / 'node.key'} is open to others")
    (path / "node.key").chmod(0o600)
    (path / "ledger.db").write_bytes(b"no database" * 1000)
    assert refusal(path) == f"flocknode: node0: {path / 'ledger.db'}: file is not a database\n"
    (line,) = logged(path, "cannot_run")
    assert line["why"] == f"{path / 'ledger.db'}: file is not a database"


def refusal(path: Path) -> str:
    """What a process says that ends with an error."""
    process = start(path)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    return told
