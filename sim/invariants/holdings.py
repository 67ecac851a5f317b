"""Holdings: when a round has ended, and when a life has begun, a node holds no blob that it should not.

docs/PROTOCOL.md section 7.6: "In round r a node holds the models that count and blobs of rounds r - 1 and r".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from protocol import durable
from protocol.codec import DecodeError
from protocol.engine import Engine
from protocol.events import Broadcast, DropBlob, Effect, Notify, Persist, PutBlob, Send
from protocol.ledger.block import BallotBody, DisputeBody, decode_stored_block
from protocol.messages import AggregateClaim, Contribution
from sim.invariants.base import InvariantError
from sim.reading import own_statements

if TYPE_CHECKING:
    from sim.node import Node


class Holdings:
    """Notes of which round each blob is, from what all say and what blocks pin; looks at what is held.

    Uploads are named by contributions and sums by claims, of anybody; candidates and repaired sums by blocks.
    What a node makes itself is of the round that it is in.
    """

    def __init__(self) -> None:
        self._named: dict[bytes, int] = {}
        self._made: dict[tuple[int, bytes], int] = {}
        self._round: dict[int, int] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        begins = False
        for effect in performed:
            match effect:
                case Send(_, data) | Broadcast(data):
                    self._read_message(data, node.peer)
                case Persist(durable.BLOCK, _, bytes() as value):
                    self._read_block(value)
                case PutBlob(digest, _):
                    self._made[node.index, digest] = self._round.get(node.index, 1)
                case Notify("started"):
                    begins = True
                case DropBlob(digest):
                    self._check_drop(node, digest)
        if node.honest and isinstance(node.engine, Engine):
            ended = node.engine.state.round != self._round.get(node.index)
            self._round[node.index] = node.engine.state.round
            if begins or ended:
                self._check(node, node.engine)

    def _read_message(self, data: bytes, sender: bytes) -> None:
        with suppress(DecodeError, ValueError):  # an adversary's, which nobody can read
            for statement in own_statements(data, sender):
                if isinstance(statement.body, Contribution):
                    self._name(statement.body.upload_digest, statement.round)
                elif isinstance(statement.body, AggregateClaim):
                    self._name(statement.body.sum_digest, statement.round)

    def _name(self, digest: bytes, round_: int) -> None:
        self._named[digest] = max(round_, self._named.get(digest, 0))

    def _read_block(self, value: bytes) -> None:
        block = decode_stored_block(value).block
        body = block.content
        if isinstance(body, BallotBody | DisputeBody):
            self._name(body.candidate, block.round)
        if isinstance(body, DisputeBody):
            self._name(body.sum_digest, block.round)

    def _check_drop(self, node: Node, digest: bytes) -> None:
        if node.honest and isinstance(node.engine, Engine) and digest in _models(node.engine):
            raise InvariantError(f"node {node.index} drops the model {digest.hex()[:12]}, which counts")

    def _check(self, node: Node, engine: Engine) -> None:
        oldest, models = engine.state.round - 1, _models(engine)
        for digest in sorted(node.blobs):
            made = self._made.get((node.index, digest), 0)
            round_ = max(made, self._named.get(digest, 0))
            if digest not in models and round_ < max(1, oldest):
                raise InvariantError(
                    f"node {node.index} holds blob {digest.hex()[:12]} in round {engine.state.round}: "
                    f"it is of round {round_}, and no model that counts"
                )


def _models(engine: Engine) -> set[bytes]:
    """The last two models, and the best where the ledger names one."""
    state = engine.state
    best = set() if state.best is None else {state.best.digest}
    return {state.model_digest, state.previous_model_digest} | best
