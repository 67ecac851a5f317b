"""What a live engine makes of statements that it should not take: it counts them, and says who sent them."""

from __future__ import annotations

import attrs
import pytest

from protocol.codec import encode
from protocol.engine import Engine
from protocol.envelope import Statement, make_statement, open_envelope
from protocol.events import Notify, Penalise, Received
from protocol.keys import Identity, peer_name
from protocol.ledger.state import Phase
from protocol.messages import (
    Body,
    Complaint,
    DealerEvidence,
    KeyAdvert,
    Kind,
    Ready,
    Receipt,
    SealedVote,
    Statements,
    Transaction,
    TransactionKind,
    Witness,
)
from sim.scenes import Scene


def b32(value: int) -> bytes:
    return bytes([value]) * 32


ADVERT = KeyAdvert(b32(1), b32(2), b32(3) * 3, b32(4) * 3)


class Live:
    """A node in the middle of phase 2 of its second round, and what the others have to say to it."""

    def __init__(self) -> None:
        self.scene = Scene(nodes=4, seed=3)
        self.scene.end_round()
        self.scene.run_until(0, Phase.AGGREGATE)
        self.engine: Engine = self.scene.engine(0)
        self.network = self.engine.network

    def sent(self, kind: Kind, round_: int) -> Statement:
        """A message of another node."""
        return next(s for i, s in self.scene.statements(kind, round_) if i and s.sender != self.engine.me)

    def receive(self, data: bytes, peer: bytes) -> tuple[list[str], bool]:
        """Reasons newly counted, and whether the sender is reported."""
        before = self.engine.rejects.copy()
        effects = self.engine.handle(Received(peer, data), self.now)
        new = self.engine.rejects - before
        return sorted(new.elements()), any(isinstance(effect, Penalise) for effect in effects)

    @property
    def now(self) -> int:
        return self.scene.world.nodes[0].clock.read(self.scene.world.now)

    def make(self, kind: Kind, body: Body, payload: bytes = b"", round_: int = 2, who: int = 1) -> bytes:
        identity = self.scene.founding.identities[who]
        return make_statement(identity, self.network, round_, kind, body, payload).to_bytes()

    def peer(self, who: int) -> bytes:
        return self.scene.peer(who)


@pytest.fixture(scope="module")
def live() -> Live:
    return Live()


def test_the_same_statement_twice_changes_nothing(live: Live) -> None:
    statement = live.sent(Kind.CONTRIBUTION, 2)
    held = live.engine.pool.by_id(statement.id)
    for _ in range(3):
        effects = live.engine.handle(Received(statement.sender, statement.to_bytes()), live.now)
        assert effects == []
    assert live.engine.pool.by_id(statement.id) is held


def test_a_statement_may_come_from_anyone_and_a_message_only_from_its_sender(live: Live) -> None:
    advert = live.sent(Kind.KEY_ADVERT, 3)
    assert live.receive(advert.to_bytes(), live.peer(3)) == ([], False)
    ready = live.make(Kind.READY, Ready(1, 0, (), ()))
    assert live.receive(ready, live.peer(2)) == (["relayed"], True)
    assert live.receive(ready, live.peer(1)) == ([], False)


@pytest.mark.parametrize("kind", [Kind.KEY_ADVERT, Kind.SHARE_BUNDLE, Kind.CONTRIBUTION, Kind.REVEAL])
def test_statements_of_a_round_that_is_over_are_stale_but_no_crime(live: Live, kind: Kind) -> None:
    statement = live.sent(kind, 1)
    assert live.receive(statement.to_bytes(), statement.sender) == (["stale"], False)


def test_statements_of_a_far_round_are_early_but_no_crime(live: Live) -> None:
    far = live.make(Kind.SEALED_VOTE, SealedVote(0, b32(1)), round_=4)
    assert live.receive(far, live.peer(1)) == (["early"], False)
    assert live.receive(live.make(Kind.KEY_ADVERT, ADVERT, round_=5), live.peer(1))[0] == ["early"]


def test_other_refusals_are_counted_and_reported(live: Live) -> None:
    stranger = Identity.from_seed(b32(200))
    advert = make_statement(stranger, live.network, 2, Kind.KEY_ADVERT, ADVERT)
    assert live.receive(advert.to_bytes(), live.peer(1)) == (["stranger"], True)
    assert live.receive(b"noise", live.peer(1)) == (["malformed"], True)
    about_nobody = live.make(Kind.COMPLAINT, Complaint(b32(77)))
    assert live.receive(about_nobody, live.peer(1)) == (["slot"], True)
    many_attempts = live.make(Kind.RECEIPT, Receipt(200, live.peer(2), b32(1)))
    assert live.receive(many_attempts, live.peer(1)) == (["slot"], True)


