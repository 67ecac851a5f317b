"""What a node holds: that it tells of every change, and forgets what no block will cite again."""

from __future__ import annotations

from protocol.checks import Checks
from protocol.cited import Cited
from protocol.codec import digest
from protocol.envelope import Statement, make_statement
from protocol.keys import Identity
from protocol.messages import Complaint, Kind, SealedVote, Transaction, TransactionKind
from protocol.pool import Pool
from sim.scenes import Scene

NETWORK = digest("network")
ONE, OTHER = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))


def vote(round_: int, salt: int, sender: Identity = ONE) -> Statement:
    return make_statement(sender, NETWORK, round_, Kind.SEALED_VOTE, SealedVote(0, bytes([salt]) * 32))


def fund(nonce: int) -> Statement:
    body = Transaction(TransactionKind.FUND, nonce, ONE.peer, 1)
    return make_statement(ONE, NETWORK, 0, Kind.TRANSACTION, body)


def test_every_change_is_told() -> None:
    pool, seen = Pool(), 0

    def changed() -> bool:
        nonlocal seen
        before, seen = seen, len(pool.changes(3, Kind.SEALED_VOTE))
        return seen > before

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
    assert pool.at([second.slot], evidence=False) == [second]
    assert {s.id for s in pool.at([second.slot], evidence=True)} == {first.id, second.id}
    pool.forget_before(4)
    assert pool.of_kind(3, Kind.SEALED_VOTE) == []
    assert pool.by_id(first.id) is pool.by_id(second.id) is None
    assert not pool.changes(3, Kind.SEALED_VOTE)


def test_of_transactions_no_changes_are_told_and_each_is_forgotten_alone() -> None:
    pool = Pool()
    for nonce in (2, 0, 1):
        assert pool.add(fund(nonce))
    assert not pool.changes(0, Kind.TRANSACTION)
    assert [s.id for s in pool.transactions()] == [fund(nonce).id for nonce in range(3)]
    pool.forget(fund(1).slot)
    pool.forget(fund(1).slot)
    assert [s.id for s in pool.transactions()] == [fund(0).id, fund(2).id]


def test_nothing_of_finished_rounds_is_left_in_the_pool() -> None:
    scene = Scene(nodes=4)
    sizes = []
    for round_ in range(1, 5):
        scene.end_round(round_)
        sizes.append(len(scene.engine(scene.observer).pool._rows))
    assert max(sizes[1:]) <= sizes[0] + len(Kind), sizes
    rows = scene.engine(scene.observer).pool._rows
    assert all(round_ >= scene.state.round for round_, _ in rows), rows.keys()


def test_a_kind_is_in_order_whenever_it_is_asked_for() -> None:
    pool, late = Pool(), max(ONE, OTHER, key=lambda identity: identity.peer)
    early = ONE if late is OTHER else OTHER
    assert pool.add(vote(3, 1, late))
    assert [s.sender for s in pool.of_kind(3, Kind.SEALED_VOTE)] == [late.peer]
    assert pool.add(vote(3, 1, early))
    assert [s.sender for s in pool.of_kind(3, Kind.SEALED_VOTE)] == [early.peer, late.peer]


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
