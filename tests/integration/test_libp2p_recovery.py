"""Frozen peers, crashes from inside, and silence: what a libp2p host must survive and must not say."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.network.stream.exceptions import StreamError
from libp2p_attacker import ATTACKER, attack, besieged, open_stream, unharmed
from transport_network import Network, Node, identity, network, until

from flocknode.transport.base import MAX_MESSAGE_BYTES, Member

HERE = Path(__file__).parent
MESSAGES = "/flocknode/message/1"


@pytest.fixture
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network(getattr(request, "param", "push")) as made:
        yield made


# ---------------------------------------------------------------------------------- frozen peers


async def test_a_peer_that_never_reads_is_disconnected_and_nobody_else_waits(net: Network) -> None:
    victim, honest = await besieged(net, write_timeout_s=2.0)

    async def idle(host: Any, connection: Any) -> None:
        stream = await open_stream(connection, MESSAGES)
        with suppress(StreamError):
            while not connection.muxed_conn.is_closed:
                await stream.write(b"\xff" * 4)  # signs of life
                await trio.sleep(0.1)

    attacking = asyncio.ensure_future(attack(ATTACKER, victim.peer, victim.transport.address, idle))
    await until(lambda: ATTACKER.peer in victim.transport.connected())
    for _ in range(4):
        assert victim.transport.send(ATTACKER.peer, bytes(MAX_MESSAGE_BYTES))
    for index in range(20):
        assert victim.transport.send(honest.peer, bytes([index]))
    await until(lambda: len(honest.handler.messages(victim.peer)) == 20)
    assert ATTACKER.peer in victim.transport.connected(), "the others waited until it was given up"
    await until(lambda: victim.transport.stats().rejects.get("write-timeout") == 1)
    await until(lambda: victim.handler.changes(ATTACKER.peer) == ["up", "down"])
    await attacking
    await unharmed(victim, honest)


CHILD = """
import asyncio, json, sys
from transport_network import Recorder, identity
from flocknode.transport.base import Member
from flocknode.transport.libp2p import Libp2pTransport

async def main():
    node = Libp2pTransport(identity(4), "/ip4/127.0.0.1/tcp/0")
    await node.start(Recorder())
    print(node.address, flush=True)
    members = json.loads(await asyncio.to_thread(sys.stdin.readline))
    node.set_members([Member(bytes.fromhex(peer), address) for peer, address in members])
    await asyncio.to_thread(sys.stdin.read)
    await node.stop()

asyncio.run(main())
"""


async def test_a_stopped_process_is_given_up_and_taken_back(net: Network) -> None:
    """SIGSTOP: the kernel still accepts, acknowledges and buffers for it, but nobody is there."""
    a = await net.add(1, write_timeout_s=2.0, silence_timeout_s=60.0)
    b = await net.add(3, silence_timeout_s=1.0)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        frozen = Member(identity(4).peer, (await child.stdout.readline()).decode().strip())
        members = [a.member, b.member, frozen]
        child.stdin.write(json.dumps([(m.peer.hex(), m.address) for m in members]).encode() + b"\n")
        for node in (a, b):
            node.transport.set_members(members)
        await until(lambda: all(frozen.peer in node.transport.connected() for node in (a, b)))
        await until(lambda: b.peer in a.transport.connected() and a.peer in b.transport.connected())
        session = a.transport._host.links[frozen.peer].connection.muxed_conn.secured_conn
        carrier = session.conn.read_writer.read_write_closer.stream.stream.socket
        child.send_signal(signal.SIGSTOP)
        for _ in range(12):  # more than the socket buffers of both sides take
            a.transport.send(frozen.peer, bytes(MAX_MESSAGE_BYTES))
        a.transport.send(b.peer, b"not behind them")
        await until(lambda: b.handler.messages(a.peer) == [b"not behind them"])
        assert frozen.peer in a.transport.connected(), "the others waited until it was given up"
        await until(lambda: a.handler.changes(frozen.peer)[:2] == ["up", "down"], "write time-out")
        await until(lambda: b.handler.changes(frozen.peer)[:2] == ["up", "down"], "silence")
        await until(lambda: carrier.fileno() == -1, "its socket is closed, full as it is")
        assert a.transport.stats().rejects["write-timeout"] == 1
        assert b.transport.stats().rejects["silent"] == 1
        assert a.handler.changes(b.peer) == b.handler.changes(a.peer) == ["up"]
        child.send_signal(signal.SIGCONT)
        await until(lambda: frozen.peer in a.transport.connected(), "thawed")
        await until(lambda: frozen.peer in b.transport.connected(), "thawed")
    finally:
        child.send_signal(signal.SIGCONT)
        child.stdin.close()
        assert await child.wait() == 0


# ---------------------------------------------------------------------------------- crashes


async def _boom() -> None:
    raise ZeroDivisionError("from inside")


def crash_host(node: Node) -> None:
    """An exception in a task of the host."""
    node.transport._host._nursery.start_soon(_boom)


def crash_swarm(node: Node) -> None:
    """An exception in a task of libp2p's swarm service, as an uncontained stream handler would raise it."""

    async def inside() -> None:
        node.transport._host._swarm.manager.run_task(_boom)

    node.transport._host._nursery.start_soon(inside)


