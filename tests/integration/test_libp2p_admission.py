"""Who gets a connection to a node, and whom a node connects to (docs/PROTOCOL.md sections 1 and 8)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from libp2p_attacker import ATTACKER, NOWHERE, attack, besieged, unharmed, until_closed
from transport_network import QUICK, Network, Node, Recorder, identity, network, until

from flocknode.transport.base import AddressInUseError, InvalidPreSharedKeyError, Member, parse_address
from flocknode.transport.libp2p import Libp2pTransport
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.transport.libp2p_swarm import MAX_HANDSHAKES
from flocknode.transport.standing import Level, Limits

MESSAGES = "/flocknode/message/1"


@pytest.fixture
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network(getattr(request, "param", "push")) as made:
        yield made


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
    victim, honest = await besieged(net, standing=Limits(refusal_s=60.0))

    async def knock(host: Any, connection: Any) -> None:
        await until_closed(connection)

    while victim.transport.penalise(ATTACKER.peer, "share").level is not Level.REFUSED:
        pass
    with pytest.raises(Exception, match=r"upgrade|failed|closed|Connection"):
        await attack(ATTACKER, victim.peer, victim.transport.address, knock)
    victim.transport.set_members([victim.member, honest.member])
    with pytest.raises(Exception, match=r"upgrade|failed|closed|Connection"):
        await attack(ATTACKER, victim.peer, victim.transport.address, knock)
    assert victim.transport.stats().rejects == {"share": 6, "penalised": 1, "stranger": 1}
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
