"""Phases 4 and 5: disputes, sealed votes and their openings (sections 5 and 6)."""

from __future__ import annotations

from math import isnan

from protocol import durable, keys
from protocol.duties.check import candidate, collect_pinned_findings, verify_job
from protocol.duties.desk import Desk
from protocol.duties.uploads import upload_holders
from protocol.jobs import DisputeJob, EvaluateJob, EvaluateResult
from protocol.ledger.judgement import Losses, Opinion, Yardstick
from protocol.ledger.state import PinnedContribution
from protocol.messages import Kind, SealedVote, VoteOpening, vote_hash
from protocol.params import MICRO, ProtocolParams

VOTE_FOR, ABSTAIN, VOTE_AGAINST = 1, 0, -1

MAX_LOSS_MICRO = 1 << 60
"""The highest loss that a vote under FLock's contract carries; one beyond it, or NaN, counts as this."""


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
            job = evaluation(desk, voted_on)
            if job is not None:
                desk.run(f"evaluate/{ballot}", job)
        return
    desk.outbox.publish(
        round_,
        Kind.SEALED_VOTE,
        SealedVote(ballot, vote_hash(desk.rules.network, round_, desk.me, opening)),
    )


def evaluation(desk: Desk, candidate: bytes) -> EvaluateJob | None:
    """§6. Return what a voter measures; None while the best model is fetched.

    A best model that no holder can serve is left out: the vote then rests on the current one.
    """
    best, round_ = desk.state.best, desk.state.round
    if best is None:
        return EvaluateJob(round_, desk.state.model_digest, candidate)
    if not has_best(desk) and best.digest not in desk.unavailable:
        return None
    held = best.digest if best.digest in desk.blobs else None
    return EvaluateJob(round_, desk.state.model_digest, candidate, held)


def has_best(desk: Desk) -> bool:
    """Return whether the blob of the best model is held; otherwise fetch it, as the current model is."""
    best = desk.state.best
    return best is not None and desk.want_blob(best.digest, desk.state.validators)


def decide_vote(desk: Desk, ballot: int, result: EvaluateResult) -> VoteOpening:
    """Return the opening that this evaluation leads to; remembers, durably, what was measured."""
    params = desk.rules.params
    vote, loss, opinion = judge(params, result, desk.yardstick)
    keep_yardstick(desk, measure(params, result, desk.yardstick, desk.state.round))
    salt = keys.derive(desk.my_secrets().vote_salt, bytes((ballot,)))
    return VoteOpening(ballot, vote, loss, salt, opinion.change, opinion.improves, opinion.done)


def judge(params: ProtocolParams, result: EvaluateResult, yardstick: Yardstick) -> tuple[int, int, Opinion]:
    """§6. Return (vote, loss_micro, opinion) of an opening under this network's contract.

    FLock's: +1 iff the candidate's loss is not worse than the current one by more than the tolerance. The
    interim rule: `Judgement.form_opinion`.
    """
    if params.judgement is not None:
        vote, opinion = params.judgement.form_opinion(losses_of(result), yardstick, result.done)
        return vote, 0, opinion
    if result.current_loss is None or result.candidate_loss is None:
        return ABSTAIN, 0, Opinion()
    current, candidate = loss_micro(result.current_loss), loss_micro(result.candidate_loss)
    return (VOTE_FOR if candidate <= current + params.tolerance_micro else VOTE_AGAINST), candidate, Opinion()


def measure(params: ProtocolParams, result: EvaluateResult, yardstick: Yardstick, round_: int) -> Yardstick:
    """Return a voter's yardstick after it has evaluated the candidate of `round_`; FLock's needs none."""
    if params.judgement is None:
        return yardstick
    losses = losses_of(result)
    return yardstick.measured(losses, round_, params.judgement.relative_change(losses, yardstick))


def losses_of(result: EvaluateResult) -> Losses:
    return Losses(result.current_loss, result.candidate_loss, result.best_loss)


def keep_yardstick(desk: Desk, yardstick: Yardstick) -> None:
    """Take another yardstick, durably."""
    if yardstick != desk.yardstick:
        desk.yardstick = yardstick
        desk.outbox.persist(durable.YARDSTICK, durable.YARDSTICK_KEY, yardstick.to_bytes())


def loss_micro(loss: float) -> int:
    """Return a loss in micro-units, as votes under FLock's contract carry it.

    A model too wild for a finite loss is the worst there is, not one that cannot be judged: if its voters
    abstained, an aggregate that overflows would be accepted with no vote against it.
    """
    if isnan(loss) or loss * MICRO >= MAX_LOSS_MICRO:
        return MAX_LOSS_MICRO
    return round(max(0.0, loss * MICRO))


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
