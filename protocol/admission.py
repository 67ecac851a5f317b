"""Which statements a node takes into its pool: enough to bound what a member can make it keep."""

from __future__ import annotations

from collections.abc import Callable

from protocol.envelope import Statement
from protocol.ledger.state import LedgerState
from protocol.messages import (
    AggregateClaim,
    Body,
    Contribution,
    DealerEvidence,
    KeyAdvert,
    Kind,
    Receipt,
    ReleaseStage,
    Reveal,
    ShareBundle,
    ShareRelease,
    Transaction,
)
from protocol.params import ProtocolParams
from protocol.pinning import Rules, evidence_holds, keys_are_sound

CHECK_RELEASES = 3
"""How often a holder may release check shares: of the dropped, of the late, and at the hard deadline."""
NONCE_WINDOW = 16
"""How many transactions of one account may wait."""


Fits = Callable[[Statement, ProtocolParams], bool]
"""`protocol.pinning.commitment_fits`."""


def inadmissible(statement: Statement, state: LedgerState, rules: Rules, fits: Fits) -> str | None:
    """Why a statement is refused after the last final block, in a word; None if it may be kept."""
    if isinstance(statement.body, Transaction):
        return _inadmissible_transaction(state, statement, statement.body)
    return (
        _wrong_round(state, statement)
        or _wrong_slot(state, rules.params, statement)
        or _wrong_content(state, rules, statement, fits)
    )


def _inadmissible_transaction(
    state: LedgerState, statement: Statement, transaction: Transaction
) -> str | None:
    """Transactions belong to no round; a few of each account wait."""
    account = state.account(statement.sender)
    if account is None:
        return "early"  # a block that this node lacks may have made it
    if statement.round != 0:
        return "slot"
    return None if account.nonce <= transaction.nonce < account.nonce + NONCE_WINDOW else "stale"


def _wrong_round(state: LedgerState, statement: Statement) -> str | None:
    """This round or the next; a node that is one ahead already advertises for the one after its own."""
    if statement.round < state.round:
        return "stale"
    if statement.round > state.round + 1 + (statement.kind is Kind.KEY_ADVERT):
        return "early"
    return None


def _wrong_slot(state: LedgerState, params: ProtocolParams, statement: Statement) -> str | None:
    """Of a validator, about a validator, of an attempt that there can be. The next round's may be others."""
    slot = statement.slot
    ahead = statement.round > state.round
    if not state.is_validator(statement.sender):
        if state.account(statement.sender) is None and not ahead:
            return "stranger"
        return "early" if ahead else "stale"
    if slot.subject and not state.is_validator(slot.subject):
        return "early" if ahead else "slot"
    if slot.attempt == 0 or _attempt_exists(statement.body, params):  # a first one always may be
        return None
    return "slot"


def _attempt_exists(body: Body, params: ProtocolParams) -> bool:
    """Attempts number what one sender may say; without a bound it could fill the memory of all."""
    match body:
        case Receipt() | AggregateClaim():
            return body.attempt < params.max_attempts
        case ShareRelease():
            return body.attempt < (1 if body.stage is ReleaseStage.UNMASK else CHECK_RELEASES)
        case _:
            return True


def _wrong_content(state: LedgerState, rules: Rules, statement: Statement, fits: Fits) -> str | None:
    """A commitment that fits neither digest nor form, a weight that none may have, evidence of nothing.

    And more shares, secrets or z than a round has proposers.
    """
    body, params = statement.body, rules.params
    match body:
        case KeyAdvert():
            return None if keys_are_sound(rules.network, statement) else "key"
        case ShareBundle():
            return None if body.weight <= params.max_weight else "weight"
        case Contribution():
            return None if fits(statement, params) else "payload"
        case ShareRelease():
            return None if len(body.shares) <= params.n_proposers else "size"
        case AggregateClaim():
            most = max(len(body.self_seeds), len(body.mask_secrets))
            return None if most <= params.n_proposers else "size"
        case Reveal():
            return None if len(body.zs) <= params.n_proposers else "size"
        case DealerEvidence():
            if statement.round != state.round or not state.learning.sharers:
                return "early"
            return None if evidence_holds(state, rules, statement) else "evidence"
        case _:
            return None
