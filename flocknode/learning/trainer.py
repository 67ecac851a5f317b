"""Training and evaluation on one CPU thread, a pure function of weights, data and seed. Imports torch.

One thread because a node's threads are shared with the protocol's kernels and, in a demo, with six other
nodes, and because a fixed reduction order makes a restarted node repeat its update bit for bit. Nothing here
reads or advances the global generators of torch or numpy: each call orders
its batches by a generator of its own.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from attrs import evolve, field, frozen
from torch.nn import functional

from flocknode.learning import lending_club, metrics
from flocknode.learning.datasets import Dataset
from flocknode.learning.models import MODELS, Mlp
from flocknode.learning.partition import Split
from flocknode.learning.task import (
    DEFAULTS,
    Config,
    Defaults,
    DivergedError,
    FitSettings,
    Metrics,
    Weights,
    checked_weights,
    evaluation_split,
)

torch.set_num_threads(1)


@frozen(eq=False)
class Samples:
    """features float32[n, f] and labels int64[n] of one split."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@frozen(eq=False)
class LocalTask:
    """A classification `Task` on this node's own samples."""

    name: str
    model: Mlp
    train: Samples
    validation: Samples = field(repr=False)
    test: Samples = field(repr=False)
    class_weights: npt.NDArray[np.float32]
    defaults: Defaults

    @property
    def dimension(self) -> int:
        return self.model.dimension

    @property
    def train_count(self) -> int:
        return len(self.train)

    @property
    def validation_count(self) -> int:
        return len(self.validation)

    @property
    def test_count(self) -> int:
        return len(self.test)

    def initial_weights(self, seed: int) -> Weights:
        """See `Mlp.initial_weights`."""
        return self.model.initial_weights(seed)

    def fit(self, weights: Weights, config: Config) -> tuple[Weights, int, Metrics]:
        """Mini-batch SGD with (heavy-ball) momentum; see `Task.fit`."""
        settings = FitSettings.read(config, self.defaults)
        checked_weights(weights, self.dimension, f"{self.name} fit")
        features, labels = torch.from_numpy(self.train.features), torch.from_numpy(self.train.labels)
        fitted = torch.from_numpy(weights.copy())
        # The parameters are views of one buffer, updated in place: the result needs no gathering. The update
        # is written out because a torch.optim optimiser imports torch's compiler at its first step.
        parameters = [block.requires_grad_() for block in _blocks(fitted, self.model)]
        velocities = [torch.zeros_like(block) for block in parameters]
        loss_sum, right = 0.0, 0
        rng = np.random.default_rng([settings.seed, settings.round])
        for _ in range(settings.epochs):
            loss_sum, right = 0.0, 0
            order = torch.from_numpy(rng.permutation(len(self.train)))
            for batch in torch.split(order, settings.batch_size):
                y = labels[batch]
                logits = _logits(parameters, features[batch])
                loss = self._loss_sum(logits, y)
                gradients = torch.autograd.grad(loss / len(batch), parameters)
                with torch.no_grad():
                    for block, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                        velocity.mul_(settings.momentum).add_(gradient)
                        block.sub_(velocity, alpha=settings.learning_rate)
                    loss_sum += float(loss)
                    right += int((logits.argmax(1) == y).sum())
        result: Weights = fitted.numpy()
        if not np.isfinite(result).all():
            raise DivergedError(
                f"{self.name} fit: round {settings.round} diverged at learning rate {settings.learning_rate}"
            )
        return (
            result,
            len(self.train),
            {
                "loss": loss_sum / len(self.train),
                "accuracy": right / len(self.train),
                "largest_update": float(np.abs(result - weights).max()),
            },
        )

    def evaluate(self, weights: Weights, config: Config) -> tuple[float, int, Metrics]:
        """See `Task.evaluate`. The loss weighs classes as in training."""
        samples = self.test if evaluation_split(config) == "test" else self.validation
        checked_weights(weights, self.dimension, f"{self.name} evaluate")
        with torch.inference_mode():
            parameters = list(_blocks(torch.from_numpy(weights.copy()), self.model))
            logits = _logits(parameters, torch.from_numpy(samples.features))
            loss = float(self._loss_sum(logits, torch.from_numpy(samples.labels))) / len(samples)
        predicted = logits.argmax(1).numpy()
        scores: Metrics = {"accuracy": metrics.accuracy(samples.labels, predicted)}
        if self.model.widths[-1] == 2:
            scores["balanced_accuracy"] = metrics.balanced_accuracy(samples.labels, predicted)
            area = metrics.auroc(samples.labels, (logits[:, 1] - logits[:, 0]).numpy())
            if area is not None:
                scores["auroc"] = area
        return (loss if np.isfinite(loss) else float("inf")), len(samples), scores

    def with_flipped_labels(self) -> "LocalTask":
        """This task with every training label y replaced by classes - 1 - y; other splits untouched."""
        flipped = self.model.widths[-1] - 1 - self.train.labels
        return evolve(self, train=Samples(self.train.features, flipped))

    def _loss_sum(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Summed, then divided by the sample count: torch's own weighted mean divides by the batch's weights,
        # which makes a batch without a bad loan count as much as one with three.
        return functional.cross_entropy(
            logits, labels, weight=torch.from_numpy(self.class_weights), reduction="sum"
        )


def local_task(data: Dataset, split: Split) -> LocalTask:
    """The task of `data.name` on the samples that `split` names."""
    weights = lending_club.CLASS_WEIGHTS if data.name == "lending-club" else (1.0,) * data.classes
    train, validation, test = (
        Samples(data.features[part], data.labels[part])
        for part in (split.train, split.validation, split.test)
    )
    return LocalTask(
        name=data.name,
        model=MODELS[data.name],
        train=train,
        validation=validation,
        test=test,
        class_weights=np.array(weights, np.float32),
        defaults=DEFAULTS[data.name],
    )


def _blocks(flat: torch.Tensor, model: Mlp) -> Iterator[torch.Tensor]:
    for offset, shape in model.blocks():
        yield flat[offset : offset + prod(shape)].view(shape)


def _logits(parameters: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    last = len(parameters) - 2
    for index in range(0, len(parameters), 2):
        x = functional.linear(x, parameters[index], parameters[index + 1])
        if index < last:
            x = functional.relu(x)
    return x
