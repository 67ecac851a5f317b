"""What a node holds: that it tells of every change, and forgets what no block will cite again."""

from __future__ import annotations

from protocol.checks import Checks
from protocol.cited import Cited
from protocol.codec import digest
from protocol.envelope import Statement, make_statement
from protocol.keys import Identity
from protocol.messages import Complaint, Kind, SealedVote, Transaction, TransactionKind
from protocol.pool import Pool

NETWORK = digest("network")
ONE, OTHER = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))


def vote(round_: int, salt: int, sender: Identity = ONE) -> Statement:
    return make_statement(sender, NETWORK, round_, Kind.SEALED_VOTE, SealedVote(0, bytes([salt]) * 32))


def fund(nonce: int) -> Statement:
    body = Transaction(TransactionKind.FUND, nonce, ONE.peer, 1)
    return make_statement(ONE, NETWORK, 0, Kind.TRANSACTION, body)


def test_every_change_has_a_version_of_its_own() -> None:
    pool, seen = Pool(), {0}

    def changed() -> bool:
        new = pool.version not in seen
        seen.add(pool.version)
        return new

    first, second, third = (vote(3, salt) for salt in (1, 2, 3))
    assert pool.add(first)
    assert changed()
    assert not pool.add(first)
    assert not changed()
    assert pool.add(second)
    assert changed()
    assert not pool.add(third)
    assert not changed()
    pool.replace_by_cited(second.slot, second)
    assert changed()
    assert pool.add(fund(0))
    assert changed()
    pool.forget(fund(0).slot)
    assert changed()
    pool.forget(fund(0).slot)
    assert not changed()
    pool.forget_before(4)
    assert changed()
    assert pool.of_kind(3, Kind.SEALED_VOTE) == []


def test_what_was_opened_of_finished_rounds_is_forgotten() -> None:
    cited = Cited(NETWORK, Checks())
    old, new = vote(3, 1), vote(4, 1)
    complaint = make_statement(OTHER, NETWORK, 4, Kind.COMPLAINT, Complaint(ONE.peer))
    for statement in (old, new, complaint, fund(0)):
        cited.remember(statement)
    cited.forget_before(4)
    assert set(cited._opened) == {new.cited(), complaint.cited()}
    assert cited.held_bytes == len(new.cited()) + len(complaint.cited())
    assert cited.open(old.cited()).id == old.id
    assert cited.open(fund(0).cited()).id == fund(0).id
