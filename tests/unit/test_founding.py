"""Worlds of real engines: founded from a seed, learning, and computing shared verifications once."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.engine import Engine
from protocol.jobs import EvaluateJob, TrainJob, VerifyJob
from protocol.params import Setup
from protocol.secagg.encoding import MODEL_FRACTION_BITS
from sim.founding import build_world, found, small_params
from sim.invariants.conduct import Conduct
from sim.learner import SyntheticLearner, sample_count
from sim.node import Node
from sim.worker import JobWorker
from sim.world import ReadBlob, World


def engine_of(node: Node) -> Engine:
    assert isinstance(node.engine, Engine)
    return node.engine


def rounds_done(world: World) -> int:
    return min(engine_of(node).state.round - 1 if node.alive else 0 for node in world.nodes)


@pytest.mark.parametrize(("profile", "share"), [("hardened", 0.1), ("vcdfl", 0.7)])
def test_a_network_learns(profile: str, share: float) -> None:
    """Two rounds leave at most this share of the loss; VCD-FL sends a tenth of the coordinates a round."""
    world = build_world(5, 11, profile=profile, invariants=[Conduct()])
    learner = SyntheticLearner(small_params(5, profile), found(5, 11, small_params(5)).bytes32("learner"))

    def loss(node: Node) -> int:
        return learner.loss_micro(node.index, engine_of(node).state.model_digest, node.blobs.__getitem__)

    world.run(lambda world: all(node.alive for node in world.nodes))
    before = [loss(node) for node in world.nodes]
    world.run(lambda world: rounds_done(world) == 2, max_virtual_ms=60_000)
    world.run_for(2_000)
    after = [loss(node) for node in world.nodes]
    assert all(late < share * early for early, late in zip(before, after, strict=True))
    assert not world.failed_jobs


def test_a_founding_is_a_function_of_its_seed() -> None:
    params = small_params(4, "vcdfl")
    first, again, other = found(4, 1, params), found(4, 1, params), found(4, 2, params)
    assert first.genesis == again.genesis
    assert first.genesis.network != other.genesis.network
    assert blob_digest(first.checkpoint) == first.genesis.model_digest
    assert sorted(first.packages) == [member.peer for member in first.genesis.members]
    assert params.setup is Setup.DEALER
    assert not found(4, 1, small_params(4)).packages


def model_blobs(weights: np.ndarray) -> tuple[bytes, ReadBlob]:
    data = initial_checkpoint(small_params(4), weights.astype(np.float32))
    return blob_digest(data), {blob_digest(data): data}.__getitem__


def test_the_learner_by_definition() -> None:
    params = small_params(4)
    learner = SyntheticLearner(params, bytes(32))
    weights = np.linspace(-0.25, 0.25, params.dimension)
    digest, read_blob = model_blobs(weights)
    update = learner.train(1, TrainJob(1, digest, bytes(32)), read_blob).update.astype(np.float64)
    target = weights.astype(np.float32) + 2 * update
    assert np.abs(target).max() <= 0.52
    expected = np.mean(np.square(2 * update))
    assert learner.loss_micro(1, digest, read_blob) / 1e6 == pytest.approx(expected, rel=0.01)
    moved, read_moved = model_blobs(weights + update)
    assert learner.loss_micro(1, moved, read_moved) / 1e6 == pytest.approx(expected / 4, rel=0.02)
    far, read_far = model_blobs(np.full(params.dimension, 2.0**20))
    assert learner.loss_micro(1, far, read_far) / 1e6 == pytest.approx(2.0**40, rel=0.01)
    result = learner.evaluate(1, EvaluateJob(1, digest, moved), lambda wanted: read_blob(digest))
    assert result.current_loss == result.candidate_loss
    assert MODEL_FRACTION_BITS == 24
    assert 1 <= sample_count(params, 3) <= params.max_weight


def test_a_verification_is_computed_once_and_fails_where_a_blob_is_missing() -> None:
    seen: list[VerifyJob] = []

    class Noting(JobWorker):
        def run(self, node: int, job: object, read_blob: ReadBlob) -> object:
            if isinstance(job, VerifyJob):
                seen.append(job)
            return super().run(node, job, read_blob)  # type: ignore[arg-type]

    params = small_params(4)
    learner = SyntheticLearner(params, found(4, 5, params).bytes32("learner"))
    worker = Noting(learner)
    world = build_world(4, 5, worker=worker)
    world.run(lambda world: rounds_done(world) == 1, max_virtual_ms=60_000)
    job, node = seen[0], world.nodes[0]
    assert seen.count(job) == 4
    read_blob = node.blobs.__getitem__
    assert worker.run(0, job, read_blob) is worker.run(1, job, read_blob)
    with pytest.raises(KeyError):
        worker.run(0, job, {}.__getitem__)
