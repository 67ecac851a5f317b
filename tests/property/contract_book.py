"""A ledger kept by hand: the stake contract of docs/PROTOCOL.md section 6, coin by coin."""

from __future__ import annotations

from attrs import define, evolve, field

from protocol.codec import digest
from protocol.keys import Identity
from protocol.ledger.state import (
    Fault,
    PinnedFault,
)
from protocol.messages import Transaction, TransactionKind
from protocol.params import MICRO, Genesis, GenesisMember, ProtocolParams, hardened, sort_members

FOUNDERS = 7
IDENTITIES = sorted(
    (Identity.from_seed(digest("contract", bytes([index]))) for index in range(FOUNDERS + 3)),
    key=lambda identity: identity.peer,
)
PEERS = [identity.peer for identity in IDENTITIES]
STAKE = 64 * MICRO
PARAMS: ProtocolParams = evolve(
    hardened(dimension=8, n_proposers=4, n_voters=2), pool_rounds=5, join_stake_units=8 * MICRO
)
GENESIS = Genesis(
    name="contract",
    task="none",
    params=PARAMS,
    members=sort_members([GenesisMember(peer, STAKE) for peer in PEERS[:FOUNDERS]]),
    beacon=digest("contract beacon"),
    model_digest=digest("contract model"),
    pool_units=50 * MICRO + 3,
)
SUPPLY = FOUNDERS * STAKE + GENESIS.pool_units


# -- the book ----------------------------------------------------------------------------------------


@define
class Row:
    stake: int
    member: bool
    nonce: int = 0
    suspicion: int = 0


@define
class Book:
    """Who owns what, by the rules as they are written down."""

    rows: dict[bytes, Row] = field(factory=lambda: {peer: Row(STAKE, True) for peer in PEERS[:FOUNDERS]})
    treasury: int = 0
    pool: int = GENESIS.pool_units
    rounds_left: int = PARAMS.pool_rounds
    model: bytes = GENESIS.model_digest

    def pay(self, peer: bytes, amount: int) -> int:
        """What the peer can pay of it."""
        paid = min(amount, self.rows[peer].stake)
        self.rows[peer].stake -= paid
        return paid

    def vote(self, proposers: list[bytes], votes: dict[bytes, int], candidate: bytes) -> None:
        yes = [peer for peer, vote in votes.items() if vote == 1]
        no = [peer for peer, vote in votes.items() if vote == -1]
        if not yes and not no:
            return
        accepted = len(yes) >= len(no)
        losers, sharers = (no, yes) if accepted else ([*proposers, *yes], no)
        pot = sum(self.pay(peer, PARAMS.gamma_units) for peer in losers)
        for peer in sharers:
            self.rows[peer].stake += pot // len(sharers)
        self.treasury += pot - (pot // len(sharers)) * len(sharers)
        winners = {*proposers, *yes} if accepted else set(no)
        budget, weights = self.pool // self.rounds_left, {peer: self.rows[peer].stake for peer in winners}
        if total := sum(weights.values()):
            for peer, weight in weights.items():
                self.rows[peer].stake += budget * weight // total
                self.pool -= budget * weight // total
        if accepted:
            self.model = candidate

    def blame(self, faults: list[PinnedFault]) -> None:
        for entry in set(faults):
            unopened = entry.fault is Fault.UNOPENED_VOTE
            price = PARAMS.gamma_units if unopened else PARAMS.fault_penalty_units
            self.treasury += self.pay(entry.peer, price)

    def transact(self, sender: bytes, entry: Transaction) -> None:
        row = self.rows.get(sender)
        if row is None or row.nonce != entry.nonce:
            return
        bond = PARAMS.fault_penalty_units if sender in self.validators else 0
        if entry.kind is TransactionKind.TRANSFER:
            if not 0 < entry.amount_units <= row.stake - bond or entry.peer == sender:
                return
            row.stake -= entry.amount_units
            self.rows.setdefault(entry.peer, Row(0, False)).stake += entry.amount_units
        elif entry.kind is TransactionKind.FUND:
            if not 0 < entry.amount_units <= row.stake - bond:
                return
            row.stake -= entry.amount_units
            self.pool += entry.amount_units
        elif entry.kind is TransactionKind.JOIN:
            if row.member or row.stake < PARAMS.min_stake_units:
                return
            row.member = True
        elif entry.kind is TransactionKind.LEAVE:
            if not row.member:
                return
            row.member = False
        row.nonce += 1

    validators: list[bytes] = field(factory=lambda: list(PEERS[:FOUNDERS]))

    def freeze(self) -> None:
        """Who votes in the next round: by the stakes before this round's transactions."""
        self.validators = sorted(
            p for p, row in self.rows.items() if row.member and row.stake >= PARAMS.min_stake_units
        )
