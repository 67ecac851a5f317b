"""Members that misbehave, and honest ones on bad links, among real nodes (docs/PROTOCOL.md section 8.7)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

from engine_network import Network, genesis_of
from node_world import IDENTITIES, PEERS, Running
from transport_network import Recorder

from flocknode.transport.base import Member
from flocknode.transport.memory import MemoryTransport
from flocknode.transport.standing import Level
from protocol.codec import encode
from protocol.envelope import make_statement
from protocol.messages import Complaint, Kind

SEED = 5


def garbage(number: int) -> bytes:
    """What its sender has signed, and nobody can read."""
    network = genesis_of(5).network
    statement = make_statement(IDENTITIES[4], network, 1, Kind.COMPLAINT, Complaint(PEERS[0]))
    return encode(statement.envelope) + number.to_bytes(4, "big")


async def misbehave(network: Network, stop: asyncio.Event) -> None:
    """Member 4 floods with one valid statement, and says what is none, whenever it is let in."""
    transport = MemoryTransport(network.hub, PEERS[4], "memory-4")
    await transport.start(Recorder())
    transport.set_members([Member(PEERS[i], f"memory-{i}") for i in range(5)])
    id_ = genesis_of(5).network
    valid = make_statement(IDENTITIES[4], id_, 1, Kind.COMPLAINT, Complaint(PEERS[0])).to_bytes()
    number = 0
    while not stop.is_set():
        for _ in range(50):
            transport.broadcast(valid)
        number += 1
        transport.broadcast(garbage(number))
        await asyncio.sleep(0.02)
    await transport.stop()


def stand(nodes: Sequence[Running], peer: bytes) -> list[Level]:
    return [node.transport.stats().standings[peer].level for node in nodes]


async def test_a_member_that_floods_and_talks_garbage_is_refused_and_the_rounds_go_on(tmp_path: Path) -> None:
    network, stop = Network(tmp_path, 5), asyncio.Event()
    async with (
        network.node(0) as n0,
        network.node(1) as n1,
        network.node(2) as n2,
        network.node(3) as n3,
    ):
        nodes = (n0, n1, n2, n3)
        attack = asyncio.create_task(misbehave(network, stop))
        await network.until(lambda: all(node.logged("refused") for node in nodes))
        assert stand(nodes, PEERS[4]) == [Level.REFUSED] * 4
        await network.until(lambda: all(engine.state.round > 2 for engine in network.engines.values()))
        assert stand(nodes, PEERS[4]) == [Level.REFUSED] * 4
        stop.set()
        await attack
    for node in nodes:
        assert {line["why"] for line in node.logged("penalised")} == {"malformed"}
        assert len({line["peer"] for line in node.logged("refused")}) == 1
        for peer in PEERS[:4]:
            standing = node.transport.stats().standings.get(peer)
            assert standing is None or (standing.score, standing.refusals) == (0, 0)


class BadLink(MemoryTransport):
    """Of ten messages it loses one, says one twice, and holds one back until the others are elsewhere."""

    draw = Random(SEED)

    def send(self, peer: bytes, message: bytes) -> bool:
        chance = self.draw.random()
        if chance < 0.1:
            return True
        if chance < 0.2:
            asyncio.get_running_loop().call_later(self.draw.uniform(0.5, 4.0), super().send, peer, message)
            return True
        return super().send(peer, message) and (chance > 0.3 or super().send(peer, message))


async def test_an_honest_member_on_a_bad_link_keeps_its_standing(tmp_path: Path) -> None:
    network = Network(tmp_path, 5)
    async with (
        network.node(0) as n0,
        network.node(1) as n1,
        network.node(2) as n2,
        network.node(3) as n3,
        network.node(4, BadLink),
    ):
        nodes = (n0, n1, n2, n3)

        async def lose_links() -> None:
            while True:
                await asyncio.sleep(0.4)
                network.hub.unlink(PEERS[4], PEERS[BadLink.draw.randrange(4)])

        losing = asyncio.create_task(lose_links())
        await network.until(lambda: all(engine.state.round > 2 for engine in network.engines.values()))
        losing.cancel()
        for node in nodes:
            standing = node.transport.stats().standings[PEERS[4]]
            assert (standing.score, standing.level, standing.dropped) == (0, Level.GOOD, 0)
            assert standing.used < 0.1
    for node in nodes:
        assert not [event for event in ("penalised", "throttled", "refused") if node.logged(event)]
