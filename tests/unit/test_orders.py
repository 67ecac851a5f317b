"""The operator's orders: numbering, refusals with figures, replacement, expiry, crashes (§6, §7.5, §7.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import evolve

from protocol import orders as orders_module
from protocol.codec import digest, encode
from protocol.envelope import Statement, make_statement
from protocol.events import Command, Persist, Received
from protocol.keys import Identity
from protocol.ledger.block import BlockKind
from protocol.ledger.chain import plain_opener
from protocol.ledger.state import Account, LedgerState, genesis_state
from protocol.ledger.transactions import Cause, Obstacle, apply_transaction, obstacle_to, tokens_text
from protocol.messages import MAX_REVISION, Kind, Transaction, TransactionKind
from protocol.order import Order
from protocol.orders import number_order, reasons_to_wait
from protocol.pinning import Rules
from protocol.pool import Pool
from protocol.round import block_effect, transactions_applied
from sim.adversaries.leaders import Censor
from sim.attacks.trial import ledger_of
from sim.filters import Filter
from sim.founding import STAKE_UNITS, found, small_params
from sim.invariants.contract import Contract
from sim.reading import read_statement
from sim.scenes import Scene

K = TransactionKind
TOKEN = 1_000_000
PARAMS = small_params(5)
BOND = PARAMS.fault_penalty_units
FOUNDING = found(5, 1, PARAMS)
ME, OTHER = (identity.peer for identity in FOUNDING.identities[:2])
STRANGER = Identity.from_seed(bytes([9]) * 32).peer


def state(**changes: Any) -> LedgerState:
    """At genesis, but for this node's account."""
    first = genesis_state(FOUNDING.genesis)
    accounts = tuple(
        (peer, evolve(account, **changes) if peer == ME else account) for peer, account in first.accounts
    )
    return evolve(first, accounts=accounts)


def order(kind: K, units: int = 0, peer: bytes = OTHER, replaces: int | None = None) -> Order:
    return Order(bytes(16), kind, peer, units, replaces)


def transaction(kind: K, nonce: int, units: int = 0, revision: int = 0) -> Transaction:
    return Transaction(kind, nonce, OTHER if kind is K.TRANSFER else ME, units, revision)


def numbered(
    wanted: Order, waiting: Mapping[int, Transaction] | None = None, at: LedgerState | None = None
) -> tuple[Transaction, Obstacle | None]:
    return number_order(at or state(), PARAMS, ME, waiting or {}, wanted)


# -- why one does not apply ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "changes", "cause", "words"),
    [
        (order(K.TRANSFER, STAKE_UNITS - BOND + 1), {}, Cause.BEYOND_STAKE,
         "at most 32 tokens can be moved: 64 stake less the bond of 32"),
        (order(K.FUND, 70 * TOKEN), {}, Cause.BEYOND_STAKE, "at most 32 tokens"),
        (order(K.FUND, 1), {"stake_units": 1_500_000}, Cause.BEYOND_STAKE, "at most 0 tokens"),
        (order(K.TRANSFER, 0), {}, Cause.NO_AMOUNT, "more than nothing"),
        (order(K.FUND, 0), {}, Cause.NO_AMOUNT, "more than nothing"),
        (order(K.TRANSFER, 5, ME), {}, Cause.TO_ITSELF, "another peer"),
        (order(K.JOIN), {}, Cause.IS_MEMBER, "member already"),
        (order(K.JOIN), {"member": False, "stake_units": 63_900_000}, Cause.STAKE_TOO_SMALL,
         "needs a stake of 64 tokens, and it has 63.9"),
        (order(K.LEAVE), {"member": False}, Cause.IS_NO_MEMBER, "no member"),
        (order(K.CANCEL, replaces=3), {}, Cause.NOTHING_WAITS, "number 3 waits"),
        (order(K.CANCEL), {}, Cause.NOTHING_WAITS, "number 0 waits"),
        (order(K.FUND, 5, replaces=0), {"nonce": 1}, Cause.NOTHING_WAITS, "number 0 waits"),
    ],
)  # fmt: skip
def test_what_cannot_apply_is_refused_with_the_reason(
    wanted: Order, changes: Mapping[str, Any], cause: Cause, words: str
) -> None:
    _, obstacle = numbered(wanted, at=state(**changes))
    assert obstacle is not None
    assert obstacle.cause is cause
    assert words in str(obstacle)


def test_every_cause_has_words_and_who_has_no_account_is_told() -> None:
    assert all(str(Obstacle(cause)) for cause in Cause)
    _, obstacle = number_order(state(), PARAMS, STRANGER, {}, order(K.FUND, 5))
    assert obstacle is not None
    assert obstacle.cause is Cause.NO_ACCOUNT


