"""The conduct invariant, tested by misconduct."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from toy_world import ToyWorker, silent

from protocol.codec import encode
from protocol.envelope import make_statement
from protocol.events import Broadcast, Effect, Penalise, Persist
from protocol.keys import Identity
from protocol.ledger.block import (
    AggregateBody,
    Block,
    BlockBody,
    BlockKind,
    ContributionBody,
    SetupBody,
    StoredBlock,
)
from protocol.messages import (
    Body,
    Certificate,
    Contribution,
    Kind,
    ReleasedShare,
    ReleaseStage,
    Reveal,
    SealedVote,
    ShareRelease,
    Timeout,
    Vote,
    VotePhase,
)
from sim.invariants.base import InvariantError
from sim.invariants.conduct import Conduct
from sim.node import Node
from sim.world import World

NETWORK = bytes(32)
ME, OTHER, THIRD = (Identity.from_seed(bytes([index]) * 32) for index in (1, 2, 3))


def node(identity: Identity = ME) -> Node:
    return World(0, ToyWorker()).add_node(identity.peer, silent)


def say(kind: Kind, body: Body, round_: int = 1, identity: Identity = ME) -> Broadcast:
    return Broadcast(make_statement(identity, NETWORK, round_, kind, body).to_bytes())


def commit(height: int, kind: BlockKind, body: BlockBody) -> Persist:
    block = Block(height, 1, kind, bytes(32), bytes(32), bytes(32), 1, (), encode(body))
    vote = Vote(VotePhase.COMMIT, height, 1, block.hash)
    stored = StoredBlock(block, Certificate(1, vote, ()))
    return Persist("block", height.to_bytes(8, "big"), encode(stored))


def contribution(identity: Identity) -> bytes:
    body = Contribution(bytes(32), bytes(32), bytes(32))
    return make_statement(identity, NETWORK, 1, Kind.CONTRIBUTION, body).to_bytes()


def vote(phase: VotePhase, view: int, block: bytes) -> Broadcast:
    return say(Kind.VOTE, Vote(phase, 5, view, block * 32))


def release(*shares: tuple[Identity, int], stage: ReleaseStage = ReleaseStage.UNMASK) -> Broadcast:
    released = tuple(ReleasedShare(dealer.peer, kind, bytes(36), ()) for dealer, kind in shares)
    return say(Kind.SHARE_RELEASE, ShareRelease(stage, len(shares), released))


SETUP = commit(2, BlockKind.SETUP, SetupBody(()))
U2_IS_OTHER = commit(3, BlockKind.CONTRIBUTION, ContributionBody((contribution(OTHER),), ()))
MASK, SELF, CHECK = 0, 1, 2


@pytest.mark.parametrize(
    "effects",
    [
        [say(Kind.SEALED_VOTE, SealedVote(0, bytes(32)), identity=OTHER)],
        [SETUP, Broadcast(contribution(ME)), Broadcast(contribution(ME))],
        [vote(VotePhase.PREPARE, 1, b"A"), vote(VotePhase.COMMIT, 1, b"A"), vote(VotePhase.PREPARE, 2, b"B")],
        [
            vote(VotePhase.COMMIT, 1, b"A"),
            say(Kind.TIMEOUT, Timeout(5, 1, None)),
            vote(VotePhase.COMMIT, 1, b"A"),
        ],
        [U2_IS_OTHER, release((OTHER, SELF), (THIRD, MASK))],
    ],
)
def test_good_conduct(effects: Sequence[Effect]) -> None:
    Conduct()(node(), effects)


@pytest.mark.parametrize(
    ("what", "effects"),
    [
        ("CONTRIBUTION of round 1 before SETUP", [Broadcast(contribution(ME)), SETUP]),
        ("REVEAL of round 1 before AGGREGATE", [say(Kind.REVEAL, Reveal(bytes(32), (), b""))]),
        (
            "two SEALED_VOTE",
            [
                commit(4, BlockKind.AGGREGATE, AggregateBody(b"", ())),
                *[say(Kind.SEALED_VOTE, SealedVote(0, bytes([i]) * 32)) for i in (1, 2)],
            ],
        ),
        ("two PREPARE votes", [vote(VotePhase.PREPARE, 1, b"A"), vote(VotePhase.PREPARE, 1, b"B")]),
        (
            "COMMIT at height 5 in view 1 after its time-out",
            [say(Kind.TIMEOUT, Timeout(5, 2, None)), vote(VotePhase.COMMIT, 1, b"A")],
        ),
        ("before CONTRIBUTION is committed", [release((OTHER, SELF))]),
        ("wrong side of U2", [U2_IS_OTHER, release((OTHER, MASK))]),
        ("wrong side of U2", [U2_IS_OTHER, release((THIRD, SELF))]),
        ("reported for 'network', an accident", [Penalise(OTHER, "signature"), Penalise(OTHER, "network")]),
        ("before the aggregate", [U2_IS_OTHER, release((OTHER, CHECK), stage=ReleaseStage.CHECK)]),
    ],
)
def test_misconduct(what: str, effects: Sequence[Effect]) -> None:
    with pytest.raises(InvariantError, match=what):
        Conduct()(node(), effects)


def test_a_record_outlasts_events_and_lives() -> None:
    conduct, me = Conduct(), node()
    conduct(me, [vote(VotePhase.PREPARE, 1, b"A")])
    me.lose_volatile()
    with pytest.raises(InvariantError, match="two PREPARE"):
        conduct(me, [vote(VotePhase.PREPARE, 1, b"B")])
    me.honest = False
    conduct(me, [vote(VotePhase.PREPARE, 1, b"C")])
