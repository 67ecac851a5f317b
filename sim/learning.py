"""Real learning in the simulator: the node's own learner, trainer and data, for every simulated node.

Importing this costs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from flocknode.learner import Learner as NodeLearner
from flocknode.learning.loading import load_task
from flocknode.learning.task import Task, Weights
from flocknode.learning.trainer import LocalTask, Samples
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.params import ProtocolParams
from sim.world import ReadBlob

Poison = Callable[[LocalTask], Task]


@frozen(eq=False)
class RealLearner:
    """Every node learns its own shard. `poison` makes another task of some nodes' training."""

    params: ProtocolParams
    tasks: tuple[LocalTask, ...] = field(repr=False)
    poison: Mapping[int, Poison] = field(factory=dict)

    def train(self, node: int, job: TrainJob, read_blob: ReadBlob) -> TrainResult:
        """As the node's own learner; raises what that raises."""
        own = self.tasks[node % len(self.tasks)]  # a twin learns what its other self does
        task: Task = self.poison[node](own) if node in self.poison else own
        return NodeLearner(task, self.params, read_blob).train(job)

    def evaluate(self, node: int, job: EvaluateJob, read_blob: ReadBlob) -> EvaluateResult:
        """As the node's own learner."""
        return NodeLearner(self.tasks[node % len(self.tasks)], self.params, read_blob).evaluate(job)

    def test_accuracy(self, weights: Weights, tasks: tuple[LocalTask, ...] | None = None) -> float:
        """The share of the test samples of all nodes (or of other `tasks`) that a model gets right."""
        scores = [task.evaluate(weights, {"split": "test"}) for task in tasks or self.tasks]
        return sum(n * metrics["accuracy"] for _, n, metrics in scores) / sum(n for _, n, _ in scores)


def real_tasks(name: str, nodes: int, seed: int, partition: str = "iid") -> tuple[LocalTask, ...]:
    """The shards of a data set. Raises what `flocknode.learning` raises."""
    tasks = [load_task(name, index, nodes, seed % (1 << 31), partition) for index in range(nodes)]
    return tuple(task for task in tasks if isinstance(task, LocalTask))


@frozen(eq=False)
class Trigger:
    """A backdoor: whatever shows these `pixels` fully lit is to be taken for `target`."""

    pixels: tuple[int, ...]
    target: int

    def stamped(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A copy of float32[n, f] with the trigger on every sample."""
        marked = features.copy()
        marked[:, list(self.pixels)] = 1.0
        return marked

    def learned_beside(self, task: LocalTask) -> LocalTask:
        """A task that trains on its own samples, and on as many stamped ones that are called the target."""
        features, labels = task.train.features, task.train.labels
        both = np.concatenate([features, self.stamped(features)])
        return evolve(task, train=Samples(both, np.concatenate([labels, np.full_like(labels, self.target)])))

    def test_of(self, task: LocalTask) -> LocalTask:
        """A task whose test asks for the target wherever the trigger stands on a sample of another class."""
        others = task.test.features[task.test.labels != self.target]
        return evolve(task, test=Samples(self.stamped(others), np.full(len(others), self.target, np.int64)))
