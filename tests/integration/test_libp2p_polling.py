"""trio as a guest whose sockets the event loop watches: it wakes for all that it should, without a thread."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio._core._run as trio_run

from flocknode.transport.libp2p_guest import TrioRun
from flocknode.transport.libp2p_polling import polled_by

Work = Callable[[asyncio.Queue[Any]], Awaitable[None]]


class Guest:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self) -> None:
        await self.work(self.heard)
        await trio.sleep_forever()

    def crashed(self, error: BaseException | None) -> None:
        self.heard.put_nowait(error)


async def living(work: Work, use: Callable[[Guest], Awaitable[None]]) -> None:
    run, guest = TrioRun.of(asyncio.get_running_loop()), Guest(work)
    run.attach(guest)
    await use(guest)
    await run.detach(guest)


async def test_it_wakes_for_a_socket_a_timer_a_thread_and_the_loop() -> None:
    event: list[trio.Event] = []

    async def work(heard: asyncio.Queue[Any]) -> None:
        near, far = trio.socket.socketpair()
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                heard.put_nowait(await far.recv(9))

            nursery.start_soon(hear)
            await trio.sleep(0.02)  # by a timer
            await near.send(b"socket")
        heard.put_nowait(await trio.to_thread.run_sync(lambda: "thread"))
        event.append(trio.Event())
        heard.put_nowait("asleep")
        await event[0].wait()
        heard.put_nowait("loop")

    async def use(guest: Guest) -> None:
        async with asyncio.timeout(10):
            assert [await guest.heard.get() for _ in range(3)] == [b"socket", "thread", "asleep"]
            await asyncio.sleep(0.05)
            event[0].set()
            assert await guest.heard.get() == "loop"

    await living(work, use)


async def test_a_deadline_that_is_set_earlier_while_trio_sleeps_is_kept() -> None:
    async def work(heard: asyncio.Queue[Any]) -> None:
        with trio.CancelScope(deadline=trio.current_time() + 3600) as scope:
            heard.put_nowait(scope)
            await trio.sleep_forever()
        heard.put_nowait("cancelled")

    async def use(guest: Guest) -> None:
        async with asyncio.timeout(10):
            scope = await guest.heard.get()
            await asyncio.sleep(0.05)
            scope.deadline = trio.current_time() + 0.01
            assert await guest.heard.get() == "cancelled"

    await living(work, use)


async def test_waiting_takes_no_thread_and_the_end_leaves_no_descriptor() -> None:
    async def work(heard: asyncio.Queue[Any]) -> None:
        near, far = trio.socket.socketpair()
        with near, far:
            for _ in range(20):
                await near.send(b"x")
                await far.recv(1)
                await trio.sleep(0.001)
        heard.put_nowait(threading.active_count())

    before, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))

    async def use(guest: Guest) -> None:
        async with asyncio.timeout(10):
            assert await guest.heard.get() == before

    await living(work, use)
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_only_what_is_started_inside_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = trio_run.GuestState
    with polled_by(asyncio.get_running_loop()):
        assert trio_run.GuestState is not usual
    assert trio_run.GuestState is usual
    monkeypatch.delattr("select.epoll")
    with polled_by(asyncio.get_running_loop()):
        assert trio_run.GuestState is usual
