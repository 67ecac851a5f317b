"""Plain FedAvg over the proposers that the ledger names: what the demo's accuracy is compared with.

The same shards, seeds and sample orders, the same poisoned updates, and no masks, no encoding, no clipping.
Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from flocknode.learning.loading import load_task
from flocknode.learning.poisoning import PoisonedTask
from flocknode.learning.task import Task, Weights, fedavg
from flocknode.learning.trainer import LocalTask
from flocknode.observe.nodelog import Evaluation
from flocknode.observe.report import pooled


@frozen(kw_only=True)
class Baseline:
    """What to repeat. `poisoned`: the scale of a poisoner's update, by node index.

    `rounds`: for each round the indices of the contributors, where their aggregate was accepted.
    """

    task: str
    shards: int
    seed: int
    training_seeds: tuple[int, ...]
    rounds: tuple[tuple[int, tuple[int, ...]], ...]
    poisoned: Mapping[int, float] = field(factory=dict)


def plain_fedavg(baseline: Baseline) -> list[dict[str, float]]:
    """The scores of the initial model, then those after each round, over the test splits of all nodes."""
    tasks = [_task(baseline, index) for index in range(baseline.shards)]
    weights = tasks[0].initial_weights(baseline.seed)
    scores = [_scores(tasks, weights)]
    for round_, contributors in baseline.rounds:
        if contributors:
            configs = [{"seed": baseline.training_seeds[i], "round": round_} for i in contributors]
            weights = fedavg(tasks, weights, contributors, configs)
        scores.append(_scores(tasks, weights))
    return scores


def _task(baseline: Baseline, index: int) -> Task:
    task = load_task(baseline.task, index, baseline.shards, baseline.seed)
    if index not in baseline.poisoned:
        return task
    assert isinstance(task, LocalTask)
    return PoisonedTask(task, baseline.poisoned[index])


def _scores(tasks: list[Task], weights: Weights) -> dict[str, float]:
    evaluations = []
    for task in tasks:
        loss, examples, metrics = task.evaluate(weights, {"split": "test"})
        evaluations.append(Evaluation(examples, {"loss": loss, **metrics}))
    return pooled(evaluations)
