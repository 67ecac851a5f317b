"""Members that misbehave: every known way to kill or wedge a libp2p host, tried on a node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.stream.exceptions import StreamError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_varint_prefixed
from libp2p_attacker import ATTACKER, attack, besieged, dial, open_stream, unharmed, until_closed
from transport_network import Network, identity, network, until

from flocknode.transport.base import MAX_MESSAGE_BYTES
from flocknode.transport.libp2p_admission import key_pair, libp2p_id

MESSAGES, CHUNKS, GOSSIP = "/flocknode/message/1", "/flocknode/chunk/1", "/meshsub/1.1.0"


@pytest.fixture
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network(getattr(request, "param", "push")) as made:
        yield made


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
