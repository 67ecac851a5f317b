"""The simulated network, its blobs, and the adversaries' places in it, driven by toy engines."""

from __future__ import annotations

import random

import pytest
from toy_world import Toys, on, peer, silent

from protocol.blob import blob_digest
from protocol.events import (
    BlobFailed,
    BlobReady,
    Broadcast,
    Command,
    DropBlob,
    Effect,
    Event,
    Fetch,
    PeerDown,
    PeerUp,
    PutBlob,
    Send,
    Start,
)
from sim.errors import SimulationError
from sim.filters import Filter
from sim.network import Impairment, LinkModel, Network, NetworkError

# -- blobs -----------------------------------------------------------------------------------------

BLOB = b"a blob" * 100
DIGEST = blob_digest(BLOB)


def test_a_blob_is_fetched_once_and_survives() -> None:
    fetch = on(Command, Fetch(DIGEST, (peer(2),)), Fetch(DIGEST, (peer(1),)))
    toys = Toys([fetch, on(Start, PutBlob(DIGEST, BLOB)), silent])
    toys.world.run_for(500)
    toys.world.command(0, b"")
    toys.world.run_for(5_000)
    assert toys.events(0, BlobReady) == [BlobReady(DIGEST)]
    assert toys.world.nodes[0].blobs[DIGEST] is BLOB
    toys.world.command(0, b"")
    toys.world.run_for(1)
    assert toys.events(0, BlobReady) == [BlobReady(DIGEST)] * 3
    toys.world.crash(0, restart_ms=1)
    toys.world.run_for(10)
    assert toys.events(0, Start)[1].blobs == {DIGEST}


def test_reserves_are_asked_once_a_holder_lets_the_node_wait_or_where_there_is_none() -> None:
    slow = LinkModel(latency_min_ms=60_000, latency_max_ms=60_000)
    for holders in ((peer(1),), ()):
        has = on(Start, PutBlob(DIGEST, BLOB))
        toys = Toys([on(Command, Fetch(DIGEST, holders, (peer(2),))), has, has])
        toys.world.run_for(500)
        toys.world.network.set_link(0, 1, slow)
        toys.world.command(0, b"")
        toys.world.run_for(5_000)
        assert toys.events(0, BlobReady) == [BlobReady(DIGEST)]


def test_a_slow_holder_is_waited_for_where_there_is_no_other() -> None:
    toys = Toys(
        [on(Command, Fetch(DIGEST, (peer(1),), (peer(2),))), on(Start, PutBlob(DIGEST, BLOB)), silent]
    )
    toys.world.run_for(500)
    toys.world.network.set_link(0, 1, LinkModel(latency_min_ms=9_000, latency_max_ms=9_000))
    toys.world.command(0, b"")
    toys.world.run_for(9_000)
    assert not toys.events(0, BlobReady)
    toys.world.run_for(9_000)
    assert toys.events(0, BlobReady) == [BlobReady(DIGEST)]


def test_a_fetch_fails_when_nobody_has_the_blob_and_may_be_repeated() -> None:
    toys = Toys([on(Command, Fetch(DIGEST, (peer(1), peer(9)))), silent])
    toys.world.run_for(500)
    for _ in range(2):
        toys.world.command(0, b"")
        toys.world.run_for(5_000)
    assert toys.events(0, BlobFailed) == [BlobFailed(DIGEST)] * 2


def test_a_dropped_blob_is_gone() -> None:
    toys = Toys([on(Start, PutBlob(DIGEST, BLOB), DropBlob(DIGEST))])
    toys.world.run_for(1)
    assert not toys.world.nodes[0].blobs


def test_a_fetch_goes_round_dead_lying_and_withholding_holders() -> None:
    class Lying(Filter):
        def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
            return b"something else"

    class Withholding(Filter):
        def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
            return None

    holds = on(Start, PutBlob(DIGEST, BLOB))
    for seed in range(20):
        fetch = on(Command, Fetch(DIGEST, tuple(map(peer, range(1, 6)))))
        toys = Toys([fetch, *[holds] * 5], seed, filters={1: Lying(), 2: Withholding()})
        toys.world.run_for(500)
        toys.world.crash(3)
        toys.world.cut(4, 0)
        toys.world.command(0, b"")
        toys.world.run_for(20_000)
        assert toys.events(0, BlobReady) == [BlobReady(DIGEST)]
        assert toys.world.nodes[0].blobs[DIGEST] == BLOB


