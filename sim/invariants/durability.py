"""Durability: what a message rests on is written down before the message leaves.

docs/PROTOCOL.md section 7.7, "Durable before it leaves"; section 7.2: "All that this uses is durable before
the message that needs it", and "Before COMMIT(v) it raised high_qc to at least v, durably."
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from protocol import durable
from protocol.codec import decode
from protocol.consensus import Safety
from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Persist, Send
from protocol.messages import STATEMENT_KINDS, Kind, Proposal, SealedVote, Timeout, Vote, VotePhase
from sim.invariants.base import InvariantError
from sim.reading import own_statements

if TYPE_CHECKING:
    from sim.node import Node

Disk = dict[str, dict[bytes, bytes]]


class Durability:
    """Follows each disk write by write, as the effects of one event come in their order."""

    def __init__(self) -> None:
        self._disks: dict[int, Disk] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        disk = self._disks.setdefault(node.index, {})
        for effect in performed:
            match effect:
                case Persist(bucket, key, None):
                    disk.get(bucket, {}).pop(key, None)
                case Persist(bucket, key, bytes() as value):
                    disk.setdefault(bucket, {})[key] = value
                case Send(_, data) | Broadcast(data):
                    for statement in own_statements(data, node.peer):
                        missing = _missing(disk, statement, data)
                        if missing is not None:
                            raise InvariantError(
                                f"node {node.index}: {statement.kind.name} of round {statement.round} leaves "
                                f"before {missing} is durable"
                            )


def _missing(disk: Disk, statement: Statement, data: bytes) -> str | None:
    """What the message rests on and the disk has not."""
    body, round_ = statement.body, statement.round
    if statement.kind in STATEMENT_KINDS:
        if disk.get(durable.STATEMENT, {}).get(durable.round_key(round_, statement.id)) != data:
            return "it"
        if statement.kind is Kind.KEY_ADVERT and durable.round_key(round_) not in disk.get(
            durable.SECRET, {}
        ):
            return "the seed of the round's secrets"
        if isinstance(body, SealedVote):
            opening = durable.round_key(round_, bytes((body.ballot,)))
            return None if opening in disk.get(durable.OPENING, {}) else "its opening"
        return None
    if not isinstance(body, Vote | Timeout | Proposal):
        return None
    record = disk.get(durable.SAFETY, {}).get(durable.SAFETY_KEY)
    safety = None if record is None else _safety(record)
    if safety is None or safety.height != body.height:
        return "the state of the agreement"
    match body:
        case Vote():
            return _missing_of_vote(safety, body)
        case Timeout():
            given_up = max(safety.timed_out_view, safety.view - 1)
            return None if given_up >= body.view else "that the view is given up"
        case Proposal():
            return None if safety.proposed_view >= body.view else "that it was proposed"


@lru_cache(maxsize=256)
def _safety(record: bytes) -> Safety:
    return decode(Safety, record, durable.RECORD_BYTES)


def _missing_of_vote(safety: Safety, vote: Vote) -> str | None:
    prepares = vote.phase is VotePhase.PREPARE
    voted = (
        (safety.prepared_view, safety.prepared_hash)
        if prepares
        else (safety.committed_view, safety.committed_hash)
    )
    if voted[0] < vote.view or (voted[0] == vote.view and voted[1] != vote.block_hash):
        return f"the {vote.phase.name}"
    if not prepares and (safety.high_qc is None or safety.high_qc.vote.view < vote.view):
        return "the certificate that is committed to"
    return None
