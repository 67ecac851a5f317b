"""The shell around the engine: order and durability of effects, timers, jobs, blobs, crashes.

Toy engines show the rules; `test_node_network` runs the real one.
"""

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_world import GO, MODEL, PEERS, NoTask, Rule, Running, Toy, living, on

from flocknode import inbox as inbox_module
from flocknode.node import FatalError
from flocknode.spool import new_order, submit
from flocknode.store import DirectoryInUseError, Store, StoreError, open_reader
from flocknode.transport.memory import Hub
from flocknode.transport.standing import Limits
from protocol import jobs
from protocol.blob import CHUNK_BYTES, blob_digest
from protocol.codec import encode
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
    ShowOrders,
    Start,
    TimerFired,
)
from protocol.keys import peer_name
from protocol.messages import TransactionKind

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
    # Nothing is told before the records and blobs in front of it are durable; those behind it may be by then.
    assert seen == [
        ("before", [1, 2, 3], 2),
        ("one", [1, 2, 3], 2),
        ("three", [1, 2, 3], 2),
        ("still", [1, 2, 3], 2),
        ("last", [2, 3, 9], 1),
    ]
    assert commits == [3, 2]
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
    assert again.events[0] == Start({"meta": {b"k": b"v"}}, frozenset([blob_digest(MODEL)]))


async def test_events_that_wait_share_one_commit_and_nothing_leaves_before_it(tmp_path: Path) -> None:
    """Handled one at a time, in their order; the effects of all come in that order, behind the commit."""
    order: list[str] = []

    def rule(event: Event) -> list[Effect]:
        if not isinstance(event, Command):
            return []
        name = event.order.decode()
        order.append(f"handle {name}")
        return [Notify(f"{name}-before", {}), Persist("meta", name.encode(), b"v"), Notify(name, {})]

    toy = Toy(rule)
    last = asyncio.Event()

    def done(notice: Notify) -> None:
        order.append(f"done {notice.kind}")
        if notice.kind == "c":
            last.set()

    async with living(tmp_path, toy, observers=[done]) as n:
        await toy.until(lambda: toy.events)
        commit = n.store.commit

        async def noted(batch: Sequence[Persist]) -> None:
            await commit(batch)
            order.append("commit " + b"".join(record.key for record in batch).decode())

        n.store.commit = noted  # type: ignore[method-assign]
        for name in "abc":
            n.node.command(name.encode())
        await last.wait()
    told = [f"done {name}{part}" for name in "abc" for part in ("-before", "")]
    assert order == ["handle a", "handle b", "handle c", "commit abc", *told]


async def test_what_an_event_cancels_is_not_given_to_the_engine_while_its_effects_wait(
    tmp_path: Path,
) -> None:
    """The firing of a timer, behind the event that cancels it, in the turn that ends in one commit."""

    def rule(event: Event) -> Iterable[Effect]:
        match event:
            case Command(b"set"):
                yield SetTimer("cancelled", 1)
                yield SetTimer("again", 1)
            case Command(b"cancel"):
                yield Persist("meta", b"k", b"v")
                yield CancelTimer("cancelled")
                yield SetTimer("again", 30)
            case Command(b"look"):
                yield Notify("look", {})

    toy = Toy(rule)
    async with living(tmp_path, toy) as n:
        n.node.command(b"set")
        await toy.until(lambda: Command(b"set") in toy.events)
        await asyncio.sleep(0)
        n.node.command(b"cancel")
        time.sleep(0.02)  # noqa: ASYNC251  both timers expire now, and fire behind the event
        n.node.command(b"look")
        await toy.until(lambda: toy.of(TimerFired))
        await asyncio.sleep(0.01)
    assert toy.of(TimerFired) == [TimerFired("again")]


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
                yield from [Penalise(PEERS[0], "test")] * 6

    toys = [Toy(on(GO, *(PutBlob(blob_digest(data), data) for data in (large, oversized)))), Toy(rule)]
    async with (
        living(tmp_path / "0", toys[0], hub, 0, range(2)) as first,
        living(tmp_path / "1", toys[1], hub, 1, range(2), limits=Limits(refusal_s=0.05)) as second,
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
    penalised = second.logged("penalised")
    assert [line["why"] for line in penalised] == ["test"] * 6
    assert [round(line["score"]) for line in penalised] == [-10, -20, -30, -40, -50, -60]
    assert len(second.logged("throttled")) == len(second.logged("refused")) == 1
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
    assert second.transport.stats().rejects == {"inbox-full": 40}
    assert second.transport.stats().standings[PEERS[0]].score == 0
    # One line, however many are dropped; the number is kept.
    (line,) = second.logged("message_dropped")
    assert (line["level"], line["state"], line["peer"]) == ("warning", "begun", peer_name(PEERS[0]))
    (condition,) = second.node.conditions
    assert condition.figures == {"peer": peer_name(PEERS[0]), "messages": 40, "bytes": 40 * 999}


async def test_orders_left_in_the_directory_are_heard_until_they_are_taken(tmp_path: Path) -> None:
    """Each once, however many copies there are; what is no order is set aside, and ends nothing."""
    first, second = (new_order(TransactionKind.FUND, PEERS[0], 5) for _ in range(2))
    submit(tmp_path, first)  # while the node is down
    commands = tmp_path / "commands"
    shutil.copy(commands / f"{first.id.hex()}.order", commands / "copy.order")
    (commands / "0-too-long").write_bytes(bytes(5000))
    (commands / "garbage.order").write_bytes(b"\xff")
    (commands / "empty.order").touch()
    (commands / "folder").mkdir()
    (commands / "link.order").symlink_to("/dev/zero")
    os.mkfifo(commands / "pipe.order")
    (commands / "half.order.partial").write_bytes(b"\xff")

    def engine(event: Event) -> Iterable[Effect]:
        match event:
            case Command(data) if data == encode(second):
                yield ShowOrders((first.id, second.id), {"height": 3})

    toy = Toy(engine)
    async with living(tmp_path, toy) as node:
        await toy.until(lambda: toy.of(Command))
        while len(node.logged("orders")) < 6:  # noqa: ASYNC110  told of from a task of its own
            await asyncio.sleep(0.01)
        assert (commands / "copy.order").exists()  # not taken yet: a crash now must not lose it
        submit(tmp_path, second)
        while list(commands.glob("*.order")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert toy.of(Command) == [Command(encode(first)), Command(encode(second))]
    view = json.loads((tmp_path / "orders.json").read_text())
    assert (view["height"], view["pid"]) == (3, os.getpid())
    again = Toy(lambda event: ())
    async with living(tmp_path, again):
        await again.until(lambda: again.events)
    assert not again.of(Command)
    left = {path.name for path in commands.iterdir()}
    bad = {f"{name}.bad" for name in ("0-too-long", "garbage.order", "empty.order", "folder", "link.order")}
    assert left == {*bad, "pipe.order.bad", "half.order.partial"}


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