def test_a_holder_that_crashes_under_way_counts_as_failed() -> None:
    big = bytes(25_000_000)
    toys = Toys([on(Command, Fetch(blob_digest(big), (peer(1),))), on(Start, PutBlob(blob_digest(big), big))])
    toys.world.run_for(500)
    toys.world.command(0, b"")
    toys.world.run_for(1_000)
    toys.world.crash(1, restart_ms=1)
    toys.world.run_for(5_000)
    assert toys.events(0, BlobFailed)
    assert not toys.events(0, BlobReady)


def test_an_honest_node_may_not_put_a_blob_under_a_wrong_digest() -> None:
    with pytest.raises(SimulationError, match="wrong digest"):
        Toys([on(Start, PutBlob(bytes(32), BLOB))]).world.run_for(1)


# -- the network -----------------------------------------------------------------------------------

NUMBERS = [index.to_bytes(2, "big") for index in range(200)]
SEND_NUMBERS = on(Command, *[Send(peer(1), data) for data in NUMBERS])


def numbers_received(model: LinkModel) -> list[bytes]:
    toys = Toys([SEND_NUMBERS, silent], model=model)
    toys.world.run_for(1_000)
    toys.world.command(0, b"")
    toys.world.run_for(10_000)
    return toys.data(1)


def test_a_stream_keeps_its_order() -> None:
    assert numbers_received(LinkModel()) == NUMBERS


def test_reordered_messages_all_arrive() -> None:
    received = numbers_received(LinkModel(reorder=0.5))
    assert received != NUMBERS
    assert sorted(received) == NUMBERS


def test_lost_and_duplicated_messages() -> None:
    assert numbers_received(LinkModel(loss=1.0)) == []
    lossy = numbers_received(LinkModel(loss=0.5))
    assert 60 < len(lossy) < 140
    assert lossy == sorted(lossy)
    assert sorted(numbers_received(LinkModel(duplicate=1.0))) == sorted(NUMBERS * 2)


def test_only_one_link_may_be_bad() -> None:
    toys = Toys([on(Command, Broadcast(b"hello")), silent, silent])
    toys.world.network.set_link(0, 1, LinkModel(loss=1.0))
    toys.world.run_for(1_000)
    toys.world.command(0, b"")
    toys.world.run_for(1_000)
    assert (toys.data(1), toys.data(2)) == ([], [b"hello"])
    toys.world.network.set_link(0, 1, None)
    toys.world.command(0, b"")
    toys.world.run_for(1_000)
    assert toys.data(1) == [b"hello"]


def test_a_partition_is_noticed_and_heals() -> None:
    toys = Toys([on(Command, Broadcast(b"hello")), silent, silent])
    world = toys.world
    world.run_for(1_000)
    world.partition([[0, 2]])
    world.command(0, b"")
    world.run_for(1_000)
    assert (toys.data(1), toys.data(2)) == ([], [b"hello"])
    assert toys.events(0, PeerDown) == [PeerDown(peer(1))]
    assert len(toys.events(1, PeerDown)) == 2
    world.heal()
    world.run_for(1_000)
    assert toys.events(0, PeerUp)[-1] == PeerUp(peer(1))
    world.command(0, b"")
    world.run_for(1_000)
    assert toys.data(1) == [b"hello"]


