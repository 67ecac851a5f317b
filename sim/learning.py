"""Real learning in virtual time: each node trains and evaluates its own shard of real data with torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from attrs import define, field

from flocknode.learner import Learner as NodeLearner
from flocknode.learning.task import Task
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.params import ProtocolParams
from sim.world import ReadBlob


@define(eq=False)
class RealLearner:
    """A `sim.worker.Learner` over one task a node. What a node trains follows from the job's seed alone."""

    params: ProtocolParams
    tasks: Sequence[Task]
    _blob: ReadBlob = field(init=False)
    _learners: list[NodeLearner] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._learners = [NodeLearner(task, self.params, self._read, {}) for task in self.tasks]

    def train(self, node: int, job: TrainJob, read_blob: ReadBlob) -> TrainResult:
        self._blob = read_blob
        return self._learners[node % len(self.tasks)].train(job)

    def evaluate(self, node: int, job: EvaluateJob, read_blob: ReadBlob) -> EvaluateResult:
        self._blob = read_blob
        return self._learners[node % len(self.tasks)].evaluate(job)

    def _read(self, digest: bytes) -> bytes:
        return self._blob(digest)


def load_tasks(name: str, nodes: int, seed: int, partition: str) -> list[Task]:
    """The shards of a real data set, one for each node. Raises what `flocknode.learning` raises."""
    import torch

    from flocknode.learning.loading import load_task

    torch.set_num_threads(1)
    return [load_task(name, node, nodes, seed % (1 << 31), partition=partition) for node in range(nodes)]


def first_weights(task: Task, seed: int) -> npt.NDArray[np.float32]:
    """The model that training begins from, float32[d]."""
    return task.initial_weights(seed % (1 << 31))
