"""What a node owes the round, after every event: level-triggered (docs/PROTOCOL.md section 3).

Each duty looks at what the ledger pins and what the node holds, does what is due and was not done, and
can be called again at any time. So a restarted node takes up where it was, and messages may come in any
order. Nothing here acts on a block that is not final.
"""

from __future__ import annotations

from protocol.duties.aggregate import aggregate, take_sum
from protocol.duties.check import collect_seeds, reveal, verify
from protocol.duties.contribute import contribute, train
from protocol.duties.desk import Desk
from protocol.duties.release import release_checks, release_unmasking
from protocol.duties.share import advertise, share
from protocol.duties.uploads import take_uploads
from protocol.duties.vote import dispute, open_vote, seal_vote
from protocol.ledger.state import Phase


def advance(desk: Desk) -> None:
    """Do everything that is due now."""
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
    desk.want_blob(desk.state.model_digest, desk.state.validators)