def test_a_cut_link_swallows_one_direction_in_silence() -> None:
    ping = on(Command, Broadcast(b"ping"))
    toys = Toys([ping, ping])
    world = toys.world
    world.run_for(1_000)
    world.cut(0, 1)
    for index in (0, 1):
        world.command(index, b"")
    world.run_for(1_000)
    assert (toys.data(0), toys.data(1)) == ([b"ping"], [])
    assert not toys.events(0, PeerDown) + toys.events(1, PeerDown)
    world.crash(1, restart_ms=1)
    world.run_for(2_000)
    assert len(toys.events(0, PeerUp)) == 1
    world.mend(0, 1)
    world.run_for(1_000)
    assert len(toys.events(0, PeerUp)) == 2


def test_a_crash_is_noticed_and_the_restart_too() -> None:
    for seed in range(30):
        toys = Toys([silent, silent], seed)
        toys.world.run_for(1_000)
        toys.world.crash(1, restart_ms=50)
        toys.world.run_for(2_000)
        kinds = [type(event) for event, _ in toys.seen[0]]
        assert kinds == [Start, PeerUp, PeerDown, PeerUp]


def test_network_refuses_what_cannot_be() -> None:
    with pytest.raises(NetworkError):
        LinkModel(latency_min_ms=10, latency_max_ms=5)
    with pytest.raises(ValueError, match="loss"):
        LinkModel(loss=1.5)
    with pytest.raises(NetworkError, match="two sides"):
        Network(LinkModel(), random.Random(0)).partition([[0, 1], [1]])


# -- adversaries -----------------------------------------------------------------------------------


def test_a_filter_changes_what_goes_in_and_out() -> None:
    class TwoFaced(Filter):
        def events(self, event: Event) -> list[Event]:
            return [event, event] if isinstance(event, Command) else [event]

        def effects(self, effects: list[Effect]) -> list[Effect]:
            told = [effect for effect in effects if not isinstance(effect, Broadcast)]
            return told + [Send(peer(1), b"black"), Send(peer(2), b"white")] * (len(effects) - len(told))

    toys = Toys([on(Command, Broadcast(b"grey")), silent, silent], filters={0: TwoFaced()})
    toys.world.run_for(1_000)
    toys.world.command(0, b"")
    toys.world.run_for(1_000)
    assert toys.data(1) == [b"black"] * 2
    assert toys.data(2) == [b"white"] * 2
    assert [node.honest for node in toys.world.nodes] == [False, True, True]


def test_twins_share_a_key_and_look_like_one_peer() -> None:
    peers = [peer(0), peer(1), peer(1)]
    toys = Toys([on(Command, Send(peer(1), b"hello")), silent, on(Command, Broadcast(b"!"))], peers=peers)
    world = toys.world
    world.run_for(1_000)
    world.command(0, b"")
    world.command(2, b"")
    world.run_for(1_000)
    assert toys.data(0) == [b"!"]
    assert toys.data(1) == toys.data(2) == [b"hello"]
    assert toys.events(0, PeerUp) == [PeerUp(peer(1))]
    assert [node.honest for node in world.nodes] == [True, False, False]
    world.crash(1)
    world.run_for(1_000)
    assert not toys.events(0, PeerDown)
    world.crash(2)
    world.run_for(1_000)
    assert toys.events(0, PeerDown) == [PeerDown(peer(1))]


@pytest.mark.parametrize("case", ["plain", "lossy", "cut", "impaired"])
def test_a_message_to_many_arrives_as_one_to_each(case: str) -> None:
    """Both ways of sending draw the same, also behind a message that keeps the line busy."""
    told = []
    for together in (True, False):
        model = LinkModel(loss=0.2, reorder=0.3, duplicate=0.1) if case == "lossy" else LinkModel()
        network = Network(model, random.Random(5))
        if case == "cut":
            network.cut(0, 3)
        if case == "impaired":
            network.impair([2], Impairment(delay_ms=70))
        arrived: list[tuple[int, int]] = []
        for now, size in ((0, 100), (0, 900_000), (3, 100), (60, 100), (5_000, 100)):
            if together:
                arrived += network.arrivals_at(0, range(1, 6), size, now)
            else:
                arrived += [(i, due) for i in range(1, 6) for due in network.arrivals(0, i, size, now)]
        told.append(arrived)
    assert told[0] == told[1]
    assert told[0]
