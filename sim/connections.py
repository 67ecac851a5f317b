"""Connections between simulated nodes: made, broken, and noticed by each side in its own time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from protocol.events import Event, PeerDown, PeerId, PeerUp, Received
from sim.network import Network
from sim.node import Node
from sim.schedule import Delays, Schedule


class Connections:
    """Each connection has an epoch of its own; what was sent over one epoch never arrives in another.

    A side that has noticed the loss sees nothing of the connection any more, the other side still may.
    `deliver` hands an event to a running node at once.
    """

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        delays: Delays,
        nodes: Sequence[Node],
        by_peer: Mapping[PeerId, Sequence[Node]],
        deliver: Callable[[Node, Event], None],
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._delays = delays
        self._nodes = nodes
        self._by_peer = by_peer
        self._deliver = deliver
        self._epochs = 0

    def send(self, source: Node, target: Node, data: bytes) -> None:
        """Best effort, and nothing at all where there is no connection."""
        epoch = source.connections.get(target.index)
        if epoch is not None:
            self._send(source, target, epoch, Received(source.peer, data))

    def broadcast(self, source: Node, data: bytes) -> None:
        message = Received(source.peer, data)
        nodes, epochs, index = self._nodes, source.connections, source.index
        push, arrive, now = self._schedule.push, self._arrive, self._schedule.now
        for target, due in self._network.arrivals_at(index, epochs, len(data), now):
            push(due - now, arrive, index, nodes[target], epochs[target], message)

    def _send(self, source: Node, target: Node, epoch: int, message: Received) -> None:
        now = self._schedule.now
        for due in self._network.arrivals(source.index, target.index, len(message.data), now):
            self._schedule.push(due - now, self._arrive, source.index, target, epoch, message)

    def _arrive(self, source: int, target: Node, epoch: int, message: Received) -> None:
        if target.connections.get(source) == epoch and self._network.passes(source, target.index):
            self._deliver(target, message)

    def connect_soon(self, a: Node, b: Node) -> None:
        """Two nodes that are up and can reach each other find each other, twins excepted."""
        if a.peer != b.peer and self._connectable(a, b):
            self._schedule.push(self._schedule.draw(self._delays.connect_ms), self._connect, a, b)

    def break_separated(self) -> None:
        """After a partition: both sides of every connection across it will notice."""
        for node in self._nodes:
            for other, epoch in node.connections.items():
                if self._network.separated(node.index, other):
                    self._lose_soon(node, self._nodes[other], epoch)

    def break_all(self, node: Node) -> None:
        """Before a crash: the others will notice."""
        for other, epoch in node.connections.items():
            self._lose_soon(self._nodes[other], node, epoch)

    def _connectable(self, a: Node, b: Node) -> bool:
        return a.alive and b.alive and self._network.connectable(a.index, b.index)

    def _connect(self, a: Node, b: Node) -> None:
        known = a.connections.get(b.index)
        if not self._connectable(a, b) or (known is not None and known == b.connections.get(a.index)):
            return
        for side, other in ((a, b), (b, a)):
            if other.index in side.connections:
                self._disconnect(side, other)
        if not self._connectable(a, b):  # one of them crashed over the news
            return
        self._epochs += 1
        epoch = self._epochs
        new = [(a, b, not self._sees(a, b.peer)), (b, a, not self._sees(b, a.peer))]
        a.connections[b.index] = b.connections[a.index] = epoch
        for side, other, first in new:
            if first and side.connections.get(other.index) == epoch:
                self._deliver(side, PeerUp(other.peer))

    def _lose_soon(self, node: Node, other: Node, epoch: int) -> None:
        self._schedule.push(self._schedule.draw(self._delays.notice_ms), self._lose, node, other, epoch)

    def _lose(self, node: Node, other: Node, epoch: int) -> None:
        """One side notices that a connection is gone, unless it is whole again."""
        if node.connections.get(other.index) != epoch:
            return
        whole = other.connections.get(node.index) == epoch
        if not whole or self._network.separated(node.index, other.index):
            self._disconnect(node, other)

    def _disconnect(self, node: Node, other: Node) -> None:
        del node.connections[other.index]
        if not self._sees(node, other.peer):
            self._deliver(node, PeerDown(other.peer))

    def _sees(self, node: Node, peer: PeerId) -> bool:
        """Whether the node is connected to any machine with this key."""
        return any(twin.index in node.connections for twin in self._by_peer[peer])
