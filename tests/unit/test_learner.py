"""The learner's jobs: updates, losses as votes carry them, and models that cannot be judged."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from attrs import define, field

from flocknode.learner import Learner
from flocknode.learning.task import TaskError
from protocol.blob import blob_digest
from protocol.checkpoint import CheckpointError, initial_checkpoint
from protocol.duties.vote import MAX_LOSS_MICRO, loss_micro
from protocol.jobs import EvaluateJob, TrainJob
from protocol.params import hardened

D = 40
PARAMS = hardened(dimension=D, n_proposers=4, n_voters=2)
WEIGHTS = np.linspace(-1, 1, D).astype(np.float32)
MODEL = initial_checkpoint(PARAMS, WEIGHTS)
OTHER = initial_checkpoint(PARAMS, WEIGHTS * np.float32(0.5))
BLOBS = {blob_digest(data): data for data in (MODEL, OTHER, b"no checkpoint")}


@define
class Recorder:
    """A task that adds 1/4 to every weight, and whose loss is what the test says for each first weight."""

    examples: int = 17
    losses: dict[float, float] = field(factory=dict)
    configs: list[Mapping[str, object]] = field(factory=list)
    name: str = "recorder"
    dimension: int = D
    train_count: int = 17
    validation_count: int = 3
    test_count: int = 3

    def initial_weights(self, seed: int) -> npt.NDArray[np.float32]:
        return WEIGHTS

    def fit(
        self, weights: npt.NDArray[np.float32], config: Mapping[str, object]
    ) -> tuple[npt.NDArray[np.float32], int, dict[str, float]]:
        self.configs.append(config)
        return weights + np.float32(0.25), self.examples, {}

    def evaluate(
        self, weights: npt.NDArray[np.float32], config: Mapping[str, object]
    ) -> tuple[float, int, dict[str, float]]:
        self.configs.append(config)
        return self.losses[float(weights[0])], 3, {"accuracy": 0.5}


def learner(task: Recorder) -> Learner:
    return Learner(task, PARAMS, BLOBS.__getitem__, {"epochs": 3})


def test_an_update_is_new_minus_old_from_the_model_of_the_digest() -> None:
    task = Recorder()
    seed = bytes([255] * 8) + bytes(24)
    result = learner(task).train(TrainJob(round=5, model_digest=blob_digest(MODEL), seed=seed))
    assert result.update.dtype == np.float32
    assert np.allclose(result.update, 0.25, atol=1e-6)
    assert result.weight == 17
    assert task.configs == [{"epochs": 3, "seed": 2**63 - 1, "round": 5}]


@pytest.mark.parametrize(("examples", "weight"), [(1, 1), (1 << 16, 1 << 16), (10**9, 1 << 16)])
def test_the_weight_is_capped_by_the_network(examples: int, weight: int) -> None:
    job = TrainJob(round=0, model_digest=blob_digest(MODEL), seed=bytes(32))
    assert learner(Recorder(examples=examples)).train(job).weight == weight


def test_what_cannot_be_trained_is_named() -> None:
    with pytest.raises(TaskError, match="recorder fit: 0 training examples"):
        learner(Recorder(examples=0)).train(TrainJob(0, blob_digest(MODEL), bytes(32)))
    with pytest.raises(CheckpointError):
        learner(Recorder()).train(TrainJob(0, blob_digest(b"no checkpoint"), bytes(32)))


def evaluate(current: float, candidate: float) -> tuple[int, int]:
    task = Recorder(losses={-1.0: current, -0.5: candidate})
    result = learner(task).evaluate(EvaluateJob(0, blob_digest(MODEL), blob_digest(OTHER)))
    assert task.configs == [{"split": "validation"}] * 2
    assert result.current_loss is not None
    assert result.candidate_loss is not None
    return loss_micro(result.current_loss), loss_micro(result.candidate_loss)


def test_losses_are_whole_micro_units() -> None:
    assert evaluate(0.5, 1.2345678) == (500_000, 1_234_568)


@pytest.mark.parametrize("wild", [float("inf"), float("nan"), 1e300])
def test_a_model_too_wild_for_a_finite_loss_is_the_worst_and_not_an_abstention(wild: float) -> None:
    """Else an aggregate that overflows would be accepted with no vote against it."""
    assert evaluate(0.5, wild) == (500_000, MAX_LOSS_MICRO)
    assert evaluate(wild, 0.5) == (MAX_LOSS_MICRO, 500_000)


def test_losses_stay_in_the_range_of_a_vote() -> None:
    for loss in (-3.0, -float("inf"), 0.0, 1e-9, 1e12, 2.0**60):
        assert 0 <= loss_micro(loss) <= MAX_LOSS_MICRO


def test_a_model_that_cannot_be_evaluated_has_no_loss() -> None:
    absent = bytes(32)
    result = learner(Recorder(losses={-1.0: 0.5})).evaluate(EvaluateJob(0, blob_digest(MODEL), absent))
    assert (result.current_loss, result.candidate_loss) == (0.5, None)
    broken = Recorder()  # raises KeyError for every model
    result = learner(broken).evaluate(EvaluateJob(0, blob_digest(MODEL), blob_digest(b"no checkpoint")))
    assert (result.current_loss, result.candidate_loss) == (None, None)


def test_a_model_is_tested_on_the_test_split() -> None:
    task = Recorder(losses={-1.0: 0.25})
    assert learner(task).test(blob_digest(MODEL)) == (0.25, 3, {"accuracy": 0.5})
    assert task.configs == [{"split": "test"}]
