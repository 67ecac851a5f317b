"""All proposers of a round trained at once, all voters asked at once. Imports torch.

Row by row this is `LocalTask.fit` and `LocalTask.evaluate`: the same order of samples, the same batches, the
same update rule. Clients with fewer samples are padded with batches that have no weight and take no step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from attrs import field, frozen
from torch.nn import functional

from flocknode.learning import metrics
from flocknode.learning.task import Weights
from sim.figures.flock.networks import dimension, parameters_of
from sim.figures.flock.problem import Problem

torch.set_num_threads(1)

Stack = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@frozen(eq=False)
class Schedule:
    """`order`: int64[c], clients by falling number of batches. `steps`: what the first a of them train on.

    A step is index int64[a, batch], the samples, and weight float32[a, batch]: 1 / size of the batch, or 0
    where a batch is shorter than the others.
    """

    order: Indices
    steps: tuple[tuple[torch.Tensor, torch.Tensor], ...]


def schedule(problem: Problem, clients: Sequence[int], seeds: Sequence[int], round_: int) -> Schedule:
    """The batches of `LocalTask.fit` for each of `clients`, with its seed, in round `round_`."""
    settings = problem.defaults
    batches = [
        _batches(problem.splits[client].train, settings.batch_size, settings.epochs, seed, round_)
        for client, seed in zip(clients, seeds, strict=True)
    ]
    counts = np.array([len(own) for own in batches])
    order = np.argsort(-counts, kind="stable")
    steps = []
    for step in range(counts.max()):
        step_batches = [batches[client][step] for client in order[: np.count_nonzero(counts > step)]]
        sizes = np.array([len(batch) for batch in step_batches])
        inside = np.arange(sizes.max()) < sizes[:, None]
        index = np.zeros(inside.shape, np.int64)
        index[inside] = np.concatenate(step_batches)
        weight = (inside / sizes[:, None]).astype(np.float32)
        steps.append((torch.from_numpy(index), torch.from_numpy(weight)))
    return Schedule(order, tuple(steps))


def _batches(train: Indices, size: int, epochs: int, seed: int, round_: int) -> list[Indices]:
    rng = np.random.default_rng([seed, round_])
    orders = [train[rng.permutation(len(train))] for _ in range(epochs)]
    return [order[start : start + size] for order in orders for start in range(0, len(order), size)]


@frozen(eq=False)
class Trainer:
    """A problem's samples as tensors."""

    problem: Problem
    _features: torch.Tensor = field(init=False, repr=False)
    _targets: torch.Tensor = field(init=False, repr=False)
    _class_weights: torch.Tensor = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # A copy: the data sets are read-only, which tensors cannot be.
        object.__setattr__(self, "_features", torch.from_numpy(self.problem.features.copy()))
        object.__setattr__(self, "_targets", torch.from_numpy(self.problem.targets.copy()))
        object.__setattr__(self, "_class_weights", torch.from_numpy(self.problem.class_weights))

    def fit(
        self,
        weights: Weights,
        clients: Sequence[int],
        flipped: Sequence[bool],
        seeds: Sequence[int],
        round_: int,
    ) -> Stack:
        """float32[c, d]: what each of `clients` makes of `weights` (float32[d]) on its training split.

        Those of `flipped` learn class classes - 1 - y for y, or, with several labels, the opposite of each.
        `seeds` order their batches. Mini-batch SGD with momentum, as `LocalTask.fit`; but who leaves the
        finite numbers, after an accepted poison say, gives `weights` back, where a node would stay silent.
        """
        settings, network = self.problem.defaults, self.problem.network
        plan = schedule(self.problem, clients, seeds, round_)
        stack = torch.from_numpy(np.tile(weights, (len(clients), 1)))
        parameters = parameters_of(network, stack)
        velocities = [torch.zeros(block.shape) for block in parameters]
        turned = torch.tensor(list(flipped))[plan.order].view(-1, 1, 1)
        for index, weight in plan.steps:
            # The clients with the most samples come first: those that still have a batch are a prefix.
            active = len(index)
            targets = self._targets[index]
            targets = torch.where(turned[:active], self._flip(targets), targets)
            current = [block[:active].detach().requires_grad_() for block in parameters]
            losses = self._losses(network.logits(current, self._features[index]), targets)
            gradients = torch.autograd.grad((losses * weight).sum(), current)
            with torch.no_grad():
                for block, velocity, gradient in zip(current, velocities, gradients, strict=True):
                    velocity[:active].mul_(settings.momentum).add_(gradient)
                    block.sub_(velocity[:active], alpha=settings.learning_rate)
        fitted: Stack = np.empty_like(stack.numpy())
        fitted[plan.order] = stack.numpy()
        diverged = ~np.isfinite(fitted).all(axis=1)
        fitted[diverged] = weights
        return fitted

    def losses(self, models: Stack, samples: Indices) -> npt.NDArray[np.float64]:
        """float64[m, n]: the loss of each of `models` (float32[m, d]) on each sample, or infinity."""
        with torch.inference_mode():
            x = self._features[samples].expand(len(models), -1, -1)
            targets = self._targets[samples].expand(len(models), -1, -1)
            losses = self._losses(self._logits(models, x), targets).double().numpy()
        return np.where(np.isfinite(losses), losses, np.inf)

    def mean_losses(self, models: Stack, groups: Sequence[Indices]) -> npt.NDArray[np.float64]:
        """float64[m, g]: the mean loss of each model on each group of samples, none of which is empty."""
        sizes = np.array([len(group) for group in groups])
        losses = self.losses(models, np.concatenate(groups))
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        means: npt.NDArray[np.float64] = np.add.reduceat(losses, starts, axis=1) / sizes
        return means

    def scores(self, weights: Weights, samples: Indices) -> dict[str, float]:
        """ "accuracy", "balanced_accuracy" and "auroc" of one model on `samples`.

        AUROC is the mean over classes, each against the rest, of those that occur (two classes: the plain
        one). With several labels accuracy is over all of them, and balanced accuracy the mean of theirs.
        """
        with torch.inference_mode():
            logits = self._logits(weights[None], self._features[samples][None])[0].double().numpy()
        targets = self.problem.targets[samples] > 0.5
        if self.problem.multi_label:
            labels, predicted = targets.astype(np.int64), (logits > 0).astype(np.int64)
            balanced = [
                metrics.balanced_accuracy(labels[:, k], predicted[:, k]) for k in range(labels.shape[1])
            ]
            accuracy, balanced_accuracy = metrics.accuracy(labels, predicted), float(np.mean(balanced))
        else:
            label, best = targets.argmax(1).astype(np.int64), logits.argmax(1).astype(np.int64)
            accuracy, balanced_accuracy = (
                metrics.accuracy(label, best),
                metrics.balanced_accuracy(label, best),
            )
            # A logit alone ranks samples by how large all of theirs are: compare each class with the rest.
            logits = _log_odds(logits)
        return {
            "accuracy": accuracy,
            "balanced_accuracy": balanced_accuracy,
            "auroc": _mean_auroc(targets, logits),
        }

    def _logits(self, models: Stack, x: torch.Tensor) -> torch.Tensor:
        network = self.problem.network
        return network.logits(parameters_of(network, torch.from_numpy(models.copy())), x)

    def _losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """float32[c, n]: cross entropy weighted by class, or the mean binary one over the labels."""
        if self.problem.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
        return -(functional.log_softmax(logits, -1) * targets * self._class_weights).sum(-1)

    def _flip(self, targets: torch.Tensor) -> torch.Tensor:
        return 1 - targets if self.problem.multi_label else targets.flip(-1)


def initial_weights(problem: Problem, seed: int) -> Weights:
    """float32[d] of the problem's network."""
    weights = problem.network.initial_weights(seed)
    assert len(weights) == dimension(problem.network)
    return weights


def _log_odds(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[n, classes]: log p / (1 - p) of each class under softmax; for two, the difference of logits."""
    return np.stack(
        [
            logits[:, k] - np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1)
            for k in range(logits.shape[1])
        ],
        axis=1,
    )


def _mean_auroc(targets: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """The mean over columns; 0.5 where no column has both kinds of samples."""
    areas = [
        area
        for k in range(targets.shape[1])
        if (area := metrics.auroc(targets[:, k].astype(np.int64), scores[:, k])) is not None
    ]
    return float(np.mean(areas)) if areas else 0.5
