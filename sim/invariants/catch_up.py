"""Catching up hurts nobody: few requests, bounded replies, and no block that was not asked for.

docs/PROTOCOL.md section 7.3: "One request is outstanding, at one peer", "Blocks move only when they are asked
for", "A peer has one reply at a time; 16 a repair interval [...]; and no block again within half an interval
after it was sent. Replies hold at most 64 blocks and 256 KiB, or one block."

All is read off the messages that leave nodes. A request is over when its peer has let a reply go, when the
connection that it went over is gone, or when a repair interval has passed, the least time-out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field

from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Millis, PeerId, Send
from protocol.ledger.block import decode_stored_block
from protocol.messages import BlockRequest, Blocks
from sim.invariants.base import InvariantError
from sim.node import Node
from sim.reading import own_statements

REPLIES_AN_INTERVAL = 16
WINDOWS = 2
"""A server counts in windows that follow each other: a window of the checker's own meets two of them."""
BLOCKS_A_REPLY = 64
BYTES_A_REPLY = 256 * 1024


def _said(node: Node, data: bytes) -> list[Statement]:
    """Return the node's own message; nothing where an adversary says what is none."""
    try:
        return list(own_statements(data, node.peer))
    except ValueError:
        if node.honest:
            raise
        return []


@define
class _Request:
    """A request for blocks that a node has made in one of its lives."""

    peer: PeerId
    at_ms: Millis
    life: int
    connections: dict[int, int]


@define
class _Replies:
    """What one node has given to another: when, and up to which height."""

    times: deque[Millis] = field(factory=deque)
    heights: dict[int, Millis] = field(factory=dict)


class CatchUp:
    """The invariant; see the module. `now()`: virtual time; `nodes`: of the world, by index."""

    def __init__(self, interval_ms: Millis, now: Callable[[], Millis], nodes: Sequence[Node]) -> None:
        self._interval_ms = interval_ms
        self._now = now
        self._nodes = nodes
        self._open: dict[int, _Request] = {}
        self._asked: set[tuple[PeerId, PeerId, int]] = set()
        self._given: dict[tuple[int, int, PeerId], _Replies] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        for effect in performed:
            if isinstance(effect, Send | Broadcast):
                for statement in _said(node, effect.data):
                    to = effect.peer if isinstance(effect, Send) else None
                    if isinstance(statement.body, BlockRequest):
                        self._on_request(node, to, statement.body.first_height)
                    elif isinstance(statement.body, Blocks):
                        self._on_reply(node, to, statement.body.blocks)

    def _least_ms(self, node: Node, share: float = 1.0) -> Millis:
        """A repair interval of this node in virtual time: less where its clock is fast."""
        return int(share * self._interval_ms / max(1.0, node.clock_rate)) - 1

    def _on_request(self, node: Node, to: PeerId | None, first_height: int) -> None:
        for peer in [other.peer for other in self._nodes] if to is None else [to]:
            self._asked.add((node.peer, peer, first_height))
        if not node.honest or to is None:
            return
        last = self._open.get(node.index)
        if last is not None and self._is_open(node, last):
            raise InvariantError(
                f"node {node.index} asks {self._name(to)} for block {first_height} while its request to "
                f"{self._name(last.peer)}, {self._now() - last.at_ms} ms old, is outstanding"
            )
        self._open[node.index] = _Request(to, self._now(), node.life, self._connections(node, to))

    def _is_open(self, node: Node, request: _Request) -> bool:
        return (
            request.life == node.life
            and bool(request.connections)
            and request.connections == self._connections(node, request.peer)
            and self._now() - request.at_ms < self._least_ms(node)
        )

    def _connections(self, node: Node, peer: PeerId) -> dict[int, int]:
        """The node's connections to the machines of a peer, by their epochs."""
        return {i: epoch for i, epoch in node.connections.items() if self._nodes[i].peer == peer}

    def _on_reply(self, node: Node, to: PeerId | None, blocks: Sequence[bytes]) -> None:
        for other in self._nodes:
            request = self._open.get(other.index)
            if request is not None and request.peer == node.peer and to in (other.peer, None):
                del self._open[other.index]
        if not node.honest:
            return
        heights = [decode_stored_block(data).block.height for data in blocks]
        if to is None or not heights or (to, node.peer, heights[0]) not in self._asked:
            raise InvariantError(f"node {node.index} sends blocks {heights[:1]} that nobody asked it for")
        if len(blocks) > BLOCKS_A_REPLY or (len(blocks) > 1 and sum(map(len, blocks)) > BYTES_A_REPLY):
            raise InvariantError(f"node {node.index} sends {len(blocks)} blocks in one reply")
        self._check_pace(node, to, heights)

    def _check_pace(self, node: Node, to: PeerId, heights: Sequence[int]) -> None:
        replies = self._given.setdefault((node.index, node.life, to), _Replies())
        now, whole_ms, half_ms = self._now(), self._least_ms(node), self._least_ms(node, 0.5)
        replies.times.append(now)
        while now - replies.times[0] >= whole_ms:
            replies.times.popleft()
        if len(replies.times) > WINDOWS * REPLIES_AN_INTERVAL:
            raise InvariantError(
                f"node {node.index} gives {self._name(to)} {len(replies.times)} replies at once"
            )
        for height in heights:
            if now - replies.heights.get(height, -half_ms) < half_ms:
                raise InvariantError(f"node {node.index} sends {self._name(to)} block {height} twice at once")
            replies.heights[height] = now

    def _name(self, peer: PeerId) -> str:
        return "+".join(str(node.index) for node in self._nodes if node.peer == peer) or peer.hex()[:8]
