"""Orders against a plain model of an account: numbers, replacements, blocks of hostile leaders, crashes.

Whatever happens: each number is used once, by one of the versions that were signed for it, in their order; no
order is lost or done twice; what is shown as waiting is what the ledger may still carry.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol import durable
from protocol.codec import encode
from protocol.engine import Engine
from protocol.envelope import Statement, open_envelope
from protocol.events import Broadcast, Command, Effect, Persist, ShowOrders, Start
from protocol.ledger.economy import settle_slash
from protocol.ledger.settlement import settle
from protocol.ledger.transactions import apply_transactions
from protocol.messages import Transaction, TransactionKind
from protocol.order import Order
from protocol.orders import STUCK_ROUNDS
from sim.founding import Founding, found, small_params

PARAMS = small_params(5)
FOUNDING: Founding = found(5, 1, PARAMS)
ME, OTHER = FOUNDING.identities[0], FOUNDING.identities[1].peer
AMOUNTS = [0, 1, 1_000_000, 10_000_000, 32_000_000, 32_000_001, 64_000_000]


class Account(RuleBasedStateMachine):
    """One engine; the network around it is what the rules do to its ledger."""

    @initialize()
    def found(self) -> None:
        self.records: dict[str, dict[bytes, bytes]] = {}
        self.signed: dict[int, dict[int, Statement]] = {}
        self.used: list[Statement] = []
        self.given: dict[bytes, Order] = {}
        self.view: Any = None
        self.life()

    def life(self) -> None:
        """A new engine with what is durable, at the ledger's present end."""
        state = self.engine.chain.state if hasattr(self, "engine") else None
        self.engine = Engine(ME, FOUNDING.genesis, lambda size: bytes(size))
        if state is not None:
            self.engine.chain.state = state
        self.perform(self.engine.handle(Start({b: dict(rows) for b, rows in self.records.items()}), 0))

    def perform(self, effects: list[Effect], stop: int | None = None) -> None:
        for effect in effects[:stop]:
            match effect:
                case Persist(bucket, key, value):
                    rows = self.records.setdefault(bucket, {})
                    if value is None:
                        rows.pop(key, None)
                    else:
                        rows[key] = value
                        self.note_signed(value if bucket == durable.STATEMENT else b"")
                case Broadcast(data):
                    self.note_signed(data)
                case ShowOrders(_, view):
                    self.view = view

    def note_signed(self, data: bytes) -> None:
        """What may leave the node, now or in its next life."""
        statement = open_envelope(data, FOUNDING.genesis.network) if data else None
        if statement is not None and isinstance(statement.body, Transaction):
            versions = self.signed.setdefault(statement.body.nonce, {})
            known = versions.setdefault(statement.body.revision, statement)
            assert known.id == statement.id, "two transactions of one number and revision"

    @property
    def nonce(self) -> int:
        account = self.engine.state.account(ME.peer)
        assert account is not None
        return account.nonce

    # -- the operator --------------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from(list(TransactionKind)),
        amount=st.sampled_from(AMOUNTS),
        peer=st.sampled_from([ME.peer, OTHER, bytes(32)]),
        replaces=st.none() | st.integers(0, 20),
    )
    def give(self, kind: TransactionKind, amount: int, peer: bytes, replaces: int | None) -> None:
        order = Order((len(self.given) + 1).to_bytes(16, "big"), kind, peer, amount, replaces)
        self.given[order.id] = order
        self.perform(self.engine.handle(Command(encode(order)), 0))
        row = self.row(order.id)
        if row["status"] == "waiting":
            assert row["revision"] in self.signed[row["number"]]
        else:
            assert row["status"] == "refused"
            assert row["why"]

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def give_again(self, data: st.DataObject) -> None:
        """A copied file, at any time."""
        order = self.given[data.draw(st.sampled_from(sorted(self.given)))]
        before, signed = self.row(order.id), {n: dict(v) for n, v in self.signed.items()}
        self.perform(self.engine.handle(Command(encode(order)), 0))
        assert self.row(order.id) == before
        assert self.signed == signed

    @rule(effects=st.integers(0, 6), amount=st.sampled_from(AMOUNTS))
    def crash(self, effects: int, amount: int) -> None:
        """While an order is heard; the file is still there, and is heard in the next life."""
        order = Order((len(self.given) + 1).to_bytes(16, "big"), TransactionKind.FUND, bytes(32), amount)
        self.given[order.id] = order
        self.perform(self.engine.handle(Command(encode(order)), 0), effects)
        self.life()
        self.perform(self.engine.handle(Command(encode(order)), 0))
        assert self.row(order.id)["status"] in ("waiting", "refused")

    @rule()
    def restart(self) -> None:
        shown = self.view["orders"]
        self.life()
        assert self.view["orders"] == shown

    # -- the network ---------------------------------------------------------------------------------

    @rule(data=st.data(), ends_round=st.booleans())
    def block(self, data: st.DataObject, ends_round: bool) -> None:
        """A block with any versions of any numbers, in any order, as a hostile leader may make it."""
        known = [s for _, versions in sorted(self.signed.items()) for _, s in sorted(versions.items())]
        chosen = data.draw(st.lists(st.sampled_from(known), max_size=6)) if known else []
        before = self.engine.state
        state, applied = before, []
        for statement in chosen:
            after = apply_transactions(state, PARAMS, [statement])
            if after is not state:
                applied.append(statement)
            state = after
        if ends_round:
            state = evolve(state, round=state.round + 1)
        state = evolve(state, height=state.height + 1)
        self.used += applied
        chain, orders = self.engine.chain, self.engine.orders
        chain.state = state
        orders.note_block(state, applied)
        self.engine.lifecycle.forget_transactions()
        orders.follow(0)
        self.finish()

    @rule(amount=st.sampled_from(AMOUNTS[1:]))
    def slash(self, amount: int) -> None:
        state = self.engine.state
        self.engine.chain.state = settle(state, settle_slash(state.stakes, [ME.peer], amount))
        self.engine.orders.follow(0)
        self.finish()

    @rule()
    def good_rounds(self) -> None:
        """Honest leaders for as long as it takes: nothing stands in the way for ever."""
        for _ in range(40):
            waiting = [s for s in self.engine.pool.transactions() if s.sender == ME.peer]
            if not waiting:
                break
            state = self.engine.state
            chosen = []
            for statement in waiting:
                after = apply_transactions(state, PARAMS, [statement])
                if after is not state:
                    chosen.append(statement)
                state = after
            self.used += chosen
            self.engine.chain.state = evolve(state, round=state.round + 1, height=state.height + 1)
            self.engine.orders.note_block(self.engine.state, chosen)
            self.engine.lifecycle.forget_transactions()
            self.engine.orders.follow(0)
            self.finish()
        assert not [row for row in self.view["orders"] if row["status"] == "waiting"]
        assert self.view["waiting"] == []

    def finish(self) -> None:
        effects = self.engine.outbox.take()
        self.engine.lifecycle.note(effects)
        self.perform(effects)

    # -- what must be true ---------------------------------------------------------------------------

    def row(self, order: bytes) -> dict[str, Any]:
        (found,) = [row for row in self.view["orders"] if row["order"] == order.hex()]
        assert isinstance(found, dict)
        return found

    @invariant()
    def each_number_is_used_once_and_every_order_has_its_end(self) -> None:
        if not hasattr(self, "engine"):
            return
        assert [_body(s).nonce for s in self.used] == list(range(self.nonce))
        ids = {s.id for s in self.used}
        for record in self.engine.orders.records.values():
            used = record.transaction.nonce < self.nonce and record.statement != b""
            if record.status.name == "REFUSED":
                assert record.statement == b""
            elif record.status.name == "WAITING":
                assert not used
            else:
                assert used
                assert (record.status.name == "CARRIED") == (record.statement in ids)
        carried = [r for r in self.engine.orders.records.values() if r.status.name == "CARRIED"]
        assert len(carried) == len({r.transaction.nonce for r in carried})

    @invariant()
    def what_is_durable_is_what_waits(self) -> None:
        if not hasattr(self, "engine"):
            return
        pool = [s for s in self.engine.pool.transactions() if _body(s).nonce >= self.nonce]
        for statement in pool:
            versions = self.signed[_body(statement).nonce]
            assert statement.id == versions[max(versions)].id, "not the last version"
        kept = {key[8:] for key in self.records.get(durable.STATEMENT, {}) if not any(key[:8])}
        assert {s.id for s in pool} <= kept
        assert STUCK_ROUNDS < 40


def _body(statement: Statement) -> Transaction:
    assert isinstance(statement.body, Transaction)
    return statement.body


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