def test_who_has_left_may_move_all_it_has_but_not_in_the_round_that_it_leaves_in() -> None:
    left = state(member=False)
    assert numbered(order(K.FUND, STAKE_UNITS), at=left)[1] is not None
    gone = evolve(left, validators=tuple(peer for peer in left.validators if peer != ME))
    assert numbered(order(K.FUND, STAKE_UNITS), at=gone)[1] is None
    _, obstacle = numbered(order(K.FUND, STAKE_UNITS + 1), at=gone)
    assert str(obstacle) == "at most 64 tokens can be moved: 64 stake"


def test_what_waits_counts_in_the_figure() -> None:
    waiting = {0: transaction(K.TRANSFER, 0, 20 * TOKEN), 1: transaction(K.FUND, 1, 2_500_000)}
    made, obstacle = numbered(order(K.TRANSFER, 10 * TOKEN), waiting)
    assert (made.nonce, made.revision) == (2, 0)
    figures = "64 stake less the bond of 32 and 22.5 that waiting transactions move"
    assert str(obstacle) == f"at most 9.5 tokens can be moved: {figures}"
    assert numbered(order(K.TRANSFER, 9_500_000), waiting)[1] is None
    # The one that it replaces does not.
    made, obstacle = numbered(order(K.TRANSFER, 29_500_000, replaces=0), waiting)
    assert (made.nonce, made.revision, obstacle) == (0, 1, None)
    # One that cannot apply will be cancelled.
    assert numbered(order(K.FUND, 32 * TOKEN), {0: transaction(K.FUND, 0, 40 * TOKEN)})[1] is None


def test_numbers_are_the_lowest_free_ones_and_no_more_than_a_window_wait() -> None:
    at = state(nonce=7)
    assert numbered(order(K.FUND, 1), at=at)[0].nonce == 7
    waiting = {nonce: transaction(K.FUND, nonce, 1) for nonce in (7, 8, 10)}
    assert numbered(order(K.FUND, 1), waiting, at)[0].nonce == 9
    waiting = {nonce: transaction(K.FUND, nonce, 1) for nonce in range(7, 23)}
    _, obstacle = numbered(order(K.FUND, 1), waiting, at)
    assert obstacle is not None
    assert obstacle.cause is Cause.TOO_MANY_WAIT
    assert numbered(order(K.CANCEL, replaces=22), waiting, at)[1] is None
    waiting[8] = evolve(waiting[8], revision=MAX_REVISION)
    _, obstacle = numbered(order(K.CANCEL, replaces=8), waiting, at)
    assert obstacle is not None
    assert obstacle.cause is Cause.REPLACED_TOO_OFTEN
    # The last revision is a cancel's, which outranks every other version.
    waiting[8] = evolve(waiting[8], revision=MAX_REVISION - 1)
    assert numbered(order(K.CANCEL, replaces=8), waiting, at)[0].revision == MAX_REVISION
    _, obstacle = numbered(order(K.FUND, 1, replaces=8), waiting, at)
    assert obstacle is not None
    assert obstacle.cause is Cause.REPLACED_TOO_OFTEN


def test_why_each_must_wait() -> None:
    waiting = {
        0: transaction(K.FUND, 0, 30 * TOKEN),
        1: transaction(K.FUND, 1, 3 * TOKEN),
        2: transaction(K.FUND, 2, 1),
        4: transaction(K.FUND, 4, 1),
    }
    reasons = reasons_to_wait(state(), PARAMS, ME, waiting)
    assert {number: reason.cause for number, reason in reasons.items()} == {
        1: Cause.BEYOND_STAKE, 2: Cause.NUMBER_AHEAD, 4: Cause.NUMBER_AHEAD,
    }  # fmt: skip
    assert reasons[4].number == 1
    waiting[1] = transaction(K.CANCEL, 1, revision=1)
    assert reasons_to_wait(state(), PARAMS, ME, waiting) == {4: Obstacle(Cause.NUMBER_AHEAD, number=3)}


@pytest.mark.parametrize(
    ("units", "text"),
    [(0, "0"), (1, "0.000001"), (TOKEN, "1"), (1_234_500_000_000, "1,234,500"), (-2_500_000, "-2.5")],
)
def test_tokens_are_exact(units: int, text: str) -> None:
    assert tokens_text(units) == text


