"""Phase 2, a proposer: train, mask, commit, publish (section 3)."""

from __future__ import annotations

import numpy as np

from protocol.duties import zs
from protocol.duties.desk import Desk
from protocol.envelope import Statement
from protocol.jobs import ContributeJob, TrainJob
from protocol.messages import Contribution, Kind
from protocol.params import Sparsify
from protocol.secrets import z_root_hash


def train(desk: Desk) -> None:
    if desk.has_run("train") or desk.state.model_digest not in desk.blobs:
        return
    if own_contribution(desk) is not None:
        return
    desk.run(
        "train",
        TrainJob(desk.state.round, desk.state.model_digest, desk.my_secrets().training_seed),
    )


def own_contribution(desk: Desk) -> Statement | None:
    return desk.pool.get(desk.state.round, Kind.CONTRIBUTION, desk.me)


def contribute(desk: Desk) -> None:
    round_, memory = desk.state.round, desk.memory
    if memory.trained is None or (desk.has_run("contribute") and memory.contributed is None):
        return
    sharers = [bundle.peer for bundle in desk.learning.sharers]
    if desk.me not in sharers or own_contribution(desk) is not None:
        return
    z_root = zs.z_root(desk)
    if z_root is None:
        return
    if memory.contributed is None:
        desk.run(
            "contribute",
            ContributeJob(
                context=desk.context,
                proposer=desk.index(desk.me),
                secrets=desk.my_secrets(),
                z_root=z_root,
                update=memory.trained.update,
                weight=desk.weight,
                model_digest=desk.state.model_digest,
                residual=residual_values(desk),
            ),
        )
        return
    result = memory.contributed
    desk.put_blob(result.upload_digest, result.upload)
    desk.outbox.publish(
        round_,
        Kind.CONTRIBUTION,
        Contribution(
            result.commitment_digest,
            result.upload_digest,
            z_root_hash(desk.rules.network, round_, z_root),
        ),
        payload=result.commitment,
    )


def residual_values(desk: Desk) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    if desk.rules.params.sparsify is Sparsify.OFF or desk.residual is None:
        return None
    return np.frombuffer(desk.residual.values, dtype="<f4").astype(np.float32)


def payload_fits(desk: Desk, statement: Statement) -> bool:
    """Is the payload the commitment that the contribution signs for, and of the form that is due?"""
    return desk.checks.commitment_fits(statement, desk.rules.params)
