"""No message and no side job ends a node: what each failure costs instead (docs/PROTOCOL.md section 8.7)."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_world import GO, MODEL, PEERS, NoTask, Rule, Toy, living, on

from flocknode import spool
from flocknode.store import Store, StoreError
from flocknode.transport.memory import Hub
from protocol.blob import blob_digest
from protocol.codec import encode
from protocol.events import (
    BlocksRead,
    Broadcast,
    Command,
    Effect,
    Event,
    JobDone,
    JobFailed,
    Notify,
    PeerUp,
    Persist,
    PutBlob,
    ReadBlocks,
    Received,
    RunJob,
    Send,
    SetTimer,
    Start,
    TimerFired,
)
from protocol.jobs import TrainJob
from protocol.messages import TransactionKind

SENDER, HEARER = PEERS[0], PEERS[1]


def says(*messages: bytes) -> Toy:
    return Toy(on(GO, *(Send(HEARER, message) for message in messages)))


# -- messages --------------------------------------------------------------------------------------


async def test_empty_messages_are_heard_like_any_others(tmp_path: Path) -> None:
    hub, toys = Hub(), [says(b"", b"", b"x", b"", b"last"), Toy(lambda event: ())]
    async with (
        living(tmp_path / "0", toys[0], hub, 0, range(2)) as first,
        living(tmp_path / "1", toys[1], hub, 1, range(2)),
    ):
        await toys[0].until(lambda: toys[0].of(PeerUp))
        first.node.command(b"go")
        await toys[1].until(lambda: Received(SENDER, b"last") in toys[1].events)
    assert [event.data for event in toys[1].of(Received)] == [b"", b"", b"x", b"", b"last"]


async def test_an_engine_that_fails_on_a_message_starts_over_without_it(tmp_path: Path) -> None:
    """As after a crash: what was durable before is there, what the message had begun is not."""
    hub = Hub()

    def rule(event: Event) -> Iterable[Effect]:
        match event:
            case Start():
                yield SetTimer("soon", 1)
            case Received(_, b"before"):
                yield Persist("meta", b"before", b"v")
                yield SetTimer("old", 60_000)
                yield RunJob("old", object())  # type: ignore[arg-type]
            case Received(_, b"poison"):
                yield Persist("meta", b"poison", b"v")
                yield Broadcast(b"never said")
                raise ZeroDivisionError("in the middle")
            case Received(_, b"after"):
                yield Persist("meta", b"after", b"v")

    engines = [Toy(rule) for _ in range(2)]
    spare = iter(engines[1:])
    sender = says(b"before", b"poison", b"after")
    async with (
        living(tmp_path / "0", sender, hub, 0, range(2)) as first,
        living(tmp_path / "1", engines[0], hub, 1, range(2), new_engine=lambda: next(spare)) as second,
    ):
        await sender.until(lambda: sender.of(PeerUp))
        await engines[0].until(lambda: engines[0].of(PeerUp))
        first.node.command(b"go")
        await engines[1].until(lambda: Received(SENDER, b"after") in engines[1].events)
        await engines[1].until(lambda: engines[1].of(TimerFired))
        assert second.transport.stats().rejects == {"fault": 1}
        assert second.transport.stats().standings[SENDER].score < -10
    start, up, *_ = engines[1].events
    assert start == Start({"meta": {b"before": b"v"}}, frozenset())
    assert up == PeerUp(SENDER)
    assert engines[1].of(TimerFired) == [TimerFired("soon")]
    assert not engines[1].of(JobDone, JobFailed)  # of the old engine's
    assert sender.of(Received) == []
    (fault,) = second.logged("engine_fault")
    assert fault["why"] == "ZeroDivisionError: in the middle"
    assert fault["head"] == b"poison".hex()
    assert "in the middle" in fault["exception"]
    assert [line["why"] for line in second.logged("penalised")] == ["fault"]
    store = await Store.open(tmp_path / "1")
    assert (await store.load())["meta"].keys() == {b"before", b"after"}
    await store.close()


async def test_a_peer_whose_messages_break_the_engine_is_refused_after_three(tmp_path: Path) -> None:
    hub, made = Hub(), []

    def broken(event: Event) -> list[Effect]:
        if isinstance(event, Received):
            raise RecursionError("too deep")
        return []

    def new_engine() -> Toy:
        made.append(Toy(broken))
        return made[-1]

    sender = says(*(bytes([number]) for number in range(9)))
    async with (
        living(tmp_path / "0", sender, hub, 0, range(2)) as first,
        living(tmp_path / "1", Toy(broken), hub, 1, range(2), new_engine=new_engine) as second,
    ):
        await sender.until(lambda: sender.of(PeerUp))
        first.node.command(b"go")
        while not second.logged("refused"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        while second.node._inbox.waiting(SENDER) != (0, 0):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    heard = len(second.logged("engine_fault"))
    assert 3 <= heard <= 9  # those that came before the first was judged were let in already
    assert len(made) == heard


@pytest.mark.parametrize("event", [GO, TimerFired("t")])
async def test_a_failure_on_an_event_of_its_own_ends_the_node(tmp_path: Path, event: Event) -> None:
    def rule(heard: Event) -> list[Effect]:
        if heard == event:
            raise ZeroDivisionError("its own")
        return [SetTimer("t", 1)] if isinstance(event, TimerFired) and isinstance(heard, Start) else []

    async def live() -> None:
        async with living(tmp_path, Toy(rule), new_engine=lambda: Toy(rule)) as n:
            if event is GO:
                n.node.command(b"go")
            await asyncio.wait({n.task})

    with pytest.raises(BaseExceptionGroup) as caught:
        await live()
    assert caught.group_contains(ZeroDivisionError, match="its own")


# -- side jobs ---------------------------------------------------------------------------------------


class Scored(NoTask):
    """A task whose `evaluate` is whatever a user wrote."""

    def __init__(self, evaluate: Callable[[], Any]) -> None:
        self._evaluate = evaluate

    def evaluate(self, weights: Any, config: Any) -> Any:
        return self._evaluate()


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("not even its text")


def raising(error: BaseException) -> Callable[[], Any]:
    def evaluate() -> Any:
        raise error

    return evaluate


BAD_EVALUATIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "empty split": (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    "runtime error": (raising(RuntimeError("test loader died")), "RuntimeError: test loader died"),
    "loader used up": (lambda: next(iter([])), "JobError: StopIteration"),
    "exit": (raising(SystemExit(3)), "JobError: SystemExit: 3"),
    "interrupt": (raising(KeyboardInterrupt()), "JobError: KeyboardInterrupt"),
    "cancelled": (raising(asyncio.CancelledError()), "JobError: CancelledError"),
    "no text": (raising(UnspeakableError()), "UnspeakableError: (its text cannot be had)"),
    "memory": (raising(MemoryError()), "MemoryError"),
    "None": (lambda: None, "TypeError: cannot unpack non-iterable NoneType object"),
    "too few": (lambda: (0.5, 3), "ValueError: not enough values to unpack (expected 3, got 2)"),
    "loss is text": (lambda: ("low", 3, {}), "TypeError: must be real number, not str"),
    "metrics are none": (lambda: (0.5, 3, None), "TypeError: 'NoneType' object is not a mapping"),
    "metric is None": (lambda: (0.5, 3, {"f1": None}), "TypeError: must be real number, not NoneType"),
    "metric named event": (lambda: (0.5, 3, {"event": 1.0}), "multiple values for argument 'event'"),
}


@pytest.mark.parametrize("name", BAD_EVALUATIONS)
async def test_a_test_split_that_cannot_be_evaluated_costs_a_line(tmp_path: Path, name: str) -> None:
    evaluate, why = BAD_EVALUATIONS[name]
    digest = blob_digest(MODEL)
    model = Notify("model", {"round": 1, "digest": digest.hex()})
    toy = Toy(on(GO, PutBlob(digest, MODEL), model))
    async with living(tmp_path, toy, task=Scored(evaluate)) as n:
        n.node.command(b"go")
        while not n.logged("evaluation_failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        n.node.command(b"still here")
        await toy.until(lambda: Command(b"still here") in toy.events)
    (line,) = n.logged("evaluation_failed")
    assert why in line["why"]
    assert line["round"] == 1


async def test_metrics_of_any_name_and_kind_are_logged(tmp_path: Path) -> None:
    digest = blob_digest(MODEL)
    metrics = {"round": 9.0, "auc": np.float32(0.5), "bad": float("nan")}
    toy = Toy(on(GO, PutBlob(digest, MODEL), Notify("model", {"round": 1, "digest": digest.hex()})))
    async with living(tmp_path, toy, task=Scored(lambda: (0.25, 7, metrics))) as n:
        n.node.command(b"go")
        while not n.logged("evaluation"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    (line,) = n.logged("evaluation")
    assert (line["round"], line["num_examples"], line["loss"], line["auc"]) == (1, 7, 0.25, 0.5)
    assert "bad" not in line


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(1), UnspeakableError(), GeneratorExit()])
async def test_a_job_is_answered_whatever_it_raises(tmp_path: Path, error: BaseException) -> None:
    class Broken(NoTask):
        def fit(self, weights: Any, config: Any) -> Any:
            raise error

    toy = Toy(
        on(GO, PutBlob(blob_digest(MODEL), MODEL), RunJob("t", TrainJob(1, blob_digest(MODEL), bytes(32))))
    )
    async with living(tmp_path, toy, task=Broken()) as n:
        n.node.command(b"go")
        await toy.until(lambda: toy.of(JobFailed))
    (failed,) = toy.of(JobFailed)
    assert isinstance(failed, JobFailed)
    assert type(error).__name__ in failed.why


async def test_an_observer_that_raises_is_named_once_and_the_others_are_told(tmp_path: Path) -> None:
    told: list[str] = []

    def bad(notice: Notify) -> None:
        raise KeyError("observer")

    rule: Rule = lambda event: [Notify("hello", {})] if isinstance(event, Command) else []  # noqa: E731
    toy = Toy(rule)
    async with living(tmp_path, toy, observers=[bad, lambda notice: told.append(notice.kind)]) as n:
        for number in range(3):
            n.node.command(bytes([number]))
        await toy.until(lambda: len(toy.of(Command)) == 3)
        while len(told) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert told == ["hello"] * 3
    assert [line["why"] for line in n.logged("observer_failed")] == ["KeyError: 'observer'"]


async def test_blocks_that_cannot_be_read_for_a_peer_are_not_served(tmp_path: Path) -> None:
    toy = Toy(on(GO, ReadBlocks(SENDER, 1, 9, 100)))
    async with living(tmp_path, toy) as n:

        async def damaged(*_: object) -> tuple[bytes, ...]:
            raise StoreError("ledger.db: damaged")

        n.store.read_blocks = damaged  # type: ignore[method-assign]
        n.node.command(b"go")
        await toy.until(lambda: toy.of(BlocksRead))
    assert toy.of(BlocksRead) == [BlocksRead(SENDER, 1, ())]
    assert len(n.logged("blocks_unreadable")) == 1


# -- the operator's commands ---------------------------------------------------------------------------


async def test_a_spool_that_is_no_directory_is_named_once(tmp_path: Path) -> None:
    (tmp_path / spool.DIRECTORY).write_bytes(b"")
    toy = Toy(lambda event: ())
    async with living(tmp_path, toy) as n:
        while not n.logged("orders"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        n.node.command(b"still here")
        await toy.until(lambda: toy.of(Command))
    assert len(n.logged("orders")) == 1


# As another user: the superuser reads everything.

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can act as another user")
OTHER_USER = 12345


def as_user(user: int, work: Callable[[], object]) -> int:
    """Run `work` in a child process as `user`; returns 0 where it raised nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def others_directory() -> Iterator[Path]:
    """A node's directory that is another user's. Not in pytest's own, which no other user may enter."""
    with tempfile.TemporaryDirectory(prefix="flocknode-test-") as made:
        Path(made).chmod(0o755)
        directory = Path(made) / "node"
        directory.mkdir(mode=0o700)
        os.chown(directory, OTHER_USER, OTHER_USER)
        yield directory


