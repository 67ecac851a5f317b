"""Results of jobs, put where the duties look for them."""

from __future__ import annotations

from protocol import durable, reporting
from protocol.codec import encode
from protocol.duties.desk import Desk
from protocol.duties.vote import decide_vote
from protocol.events import JobDone
from protocol.jobs import (
    AggregateResult,
    CheckUploadResult,
    ContributeResult,
    DealResult,
    DisputeResult,
    EvaluateResult,
    TrainResult,
    VerifyResult,
)


def on_job(desk: Desk, event: JobDone) -> None:
    """Take a job's result; one of another round is stale."""
    round_text, _, name = event.key.partition("/")
    memory, result = desk.memory, event.result
    if round_text != str(memory.round):
        return
    match result:
        case DealResult():
            memory.dealt = result
        case TrainResult():
            memory.trained = result
        case ContributeResult():
            memory.contributed = result
            reporting.report_clipping(desk, result)
        case CheckUploadResult():
            on_checked_upload(desk, result)
        case AggregateResult():
            if name == f"aggregate/{desk.learning.attempt}":
                memory.aggregated = result
        case VerifyResult():
            on_verified(desk, result)
        case DisputeResult():
            on_dispute(desk, result)
        case EvaluateResult():
            on_evaluated(desk, int(name.rpartition("/")[2]), result)


def on_job_failed(desk: Desk, key: str, why: str) -> None:
    """An aggregation job fails only on bad input; an evaluation that fails abstains."""
    round_text, _, name = key.partition("/")
    desk.outbox.notify("job_failed", job=key, why=why)
    if round_text == str(desk.memory.round) and name.startswith("evaluate/"):
        on_evaluated(desk, int(name.rpartition("/")[2]), EvaluateResult(None, None, why=why))


def on_checked_upload(desk: Desk, result: CheckUploadResult) -> None:
    known = desk.memory.checked_uploads if result.well_formed else desk.memory.bad_uploads
    known.add(result.upload_digest)


def on_verified(desk: Desk, result: VerifyResult) -> None:
    desk.memory.findings.verified = result
    desk.put_blob(result.model_digest, result.model)
    desk.outbox.notify(
        "verified",
        round=desk.memory.round,
        verdict=result.verdict.name,
        eq18=result.eq18,
        eq19=result.eq19,
        bounded=result.bounded,
    )


def on_dispute(desk: Desk, result: DisputeResult) -> None:
    desk.memory.findings.dispute = result
    if not result.sum_matches:
        for blob, data in (
            (result.sum_digest, result.sum),
            (result.repaired.model_digest, result.repaired.model),
        ):
            desk.put_blob(blob, data)


def on_evaluated(desk: Desk, ballot: int, result: EvaluateResult) -> None:
    if ballot not in desk.memory.openings:
        opening = decide_vote(desk, ballot, result)
        reporting.report_judgement(desk, ballot, opening.vote, result)
        desk.memory.openings[ballot] = opening
        key = durable.round_key(desk.memory.round, bytes((ballot,)))
        desk.outbox.persist(durable.OPENING, key, encode(opening))
