"""Phases 4 and 5: disputes, sealed votes and their openings (sections 5 and 6)."""

from __future__ import annotations

from protocol import keys
from protocol.duties.check import candidate, collect_pinned_findings, verify_job
from protocol.duties.desk import Desk
from protocol.duties.uploads import upload_holders
from protocol.jobs import DisputeJob, EvaluateJob, EvaluateResult
from protocol.ledger.state import PinnedContribution
from protocol.messages import Kind, SealedVote, VoteOpening, vote_hash

VOTE_FOR, ABSTAIN, VOTE_AGAINST = 1, 0, -1


def seal_vote(desk: Desk) -> None:
    round_, ballot = desk.state.round, desk.learning.ballot
    if desk.me not in desk.learning.voters:
        return
    if desk.pool.get(round_, Kind.SEALED_VOTE, desk.me, ballot) is not None:
        return
    opening = desk.memory.openings.get(ballot)
    voted_on = candidate(desk)
    if opening is None:
        if voted_on is not None and desk.want_blob(voted_on, desk.state.validators):
            desk.run(f"evaluate/{ballot}", EvaluateJob(round_, desk.state.model_digest, voted_on))
        return
    desk.outbox.publish(
        round_,
        Kind.SEALED_VOTE,
        SealedVote(ballot, vote_hash(desk.rules.network, round_, desk.me, opening)),
    )


def decide_vote(desk: Desk, ballot: int, result: EvaluateResult) -> VoteOpening:
    """+1 iff the candidate's loss is not worse than the current one by more than the tolerance."""
    current, candidate = result.current_loss_micro, result.candidate_loss_micro
    if current is None or candidate is None:
        vote, loss = ABSTAIN, 0
    else:
        better = candidate <= current + desk.rules.params.tolerance_micro
        vote, loss = (VOTE_FOR if better else VOTE_AGAINST), candidate
    salt = keys.derive(desk.my_secrets().vote_salt, bytes((ballot,)))
    return VoteOpening(ballot, vote, loss, salt)


def open_vote(desk: Desk) -> None:
    round_, ballot = desk.state.round, desk.learning.ballot
    opening = desk.memory.openings.get(ballot)
    if opening is None or desk.pool.get(round_, Kind.VOTE_OPENING, desk.me, ballot) is not None:
        return
    sealed = {vote.peer: vote.digest for vote in desk.learning.sealed_votes}
    if sealed.get(desk.me) == vote_hash(desk.rules.network, round_, desk.me, opening):
        desk.outbox.publish(round_, Kind.VOTE_OPENING, opening)


def want_disputed_upload(desk: Desk, contribution: PinnedContribution) -> bool:
    """As `want_upload`, but from the aggregator first: it pays for an upload that is missing.

    Its proposer, or who only says that it has it, would let everybody wait until the deadline.
    """
    claim, upload = desk.learning.claim, contribution.upload_digest
    if upload in desk.blobs or claim is None:
        return upload in desk.blobs
    others = (*upload_holders(desk, contribution.peer), *desk.state.validators)
    return desk.want_blob(upload, (claim.aggregator,), others)


def dispute(desk: Desk) -> None:
    learning = desk.learning
    if desk.has_run("dispute"):
        return
    held = []
    for contribution in learning.contributors:
        desk.memory.blobs.add(contribution.upload_digest)
        held.append(want_disputed_upload(desk, contribution))
    collect_pinned_findings(desk)
    job = verify_job(desk)
    if all(held) and job is not None:
        desk.run(
            "dispute",
            DisputeJob(
                verify=job,
                upload_digests=tuple(c.upload_digest for c in learning.contributors),
                hash_z=tuple(c.hash_z for c in learning.contributors),
            ),
        )
