"""The contract of flocknode.transport.base, held by every transport there is."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transport_network import KINDS, Network, Recorder, identity, network, until

from flocknode.transport.base import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    AddressInUseError,
    FetchFailedError,
    InvalidAddressError,
    Member,
    MessageTooLargeError,
    NotRunningError,
    TransportError,
    UnreachableError,
    parse_address,
)
from flocknode.transport.libp2p import Libp2pTransport
from flocknode.transport.libp2p_frames import (
    NOTHING,
    WRITE_BYTES,
    FrameReader,
    FrameTooLongError,
    Outbox,
    framed,
)
from flocknode.transport.standing import Level, Limits

DIGEST = b"\x07" * 32


@pytest.fixture(params=KINDS)
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with network(request.param) as made:
        yield made


async def test_messages_arrive_whole_in_order_and_between_peer_up_and_down(net: Network) -> None:
    a, b, c = [await net.add(index) for index in (1, 2, 3)]
    await net.linked()
    there = [index.to_bytes(2, "big") * (index % 700) for index in range(400)]
    back = [b"", b"\xff\xff\xff\xff", bytes(MAX_MESSAGE_BYTES), b"x" * 65503, b"y" * 65504, b"z" * 2**17]
    for message in there:
        assert a.transport.send(b.peer, message)
    for message in back:
        assert b.transport.send(a.peer, message)
    await until(lambda: len(b.handler.messages(a.peer)) == len(there), "there")
    await until(lambda: len(a.handler.messages(b.peer)) == len(back), "back")
    assert b.handler.messages(a.peer) == there
    assert a.handler.messages(b.peer) == back
    assert c.handler.messages(a.peer) == c.handler.messages(b.peer) == []
    await a.transport.stop()
    await until(lambda: b.handler.changes(a.peer) == ["up", "down"])
    kinds = [kind for kind, peer, _ in b.handler.events if peer == a.peer]
    assert kinds == ["up", *["message"] * len(there), "down"]
    assert b.transport.connected() == {c.peer}


async def test_a_broadcast_reaches_every_connected_member_and_nobody_twice(net: Network) -> None:
    nodes = [await net.add(index) for index in (1, 2, 3, 4)]
    await net.linked()
    sent = {node.peer: [node.peer + bytes([index]) * index for index in range(20)] for node in nodes}
    for node in nodes:
        for message in sent[node.peer]:
            assert node.transport.broadcast(message) == 3
    for node in nodes:
        for other in nodes:
            expected = [] if other is node else sent[other.peer]
            await until(lambda n=node, o=other, e=expected: len(n.handler.messages(o.peer)) >= len(e))
    await asyncio.sleep(0.1)
    for node in nodes:
        for other in nodes:
            got = node.handler.messages(other.peer)
            expected = [] if other is node else sent[other.peer]
            # Only a link of its own keeps the order: gossip takes several ways.
            assert (sorted(got) == sorted(expected)) if net.kind == "gossipsub" else (got == expected)


async def test_a_long_broadcast_arrives_whole(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    message = bytes(range(256)) * (MAX_MESSAGE_BYTES // 256)
    assert a.transport.broadcast(message) == 1
    await until(lambda: b.handler.messages(a.peer) == [message], "long broadcast")


async def test_nothing_is_sent_to_who_is_not_connected_or_longer_than_allowed(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    assert a.transport.broadcast(b"nobody") == 0
    assert not a.transport.send(b.peer, b"not a member")
    a.transport.set_members([b.member])
    assert not a.transport.send(b.peer, b"not linked")
    await net.linked()
    with pytest.raises(MessageTooLargeError, match=str(MAX_MESSAGE_BYTES + 1)):
        a.transport.send(b.peer, bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(MessageTooLargeError):
        a.transport.broadcast(bytes(MAX_MESSAGE_BYTES + 1))
    assert b.handler.messages(a.peer) == []


async def test_an_overflowing_outbox_costs_the_link_and_nothing_else(net: Network) -> None:
    a, b, c = await net.add(1, outbox_bytes=50_000), await net.add(2), await net.add(3)
    await net.linked()
    accepted = [a.transport.send(b.peer, bytes(10_000)) for _ in range(20)]
    assert accepted[0]
    assert not accepted[-1]
    assert b.peer not in a.transport.connected()
    assert a.handler.changes(b.peer) == ["up"], "the handler was called from inside send"
    assert a.transport.stats().rejects["outbox-overflow"] == 1
    assert a.transport.send(c.peer, b"still here")
    await until(lambda: c.handler.messages(a.peer) == [b"still here"])
    await until(lambda: a.handler.changes(b.peer) == ["up", "down", "up"], "linked again")
    await until(lambda: b.peer in a.transport.connected() and a.peer in b.transport.connected())
    assert a.transport.send(b.peer, b"again")
    await until(lambda: b.handler.messages(a.peer)[-1:] == [b"again"])
    assert a.handler.changes(c.peer) == ["up"]


async def test_chunks_are_served_from_the_handler(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    chunks = {(DIGEST, index): bytes([index]) * (index * 50_000) for index in range(12)}
    chunks[DIGEST, 2**32 - 1] = bytes(MAX_CHUNK_BYTES)
    b.handler.blobs.update(chunks)
    got = await asyncio.gather(*(a.transport.fetch_chunk(b.peer, *key, 10.0) for key in chunks))
    assert got == list(chunks.values())
    assert await a.transport.fetch_chunk(b.peer, bytes(32), 0, 10.0) is None
    assert await b.transport.fetch_chunk(a.peer, DIGEST, 0, 10.0) is None
    for digest, index, named in ((bytes(31), 0, "31"), (DIGEST, -1, "-1"), (DIGEST, 2**32, str(2**32))):
        with pytest.raises(ValueError, match=named):
            await a.transport.fetch_chunk(b.peer, digest, index, 10.0)
    assert a.handler.changes(b.peer) == ["up"]
    assert a.transport.stats().peers[b.peer].chunks_in == len(chunks)
    assert b.transport.stats().peers[a.peer].chunks_out == len(chunks)


async def test_a_failing_or_boundless_reader_means_not_held(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    b.handler.poison = bytes(32)
    b.handler.blobs[DIGEST, 0] = bytes(MAX_CHUNK_BYTES + 1)
    b.handler.blobs[DIGEST, 1] = b"fine"
    assert await a.transport.fetch_chunk(b.peer, bytes(32), 0, 10.0) is None
    assert await a.transport.fetch_chunk(b.peer, DIGEST, 0, 10.0) is None
    assert await a.transport.fetch_chunk(b.peer, DIGEST, 1, 10.0) == b"fine"
    assert b.transport.stats().rejects["handler-error"] == 2


async def test_a_fetch_fails_by_name_when_nobody_answers(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    with pytest.raises(UnreachableError):
        await a.transport.fetch_chunk(b.peer, DIGEST, 0, 1.0)
    await net.linked()
    b.handler.blob_delay_s = 0.4
    b.handler.blobs[DIGEST, 5] = b"late"
    with pytest.raises(FetchFailedError, match=r"chunk 5 of 0707.* no reply"):
        await a.transport.fetch_chunk(b.peer, DIGEST, 5, 0.05)
    b.handler.blobs[DIGEST, 6] = b"in time"  # the late reply must not be taken for this one
    assert await a.transport.fetch_chunk(b.peer, DIGEST, 6, 10.0) == b"in time"
    b.handler.blob_delay_s = 5.0
    lost = asyncio.ensure_future(a.transport.fetch_chunk(b.peer, DIGEST, 5, 10.0))
    await asyncio.sleep(0.1)
    await b.transport.stop()
    with pytest.raises(FetchFailedError):
        await lost


async def test_messages_pass_while_chunks_are_awaited(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    b.handler.blob_delay_s = 1.0
    b.handler.blobs[DIGEST, 0] = b"slow"
    fetch = asyncio.ensure_future(a.transport.fetch_chunk(b.peer, DIGEST, 0, 10.0))
    await asyncio.sleep(0.05)
    assert a.transport.send(b.peer, b"vote")
    assert b.transport.send(a.peer, b"vote")
    await until(lambda: b.handler.messages(a.peer) and a.handler.messages(b.peer))
    assert not fetch.done()
    assert await fetch == b"slow"


async def test_members_come_and_go(net: Network) -> None:
    a, b, c = [await net.add(index) for index in (1, 2, 3)]
    await net.linked([a, b])
    assert a.transport.connected() == {b.peer}
    await net.linked([a, b, c])
    a.transport.set_members([a.member, c.member])
    await until(lambda: b.handler.changes(a.peer) == ["up", "down"], "removed")
    await asyncio.sleep(0.3)  # b still lists a and keeps dialling
    assert a.transport.connected() == {c.peer}
    assert a.handler.changes(b.peer) == ["up", "down"]
    assert a.handler.changes(c.peer) == ["up"]
    net.introduce()
    await until(lambda: a.handler.changes(b.peer) == ["up", "down", "up"], "back")
    await until(lambda: b.transport.connected() == {a.peer, c.peer})


async def test_an_offender_is_throttled_then_refused_for_a_while_then_readmitted(net: Network) -> None:
    a, b, c = [await net.add(index) for index in (1, 2, 3)]
    await net.linked()
    for expected in (Level.THROTTLED, Level.THROTTLED, Level.REFUSED):
        assert b.peer in a.transport.connected()
        assert a.transport.penalise(b.peer, "signature").level is expected
    assert a.transport.connected() == {c.peer}
    assert not a.transport.send(b.peer, b"no")
    assert a.transport.stats().rejects["signature"] == 3
    assert a.transport.stats().standings[b.peer].level is Level.REFUSED
    await until(lambda: b.handler.changes(a.peer)[:2] == ["up", "down"])
    assert b.peer not in a.transport.connected()
    await until(lambda: a.handler.changes(b.peer) == ["up", "down", "up"], "readmitted")
    await until(lambda: a.peer in b.transport.connected())
    assert b.transport.send(a.peer, b"sorry")
    await until(lambda: a.handler.messages(b.peer) == [b"sorry"])
    assert a.handler.levels[:2] == [(b.peer, Level.THROTTLED), (b.peer, Level.REFUSED)]
    assert a.transport.stats().standings[b.peer].refusals == 1
    assert a.handler.changes(c.peer) == ["up"]


async def test_what_bad_links_bring_about_is_held_against_nobody(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    for reason in ("stale", "early", "silent", "write-timeout"):
        for _ in range(50):
            assert a.transport.penalise(b.peer, reason).score == 0
    assert b.transport.send(a.peer, b"still here")
    await until(lambda: a.handler.messages(b.peer) == [b"still here"])
    assert a.handler.changes(b.peer) == ["up"]
    assert a.handler.levels == []


async def test_a_flood_is_dropped_above_its_allowance_and_ends_in_a_refusal(net: Network) -> None:
    """Of messages that are all different, as fast as the link takes them; others are not touched."""
    allowance = 100
    strict = Limits(messages=allowance, messages_per_s=1.0, refusal_s=0.5)
    a, b, c = await net.add(1, standing=strict), await net.add(2), await net.add(3)
    await net.linked()
    for number in range(allowance + 1_500):
        if not b.transport.send(a.peer, number.to_bytes(4, "big")):
            break
        if number % 100 == 0:
            await asyncio.sleep(0.01)
    await until(lambda: a.handler.changes(b.peer)[:2] == ["up", "down"], "refused")
    assert (b.peer, Level.THROTTLED) in a.handler.levels
    assert (b.peer, Level.REFUSED) in a.handler.levels
    heard = a.handler.messages(b.peer)
    assert heard == [number.to_bytes(4, "big") for number in range(len(heard))]
    assert allowance <= len(heard) < allowance + 100
    stats = a.transport.stats()
    assert stats.rejects["throttled"] == stats.standings[b.peer].dropped > 0
    assert c.transport.send(a.peer, b"me too")
    await until(lambda: a.handler.messages(c.peer) == [b"me too"])
    assert a.handler.changes(c.peer) == ["up"]


@pytest.mark.parametrize("returning", [1, 2], ids=["the lower peer id", "the higher peer id"])
async def test_a_node_that_stops_and_returns_is_linked_again(net: Network, returning: int) -> None:
    nodes = {index: await net.add(index) for index in (1, 2)}
    await net.linked()
    stayed, left = nodes[3 - returning], nodes[returning]
    address = left.transport.address
    await left.transport.stop()
    await until(lambda: stayed.handler.changes(left.peer) == ["up", "down"])
    assert stayed.transport.connected() == frozenset()
    back = await net.add(returning, address)
    assert back.transport.address == address
    await net.linked([stayed, back])
    assert stayed.handler.changes(left.peer) == ["up", "down", "up"]
    assert back.transport.send(stayed.peer, b"back")
    await until(lambda: stayed.handler.messages(back.peer) == [b"back"])


async def test_a_raising_handler_is_counted_and_called_again(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    b.handler.poison = b"poison"
    await net.linked()
    for message in (b"one", b"poison", b"two"):
        a.transport.send(b.peer, message)
    await until(lambda: b.handler.messages(a.peer) == [b"one", b"two"])
    assert b.transport.stats().rejects == {"fault": 1}
    assert b.transport.stats().standings[a.peer].score < -10
    assert b.handler.changes(a.peer) == ["up"]


async def test_traffic_is_counted_per_peer(net: Network) -> None:
    a, b, c = [await net.add(index) for index in (1, 2, 3)]
    await net.linked()
    for size in (10, 200, 3000):
        a.transport.send(b.peer, bytes(size))
    b.transport.send(a.peer, b"12345")
    await until(lambda: len(b.handler.messages(a.peer)) == 3 and a.handler.messages(b.peer))
    await until(lambda: a.transport.stats().peers[b.peer].messages_out == 3)
    mine, theirs = a.transport.stats().peers[b.peer], b.transport.stats().peers[a.peer]
    assert (mine.messages_out, mine.bytes_out) == (theirs.messages_in, theirs.bytes_in) == (3, 3210)
    assert (mine.messages_in, mine.bytes_in) == (theirs.messages_out, theirs.bytes_out) == (1, 5)
    assert c.peer not in a.transport.stats().peers
    assert a.transport.stats().restarts == 0


async def test_a_stopped_transport_leaves_nothing_behind(net: Network) -> None:
    before = asyncio.all_tasks()
    a, b = await net.add(1), await net.add(2)
    await net.linked()
    a.transport.broadcast(b"last words")
    await until(lambda: b.handler.messages(a.peer) == [b"last words"])
    address = a.transport.address
    await asyncio.gather(a.transport.stop(), b.transport.stop())
    seen = len(a.handler.events), len(b.handler.events)
    await a.transport.stop()
    assert asyncio.all_tasks() == before
    assert a.transport.connected() == frozenset()
    assert not a.transport.send(b.peer, b"no")
    assert a.transport.broadcast(b"no") == 0
    with pytest.raises(UnreachableError):
        await a.transport.fetch_chunk(b.peer, DIGEST, 0, 1.0)
    await asyncio.sleep(0.05)
    assert (len(a.handler.events), len(b.handler.events)) == seen, "a handler was called after stop"
    with pytest.raises(TransportError):
        await a.transport.start(Recorder())
    if net.kind != "memory":
        endpoint = parse_address(address)
        with socket.socket() as probe:  # without SO_REUSEADDR the port must be entirely free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((endpoint.host, endpoint.port))


async def test_an_address_is_known_while_listening_and_taken_once(net: Network) -> None:
    with pytest.raises(NotRunningError):
        _ = net.transport(9).address
    a = await net.add(1)
    second = net.transport(2, a.transport.address)
    with pytest.raises(AddressInUseError) as refused:
        await second.start(Recorder())
    assert a.transport.address in str(refused.value)
    await second.stop()
    with pytest.raises(TransportError):
        await a.transport.start(Recorder())


async def test_a_member_that_cannot_be_dialled_is_left_to_dial(net: Network) -> None:
    a, b = await net.add(1), await net.add(2)
    nonsense = "/ip4/999.1.2.3/tcp/1"
    a.transport.set_members([Member(b.peer, nonsense)])
    b.transport.set_members([a.member])
    await until(lambda: a.transport.connected() == {b.peer}, "the other side dials")
    await until(lambda: b.transport.connected() == {a.peer})


MESSAGES = st.one_of(st.none(), st.binary(max_size=40), st.integers(0, 3 * WRITE_BYTES).map(bytes))


@given(st.lists(MESSAGES, max_size=8), st.lists(st.integers(0, 2**18), max_size=20))
def test_frames_survive_any_cut(messages: list[bytes | None], cuts: list[int]) -> None:
    stream = b"".join(NOTHING if message is None else framed(message) for message in messages)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    reader = FrameReader()
    got = [m for start, end in itertools.pairwise(edges) for m in reader.feed(stream[start:end])]
    assert got == [message for message in messages if message is not None]


@given(st.lists(st.integers(0, WRITE_BYTES), max_size=30), st.integers(1, 2**18))
def test_an_outbox_gives_back_in_order_what_fits(sizes: list[int], limit: int) -> None:
    outbox, accepted, held = Outbox(limit), [], 0
    for index, size in enumerate(sizes):
        message = bytes([index]) * size
        fits = held + size <= limit
        assert outbox.put(message) == fits
        if fits:
            accepted.append(message)
            held += size
    reader, got = FrameReader(), []
    while outbox:
        counted, pieces = outbox.take()
        for piece in pieces:
            assert 0 < len(piece) <= WRITE_BYTES
            got += reader.feed(bytes(piece))
        assert [len(message) for message in got[-len(counted) :]] == counted
    assert got == accepted
    assert outbox.put(bytes(limit)), "nothing is held any more"


def test_an_oversize_frame_is_refused_by_its_length_alone() -> None:
    messages = FrameReader().feed(framed(b"before") + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
    assert next(messages) == b"before"
    with pytest.raises(FrameTooLongError, match=str(MAX_MESSAGE_BYTES + 1)):
        next(messages)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/ip4/127.0.0.1/udp/4001/quic-v1", "QUIC"),
        ("/ip4/127.0.0.1", "expected"),
        ("127.0.0.1:4001", "expected"),
        ("/ip4/300.0.0.1/tcp/1", "not an IP address"),
        ("/ip6/127.0.0.1/tcp/1", "not an ip6 address"),
        ("/ip4/127.0.0.1/tcp/65536", "not a TCP port"),
        ("/ip4/127.0.0.1/tcp/-1", "not a TCP port"),
        ("/dns4//tcp/1", "family"),
        ("/onion/abc/tcp/1", "family"),
    ],
)
def test_a_bad_address_is_named(address: str, reason: str) -> None:
    with pytest.raises(InvalidAddressError, match=reason) as refused:
        parse_address(address)
    assert address in str(refused.value)


def test_addresses_survive_a_round_trip() -> None:
    for address in ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/4001", "/dns4/node.example/tcp/443"):
        assert str(parse_address(address)) == address
    with pytest.raises(InvalidAddressError, match="listens on an IP address"):
        Libp2pTransport(identity(1), "/dns4/node.example/tcp/443")
