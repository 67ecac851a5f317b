"""Phase 2, the other side: who takes uploads, checks their form and signs for them (section 3)."""

from __future__ import annotations

from protocol.compose import vouchers_for
from protocol.duties.desk import Desk
from protocol.jobs import CheckUploadJob
from protocol.ledger.state import Phase
from protocol.messages import Contribution, Kind, Receipt, Witness


def take_uploads(desk: Desk) -> None:
    """The active aggregator fetches, checks and acknowledges; voters witness what it leaves out."""
    if desk.me == desk.learning.aggregator:
        take_and_sign(desk, witnessing=False)
    elif desk.me in desk.learning.voters and desk.clock.witness and desk.learning.phase is Phase.CONTRIBUTE:
        take_and_sign(desk, witnessing=True)


def take_and_sign(desk: Desk, *, witnessing: bool) -> None:
    state, memory = desk.state, desk.memory
    for bundle in desk.learning.sharers:
        statement = desk.pool.get(state.round, Kind.CONTRIBUTION, bundle.peer)
        if statement is None or not isinstance(statement.body, Contribution):
            continue
        if witnessing and vouchers_for(state, desk.pool, bundle.peer):
            continue
        upload = statement.body.upload_digest
        if upload in memory.bad_uploads or not want_upload(desk, bundle.peer, upload):
            continue
        if upload not in memory.checked_uploads:
            desk.run(f"check-upload/{upload.hex()}", CheckUploadJob(desk.context, upload))
        elif witnessing:
            if desk.pool.get(state.round, Kind.WITNESS, desk.me, 0, bundle.peer) is None:
                desk.outbox.publish(state.round, Kind.WITNESS, Witness(bundle.peer, upload))
        elif desk.learning.phase is Phase.CONTRIBUTE:
            attempt = desk.learning.attempt
            if desk.pool.get(state.round, Kind.RECEIPT, desk.me, attempt, bundle.peer) is None:
                desk.outbox.publish(state.round, Kind.RECEIPT, Receipt(attempt, bundle.peer, upload))


def want_upload(desk: Desk, proposer: bytes, upload: bytes) -> bool:
    """Is the upload held? If not, fetch it from who may have it."""
    return upload in desk.blobs or desk.want_blob(upload, upload_holders(desk, proposer))


def upload_holders(desk: Desk, proposer: bytes) -> tuple[bytes, ...]:
    """Who may have an upload: its proposer, those who signed for it."""
    signers = [
        statement.sender
        for kind in (Kind.RECEIPT, Kind.WITNESS)
        for statement in desk.pool.of_kind(desk.state.round, kind)
        if getattr(statement.body, "proposer", None) == proposer
    ]
    return (proposer, *signers)
