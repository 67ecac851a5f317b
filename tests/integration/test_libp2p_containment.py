"""Every known way to kill or wedge a libp2p host, tried on a node (docs/PROTOCOL.md section 1)."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.stream.exceptions import StreamError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_varint_prefixed
from libp2p_attacker import attack, dial, open_stream, until_closed
from transport_network import QUICK, Network, Node, Recorder, identity, network, until

from flocknode.transport.base import (
    MAX_MESSAGE_BYTES,
    AddressInUseError,
    InvalidPreSharedKeyError,
    Member,
    parse_address,
)
from flocknode.transport.libp2p import Libp2pOptions, Libp2pTransport
from flocknode.transport.libp2p_admission import key_pair, libp2p_id
from flocknode.transport.libp2p_swarm import MAX_HANDSHAKES

HERE = Path(__file__).parent
NOWHERE = "/ip4/127.0.0.1/tcp/1"
ATTACKER = identity(1)  # the lowest peer id of these tests dials, so the victims leave it to the attacker
MESSAGES, CHUNKS, GOSSIP = "/flocknode/message/1", "/flocknode/chunk/1", "/meshsub/1.1.0"


@pytest.fixture
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network(getattr(request, "param", "push")) as made:
        yield made


async def besieged(net: Network, **limits: float) -> tuple[Node, Node]:
    """A victim that knows the attacker as a member, and an honest node linked to it."""
    victim, honest = await net.add(2, **limits), await net.add(3)
    await net.linked([victim, honest])
    members = [victim.member, honest.member, Member(ATTACKER.peer, NOWHERE)]
    victim.transport.set_members(members)
    return victim, honest


async def unharmed(victim: Node, honest: Node) -> None:
    """The honest node never noticed: no restart, the same link, messages both ways."""
    assert victim.transport.stats().restarts == 0
    for sender, receiver in ((victim, honest), (honest, victim)):
        count = len(receiver.handler.messages(sender.peer))
        assert sender.transport.broadcast(b"still here") >= 1
        await until(lambda r=receiver, s=sender, c=count: len(r.handler.messages(s.peer)) > c)
    assert victim.handler.changes(honest.peer) == honest.handler.changes(victim.peer) == ["up"]


# ---------------------------------------------------------------------------------- who gets in


async def test_a_stranger_is_refused_before_any_stream_and_counted(net: Network) -> None:
    victim, honest = await besieged(net)

    async def knock(host: Any, connection: Any) -> None:
        await until_closed(connection)

    with pytest.raises(Exception, match=r"upgrade|failed|closed|Connection"):
        await attack(identity(77), victim.peer, victim.transport.address, knock)
    assert victim.transport.stats().rejects == {"stranger": 1}
    assert victim.transport.connected() == {honest.peer}
    assert identity(77).peer not in victim.transport.stats().peers
    await unharmed(victim, honest)


async def test_a_former_member_and_a_penalised_one_are_strangers(net: Network) -> None:
    victim, honest = await besieged(net, penalty_s=60.0)

    async def knock(host: Any, connection: Any) -> None:
        await until_closed(connection)

    victim.transport.penalise(ATTACKER.peer, "bad-share")
    with pytest.raises(Exception, match=r"upgrade|failed|closed|Connection"):
        await attack(ATTACKER, victim.peer, victim.transport.address, knock)
    victim.transport.set_members([victim.member, honest.member])
    with pytest.raises(Exception, match=r"upgrade|failed|closed|Connection"):
        await attack(ATTACKER, victim.peer, victim.transport.address, knock)
    assert victim.transport.stats().rejects == {"bad-share": 1, "penalised": 1, "stranger": 1}
    await unharmed(victim, honest)


async def test_whoever_answers_at_a_members_address_must_be_that_member(net: Network) -> None:
    victim, honest = await net.add(2), await net.add(3)
    victim.transport.set_members([Member(identity(4).peer, honest.transport.address), honest.member])
    honest.transport.set_members([victim.member])
    await until(lambda: victim.transport.connected() == {honest.peer})
    await asyncio.sleep(0.5)  # several attempts to dial peer 4
    assert victim.transport.connected() == {honest.peer}
    await unharmed(victim, honest)


async def test_garbage_and_silence_on_the_port_are_no_obstacle(net: Network) -> None:
    victim, honest = await net.add(2), await net.add(3)
    endpoint = parse_address(victim.transport.address)
    mute = [socket.create_connection((endpoint.host, endpoint.port)) for _ in range(100)]
    cut_short = b"\x13/multistream/1.0.0\n\x07/noise\n" + b"\xff" * 500
    for garbage in (b"\xff" * 2000, cut_short, b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((endpoint.host, endpoint.port)) as rude:
            rude.sendall(garbage)
    await net.linked()
    await until(lambda: victim.transport.stats().rejects.get("handshake", 0) >= 3, "counted")
    await unharmed(victim, honest)
    for sock in mute:
        sock.close()


async def test_strangers_cannot_take_all_descriptors(net: Network) -> None:
    victim, honest = await net.add(2), await net.add(3)
    await net.linked()
    endpoint = parse_address(victim.transport.address)
    mute = [await asyncio.open_connection(endpoint.host, endpoint.port) for _ in range(MAX_HANDSHAKES + 20)]
    await until(lambda: victim.transport.stats().rejects.get("busy") == 20)
    await unharmed(victim, honest)
    for _, writer in mute:
        writer.close()
    third = await net.add(4)
    await net.linked([victim, honest, third])


async def test_a_preshared_key_closes_the_network() -> None:
    key, other = bytes(range(32)), bytes(32)
    options = Libp2pOptions(**QUICK)
    nodes = [
        Node(Libp2pTransport(identity(i), "/ip4/127.0.0.1/tcp/0", psk=psk, options=options), Recorder())
        for i, psk in ((1, key), (2, key), (3, other), (4, None))
    ]
    try:
        for node in nodes:
            await node.transport.start(node.handler)
        for node in nodes:
            node.transport.set_members([other.member for other in nodes])
        a, b, *outside = nodes
        await until(lambda: a.transport.connected() == {b.peer})
        await until(lambda: b.transport.connected() == {a.peer})
        await asyncio.sleep(0.5)  # many attempts of all four
        assert a.transport.send(b.peer, b"sealed")
        await until(lambda: b.handler.messages(a.peer) == [b"sealed"])
        assert all(node.transport.connected() == frozenset() for node in outside)
    finally:
        await asyncio.gather(*(node.transport.stop() for node in nodes))


def test_a_preshared_key_is_refused_where_it_would_not_hold() -> None:
    with pytest.raises(InvalidPreSharedKeyError, match="QUIC"):
        Libp2pTransport(identity(1), "/ip4/127.0.0.1/udp/0/quic-v1", psk=bytes(32))
    with pytest.raises(InvalidPreSharedKeyError, match="31"):
        Libp2pTransport(identity(1), "/ip4/127.0.0.1/tcp/0", psk=bytes(31))


# ---------------------------------------------------------------------------------- the port


@pytest.mark.parametrize("shared", [False, True], ids=["plain", "SO_REUSEPORT, as libp2p itself binds"])
async def test_a_busy_port_is_an_error_that_names_it(shared: bool) -> None:
    with socket.socket() as holder:
        if shared:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        node = Libp2pTransport(identity(1), f"/ip4/127.0.0.1/tcp/{port}")
        with pytest.raises(AddressInUseError, match=str(port)):
            await node.start(Recorder())
        await node.stop()


async def test_a_peer_that_was_not_there_yet_is_not_blocked(net: Network) -> None:
    early = await net.add(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"
    early.transport.set_members([Member(identity(2).peer, address)])
    await asyncio.sleep(0.6)  # a few failed dials, each of which libp2p answers with a minute's block
    late = await net.add(2, address)
    late.transport.set_members([early.member])
    await until(lambda: early.transport.connected() == {late.peer}, limit_s=5.0)


async def test_a_member_may_be_named_as_the_system_knows_it(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    port = parse_address(b.transport.address).port
    b.transport.set_members([Member(a.peer, NOWHERE)])
    a.transport.set_members([Member(b.peer, f"/dns4/no-such-host.invalid/tcp/{port}")])
    await asyncio.sleep(0.2)
    assert a.transport.stats().restarts == 0
    a.transport.set_members([Member(b.peer, f"/dns4/localhost/tcp/{port}")])
    await until(lambda: a.transport.connected() == {b.peer} and b.transport.connected() == {a.peer})


async def test_members_that_dial_each_other_at_once_keep_one_connection(net: Network) -> None:
    nodes = [await net.add(index, dial_anyway_s=0.0001) for index in (1, 2, 3, 4)]
    await net.linked()
    for node in nodes:
        connections = node.transport._host._swarm.connections
        await until(lambda c=connections: sorted(map(len, c.values())) == [1, 1, 1], "duplicates closed")
    settled = [list(node.handler.events) for node in nodes]
    await asyncio.sleep(0.3)
    assert [node.handler.events for node in nodes] == settled, "links come and go"
    for node in nodes:
        assert node.transport.broadcast(node.peer) == 3
    for node in nodes:
        for other in nodes:
            if other is not node:
                await until(lambda n=node, o=other: n.handler.messages(o.peer) == [o.peer])


# ---------------------------------------------------------------------------------- misbehaving members


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 200,
        b"\x13/multistream/1.0.0\n\x04\xff\xfe\xfd\n",
        b"\x13/multistream/1.0.0\n" + b"\x80" * 12,
        b"\x00",
        b"",
    ],
)
async def test_a_stream_that_breaks_its_handler_breaks_nothing_else(net: Network, junk: bytes) -> None:
    victim, honest = await besieged(net)

    async def negotiate_nonsense(host: Any, connection: Any) -> None:
        for _ in range(3):
            stream = await connection.new_stream()
            await stream.write(junk)
            await stream.close()
        # The same connection is still good for a well-behaved stream.
        await open_stream(connection, MESSAGES)

    await attack(ATTACKER, victim.peer, victim.transport.address, negotiate_nonsense)
    await unharmed(victim, honest)


async def test_a_raising_stream_handler_is_contained(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, honest = await besieged(net)

    def no_link(connection: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(victim.transport._host, "adopt", no_link)  # outside of any link's own containment

    async def use_both(host: Any, connection: Any) -> None:
        for protocol in (CHUNKS, MESSAGES, CHUNKS):
            with pytest.raises((MultiselectClientError, StreamError)):
                await (await open_stream(connection, protocol)).read(1)
        assert not connection.is_closed

    await attack(ATTACKER, victim.peer, victim.transport.address, use_both)
    assert victim.transport.stats().rejects["stream-error"] == 3
    await unharmed(victim, honest)


async def test_an_oversize_announcement_ends_the_link(net: Network) -> None:
    victim, honest = await besieged(net)

    async def boast(host: Any, connection: Any) -> None:
        stream = await open_stream(connection, MESSAGES)
        await stream.write(b"\x00\x00\x00\x02ok" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big") + b"x")
        await until_closed(connection)

    await attack(ATTACKER, victim.peer, victim.transport.address, boast)
    assert victim.handler.messages(ATTACKER.peer) == [b"ok"]
    assert victim.transport.stats().rejects == {"oversize": 1}
    await unharmed(victim, honest)


async def test_a_member_that_opens_streams_without_end_is_stopped(net: Network) -> None:
    victim, honest = await besieged(net)

    async def open_many(host: Any, connection: Any) -> None:
        for _ in range(60):
            await connection.new_stream()
        await trio.sleep(0.5)

    await attack(ATTACKER, victim.peer, victim.transport.address, open_many)
    assert victim.transport.stats().rejects["too-many-streams"] >= 30
    await unharmed(victim, honest)


async def test_a_member_that_writes_past_its_window_is_stopped(net: Network) -> None:
    victim, honest = await besieged(net, silence_timeout_s=60.0)
    victim.handler.blob_delay_s = 60.0

    async def flood(host: Any, connection: Any) -> None:
        stream = await open_stream(connection, CHUNKS)
        await stream.write(bytes(36))  # the server is busy with this one and reads no further
        muxed = stream.muxed_stream
        frame = bytes.fromhex("00000000") + muxed.stream_id.to_bytes(4, "big") + (2**16).to_bytes(4, "big")
        while not muxed.conn.is_closed:
            await muxed.conn._write_frame(frame + bytes(2**16))

    with suppress(ConnectionClosedError):
        await attack(ATTACKER, victim.peer, victim.transport.address, flood)
    assert victim.transport.stats().rejects["flood"] == 1
    await unharmed(victim, honest)


async def test_an_unasked_chunk_ends_only_its_sender(net: Network) -> None:
    victim, honest = await besieged(net)

    async def volunteer(host: Any, connection: Any) -> None:
        async def serve(stream: Any) -> None:
            await stream.read(36)
            await stream.write(b"\x00\x00\x00\x02ab" * 3)

        host.set_stream_handler(CHUNKS, serve)
        await until_closed(connection)

    attacking = asyncio.ensure_future(attack(ATTACKER, victim.peer, victim.transport.address, volunteer))
    await until(lambda: ATTACKER.peer in victim.transport.connected())
    assert await victim.transport.fetch_chunk(ATTACKER.peer, bytes(32), 0, 5.0) == b"ab"
    await attacking
    await until(lambda: victim.handler.changes(ATTACKER.peer) == ["up", "down"])
    await unharmed(victim, honest)


async def test_three_hundred_connections_in_a_lifetime_leave_room_for_more(net: Network) -> None:
    victim, honest = await besieged(net)
    tasks_before = trio.lowlevel.current_statistics().tasks_living

    async def come_and_go(host: Any, connection: Any) -> None:
        async def repeat() -> None:
            for _ in range(30):
                again = await dial(host, victim.peer, victim.transport.address)
                await again.muxed_conn.secured_conn.close()

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(repeat)
        last = await dial(host, victim.peer, victim.transport.address)
        await open_stream(last, MESSAGES)

    await attack(ATTACKER, victim.peer, victim.transport.address, come_and_go)
    await until(lambda: victim.transport.connected() == {honest.peer})
    swarm = victim.transport._host._swarm
    await until(lambda: swarm._inbound_limiter.borrowed_tokens <= 1, "slots come back")
    await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks_before, "and tasks end")
    await unharmed(victim, honest)


# ---------------------------------------------------------------------------------- gossip


def _rpc(message: rpc_pb2.Message) -> bytes:
    return encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())


def _message(**fields: bytes) -> rpc_pb2.Message:
    return rpc_pb2.Message(seqno=b"1", data=b"x", topicIDs=["flocknode"], **fields)


GOSSIP_JUNK = {
    "malformed": lambda: b"\x64" + b"\xff" * 100,
    "bad key": lambda: _rpc(_message(from_id=b"\x12\x20" + bytes(32), key=b"\xff", signature=b"s")),
    "no id": lambda: _rpc(_message(from_id=b"", key=b"", signature=b"s")),
    "endless": lambda: b"\xff\xff\xff\xff\x7f",
    "varint overflow": lambda: b"\xff" * 20,
}


@pytest.mark.parametrize("net", ["gossipsub"], indirect=True)
@pytest.mark.parametrize("junk", GOSSIP_JUNK)
async def test_malformed_gossip_is_counted_and_survived(net: Network, junk: str) -> None:
    victim, honest = await besieged(net)

    async def gossip_nonsense(host: Any, connection: Any) -> None:
        stream = await open_stream(connection, GOSSIP)
        await stream.write(GOSSIP_JUNK[junk]())
        await trio.sleep(0.2)

    await attack(ATTACKER, victim.peer, victim.transport.address, gossip_nonsense)
    await unharmed(victim, honest)
    assert victim.handler.messages(ATTACKER.peer) == []
    if junk == "malformed":
        assert victim.transport.stats().rejects["malformed-gossip"] == 1
    if junk == "bad key":
        assert victim.transport.stats().rejects["gossip-error"] == 1


@pytest.mark.parametrize("net", ["gossipsub"], indirect=True)
async def test_a_strangers_gossip_is_not_passed_on(net: Network) -> None:
    victim, honest = await besieged(net)

    async def relay(host: Any, connection: Any) -> None:
        stranger = identity(77)
        message = _message(from_id=libp2p_id(stranger.peer).to_bytes())
        statement = b"libp2p-pubsub:" + message.SerializeToString()
        message.signature = key_pair(stranger).private_key.sign(statement)
        stream = await open_stream(connection, GOSSIP)
        await stream.write(_rpc(message))
        await trio.sleep(0.3)

    await attack(ATTACKER, victim.peer, victim.transport.address, relay)
    await until(lambda: victim.transport.stats().rejects.get("stranger") == 1)
    assert victim.handler.messages(identity(77).peer) == honest.handler.messages(identity(77).peer) == []
    await unharmed(victim, honest)


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
            await until(lambda s=sender, r=receiver, m=message: r.handler.messages(s.peer)[-1:] == [m])
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
from flocknode.transport.libp2p import Libp2pOptions, Libp2pTransport

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