@ROOT
def test_the_superuser_leaves_a_command_that_the_nodes_user_can_hear(others_directory: Path) -> None:
    order = spool.new_order(TransactionKind.FUND, PEERS[0], 5)
    spool.submit(others_directory, order)
    assert (os.geteuid(), os.getegid()) == (0, 0)
    commands = others_directory / spool.DIRECTORY
    (path,) = commands.iterdir()
    assert {path.stat().st_uid, commands.stat().st_uid, path.stat().st_gid} == {OTHER_USER}

    def hears() -> None:
        hearing = spool.Spool(others_directory)
        assert hearing.hear() == ([encode(order)], [])
        assert hearing.show([order.id], {}) == []

    assert as_user(OTHER_USER, hears) == 0
    assert list(commands.iterdir()) == []


@ROOT
def test_a_spool_that_root_made_is_refused_with_a_sentence_that_helps(others_directory: Path) -> None:
    commands = others_directory / spool.DIRECTORY
    commands.mkdir(mode=0o700)
    with pytest.raises(spool.SpoolError, match=r"owner root, mode 0700\).*chown -R"):
        spool.submit(others_directory, spool.new_order(TransactionKind.FUND, PEERS[0], 5))
    assert (os.geteuid(), os.getegid()) == (0, 0)

    def looks() -> None:
        orders, (fault,) = spool.Spool(others_directory).hear()
        assert orders == []
        assert "Permission denied" in fault
        assert str(commands) in fault
        assert "(owner root, mode 0700)" in fault

    assert as_user(OTHER_USER, looks) == 0


@ROOT
def test_the_superuser_follows_no_link_that_the_nodes_user_laid(
    others_directory: Path, tmp_path: Path
) -> None:
    target = tmp_path / "roots"
    target.mkdir(mode=0o700)
    (others_directory / spool.DIRECTORY).symlink_to(target)
    with pytest.raises(spool.SpoolError):
        spool.submit(others_directory, spool.new_order(TransactionKind.FUND, PEERS[0], 5))
    assert list(target.iterdir()) == []
    assert target.stat().st_uid == 0


@ROOT
async def test_a_node_lives_on_with_a_spool_that_is_roots(others_directory: Path) -> None:
    """As C17: a command of root's, of the kind before `submit` acted as the owner, ended the node."""
    commands = others_directory / spool.DIRECTORY
    commands.mkdir(mode=0o700)

    async def lives() -> None:
        toy = Toy(lambda event: ())
        async with living(others_directory, toy) as n:
            while not n.logged("orders"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            n.node.command(b"still here")
            await toy.until(lambda: toy.of(Command))
        assert toy.of(Command) == [Command(b"still here")]

    code = await asyncio.to_thread(as_user, OTHER_USER, lambda: asyncio.run(asyncio.wait_for(lives(), 20)))
    assert code == 0