def test_a_cancel_applies_to_whatever_account_and_uses_the_number_alone() -> None:
    for account in (Account(0, False, 4), Account(5, True, 4), Account(STAKE_UNITS, True, 4)):
        at = state(stake_units=account.stake_units, member=account.member, nonce=4)
        cancel = transaction(K.CANCEL, 4, 77, 3)
        assert obstacle_to(at, PARAMS, ME, cancel) is None
        after = apply_transaction(at, PARAMS, ME, cancel)
        assert after is not None
        assert after.account(ME) == evolve(account, nonce=5)
        assert evolve(after, accounts=at.accounts) == at


# -- two of one slot -----------------------------------------------------------------------------------

NETWORK = digest("network")


def signed(nonce: int, revision: int, amount: int = 1) -> Statement:
    body = Transaction(K.FUND, nonce, ME, amount, revision)
    return make_statement(FOUNDING.identities[0], NETWORK, 0, Kind.TRANSACTION, body)


def test_pools_hold_the_same_one_whatever_order_they_hear_them_in() -> None:
    versions = [signed(3, 0), signed(3, 1), signed(3, 1, 2), signed(3, 1, 3), signed(3, 7)]
    for best in range(1, len(versions) + 1):
        heard = versions[:best]
        held = set()
        for turn in range(best):
            pool = Pool()
            for statement in heard[turn:] + heard[:turn]:
                pool.add(statement)
            (one,) = pool.transactions()
            held.add(one.id)
            assert pool.by_id(one.id) is one
            assert all(pool.by_id(s.id) is None for s in heard if s.id != one.id)
            assert not pool.conflicts
        assert len(held) == 1
        assert held <= {s.id for s in heard if s.body.revision == max(h.body.revision for h in heard)}  # type: ignore[union-attr]


# -- networks ------------------------------------------------------------------------------------------


def status(scene: Scene, index: int, order_id: bytes) -> str:
    return str(scene.orders(index)[order_id.hex()]["status"])


def nonce(scene: Scene, index: int) -> int:
    account = scene.state.account(scene.peer(index))
    assert account is not None
    return account.nonce


def test_three_in_a_row_get_three_numbers_and_one_block() -> None:
    scene = Scene()
    ids = [scene.order(0, K.TRANSFER, scene.peer(1), units) for units in (1, 2, 3)]
    scene.world.run_for(100)
    assert [row["number"] for row in scene.waiting(0)] == [0, 1, 2]
    assert {row["why"] for row in scene.waiting(0)} == {None}
    scene.end_round()
    assert [status(scene, 0, each) for each in ids] == ["carried"] * 3
    assert len(scene.body(BlockKind.OPEN).closing.transactions) == 3  # the first block of all
    account = scene.state.account(scene.peer(0))
    assert account is not None
    rows = [scene.orders(0)[each.hex()] for each in ids]
    assert {(row["height"], row["stake_units"]) for row in rows} == {(1, STAKE_UNITS - 6)}
    assert scene.waiting(0) == []


class Hoarder(Filter):
    """Never lets go of the first version of a transaction: later ones do not reach its engine."""

    def __init__(self) -> None:
        self.known: dict[tuple[bytes, int], bytes] = {}

    def events(self, event: Any) -> list[Any]:
        if isinstance(event, Received):
            statement = read_statement(event.data)
            body = statement.body
            if isinstance(body, Transaction):
                first = self.known.setdefault((statement.sender, body.nonce), event.data)
                return [event] if first == event.data else []
            if statement.kind is Kind.STATEMENTS:
                return []
        return [event]


@pytest.mark.parametrize("hoarders", [1, 2, 5])
@pytest.mark.parametrize("drop", [True, False])
def test_whatever_leaders_prefer_one_of_two_versions_uses_the_number(hoarders: int, drop: bool) -> None:
    """A block may carry either, and never both; those behind it go on."""

    def cast(scene: Scene) -> dict[int, Filter]:
        return {i: Hoarder() for i in range(6, 6 - hoarders, -1)}

    scene = Scene(cast, nodes=7)
    scene.world.run_for(300)  # until all are connected
    first = scene.order(0, K.TRANSFER, scene.peer(1), 5)
    behind = scene.order(0, K.FUND, units=7)
    scene.world.run_for(300)
    second = scene.order(0, K.CANCEL if drop else K.FUND, units=0 if drop else 9, replaces=0)
    scene.end_round(2)
    assert nonce(scene, 0) == 2
    ends = status(scene, 0, first), status(scene, 0, second)
    assert ends in {("dropped" if drop else "replaced", "carried"), ("carried", "overtaken")}
    assert status(scene, 0, behind) == "carried"


