"""Rest: training ends when genesis and votes say so, and not before; no block is made for nothing.

docs/PROTOCOL.md section 3.9: "Training rests once the last round has ended, after `patience` judged rounds in
a row without a better model, or once more than half of the voters say that the task is done"; "an OPEN block
that draws no roles carries a transaction that applies". Kept here by hand, in a book of its own.
"""

from __future__ import annotations

from attrs import define

from flocknode.observe.ledger import Step
from protocol.ledger.block import BlockKind, OutcomeBody, decode_body
from protocol.ledger.state import LedgerState, Phase
from protocol.messages import Transaction, TransactionKind
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.reading import read_statement


@define
class _Book:
    """`last`: the last round of training, 0 for none; `asleep`: training rests."""

    last: int
    asleep: bool = False
    paid: bool = False
    stale: int = 0
    funded: int = 0


class Rest:
    """A `StepRule`."""

    def __init__(self, params: ProtocolParams) -> None:
        self._pace, self._by_opinion = params.pace, params.judgement is not None
        self._book = _Book(0 if params.pace is None else params.pace.rounds)

    def __call__(self, step: Step) -> None:
        before, after, block = step.before, step.after, step.stored.block
        where = f"block {block.height}, {block.kind.name}"
        if (
            block.kind is BlockKind.OPEN
            and after.learning.phase is Phase.ADVERT
            and _nonces(before) == _nonces(after)
        ):
            raise InvariantError(f"{where} draws no roles and carries no transaction that applies")
        if self._pace is None:
            return
        if self._book.asleep and block.kind is not BlockKind.OPEN:
            raise InvariantError(f"{where} while training rests")
        if after.round != before.round:
            self._end(step)
        if self._book.asleep:
            self._fund(step)
        if after.rests != self._book.asleep:
            says = "rests" if self._book.asleep else "goes on"
            raise InvariantError(f"{where}: by the rules training {says} after round {after.round - 1}")

    def _end(self, step: Step) -> None:
        assert self._pace is not None
        book, ended = self._book, step.before.round
        votes, improved, done = _votes(step, self._by_opinion)
        if any(votes):
            book.stale = 0 if improved else book.stale + 1
        dozes = not book.paid and (
            (self._pace.patience and book.stale >= self._pace.patience)
            or (self._pace.heeds_done and 2 * done > len(step.before.learning.voters))
        )
        book.asleep, book.funded = bool((book.last and ended >= book.last) or dozes), 0

    def _fund(self, step: Step) -> None:
        """What FUND transactions brought pays for more rounds."""
        assert self._pace is not None
        book = self._book
        book.funded += _brought(step)
        price = self._pace.resume_units
        if price and book.funded >= price:
            book.last = step.after.round - 1 + min(book.funded // price, 1 << 31)
            book.asleep, book.paid, book.stale, book.funded = False, True, 0, 0


def _nonces(state: LedgerState) -> list[tuple[bytes, int]]:
    return [(peer, account.nonce) for peer, account in state.accounts]


def _brought(step: Step) -> int:
    """The amounts of the FUND transactions in this block that counted: those whose nonce was taken."""
    body = decode_body(step.stored.block)
    closing = getattr(body, "closing", None)
    brought = 0
    nonces = dict(_nonces(step.before))
    taken = dict(_nonces(step.after))
    for data in () if closing is None else closing.transactions:
        statement = read_statement(data)
        order, sender = statement.body, statement.sender
        assert isinstance(order, Transaction)
        counts = nonces.get(sender) == order.nonce and order.nonce < taken.get(sender, 0)
        if counts:
            nonces[sender] = order.nonce + 1
            brought += order.amount_units if order.kind is TransactionKind.FUND else 0
    return brought


def _votes(step: Step, by_opinion: bool) -> tuple[list[int], bool, int]:
    """The opened votes, whether a better model was found, and how many voters said that the task is done."""
    body = decode_body(step.stored.block)
    if not isinstance(body, OutcomeBody) or step.before.learning.void:
        return [], False, 0
    openings = [read_statement(data).body for data in body.openings]
    votes = [getattr(opening, "vote", 0) for opening in openings]
    done = sum(bool(getattr(opening, "done", False)) for opening in openings)
    if not by_opinion:
        return votes, step.after.model_digest != step.before.model_digest, 0
    improves = sum(bool(getattr(opening, "improves", False)) for opening in openings)
    return votes, 2 * improves > len(openings) and sum(votes) >= 0, done
