"""The data and the model that all systems train: MNIST dealt out as flocknode's own nodes deal it.

Written once for a run and read by every adapter, also where flocknode's data sets are not installed. Needs
numpy, attrs and, for training, torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import frozen

from flocknode.learning.task import Weights
from flocknode.learning.trainer import LocalTask, Samples

TASK = "mnist"


@frozen(eq=False)
class Shards:
    """One task a node, the initial model float32[d], and each node's training seed."""

    tasks: tuple[LocalTask, ...]
    initial: Weights
    training_seeds: tuple[int, ...]

    def fit(self, node: int, weights: Weights, round_: int) -> tuple[Weights, int]:
        """One local epoch from `weights`; rounds count from 1. The new weights and the sample count."""
        config = {"seed": self.training_seeds[node], "round": round_}
        fitted, count, _ = self.tasks[node].fit(weights, config)
        return fitted, count

    def accuracy(self, weights: Weights) -> float:
        """Over the test splits of all nodes together."""
        scores = [task.evaluate(weights, {"split": "test"}) for task in self.tasks]
        return sum(count * each["accuracy"] for _, count, each in scores) / sum(n for _, n, _ in scores)


def write_shards(path: Path, nodes: int, seed: int) -> None:
    """What nodes founded with this seed would hold."""
    from flocknode.demo.plan import training_seed
    from flocknode.learning.loading import load_task

    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32 | np.int64]]] = {}
    for node in range(nodes):
        task = load_task(TASK, node, nodes, seed)
        assert isinstance(task, LocalTask)
        for name in ("train", "test"):
            samples: Samples = getattr(task, name)
            arrays[f"{name}_x_{node}"], arrays[f"{name}_y_{node}"] = samples.features, samples.labels
        if node == 0:
            arrays["initial"] = task.initial_weights(seed)
    arrays["seeds"] = np.array([training_seed(seed, node) for node in range(nodes)], dtype=np.int64)
    np.savez(path, allow_pickle=False, **arrays)


def read_shards(path: Path) -> Shards:
    """What `write_shards` wrote."""
    from flocknode.learning.models import MODELS
    from flocknode.learning.task import DEFAULTS

    model = MODELS[TASK]
    with np.load(path, allow_pickle=False) as arrays:
        seeds = tuple(int(seed) for seed in arrays["seeds"])
        tasks = []
        for node in range(len(seeds)):
            train = Samples(arrays[f"train_x_{node}"], arrays[f"train_y_{node}"])
            test = Samples(arrays[f"test_x_{node}"], arrays[f"test_y_{node}"])
            tasks.append(
                LocalTask(
                    name=TASK,
                    model=model,
                    train=train,
                    validation=test,
                    test=test,
                    class_weights=np.ones(model.widths[-1], np.float32),
                    defaults=DEFAULTS[TASK],
                )
            )
        return Shards(tuple(tasks), arrays["initial"], seeds)