def test_a_replacement_reaches_who_was_cut_off_by_repair() -> None:
    scene = Scene(nodes=5)
    first = scene.order(0, K.FUND, units=5)
    scene.world.run_for(100)
    scene.world.partition([[0], [1, 2], [3, 4]])
    drop = scene.order(0, K.CANCEL, replaces=0)
    scene.world.run_for(2_000)
    assert status(scene, 0, first) == "waiting"
    scene.world.heal()
    scene.world.run_for(5_000)
    pools = [list(scene.engine(index).pool.transactions()) for index in range(5)]
    held = {s.body.revision for pool in pools for s in pool if isinstance(s.body, Transaction)}
    assert held <= {1}
    scene.end_round(1)
    assert (status(scene, 0, first), status(scene, 0, drop)) == ("dropped", "carried")


def blocked_scene(**changes: Any) -> tuple[Scene, bytes, bytes]:
    """Node 0 has signed a transfer that its stake does not allow any more, and one behind it."""
    scene = Scene(**changes)
    engine = scene.engine(0)
    most = STAKE_UNITS - scene.params.fault_penalty_units
    stuck = scene.order(0, K.TRANSFER, scene.peer(1), most)
    behind = scene.order(0, K.LEAVE)
    scene.world.run_for(10)
    # It loses something before the block: taken off by the ledger of every node, as a penalty would.
    for node in scene.world.nodes:
        poor = scene.engine(node.index)
        accounts = tuple(
            (peer, evolve(account, stake_units=account.stake_units - TOKEN) if peer == engine.me else account)
            for peer, account in poor.chain.state.accounts
        )
        poor.chain.state = evolve(
            poor.chain.state, accounts=accounts, treasury_units=poor.chain.state.treasury_units + TOKEN
        )
    return scene, stuck, behind


def test_one_that_does_not_apply_is_cancelled_after_three_rounds_and_frees_those_behind() -> None:
    scene, stuck, behind = blocked_scene(pool_rounds=1_000_000)
    scene.world.run_for(2_000)
    first, second = scene.waiting(0)
    assert "at most 31 tokens" in str(first["why"])
    assert "number 0 comes first" in str(second["why"])
    scene.end_round(5)
    row = scene.orders(0)[stuck.hex()]
    assert (row["status"], nonce(scene, 0)) == ("expired", 2)
    assert "did not apply for too long: at most" in row["why"]
    assert status(scene, 0, behind) == "carried"


def test_where_no_round_ends_the_clock_frees_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "STUCK_MS", 60_000)
    scene, stuck, _ = blocked_scene()
    scene.world.partition([[0, 1], [2, 3], [4]])  # no quorum, no block
    scene.world.run_for(70_000)
    assert [row["kind"] for row in scene.waiting(0)] == ["cancel", "leave"]
    assert {row["why"] for row in scene.waiting(0)} == {None}
    assert status(scene, 0, stuck) == "waiting"


def test_a_number_that_nobody_gave_is_cancelled_too() -> None:
    scene = Scene()
    scene.spread(0, Transaction(K.FUND, 1, scene.peer(0), 5))
    scene.world.run_for(1_000)
    assert [row["why"] for row in scene.waiting(0)] == ["number 0 comes first, and is not there"]
    scene.end_round(5)
    assert nonce(scene, 0) == 2


def test_a_hostile_leader_that_leaves_transactions_out_delays_them_only() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        genesis = scene.founding.genesis
        return {
            index: Censor(scene.founding.identities[index], genesis.network, genesis, scene.peer(0))
            for index in (5, 6)
        }

    scene = Scene(cast, nodes=7)
    ids = [scene.order(0, K.FUND, units=units) for units in (1, 2, 3)]
    scene.world.run(lambda _: nonce(scene, 0) == 3, max_virtual_ms=300_000)
    scene.world.run_for(2_000)
    assert [status(scene, 0, each) for each in ids] == ["carried"] * 3


# -- crashes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effects", range(7))
def test_a_crash_at_any_effect_loses_no_order_and_doubles_none(effects: int) -> None:
    """The shell gives the order again until it was taken, and a copy of its file later on."""
    scene = Scene()
    copy = encode(Order(bytes([7]) * 16, K.FUND, bytes(32), 5))
    scene.world.crash(0, after_effects=effects, restart_ms=50)
    scene.world.command(0, copy)
    scene.world.run_for(200)
    scene.world.command(0, copy)
    scene.end_round()
    scene.world.command(0, copy)
    scene.end_round(2)
    account = scene.state.account(scene.peer(0))
    assert account is not None
    assert account.nonce == 1
    (row,) = scene.orders(0).values()
    assert (row["number"], row["status"]) == (0, "carried")
    assert len(scene.world.nodes[0].records["order"]) == 1


