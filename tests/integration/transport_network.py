"""A few transports of one kind in one process, for the tests of the contract and of libp2p's failings."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from attrs import define, field

from flocknode.transport.base import Member, Transport
from flocknode.transport.libp2p import Libp2pTransport
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.transport.memory import Hub, MemoryTransport
from flocknode.transport.standing import Level, Limits, Standing
from protocol.keys import Identity, PeerId

LIMIT_S = 15.0
KINDS = ("memory", "push", "gossipsub")


async def until(condition: Callable[[], object], what: str = "", limit_s: float = LIMIT_S) -> None:
    """Wait for a condition; the limit is for hung tests, not a requirement."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s} s: {what or condition}")
        await asyncio.sleep(0.002)


def identity(index: int) -> Identity:
    return Identity(index.to_bytes(32, "big"))


@define(eq=False)
class Recorder:
    """A handler that writes down what it is told and serves the blobs it is given."""

    events: list[tuple[str, PeerId, bytes]] = field(factory=list)
    blobs: dict[tuple[bytes, int], bytes] = field(factory=dict)
    blob_delay_s: float = 0.0
    poison: bytes | None = None
    levels: list[tuple[PeerId, Level]] = field(factory=list)

    def received(self, peer: PeerId, message: bytes) -> None:
        if message == self.poison:
            raise RuntimeError("poisoned")
        self.events.append(("message", peer, message))

    def peer_up(self, peer: PeerId) -> None:
        self.events.append(("up", peer, b""))

    def standing_changed(self, peer: PeerId, standing: Standing) -> None:
        self.levels.append((peer, standing.level))

    def peer_down(self, peer: PeerId) -> None:
        self.events.append(("down", peer, b""))

    async def read_blob(self, peer: PeerId, digest: bytes, index: int) -> bytes | None:
        if digest == self.poison:
            raise RuntimeError("poisoned")
        await asyncio.sleep(self.blob_delay_s)
        return self.blobs.get((digest, index))

    def messages(self, peer: PeerId) -> list[bytes]:
        return [message for kind, source, message in self.events if kind == "message" and source == peer]

    def changes(self, peer: PeerId) -> list[str]:
        return [kind for kind, source, _ in self.events if kind != "message" and source == peer]


@define(eq=False)
class Node:
    transport: Transport
    handler: Recorder

    @property
    def peer(self) -> PeerId:
        return self.transport.peer

    @property
    def member(self) -> Member:
        return Member(self.peer, self.transport.address)


QUICK = {
    "keepalive_s": 0.2,
    "silence_timeout_s": 3.0,
    "write_timeout_s": 1.5,
    "dial_anyway_s": 0.5,
}


PATIENCE = Limits(refusal_s=0.5)


@define(eq=False)
class Network:
    kind: str
    hub: Hub = field(factory=Hub)
    nodes: list[Node] = field(factory=list)
    _names: "itertools.count[int]" = field(factory=itertools.count)

    def transport(
        self, index: int, address: str | None = None, *, standing: Limits = PATIENCE, **limits: float
    ) -> Transport:
        """A transport of this kind; `limits` as in Libp2pOptions."""
        who = identity(index)
        if self.kind == "memory":
            known = {key: limits[key] for key in ("outbox_bytes",) if key in limits}
            name = address or f"/memory/{next(self._names)}"
            return MemoryTransport(self.hub, who.peer, name, limits=standing, **known)
        options = Libp2pOptions(broadcast_mode=self.kind, standing=standing, **{**QUICK, **limits})
        return Libp2pTransport(who, address or "/ip4/127.0.0.1/tcp/0", options=options)

    async def add(
        self, index: int, address: str | None = None, *, standing: Limits = PATIENCE, **limits: float
    ) -> Node:
        node = Node(self.transport(index, address, standing=standing, **limits), Recorder())
        await node.transport.start(node.handler)
        self.nodes.append(node)
        return node

    def introduce(self, nodes: Sequence[Node] | None = None) -> None:
        members = [node.member for node in nodes or self.nodes]
        for node in nodes or self.nodes:
            node.transport.set_members(members)

    async def linked(self, nodes: Sequence[Node] | None = None) -> None:
        """Introduce the nodes to each other and wait for all links."""
        nodes = list(nodes or self.nodes)
        self.introduce(nodes)
        pairs = [(node, other.peer) for node in nodes for other in nodes if other is not node]
        await until(lambda: all(peer in node.transport.connected() for node, peer in pairs), "linked")
        await until(lambda: all(node.handler.changes(peer)[-1:] == ["up"] for node, peer in pairs), "told")


@asynccontextmanager
async def network(kind: str) -> AsyncIterator[Network]:
    """A network whose nodes are stopped at the end."""
    made = Network(kind)
    try:
        yield made
    finally:
        await asyncio.gather(*(node.transport.stop() for node in made.nodes))
