"""What the fuzz targets found, each as the messages that did it. docs/PROTOCOL.md sections 7.2 and 8.6."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from protocol import cited as cited_module
from protocol.checks import Checks
from protocol.cited import Cited
from protocol.codec import encode
from protocol.consensus import Action, Agreement, Emit, Safety, leader_of
from protocol.early import EARLY_BYTES
from protocol.envelope import make_statement, open_envelope
from protocol.events import Effect, Penalise, Received, TimerFired
from protocol.keys import Identity
from protocol.ledger.block import Block, BlockKind, decode_block
from protocol.ledger.state import Phase
from protocol.messages import MAX_VIEW, Certificate, Kind, Proposal, Timeout, Vote, VotePhase
from sim.fuzzing.bending import Bender
from sim.fuzzing.bounds import check_bounds
from sim.fuzzing.histories import LIAR, ground
from sim.fuzzing.victim import Victim

NETWORK = bytes(32)
IDENTITIES = sorted((Identity.from_seed(bytes([i]) * 32) for i in range(4)), key=lambda one: one.peer)
PEERS = tuple(identity.peer for identity in IDENTITIES)


def agreement_of_the_leader_of(view: int) -> Agreement:
    """At the first height at which member 0 leads this view."""
    height = next(h for h in range(1, 50) if leader_of(PEERS, h, view) == PEERS[0])
    return Agreement(
        me=PEERS[0],
        network=NETWORK,
        round=1,
        validators=PEERS,
        order=PEERS,
        base_ms=100,
        cap_ms=1_000,
        opener=lambda data: open_envelope(data, NETWORK, stripped=True),
        safety=Safety(height),
    )


def a_block(height: int) -> Block:
    return Block(height, 1, BlockKind.OPEN, bytes(32), bytes(32), PEERS[1], 1, (), b"")


def prepared(block: Block, view: int) -> Certificate:
    vote = Vote(VotePhase.PREPARE, block.height, view, block.hash)
    signed = [make_statement(identity, NETWORK, 1, Kind.VOTE, vote) for identity in IDENTITIES[1:]]
    return Certificate(1, vote, tuple((s.sender, s.envelope.signature) for s in signed))


def give_up(agreement: Agreement, view: int, qc: Certificate | None, payload: bytes = b"") -> list[Action]:
    """What follows from the time-outs of all the others."""
    actions = []
    for identity in IDENTITIES[1:]:
        body = Timeout(agreement.height, view, qc)
        actions += agreement.on_timeout(make_statement(identity, NETWORK, 1, Kind.TIMEOUT, body, payload))
    return actions


def proposals(actions: Sequence[Action]) -> list[Proposal]:
    return [a.body for a in actions if isinstance(a, Emit) and isinstance(a.body, Proposal)]


@pytest.mark.parametrize(("qc_view", "proposes"), [(1, True), (2, False), (3, False)])
def test_a_leader_that_the_others_have_overtaken_proposes_nothing(qc_view: int, proposes: bool) -> None:
    """Whoever helps a straggler names its high_qc, which may be of a view that the straggler has not reached.

    The straggler, once the help of a quorum takes it into a view that it leads, proposed on top of it,
    refused its own proposal, and raised.
    """
    agreement = agreement_of_the_leader_of(2)
    block = a_block(agreement.height)
    actions = give_up(agreement, 1, prepared(block, qc_view), encode(block))
    made = proposals(actions)
    assert agreement.view == 2
    assert bool(made) == proposes
    for body in made:
        agreement.on_proposal(make_statement(IDENTITIES[0], NETWORK, 1, Kind.PROPOSAL, body, encode(block)))


def test_after_the_last_view_there_is_none() -> None:
    """A quorum that claims to have given up on it took the node to a view that no message can name."""
    agreement = agreement_of_the_leader_of(2)
    give_up(agreement, MAX_VIEW, None)
    assert agreement.view == MAX_VIEW
    assert agreement.on_view_timer(MAX_VIEW) == []
    for action in agreement.resend():
        assert isinstance(action, Emit)
        encode(action.body)


def test_only_the_time_outs_that_still_justify_something_are_kept_and_without_their_blocks() -> None:
    agreement = agreement_of_the_leader_of(2)
    for view in range(1, 30):
        give_up(agreement, view, None, payload=bytes(100_000))
    kept = [s for senders in agreement._timeouts.values() for s in senders.values()]
    assert len(kept) <= 2 * len(PEERS)
    assert not any(statement.envelope.payload for statement in kept)


def test_what_waits_for_the_next_height_has_a_bound_in_bytes() -> None:
    """64 messages of a megabyte each were kept of every peer."""
    network = ground()
    victim = Victim(next(m for m in network.moments if m.phase is Phase.CONTRIBUTE))
    engine, identity = victim.engine, network.identities[LIAR]
    for view in range(1, 20):
        body = Proposal(engine.height + 2, view, bytes(32), None, ())
        message = make_statement(
            identity, network.network, engine.state.round, Kind.PROPOSAL, body, bytes(500_000)
        )
        victim.handle(Received(identity.peer, message.to_bytes()))
        check_bounds(engine)
    assert 4 < engine.negotiation.early_messages()[identity.peer] < 10
    assert engine.negotiation.early_bytes()[identity.peer] <= EARLY_BYTES


def test_what_leaders_cite_has_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """4096 envelopes of half a megabyte each were remembered, whoever signed them for whatever proposal."""
    monkeypatch.setattr(cited_module, "CACHE_BYTES", 1 << 20)
    cited = Cited(NETWORK, Checks())
    signatures = tuple((i.to_bytes(32, "big"), bytes(64)) for i in range(400))
    for view in range(1, 51):
        certificate = Certificate(1, Vote(VotePhase.PREPARE, 1, view, bytes(32)), signatures)
        statement = make_statement(IDENTITIES[0], NETWORK, 1, Kind.TIMEOUT, Timeout(1, view, certificate))
        assert cited.open(statement.cited()).id == statement.id
        assert cited.held_bytes == sum(map(len, cited._opened))
        assert cited.held_bytes <= 1 << 20
    assert 20 < len(cited._opened) < 50


def test_a_leader_that_a_certificate_forces_to_propose_what_is_invalid_does_not_report_itself() -> None:
    """More than 1/3 have certified it, which section 11.1 rules out; the node reported its own key."""
    network = ground()
    bender = Bender(network)
    moment = next(m for m in network.moments if m.phase is Phase.CONTRIBUTE and m.proposals())
    victim = Victim(moment)
    engine = victim.engine
    block = decode_block(moment.proposals()[0].payload)
    invalid = Block(*(getattr(block, name) for name in ("height", "round", "kind", "parent")), bytes(32),
                    block.leader, block.view, block.readys, block.body)  # fmt: skip
    view = next(v for v in range(2, 9) if leader_of(engine.agreement.order, block.height, v) == engine.me)
    qc = bender.certificate(block.round, Vote(VotePhase.PREPARE, block.height, view - 1, invalid.hash))
    said: list[Effect] = victim.handle(TimerFired("soft"))
    for identity in network.identities:
        if identity.peer != engine.me:
            body = Timeout(block.height, view - 1, qc)
            message = make_statement(
                identity, network.network, block.round, Kind.TIMEOUT, body, encode(invalid)
            )
            said += victim.handle(Received(identity.peer, message.to_bytes()))
    assert engine.rejects["block"] == 1
    assert not [e for e in said if isinstance(e, Penalise)]