def test_a_record_whose_transaction_is_lost_has_it_signed_again_byte_for_byte() -> None:
    scene = Scene()
    scene.order(0, K.FUND, units=5)
    scene.order(0, K.FUND, units=6, replaces=0)
    scene.world.run_for(10)
    records = scene.world.nodes[0].records["statement"]
    before = {key: value for key, value in records.items() if key.startswith(bytes(8))}
    scene.world.partition([[0], [1, 2, 3, 4]])
    scene.world.crash(0)
    for key in before:
        del records[key]
    scene.world.nodes[0].records["order"][b"damaged"] = b"\xff"
    scene.world.restart(0)
    scene.world.run_for(10)
    assert {key: value for key, value in records.items() if key.startswith(bytes(8))} == before
    assert len(before) == 1
    assert scene.notes("damaged_record")
    assert [row["amount_units"] for row in scene.waiting(0)] == [6]


def test_what_became_of_orders_is_known_after_a_restart() -> None:
    scene = Scene()
    carried = scene.order(0, K.FUND, units=5)
    refused = scene.order(0, K.JOIN)
    scene.end_round()
    shown = scene.orders(0)
    scene.world.crash(0, restart_ms=10)
    scene.world.run_for(500)
    assert scene.orders(0) == shown
    assert (status(scene, 0, carried), status(scene, 0, refused)) == ("carried", "refused")


def test_a_node_remembers_so_many_orders_and_refuses_what_may_be_older(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orders_module, "ORDERS_KEPT", 3)
    scene = Scene()
    ids = [scene.order(0, K.JOIN) for _ in range(5)]
    scene.world.run_for(10)
    assert sorted(scene.world.nodes[0].records["order"]) == ids[2:]
    scene.world.command(0, encode(Order(ids[0], K.FUND, bytes(32), 5)))
    scene.world.run_for(10)
    row = scene.orders(0)[ids[0].hex()]
    assert row["status"] == "refused"
    assert "older than the last 3 orders" in row["why"]
    assert not scene.waiting(0)


def test_garbage_is_no_order_and_changes_nothing() -> None:
    scene = Scene()
    for data in (b"", b"\xff", encode(Transaction(K.FUND, 0, bytes(32), 5)), bytes(5_000)):
        scene.world.command(0, data)
    scene.world.run_for(10)
    assert len(scene.notes("bad_command")) == 4
    assert "order" not in scene.world.nodes[0].records


def test_records_are_written_before_what_rests_on_them() -> None:
    scene = Scene()
    effects = scene.engine(0).handle(Command(encode(Order(bytes(16), K.FUND, bytes(32), 5))), scene.world.now)
    names = [effect.bucket if isinstance(effect, Persist) else type(effect).__name__ for effect in effects]
    assert names == ["order", "statement", "Broadcast", "Notify", "ShowOrders"]


def test_the_ledger_of_all_that_is_what_the_contract_says() -> None:
    scene = Scene()
    scene.order(0, K.FUND, units=5)
    scene.order(0, K.CANCEL, replaces=0)
    scene.order(1, K.LEAVE)
    scene.order(1, K.TRANSFER, scene.peer(2), 7)
    scene.end_round()
    rule = Contract(scene.params)
    for step in ledger_of(scene):
        rule(step)
    assert nonce(scene, 0) == 1
    assert nonce(scene, 1) == 2


@pytest.mark.parametrize("kind", [BlockKind.OPEN, BlockKind.OUTCOME])
def test_of_two_versions_in_one_block_the_one_that_applied_is_told(kind: BlockKind) -> None:
    """A hostile leader may put both into its block, in any order."""
    scene = Scene().end_round()
    step = next(s for s in ledger_of(scene) if s.stored.block.kind is kind)
    network, identity = scene.founding.genesis.network, scene.founding.identities[0]

    def fund(units: int, revision: int) -> Statement:
        body = Transaction(K.FUND, 0, identity.peer, units, revision)
        return make_statement(identity, network, 0, Kind.TRANSACTION, body)

    huge, small, drop = fund(40 * TOKEN, 0), fund(1, 1), fund(2, 2)
    for order_of, expected in (((huge, small, drop), small), ((drop, huge, small), drop), ((huge,), None)):
        content: Any = step.stored.block.content
        closing = evolve(content.closing, transactions=tuple(s.cited() for s in order_of))
        block = evolve(step.stored.block, body=encode(evolve(content, closing=closing)))
        rules, opener = Rules(scene.params, network), plain_opener(network)
        after = block_effect(step.before, block, block.parent, rules, opener)
        applied = transactions_applied(step.before, after, block, block.parent, rules, opener)
        assert [s.id for s in applied] == ([] if expected is None else [expected.id])
