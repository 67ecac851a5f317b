"""What no honest node may ever do, read off the messages it sends (docs/PROTOCOL.md sections 3 and 7).

It never signs two statements for one slot, nor votes for or proposes two blocks in one view, through any
number of restarts; it acts only on blocks that it has committed; it never releases the shares of both of one
dealer's secrets; and it reports nobody for what an honest peer may send.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from protocol import durable
from protocol.codec import decode
from protocol.envelope import Envelope, Slot, Statement, slot_of
from protocol.events import Broadcast, Effect, Penalise, Persist, Send
from protocol.ledger.block import (
    BlockKind,
    ContributionBody,
    decode_body,
    decode_stored_block,
)
from protocol.messages import (
    MESSAGE_BYTES,
    STATEMENT_KINDS,
    Kind,
    Proposal,
    ReleaseStage,
    ShareRelease,
    Timeout,
    Transaction,
    Vote,
    VotePhase,
)
from protocol.sharing import ShareKind
from sim.invariants.base import InvariantError
from sim.node import Node
from sim.reading import own_statements

COMMITTED_FIRST: dict[Kind, tuple[BlockKind, ...]] = {
    Kind.CONTRIBUTION: (BlockKind.SETUP,),
    Kind.RECEIPT: (BlockKind.SETUP,),
    Kind.WITNESS: (BlockKind.SETUP,),
    Kind.AGGREGATE_CLAIM: (BlockKind.CONTRIBUTION,),
    Kind.REVEAL: (BlockKind.AGGREGATE, BlockKind.ABANDON),
    Kind.SEALED_VOTE: (BlockKind.AGGREGATE,),
    Kind.VOTE_OPENING: (BlockKind.BALLOT, BlockKind.DISPUTE),
}
"""Which block of its own round, any one of those named, a statement rests on."""


NEVER_REPORTED = ("stale", "early", "version", "network", "kind")
"""docs/PROTOCOL.md section 8.6: what "an honest peer on another round can cause", and what "follows from
another genesis or other software"."""


@define(eq=False)
class _Record:
    """What one node has committed and said so far."""

    blocks: set[tuple[int, BlockKind]] = field(factory=set)
    contributors: dict[int, frozenset[bytes]] = field(factory=dict)
    statements: dict[tuple[Slot, int], bytes] = field(factory=dict)
    """By slot, and of a transaction by its revision too."""
    votes: dict[tuple[VotePhase, int, int], bytes] = field(factory=dict)
    proposals: dict[tuple[int, int], bytes] = field(factory=dict)
    timed_out: dict[int, int] = field(factory=dict)
    released: dict[tuple[int, bytes], int] = field(factory=dict)


class Conduct:
    """The invariant; see the module. Dishonest nodes and twins are not held to it."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        record = self._records.get(node.index)
        if record is None:
            record = self._records[node.index] = _Record()
        try:
            for effect in performed:
                match effect:
                    case Persist(bucket, _, bytes() as value) if bucket == durable.BLOCK:
                        _note_block(record, value)
                    case Send(_, data) | Broadcast(data):
                        _check_message(record, node.peer, data)
                    case Penalise(_, why) if why in NEVER_REPORTED:
                        raise InvariantError(f"a peer is reported for {why!r}, an accident")
        except InvariantError as error:
            raise InvariantError(f"node {node.index}: {error}") from error


def _note_block(record: _Record, value: bytes) -> None:
    block = decode_stored_block(value).block
    record.blocks.add((block.round, block.kind))
    if block.kind is BlockKind.CONTRIBUTION:
        body = decode_body(block)
        assert isinstance(body, ContributionBody)
        senders = [decode(Envelope, data, MESSAGE_BYTES).sender for data in body.contributions]
        record.contributors[block.round] = frozenset(senders)


def _check_message(record: _Record, peer: bytes, data: bytes) -> None:
    for statement in own_statements(data, peer):
        body = statement.body
        if statement.kind in STATEMENT_KINDS:
            _check_statement(record, statement)
        elif isinstance(body, Vote):
            _check_vote(record, body)
        elif isinstance(body, Proposal):
            _check_proposal(record, body)
        elif isinstance(body, Timeout):
            record.timed_out[body.height] = max(body.view, record.timed_out.get(body.height, 0))


def _check_statement(record: _Record, statement: Statement) -> None:
    revision = statement.body.revision if isinstance(statement.body, Transaction) else 0
    if record.statements.setdefault((slot_of(statement), revision), statement.id) != statement.id:
        raise InvariantError(f"two {statement.kind.name} statements for round {statement.round}")
    needed = COMMITTED_FIRST.get(statement.kind)
    if needed and not any((statement.round, kind) in record.blocks for kind in needed):
        names = " or ".join(kind.name for kind in needed)
        raise InvariantError(f"{statement.kind.name} of round {statement.round} before {names} is committed")
    if isinstance(statement.body, ShareRelease):
        _check_release(record, statement.round, statement.body)


def _check_vote(record: _Record, vote: Vote) -> None:
    slot = (vote.phase, vote.height, vote.view)
    known = record.votes.get(slot)
    if known is None and vote.view <= record.timed_out.get(vote.height, 0):
        raise InvariantError(
            f"{vote.phase.name} at height {vote.height} in view {vote.view} after its time-out"
        )
    if record.votes.setdefault(slot, vote.block_hash) != vote.block_hash:
        raise InvariantError(f"two {vote.phase.name} votes at height {vote.height} in view {vote.view}")


def _check_proposal(record: _Record, proposal: Proposal) -> None:
    slot = (proposal.height, proposal.view)
    if record.proposals.setdefault(slot, proposal.block_hash) != proposal.block_hash:
        raise InvariantError(f"two proposals at height {proposal.height} in view {proposal.view}")


def _check_release(record: _Record, round_: int, release: ShareRelease) -> None:
    """Self-mask shares of U2 only, mask-key shares of others only, and check seeds once B is fixed."""
    contributors = record.contributors.get(round_)
    for released in release.shares:
        kind = ShareKind(released.share_kind)
        if release.stage is ReleaseStage.CHECK or kind is ShareKind.CHECK:
            ends = (BlockKind.AGGREGATE, BlockKind.ABANDON)
            if not any((round_, end) in record.blocks for end in ends):
                raise InvariantError(
                    f"a check seed's share of round {round_} before the aggregate is committed"
                )
            continue
        if contributors is None:
            raise InvariantError(f"shares of round {round_} before CONTRIBUTION is committed")
        if (released.dealer in contributors) != (kind is ShareKind.SELF):
            raise InvariantError(f"a {kind.name} share of the wrong side of U2 in round {round_}")
        if record.released.setdefault((round_, released.dealer), kind) != kind:
            raise InvariantError(f"shares of both secrets of one dealer in round {round_}")