def crash_trio(node: Node) -> None:
    """An exception in a system task: the end of the whole trio run."""
    trio.lowlevel.spawn_system_task(_boom)


def heard(net: Network, sender: Node, receiver: Node, message: bytes) -> Callable[[], bool]:
    """Whether a message that was sent has arrived.

    What gossipsub is given before it has opened its own streams again may be lost: there it is sent once more
    each second, as a node's repair does.
    """
    sent_s = time.monotonic()

    def arrived() -> bool:
        nonlocal sent_s
        if net.kind == "gossipsub" and time.monotonic() - sent_s > 1.0:
            sent_s = time.monotonic()
            sender.transport.broadcast(message)
        return receiver.handler.messages(sender.peer)[-1:] == [message]

    return arrived


@pytest.mark.parametrize("crash", [crash_host, crash_swarm, crash_trio])
@pytest.mark.parametrize("net", ["push", "gossipsub"], indirect=True)
async def test_a_crash_restarts_on_the_same_port_and_members_return(net: Network, crash: Any) -> None:
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    addresses = a.transport.address, b.transport.address
    a.handler.blobs[bytes(32), 0] = b"chunk"
    for round_ in range(1, 3):
        b.handler.blob_delay_s = 30.0
        waiting = asyncio.ensure_future(a.transport.fetch_chunk(b.peer, bytes(32), 0, 20.0))
        await asyncio.sleep(0.02)
        crash(a)
        with pytest.raises(Exception, match="chunk 0"):
            await waiting
        await until(lambda r=round_: a.handler.changes(b.peer) == ["up", *["down", "up"] * r], "a is back")
        await until(lambda r=round_: b.handler.changes(a.peer) == ["up", *["down", "up"] * r], "b is back")
        assert a.transport.stats().restarts == round_
        assert (a.transport.address, b.transport.address) == addresses
        for sender, receiver in ((a, b), (b, a)):
            message = bytes([round_])
            assert sender.transport.broadcast(message) == 1
            await until(heard(net, sender, receiver, message), f"{message!r} arrives")
    assert await b.transport.fetch_chunk(a.peer, bytes(32), 0, 5.0) == b"chunk"
    assert b.transport.stats().restarts == (2 if crash is crash_trio else 0)


async def test_stopping_right_after_a_crash_ends_cleanly(net: Network) -> None:
    a = await net.add(1)
    before = asyncio.all_tasks()
    crash_trio(a)
    await until(lambda: a.transport.stats().restarts == 1)
    await a.transport.stop()
    await asyncio.sleep(0.2)  # the restart that was due must not come
    assert asyncio.all_tasks() == before
    b = await net.add(2)
    c = await net.add(3)
    await net.linked([b, c])


# ---------------------------------------------------------------------------------- quiet


QUIET = """
import asyncio, logging, sys
import flocknode.transport, flocknode.transport.libp2p
assert not {"libp2p", "trio"} & set(sys.modules), "starting the command line would pay for libp2p"
from transport_network import Node, Recorder, identity
from flocknode.transport.base import Member
from flocknode.transport.libp2p import Libp2pTransport
from flocknode.transport.libp2p_options import Libp2pOptions

async def main(mode):
    options = Libp2pOptions(broadcast_mode=mode)
    listen = "/ip4/127.0.0.1/tcp/0"
    nodes = [Node(Libp2pTransport(identity(i), listen, options=options), Recorder()) for i in (1, 2, 3)]
    for node in nodes:
        await node.transport.start(node.handler)
    members = [node.member for node in nodes] + [Member(identity(9).peer, "/ip4/127.0.0.1/tcp/1")]
    for node in nodes:
        node.transport.set_members(members)
    for _ in range(40):
        for node in nodes:
            node.transport.broadcast(bytes(1000))
        await asyncio.sleep(0.01)
    assert all(len(node.handler.events) > 10 for node in nodes)
    for node in nodes:  # in the midst of it, one after the other
        node.transport.broadcast(bytes(10**6))
        await node.transport.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not logging.getLogger().handlers
    assert logging.getLogger("libp2p").propagate and not logging.getLogger("libp2p").handlers

for mode in ("push", "gossipsub", "push"):
    asyncio.run(main(mode))
"""


def test_starting_running_and_stopping_say_nothing() -> None:
    """Nothing on stderr: no `Nursery is closed`, no unretrieved exception, no unclosed socket, no log."""
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-W", "ignore::DeprecationWarning", "-c", QUIET],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if key != "LIBP2P_DEBUG"},
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
