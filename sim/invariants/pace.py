"""Pace: no honest node deals before the interval since the dealing before is over.

docs/PROTOCOL.md section 3.9: "A proposer deals no sooner than `interval_ms` after this node's SHARE phase of
the round before began", or once more than 1/3 of the validators, or all other proposers, have. Measured in
virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from protocol import durable
from protocol.engine import Engine
from protocol.events import Broadcast, Effect, Millis, Persist
from protocol.ledger.state import Phase, RoundState
from protocol.messages import Kind
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.node import Node
from sim.reading import own_statements


@define(eq=False)
class _Seen:
    """When each round's SHARE phase began at a node, and whether its clock has always been right."""

    began_ms: dict[int, Millis] = field(factory=dict)
    is_true: bool = True


class PaceKept:
    """The invariant; see the module. Nodes whose clock runs wrong are not held to it."""

    def __init__(self, params: ProtocolParams, now: Callable[[], Millis]) -> None:
        self._interval_ms = 0 if params.pace is None else params.pace.interval_ms
        self._now = now
        self._seen: dict[int, _Seen] = {}
        self._dealt: dict[int, set[bytes]] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not self._interval_ms:
            return
        seen = self._seen.setdefault(node.index, _Seen())
        seen.is_true &= node.clock_rate == 1.0
        for effect in performed:
            if isinstance(effect, Broadcast):
                self._hear(node, seen, effect.data)
            elif isinstance(effect, Persist) and effect.bucket == durable.BLOCK:
                self._note(node, seen)

    def _note(self, node: Node, seen: _Seen) -> None:
        if isinstance(node.engine, Engine) and node.engine.state.learning.phase is Phase.SHARE:
            seen.began_ms.setdefault(node.engine.state.round, self._now())

    def _hear(self, node: Node, seen: _Seen, data: bytes) -> None:
        try:
            statements = list(own_statements(data, node.peer))
        except ValueError:  # an adversary also says what is none
            return
        for statement in statements:
            if statement.kind is Kind.SHARE_BUNDLE:
                dealt = self._dealt.setdefault(statement.round, set())
                if node.peer not in dealt:
                    self._check(node, seen, statement.round, dealt)
                dealt.add(node.peer)

    def _check(self, node: Node, seen: _Seen, round_: int, dealt: set[bytes]) -> None:
        before_ms = seen.began_ms.get(round_ - 1)
        if not node.honest or not seen.is_true or before_ms is None or not isinstance(node.engine, Engine):
            return
        passed_ms = self._now() - before_ms
        if passed_ms < self._interval_ms and not _is_overtaken(node, node.engine.state.learning, dealt):
            raise InvariantError(
                f"node {node.index} deals in round {round_} {passed_ms} ms after the round before, "
                f"the interval is {self._interval_ms} ms"
            )


def _is_overtaken(node: Node, learning: RoundState, dealt: set[bytes]) -> bool:
    assert isinstance(node.engine, Engine)
    others = [peer for peer in learning.proposers if peer != node.peer]
    third = len(node.engine.state.validators) // 3 + 1
    return len(dealt.intersection(others)) >= min(third, len(others))