def test_another_network_or_version_is_an_accident_that_nobody_pays_for(live: Live) -> None:
    """It is told once for each peer and what it speaks, and once more when the peer's messages open again."""
    peer = live.peer(1)
    mine = live.make(Kind.READY, Ready(1, 0, (), ()))
    witness = make_statement(
        live.scene.founding.identities[1], b32(9), 2, Kind.WITNESS, Witness(peer, b32(1))
    )
    newer = encode(attrs.evolve(witness.envelope, version=2, network=live.network))
    unknown = encode(attrs.evolve(witness.envelope, kind=200, network=live.network))
    cases = [("network", witness.to_bytes(), b32(9).hex()), ("version", newer, "2"), ("kind", unknown, "200")]
    for reason, message, theirs in cases:
        effects = [live.engine.handle(Received(peer, message), live.now) for _ in range(50)]
        told = [effect for performed in effects for effect in performed]
        network = live.network.hex()
        fields = {"peer": peer_name(peer), "reason": reason, "theirs": theirs, "network": network}
        assert told == [Notify("foreign", fields)]
        assert live.engine.handle(Received(peer, mine), live.now)[0] == Notify(
            "native", {"peer": fields["peer"]}
        )
    assert live.engine.rejects["network"] >= 50


def test_what_is_relayed_of_another_network_is_an_offence_of_who_relays_it(live: Live) -> None:
    witness = Witness(live.peer(2), b32(1))
    foreign = make_statement(live.scene.founding.identities[1], b32(9), 2, Kind.WITNESS, witness)
    batch = live.make(Kind.STATEMENTS, Statements((foreign.to_bytes(),)))
    assert live.receive(batch, live.peer(1)) == (["relayed"], True)


def test_a_contribution_without_its_commitment_is_refused(live: Live) -> None:
    """Of three proposers one sends nothing, cuts its payload, or sends another one."""
    true = live.sent(Kind.CONTRIBUTION, 2)
    stripped = attrs.evolve(true.envelope, payload=b"")
    swapped = attrs.evolve(true.envelope, payload=true.envelope.payload[:-4] + bytes(4))
    for envelope in (stripped, swapped):
        assert live.receive(encode(envelope), true.sender) == (["payload"], True)


def test_evidence_that_proves_nothing_is_refused(live: Live) -> None:
    claim = live.make(Kind.DEALER_EVIDENCE, DealerEvidence(live.peer(2), bytes(100)))
    assert live.receive(claim, live.peer(1)) == (["evidence"], True)


def test_a_second_statement_in_a_slot_is_kept_as_evidence_and_a_third_is_not(live: Live) -> None:
    votes = [live.make(Kind.SEALED_VOTE, SealedVote(0, b32(value))) for value in (1, 2, 3)]
    first, second, third = (open_envelope(data, live.network) for data in votes)
    assert live.receive(votes[0], live.peer(1)) == ([], False)
    effects = live.engine.handle(Received(live.peer(2), votes[1]), live.now)
    assert any(isinstance(effect, Notify) and effect.kind == "equivocation" for effect in effects)
    assert live.engine.handle(Received(live.peer(2), votes[2]), live.now) == []
    assert live.engine.pool.conflicts[first.slot] == (first, second)
    assert live.engine.pool.get_slot(first.slot) == first
    assert live.engine.pool.by_id(third.id) is None


def test_transactions_belong_to_no_round_and_few_of_them_wait(live: Live) -> None:
    def leave(nonce: int, round_: int = 0) -> bytes:
        body = Transaction(TransactionKind.LEAVE, nonce, live.peer(1), 0)
        return live.make(Kind.TRANSACTION, body, round_=round_)

    assert live.receive(leave(0, round_=2), live.peer(1)) == (["slot"], True)
    assert live.receive(leave(15), live.peer(1)) == ([], False)
    assert live.receive(leave(16), live.peer(1)) == (["stale"], False)


def test_a_batch_ends_at_its_first_bad_entry(live: Live) -> None:
    good = live.make(Kind.WITNESS, Witness(live.peer(2), b32(1)), who=3)
    ready = live.make(Kind.READY, Ready(1, 0, (), ()))
    for bad, reason in [(b"noise", "malformed"), (ready, "relayed")]:
        batch = live.make(Kind.STATEMENTS, Statements((bad, good)))
        assert live.receive(batch, live.peer(1)) == ([reason], True)
    assert live.engine.pool.by_id(open_envelope(good, live.network).id) is None
