"""Whatever a member sends, a live engine counts it or takes it, says little, and goes on.

The messages are those of real rounds, some of them of other histories of the same network; they are bent
as bytes, and as bodies that a dishonest member signs. docs/PROTOCOL.md section 8.
"""

from __future__ import annotations

from functools import cache
from random import Random

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.codec import decode, encode
from protocol.envelope import Envelope, make_statement
from protocol.ledger.block import StoredBlock, decode_block
from protocol.ledger.state import Phase
from protocol.messages import (
    KIND_RULES,
    MESSAGE_BYTES,
    Blocks,
    Kind,
    Proposal,
)
from sim.fuzzing.bending import Bender, bent_bytes
from sim.fuzzing.histories import LIAR, ground
from sim.fuzzing.victim import Victim

GROUND = ground()
PEERS = GROUND.peers
BENDER = Bender(GROUND)
chances = st.integers(0, 2**64 - 1).map(Random)
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def a_message(draw: Random) -> Envelope:
    """Of any kind alike, however rare it is."""
    return draw.choice(GROUND.corpus[draw.choice(list(GROUND.corpus))])


def test_the_corpus_has_every_kind_and_the_moments_every_phase() -> None:
    assert set(GROUND.corpus) == set(Kind)
    assert {moment.phase for moment in GROUND.moments} == set(Phase)
    assert {kind for kind in Kind if KIND_RULES[kind].payload_bytes} == {
        Kind(envelope.kind) for entries in GROUND.corpus.values() for envelope in entries if envelope.payload
    }


@quick
@given(chances)
def test_bent_bytes_are_refused_and_counted(draw: Random) -> None:
    victim = Victim(draw.choice(GROUND.moments))
    for _ in range(10):
        envelope = attrs.evolve(a_message(draw), payload=b"")
        data = encode(envelope)
        bent = bent_bytes(data, draw)
        if bent != data:
            assert victim.hear(bent, envelope.sender) == 1
    victim.live_on()


@quick
@given(chances)
def test_bent_payloads_are_refused_or_of_no_consequence(draw: Random) -> None:
    """A payload is not signed: the body binds it by digest."""
    victim = Victim(draw.choice(GROUND.moments))
    for kind in (Kind.CONTRIBUTION, Kind.PROPOSAL, Kind.TIMEOUT):
        envelope = draw.choice([entry for entry in GROUND.corpus[kind] if entry.payload])
        bent = attrs.evolve(envelope, payload=bent_bytes(envelope.payload, draw))
        height = victim.engine.height
        victim.hear(encode(bent), envelope.sender)
        assert victim.engine.height == height
        if kind is Kind.CONTRIBUTION:
            held = victim.engine.pool.get(envelope.round, kind, envelope.sender)
            assert held is None or held.envelope.payload != bent.payload
    victim.live_on()


@settings(quick, max_examples=150)
@given(chances)
def test_a_member_that_signs_bent_messages_does_no_harm(draw: Random) -> None:
    victim = Victim(draw.choice(GROUND.moments))
    for _ in range(12):
        envelope = BENDER.bent_body(a_message(draw), draw)
        victim.hear(encode(envelope), envelope.sender)
    victim.live_on()


@settings(quick, max_examples=150)
@given(chances)
def test_a_leader_that_proposes_bent_blocks_is_refused(draw: Random) -> None:
    """With true signatures wherever members have a say. What follows from it must stand in the block."""
    moment = draw.choice([moment for moment in GROUND.moments if moment.proposals()])
    victim = Victim(moment)
    for envelope in moment.proposals():
        block = BENDER.bent_block(decode_block(envelope.payload), draw)
        proposal = decode(Proposal, envelope.body, MESSAGE_BYTES)
        body = encode(attrs.evolve(proposal, block_hash=block.hash))
        lie = BENDER.signed(attrs.evolve(envelope, body=body, payload=encode(block)))
        if block != decode_block(envelope.payload):
            victim.hear(encode(lie), lie.sender)
            assert victim.engine.height == moment.height
    victim.live_on()


@quick
@given(chances)
def test_bent_blocks_that_all_members_certify_are_taken_only_if_they_are_valid(draw: Random) -> None:
    """More than 1/3 are dishonest, so anything may be final: still no rule is broken and no node breaks."""
    moment = draw.choice([moment for moment in GROUND.moments if moment.proposals()])
    victim = Victim(moment)
    supply = victim.engine.state.supply_units
    envelope = draw.choice(moment.proposals())
    block = BENDER.with_its_root(victim.engine, BENDER.bent_block(decode_block(envelope.payload), draw))
    stored = encode(StoredBlock(block, BENDER.certified(block)))
    asked = victim.let_ask(GROUND.identities[LIAR])
    giver = next(identity for identity in GROUND.identities if identity.peer == asked)
    round_ = victim.engine.state.round
    reply = make_statement(giver, GROUND.network, round_, Kind.BLOCKS, Blocks((stored,)))
    refused = victim.hear(reply.to_bytes(), asked)
    assert not victim.engine.rejects["unasked"]
    assert victim.engine.height == moment.height + (not refused)
    assert victim.engine.state.supply_units == supply
    victim.live_on()


@quick
@given(chances)
def test_replays_of_any_history_by_anyone_do_no_harm(draw: Random) -> None:
    """Messages as they were sent, to any moment, in any order, some through another member, some twice."""
    victim = Victim(draw.choice(GROUND.moments))
    for _ in range(25):
        envelope = a_message(draw)
        peer = draw.choice(PEERS[1:]) if draw.random() < 0.2 else envelope.sender
        for _ in range(draw.choice([1, 1, 2])):
            victim.hear(encode(envelope), peer)
    victim.live_on()


@given(st.binary(max_size=300))
def test_noise_is_refused(data: bytes) -> None:
    assert NOISE_VICTIM().hear(data, PEERS[LIAR]) == 1


@cache
def NOISE_VICTIM() -> Victim:  # noqa: N802
    return Victim(GROUND.moments[0])
