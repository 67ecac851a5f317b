"""Contract: a round-ending block moves the money that the stake contract says, and no other block moves any.

docs/PROTOCOL.md section 6: "A round-ending block does, in order: votes, rewards and model, and suspicion of
U2 down by one (not if void or aborted); faults; the void fee ...; beacon, round number, rounds_left (at least
1); validators; roles ...; transactions." Kept here by hand, in a book of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from statistics import median_low

from attrs import define

from flocknode.observe.ledger import Step
from protocol.ledger.block import AbortBody, Closing, OpenBody, OutcomeBody, decode_body
from protocol.ledger.state import Account, Fault, LedgerState, Phase
from protocol.messages import Transaction, TransactionKind, VoteOpening
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.reading import read_statement

MOST_SUSPICION = 16
FEWEST = 4


@define
class _Row:
    stake: int
    member: bool
    nonce: int
    suspicion: int


@define
class _Book:
    """What everybody has, as a state has it to begin with."""

    params: ProtocolParams
    rows: dict[bytes, _Row]
    treasury: int
    pool: int
    rounds_left: int
    model: bytes
    previous_model: bytes
    validators: tuple[bytes, ...]
    tallies: list[tuple[int, int]]
    best: tuple[int, bytes] | None
    alert: int
    round: int

    def gamma(self, winning: int, seats: int) -> int:
        """Of a vote that `winning` of `seats` voters carried; the formula of section 6."""
        rule = self.params.adaptive_gamma
        if rule is None:
            return self.params.gamma_units
        past = [_margin(*tally) for tally in self.tallies]
        past += [rule.prior_margin_permille] * rule.prior_rounds
        split = max(0, 1000 - 2 * sum(past) // len(past))
        ceiling = rule.calm_units + (rule.highest_units - rule.calm_units) * split // 1000
        return min(ceiling, max(rule.lowest_units, rule.slope_units * _margin(winning, seats) // 1000))

    def remember(self, winning: int, seats: int) -> None:
        """The vote counts in later rounds, until `window` others have come."""
        rule = self.params.adaptive_gamma
        if rule is not None:
            self.tallies.append((winning, seats))
            while len(self.tallies) > rule.window:
                self.tallies.pop(0)

    def pay(self, peer: bytes, units: int) -> int:
        """At most the stake; returns what was paid."""
        paid = min(units, self.rows[peer].stake)
        self.rows[peer].stake -= paid
        return paid

    def collect(self, owed: Mapping[bytes, int]) -> None:
        """To the treasury. Under the interim rule the last four that have a vote keep `min_stake`."""
        floor = self.params.min_stake_units
        standing = sum(row.member and row.stake >= floor for row in self.rows.values())
        for peer in sorted(owed):
            row, units = self.rows[peer], owed[peer]
            falls = row.stake >= floor > row.stake - units
            if falls and row.member and self.params.judgement is not None:
                if standing > FEWEST:
                    standing -= 1
                else:
                    units = row.stake - floor
            self.treasury += self.pay(peer, units)

    def judge(
        self, members: list[bytes], seats: int, openings: Mapping[bytes, VoteOpening], candidate: bytes
    ) -> None:
        """The interim rule of section 6, from what the openings say."""
        rule = self.params.judgement
        assert rule is not None
        for peer, opening in openings.items():
            _require_sound(peer, opening)
        sides = {side: [p for p, o in openings.items() if o.vote == side] for side in (1, -1)}
        if not sides[1] and not sides[-1]:
            return
        accepted = len(sides[1]) >= len(sides[-1])
        winners, losers = (sides[1], sides[-1]) if accepted else (sides[-1], sides[1])
        gamma = self.gamma(len(winners), seats)
        owed = dict.fromkeys([*members, *losers], 0)
        grade = median_low([o.change for o in openings.values() if o.vote])
        if accepted or grade <= rule.free_step:
            self.alert -= self.alert > 0
        else:
            self.alert = min(rule.strikes * rule.forgive, self.alert + rule.forgive)
        if not accepted:
            share = Fraction(grade - rule.free_step, rule.full_step - rule.free_step)
            since = self.round - (self.best[0] if self.best else 0)
            fresh = Fraction(self.alert, rule.strikes * rule.forgive) / (1 + Fraction(since, rule.patience))
            for peer in members:
                owed[peer] += int(gamma * min(Fraction(1), max(Fraction(0), share)) * fresh)
        if 4 * len(winners) >= 3 * (len(winners) + len(losers)):
            for peer in losers:
                owed[peer] += gamma * rule.contrary_permille // 1000
        self.collect(owed)
        self.remember(len(winners), seats)
        if accepted:
            self.reward({*members, *sides[1]})
            self.previous_model, self.model = self.model, candidate
            if sum(opening.improves for opening in openings.values()) > len(openings) / 2:
                self.best = self.round, candidate

    def vote(self, members: list[bytes], seats: int, votes: Mapping[bytes, int], candidate: bytes) -> None:
        yes = [peer for peer, vote in votes.items() if vote == 1]
        no = [peer for peer, vote in votes.items() if vote == -1]
        if not yes and not no:
            return
        accepted = len(yes) >= len(no)
        losers, winners = (no, yes) if accepted else ([*members, *yes], no)
        gamma = self.gamma(len(winners), seats)
        pot = sum(self.pay(peer, gamma) for peer in losers)
        self.remember(len(winners), seats)
        for peer in winners:
            self.rows[peer].stake += pot // len(winners)
        self.treasury += pot % len(winners)
        self.reward({*members, *yes} if accepted else set(no))
        if accepted:
            self.previous_model, self.model = self.model, candidate

    def reward(self, winners: set[bytes]) -> None:
        budget, stakes = self.pool // self.rounds_left, {peer: self.rows[peer].stake for peer in winners}
        for peer, stake in stakes.items():
            part = budget * stake // (sum(stakes.values()) or 1)
            self.rows[peer].stake += part
            self.pool -= part

    def suspect(self, peers: Iterable[bytes], change: int) -> None:
        for peer in peers:
            row = self.rows[peer]
            row.suspicion = min(MOST_SUSPICION, max(0, row.suspicion + change))

    def punish(self, faults: Iterable[tuple[bytes, Fault]]) -> None:
        rule = self.params.adaptive_gamma
        unopened = self.params.gamma_units if rule is None else rule.highest_units
        for peer, fault in sorted(set(faults)):
            if fault is Fault.UNOPENED_VOTE:
                self.collect({peer: unopened})
            else:
                self.treasury += self.pay(peer, self.params.fault_penalty_units)

    def end(self) -> None:
        """A round less to pay for, where there is an end; and who votes in the next one."""
        if self.params.pace is None or self.params.pace.rounds:
            self.rounds_left = max(1, self.rounds_left - 1)
        self.freeze()

    def wake(self, paid: int) -> None:
        """The pool lasts at least as long as the rounds that somebody paid for, where there is an end."""
        if self.params.pace is not None and self.params.pace.rounds:
            self.rounds_left = max(self.rounds_left, paid)

    def freeze(self) -> None:
        """Who has a vote from here on."""
        self.validators = tuple(
            sorted(p for p, r in self.rows.items() if r.member and r.stake >= self.params.min_stake_units)
        )

    def transact(self, sender: bytes, order: Transaction) -> None:
        """One that does not apply is passed over."""
        row = self.rows.get(sender)
        if row is None or row.nonce != order.nonce:
            return
        bond = self.params.fault_penalty_units if sender in self.validators else 0
        spendable = 0 < order.amount_units <= row.stake - bond
        match order.kind:
            case TransactionKind.TRANSFER if spendable and order.peer != sender:
                row.stake -= order.amount_units
                self.rows.setdefault(order.peer, _Row(0, False, 0, 0)).stake += order.amount_units
            case TransactionKind.FUND if spendable:
                row.stake -= order.amount_units
                self.pool += order.amount_units
            case TransactionKind.JOIN if not row.member and row.stake >= max(
                self.params.join_stake_units, self.params.min_stake_units
            ):
                row.member = True
            case TransactionKind.LEAVE if row.member:
                row.member = False
            case TransactionKind.CANCEL:
                pass
            case _:
                return
        row.nonce += 1


def _require_sound(peer: bytes, opening: VoteOpening) -> None:
    """Raise `InvariantError` for an opening that says more than it may, or other things than its vote."""
    silent = opening.vote == 0 and (opening.change, opening.improves, opening.done) != (0, False, False)
    if silent or opening.vote * opening.change > 0 or opening.loss_micro:
        raise InvariantError(f"an opening of {peer.hex()[:12]} is pinned that does not fit its vote")


def _margin(winning: int, seats: int) -> int:
    """Thousandths by which the winners outnumber everybody else who had a seat."""
    return max(0, 1000 * (winning - (seats - winning)) // seats)


class Contract:
    """A `StepRule`."""

    def __init__(self, params: ProtocolParams) -> None:
        self._params = params

    def __call__(self, step: Step) -> None:
        book, body = _open(self._params, step.before), decode_body(step.stored.block)
        where = f"round {step.before.round}, {step.stored.block.kind.name}"
        if step.after.round != step.before.round:
            assert isinstance(body, OutcomeBody | AbortBody), f"{where} ends a round"
            _settle(book, step.before, body)
        elif isinstance(body, OpenBody):
            _transact(book, body.closing)
            if step.after.learning.phase is Phase.ADVERT and not _wakes(step):
                book.freeze()
        if _wakes(step):
            assert step.after.training is not None
            book.wake(step.after.training.last_round - step.after.round + 1)
        found = _open(self._params, step.after)
        for name in (
            "treasury",
            "pool",
            "rounds_left",
            "model",
            "previous_model",
            "validators",
            "tallies",
            "best",
            "alert",
        ):
            if getattr(found, name) != getattr(book, name):
                raise InvariantError(f"{where}: the {name.replace('_', ' ')} is not what the contract says")
        for peer in sorted(book.rows.keys() | found.rows.keys()):
            if found.rows.get(peer) != book.rows.get(peer):
                raise InvariantError(
                    f"{where}: the account of {peer.hex()[:12]} is {found.rows.get(peer)}, "
                    f"not {book.rows.get(peer)}"
                )


def _open(params: ProtocolParams, state: LedgerState) -> _Book:
    def row(account: Account) -> _Row:
        return _Row(account.stake_units, account.member, account.nonce, account.suspicion)

    return _Book(
        params=params,
        rows={peer: row(account) for peer, account in state.accounts},
        treasury=state.treasury_units,
        pool=state.pool_units,
        rounds_left=state.pool_rounds_left,
        model=state.model_digest,
        previous_model=state.previous_model_digest,
        validators=state.validators,
        tallies=[(tally.winning, tally.seats) for tally in state.tallies],
        best=None if state.best is None else (state.best.round, state.best.digest),
        alert=state.alert,
        round=state.round,
    )


def _settle(book: _Book, state: LedgerState, body: OutcomeBody | AbortBody) -> None:
    learning = state.learning
    members = [contribution.peer for contribution in learning.contributors]
    faults = [(entry.peer, entry.fault) for entry in learning.faults]
    faults += [(peer, Fault.EQUIVOCATION) for peer in _equivocators(body.closing)]
    if isinstance(body, OutcomeBody):
        openings = _opened(body)
        votes = {peer: opening.vote for peer, opening in openings.items()}
        faults += [(v.peer, Fault.UNOPENED_VOTE) for v in learning.sealed_votes if v.peer not in votes]
        if not learning.void and book.params.judgement is not None:
            book.judge(members, len(learning.voters), openings, learning.candidate)
        elif not learning.void:
            book.vote(members, len(learning.voters), votes, learning.candidate)
        if not learning.void:
            book.suspect(members, -1)
    book.punish(faults)
    if learning.void and not faults:
        book.collect(dict.fromkeys(members, book.params.void_fee_units))
        book.suspect(members, 1)
    book.end()
    _transact(book, body.closing)


def _wakes(step: Step) -> bool:
    """Whether this block ends the rest of training, or a rest that would have begun with it."""
    after = step.after.training
    return (
        after is not None
        and after.paid
        and after != step.before.training
        and after.stale == 0
        and (step.before.training is None or step.before.training.last_round != after.last_round)
    )


def _transact(book: _Book, closing: Closing) -> None:
    for data in closing.transactions:
        statement = read_statement(data)
        assert isinstance(statement.body, Transaction)
        book.transact(statement.sender, statement.body)


def _opened(body: OutcomeBody) -> dict[bytes, VoteOpening]:
    openings = {}
    for data in body.openings:
        statement = read_statement(data)
        assert isinstance(statement.body, VoteOpening)
        openings[statement.sender] = statement.body
    return openings


def _equivocators(closing: Closing) -> list[bytes]:
    return [read_statement(first).sender for first, _ in closing.equivocations]
