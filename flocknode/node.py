"""One node in the world: an engine, and everything its effects need (docs/PROTOCOL.md section 1).

There is one queue. Events leave it one at a time; the effects of each are performed in their order before the
next event is handled, and a record is durable before the effect after it. A failure that breaks a promise
(the ledger or a blob cannot be written, the engine fails on an event of the node's own) ends `run` with an
exception: a node that cannot keep its promises must stop, not hang. A failure over a message costs that
message and its sender's standing (`Node._start_over`); one of a side job costs a line in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar

from flocknode.blobs import BlobStore
from flocknode.faults import FAULT, INBOX_FULL, FatalError, describe_error
from flocknode.fetcher import Fetcher
from flocknode.inbox import Inbox, InboxClosedError
from flocknode.jobs_runner import JobRunner, RunAggregation
from flocknode.learner import Learner
from flocknode.observe.conditions import Condition
from flocknode.observe.log import Logger
from flocknode.observe.monitor import QUIET, Monitor
from flocknode.spool import Spool
from flocknode.startup import InterruptedStartError, Resume, start_event
from flocknode.store import Store, StoreError
from flocknode.transport.base import Member, MessageTooLargeError, Transport
from flocknode.transport.standing import Standing
from protocol.codec import encode
from protocol.events import (
    BlobFailed,
    BlobReady,
    BlocksRead,
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
    PeerDown,
    PeerId,
    PeerUp,
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
from protocol.keys import peer_name

Result = TypeVar("Result")
Observer = Callable[[Notify], None]

LONGEST_TURN_S = 0.005
"""For how long events are handled before the event loop serves its sockets and timers again."""


LONGEST_GATHERING_S = 0.002
"""For how long events are handled before the first of their records is committed."""


COMMAND_INTERVAL_S = 0.2
LOOK_INTERVAL_S = 1.0
"""How often a node sees whether anything is wrong with it."""
MOST_COMPLAINTS = 1000
"""Different faults of side jobs that are logged, each once."""


class StateMachine(Protocol):
    """What a node runs: `protocol.engine.Engine`."""

    def handle(self, event: Event, now: Millis) -> list[Effect]: ...


class Node:
    """Performs an engine's effects, and is the `Handler` of its transport.

    `store` is open, `transport` not started; `run` closes both. `max_blob_bytes` bounds what is fetched.
    `resume` finds where the stored ledger ends; None for an engine without one.
    `commands` is the directory whose `flocknode.spool` the operator's commands come from. `observers` are
    called with every `Notify`, on the event loop; what one raises is logged. `new_engine` makes an engine
    like `engine`, for when that fails on a message (`_start_over`); without it such a failure ends the node.
    """

    def __init__(
        self,
        *,
        engine: StateMachine,
        store: Store,
        blobs: BlobStore,
        transport: Transport,
        members: Sequence[Member],
        learner: Learner,
        run_aggregation: RunAggregation,
        log: Logger,
        max_blob_bytes: int,
        resume: Resume | None = None,
        commands: Path | None = None,
        observers: Sequence[Observer] = (),
        new_engine: Callable[[], StateMachine] | None = None,
    ) -> None:
        self._engine = engine
        self._new_engine = new_engine
        self._fault: tuple[Received, Exception] | None = None
        self._stop = asyncio.Event()
        self._up: set[PeerId] = set()
        """The peers that the engine has been told of."""
        self._complained: set[tuple[str, str]] = set()
        self._store = store
        self._blobs = blobs
        self._transport = transport
        self._members = members
        self._learner = learner
        self._log = log
        self._resume = resume
        self._spool = None if commands is None else Spool(commands)
        self._observers = observers
        self._inbox = Inbox()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        # One thread for all that touches blob files gives a put, a drop and the end of a fetch an order.
        self._files = ThreadPoolExecutor(1, thread_name_prefix="blobs")
        self._jobs = JobRunner(
            learner=learner, run_aggregation=run_aggregation, deliver=self._job_ended, log=log
        )
        self._monitor = Monitor(
            me=transport.peer, members=members, params=learner.params, log=log, times=self._jobs.times
        )
        self._fetcher = Fetcher(
            blobs=blobs,
            source=transport,
            deliver=self._fetch_ended,
            spawn=self._spawn,
            threads=self._on_files,
            max_bytes=max_blob_bytes,
            random=Random(),
        )
        self._untested: tuple[object, Digest] | None = None
        self.ready = asyncio.Event()
        """Set when the node listens and its engine has been started."""

    async def run(self, stop: asyncio.Event) -> None:
        """Live until `stop` is set, then close everything. Raises what ended the node before that."""
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._store.close)
            closing.callback(self._files.shutdown)
            closing.callback(self._jobs.close)
            closing.push_async_callback(self._transport.stop)
            closing.callback(self._cancel_timers)
            self._stop = stop
            try:
                self._inbox.put(await self._load())
            except InterruptedStartError:
                self._log.info("stopped", **self._traffic())
                return
            self._transport.set_members(self._members)
            await self._transport.start(self)
            async with self._group:
                handling = self._spawn(self._handle_events())
                self._spawn(self._look_around())
                if self._spool is not None:
                    self._spawn(self._hear_orders(self._spool))
                self._log.info("ready", address=self._transport.address, peer=peer_name(self._transport.peer))
                self.ready.set()
                await stop.wait()
                # The effects of the event in hand are all performed; what else is under way is given up.
                self._inbox.close()
                await handling
                for task in list(self._tasks):
                    task.cancel()
            self._log.info("stopped", **self._traffic())

    def command(self, order: bytes) -> None:
        """Hand the operator's order (canonically encoded) to the engine."""
        self._inbox.put(Command(order))

    # -- the transport's handler -----------------------------------------------------------------

    def received(self, peer: PeerId, message: bytes) -> None:
        if not self._inbox.put_message(Received(peer, message)):
            self._transport.penalise(peer, INBOX_FULL)
            self._monitor.dropped(peer, len(message))

    def peer_up(self, peer: PeerId) -> None:
        self._inbox.put(PeerUp(peer))

    def peer_down(self, peer: PeerId) -> None:
        self._inbox.put(PeerDown(peer))

    def standing_changed(self, peer: PeerId, standing: Standing) -> None:
        self._monitor.standing_changed(peer, standing)

    async def read_blob(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        return await self._on_files(self._encoded_chunk, digest, index)

    def _encoded_chunk(self, digest: Digest, index: int) -> bytes | None:
        chunk = self._blobs.read_chunk(digest, index)
        return None if chunk is None else encode(chunk)

    async def _hear_orders(self, spool: Spool) -> None:
        while True:
            # An order that a crash let us hear twice has its id, and is signed once.
            try:
                orders, troubles = await self._on_files(spool.hear)
            except Exception as error:  # whatever lies there, the node lives on
                orders, troubles = [], [describe_error(error)]
            self._tell_of_orders(troubles)
            for order in orders:
                self.command(order)
            await asyncio.sleep(COMMAND_INTERVAL_S)

    async def _show_orders(self, spool: Spool, effect: ShowOrders) -> None:
        try:
            troubles = await self._on_files(spool.show, effect.taken, effect.view)
        except Exception as error:
            troubles = [describe_error(error)]
        self._tell_of_orders(troubles)

    def _tell_of_orders(self, troubles: Sequence[str]) -> None:
        for trouble in troubles:
            self._complain("orders", trouble)

    # -- events and effects ----------------------------------------------------------------------

    async def _handle_events(self) -> None:
        loop = asyncio.get_running_loop()
        turn_began = loop.time()
        while True:
            try:
                event = await self._inbox.get()
            except InboxClosedError:
                return
            effects = self._handle(event)
            if any(isinstance(effect, Persist | PutBlob) for effect in effects):
                # What waits for this node anyway shares the commit that is due now.
                commit_by = loop.time() + LONGEST_GATHERING_S
                while self._fault is None and loop.time() < commit_by:
                    more = self._inbox.get_waiting()
                    if more is None:
                        break
                    effects += self._handle(more)
            if effects:
                await self._perform(effects)
            if self._fault is not None:
                await self._start_over(*self._fault)
            if loop.time() - turn_began > LONGEST_TURN_S:
                await asyncio.sleep(0)
                turn_began = loop.time()

    def _handle(self, event: Event) -> list[Effect]:
        """The effects of an event. What they cancel is not given to the engine any more, performed or not.

        Where the engine fails on a message there are none, and `_fault` asks for `_start_over`. A failure on
        any other event is the node's own, and is raised.
        """
        match event:
            case PeerUp(peer):
                self._up.add(peer)
            case PeerDown(peer):
                self._up.discard(peer)
            case _:
                pass
        try:
            effects = self._engine.handle(event, int(time.monotonic() * 1000))
        except Exception as error:
            if self._new_engine is None or not isinstance(event, Received):
                raise
            self._fault = event, error
            return []
        for effect in effects:
            if isinstance(effect, SetTimer | CancelTimer):
                self._cancel_timer(effect.key)
            elif isinstance(effect, RunJob | CancelJob):
                self._inbox.revoke(("job", effect.key))
        return effects

    async def _start_over(self, message: Received, error: Exception) -> None:
        """Go on as a node would that crashed just before this message and was started again without it.

        The engine failed somewhere in the middle of `message`, so nobody can say what it holds: perhaps a
        statement of its own whose record was never written (after a crash the node would sign another),
        perhaps the very thing that it failed on, so that the next timer fails too. To perform the effects
        that it had collected so far may tell others what is not durable; to drop them and go on with the same
        engine leaves it believing what never happened. So the message has no effect at all: those of the
        events before it have been performed, its own go with the engine, and a new one takes up what is
        durable. That a node may begin again from there at any moment is what the protocol promises of every
        crash (section 1).

        It costs a replay of the ledger, and the sender a penalty that lets it do this three times before it
        is refused (section 8.7). Raises what the new engine raises: then nothing is left to go on with.
        """
        assert self._new_engine is not None
        self._fault = None
        self._log.error(
            "engine_fault",
            peer=peer_name(message.peer),
            bytes=len(message.data),
            head=message.data[:64],
            why=describe_error(error),
            exc_info=error,
        )
        self._penalise(message.peer, FAULT)
        self._cancel_timers()
        self._jobs.cancel_all()
        self._inbox.revoke_all()
        self._engine = self._new_engine()
        try:
            start = await self._load()
        except InterruptedStartError:  # the node is asked to stop, and nothing more is given to its engine
            return
        await self._perform(self._handle(start))
        for peer in sorted(self._up):
            await self._perform(self._handle(PeerUp(peer)))

    async def _load(self) -> Event:
        """Return what an engine begins with. Raises what `start_event` raises."""
        return await start_event(self._store, self._resume, self._blobs.held(), self._log, self._stop)

    async def _perform(self, effects: Sequence[Effect]) -> None:
        """Perform what is durable first, in one transaction, and then the rest, each in its order.

        A crash undoes whatever is not durable, so no crash can tell this from performing one by one. A blob
        is dropped at its place: nothing behind it comes earlier.
        """
        for span in _until_drops(effects):
            await self._make_durable([effect for effect in span if isinstance(effect, Persist | PutBlob)])
            for effect in span:
                if isinstance(effect, DropBlob):
                    self._fetcher.abandon(effect.digest)
                    await self._on_files(self._blobs.drop, effect.digest)
                elif not isinstance(effect, Persist | PutBlob):
                    self._issue(effect)

    async def _make_durable(self, batch: Sequence[Persist | PutBlob]) -> None:
        # Blobs first: a crash in between leaves a blob that no record names, never a record without its blob.
        for effect in batch:
            if isinstance(effect, PutBlob):
                await self._on_files(self._blobs.put, effect.digest, effect.data)
        records = [effect for effect in batch if isinstance(effect, Persist)]
        if records:
            await self._store.commit(records)

    def _issue(self, effect: Effect) -> None:
        """Perform an effect that the engine does not wait for."""
        match effect:
            case Send(peer, data):
                self._send(lambda: self._transport.send(peer, data))
            case Broadcast(data):
                self._send(lambda: self._transport.broadcast(data))
            case SetTimer(key, delay_ms):
                self._set_timer(key, delay_ms)
            case CancelTimer(key):
                self._cancel_timer(key)
            case RunJob(key, job):
                self._inbox.revoke(("job", key))
                self._jobs.run(key, job)
            case CancelJob(key):
                self._inbox.revoke(("job", key))
                self._jobs.cancel(key)
            case Fetch(digest, holders, reserves):
                self._fetcher.fetch(digest, holders, reserves)
            case ReadBlocks():
                self._spawn(self._read_blocks(effect))
            case Penalise(peer, why):
                self._penalise(peer, why)
            case Notify():
                self._notify(effect)
            case ShowOrders():
                if self._spool is not None:
                    self._spawn(self._show_orders(self._spool, effect))
            case _:
                raise TypeError(f"no effect: {effect!r}")

    def _penalise(self, peer: PeerId, why: str) -> None:
        standing = self._transport.penalise(peer, why)
        self._log.info("penalised", peer=peer_name(peer), why=why, **_told(standing))

    def _send(self, hand_over: Callable[[], object]) -> None:
        try:
            hand_over()
        except MessageTooLargeError as error:
            # Sending is best effort, and the rest of the round does not depend on this one message.
            self._log.error("message_too_large", why=str(error))

    # -- timers, jobs, fetches -------------------------------------------------------------------

    def _set_timer(self, key: str, delay_ms: Millis) -> None:
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay_ms / 1000, self._fire, key)

    def _cancel_timer(self, key: str) -> None:
        self._inbox.revoke(("timer", key))
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _cancel_timers(self) -> None:
        for key in list(self._timers):
            self._cancel_timer(key)

    def _fire(self, key: str) -> None:
        del self._timers[key]
        self._inbox.put_answer(("timer", key), TimerFired(key))

    def _job_ended(self, key: str, event: JobDone | JobFailed) -> None:
        self._inbox.put_answer(("job", key), event)

    def _fetch_ended(self, event: BlobReady | BlobFailed, why: str) -> None:
        if isinstance(event, BlobFailed):
            self._log.info("blob_failed", digest=event.digest, why=why)
        self._inbox.put(event)
        self._test_model()

    async def _read_blocks(self, asked: ReadBlocks) -> None:
        """Answer, always. A ledger that cannot be read for others is no reason to stop writing it."""
        try:
            blocks = await self._store.read_blocks(asked.first_height, asked.last_height, asked.max_bytes)
        except StoreError as error:
            self._complain("blocks_unreadable", describe_error(error))
            blocks = ()
        self._inbox.put(BlocksRead(asked.peer, asked.first_height, blocks))

    # -- notices -----------------------------------------------------------------------------------

    def _notify(self, notice: Notify) -> None:
        kind, fields = notice.kind, notice.fields
        if kind in ("block", "started"):
            self._log.info(kind, **fields, **self._traffic())
        else:
            log = self._log.debug if kind in QUIET else self._log.info
            log(kind, **fields)
        self._monitor.notice(notice)
        for observer in self._observers:
            try:
                observer(notice)
            except Exception as error:
                self._complain("observer_failed", describe_error(error), error)
        if kind == "fatal":
            raise FatalError(str(fields.get("why")))
        if kind == "settled":
            self._log.info("traffic", round=fields["round"], peers=self._traffic_by_peer())
        if kind == "model":
            self._untested = fields["round"], bytes.fromhex(str(fields["digest"]))
            self._test_model()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is wrong at present, since when, with figures (docs/OPERATING.md)."""
        return self._monitor.present()

    async def _look_around(self) -> None:
        while True:
            self._monitor.look(self._transport.connected(), self._transport.stats())
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _traffic(self) -> dict[str, int]:
        """Payload bytes since the start, both ways, over all peers."""
        peers = self._transport.stats().peers.values()
        return {"bytes_in": sum(p.bytes_in for p in peers), "bytes_out": sum(p.bytes_out for p in peers)}

    def _traffic_by_peer(self) -> dict[str, dict[str, int]]:
        return {
            peer_name(peer): {"bytes_in": traffic.bytes_in, "bytes_out": traffic.bytes_out}
            for peer, traffic in self._transport.stats().peers.items()
        }

    def _test_model(self) -> None:
        """Evaluate the newest model on the test split, once it is held: a late node adopts it before that."""
        if self._untested is not None and self._untested[1] in self._blobs:
            round_, digest = self._untested
            self._untested = None
            self._spawn(self._evaluate(round_, digest))

    async def _evaluate(self, round_: object, digest: Digest) -> None:
        """Log the model's scores. It is a side job and runs a user's code: whatever fails costs a line."""
        try:
            loss, examples, metrics = await self._jobs.learn(self._learner.test, digest)
            finite = {name: value for name, value in {"loss": loss, **metrics}.items() if isfinite(value)}
            self._log.info("evaluation", **{**finite, "round": round_, "num_examples": examples})
        except Exception as error:
            if digest not in self._blobs:  # dropped for newer ones while the learner was busy
                self._log.info("evaluation_skipped", round=round_)
                return
            self._monitor.tested(round_, describe_error(error))
        else:
            self._monitor.tested(round_)

    def _complain(self, event: str, why: str, error: Exception | None = None) -> None:
        """Log a warning about what will fail again and again, once."""
        if (event, why) not in self._complained and len(self._complained) < MOST_COMPLAINTS:
            self._complained.add((event, why))
            self._log.warning(event, why=why, exc_info=error)

    # -- threads and tasks ---------------------------------------------------------------------------

    def _on_files(self, work: Callable[..., Result], *arguments: Any) -> Awaitable[Result]:
        return asyncio.get_running_loop().run_in_executor(self._files, work, *arguments)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task whose failure is the node's."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _until_drops(effects: Sequence[Effect]) -> Iterator[Sequence[Effect]]:
    """The effects cut behind each `DropBlob`."""
    start = 0
    for index, effect in enumerate(effects):
        if isinstance(effect, DropBlob):
            yield effects[start : index + 1]
            start = index + 1
    yield effects[start:]


def _told(standing: Standing) -> dict[str, object]:
    """For the log."""
    return {"score": round(standing.score, 1), "dropped": standing.dropped}
