"""What a node owes the round, after every event: level-triggered (docs/PROTOCOL.md section 3).

Each duty looks at what the ledger pins and what the node holds, does what is due and was not done, and
can be called again at any time. So a restarted node takes up where it was, and messages may come in any
order. Nothing here acts on a block that is not final.
"""

from __future__ import annotations

from protocol.duties.aggregate import aggregate, take_sum
from protocol.duties.check import collect_seeds, lacks_seeds, reveal, take_reveals, verify
from protocol.duties.contribute import contribute, train
from protocol.duties.desk import Desk
from protocol.duties.release import release_checks, release_unmasking
from protocol.duties.share import advertise, is_awaited, share
from protocol.duties.uploads import take_uploads
from protocol.duties.vote import dispute, has_best, open_vote, seal_vote
from protocol.envelope import Statement
from protocol.ledger.state import Phase
from protocol.messages import Kind

LOOKED_AT = {
    Phase.SHARE: frozenset({Kind.SHARE_BUNDLE, Kind.COMPLAINT, Kind.SHARE_OPENING}),
    Phase.AGGREGATE: frozenset({Kind.AGGREGATE_CLAIM}),
    Phase.BALLOT: frozenset({Kind.CONTRIBUTION, Kind.REVEAL, Kind.SHARE_RELEASE}),
    Phase.RECOVER: frozenset({Kind.REVEAL, Kind.SHARE_RELEASE}),
    Phase.DISPUTE: frozenset({Kind.CONTRIBUTION, Kind.RECEIPT, Kind.WITNESS, Kind.REVEAL}),
}
"""What others say that may make something due; the rest is for the agreement on the next block."""

FOR_AGGREGATORS = frozenset({Kind.CONTRIBUTION, Kind.RECEIPT, Kind.WITNESS, Kind.SHARE_RELEASE})
"""The same of the aggregator in CONTRIBUTE and AGGREGATE, and in CONTRIBUTE of voters, who witness what it
leaves out."""


def looked_at(desk: Desk) -> frozenset[Kind]:
    """The kinds of statements of others that may make something due before the next block."""
    learning = desk.learning
    if learning.phase is Phase.SHARE and not desk.is_proposer:
        return frozenset()
    kinds = LOOKED_AT.get(learning.phase, frozenset())
    if (learning.phase in (Phase.CONTRIBUTE, Phase.AGGREGATE) and desk.me == learning.aggregator) or (
        learning.phase is Phase.CONTRIBUTE and desk.me in learning.voters
    ):
        kinds |= FOR_AGGREGATORS
    return kinds


def makes_due(desk: Desk, statement: Statement) -> bool:
    """May this statement of a kind that is looked at make something due? A check seed is taken in at once."""
    if statement.kind is Kind.SHARE_BUNDLE:
        return is_awaited(desk, statement.sender)
    if statement.kind is Kind.REVEAL:
        take_reveals(desk)
        return not lacks_seeds(desk)
    if desk.learning.phase is Phase.CONTRIBUTE:
        return desk.clock.witness or desk.me == desk.learning.aggregator
    return True


def advance(desk: Desk) -> bool:
    """Do everything that is due now. False if nothing was: nor will it be before something comes in."""
    before = desk.marks()
    _do_duties(desk)
    return desk.marks() != before


def _do_duties(desk: Desk) -> None:
    advertise(desk)
    want_model(desk)
    phase = desk.learning.phase
    if phase is Phase.SHARE:
        share(desk)
    if phase in (Phase.SHARE, Phase.CONTRIBUTE) and desk.is_proposer:
        train(desk)
    if phase is Phase.CONTRIBUTE:
        contribute(desk)
        take_uploads(desk)
    if phase is Phase.AGGREGATE:
        release_unmasking(desk)
        take_uploads(desk)
        aggregate(desk)
        take_sum(desk)
    if phase in (Phase.BALLOT, Phase.RECOVER):
        reveal(desk)
        release_checks(desk)
        collect_seeds(desk)
    if phase is Phase.BALLOT:
        verify(desk)
        seal_vote(desk)
    if phase is Phase.DISPUTE:
        dispute(desk)
    if phase is Phase.VOTE:
        open_vote(desk)


def want_model(desk: Desk) -> None:
    """Fetch the current model, and the best one where the ledger names one, if they are not held."""
    desk.want_blob(desk.state.model_digest, desk.state.validators)
    has_best(desk)
