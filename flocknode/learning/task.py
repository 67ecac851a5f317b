"""What a node learns: the `Task` contract, its configuration, and the plain FedAvg it is measured against.

A task has the shape of Flower's NumPyClient, fit(weights, config) -> (weights, num_examples, metrics) and
evaluate(weights, config) -> (loss, num_examples, metrics), except that the weights are one flat vector.
Importing this module costs numpy and attrs only.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from attrs import frozen

Weights = npt.NDArray[np.float32]
Scalar = bool | bytes | float | int | str
Config = Mapping[str, Scalar]
Metrics = dict[str, float]

TASK_NAMES = ("mnist", "digits", "lending-club")
PARTITIONS = ("iid", "dirichlet")
SPLITS = ("validation", "test")

MAX_SEED = 2**63 - 1
MAX_EPOCHS = 1_000
MAX_BATCH_SIZE = 2**20


class TaskError(ValueError):
    """A task was asked for something it cannot do; the message names the argument at fault."""


class ConfigError(TaskError):
    """A configuration value is missing, of the wrong type or out of range; the message names the key."""


class WeightsError(TaskError):
    """A weight vector of the wrong shape, or holding a NaN or an infinity."""


class DivergedError(TaskError):
    """Training left the finite numbers: the learning rate is too large for this model and data."""


class Task(Protocol):
    """One node's share of a learning problem. Counts are samples; `dimension` is the weights' length d."""

    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def train_count(self) -> int: ...
    @property
    def validation_count(self) -> int: ...
    @property
    def test_count(self) -> int: ...

    def initial_weights(self, seed: int) -> Weights:
        """float32[d], the same at every node for the same seed."""
        ...

    def fit(self, weights: Weights, config: Config) -> tuple[Weights, int, Metrics]:
        """Train from `weights` (float32[d], not modified) on the training split; `FitSettings` reads
        `config`.

        Returns the new weights, the number of training samples, and at least the metrics "loss" (last epoch),
        "accuracy" (last epoch) and "largest_update" (the largest coordinate of the update by magnitude).
        Deterministic in its arguments. Raises ConfigError, WeightsError, DivergedError.
        """
        ...

    def evaluate(self, weights: Weights, config: Config) -> tuple[float, int, Metrics]:
        """Mean loss, sample count and metrics on the split `config["split"]`, by default "validation".

        Metrics: "accuracy"; with two classes also "balanced_accuracy" and, unless only one class occurs in
        the split, "auroc". A model too wild to give a finite loss has the loss infinity. Raises ConfigError,
        WeightsError.
        """
        ...


@frozen
class Defaults:
    """A task's own hyper-parameters, for every key the configuration leaves out."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float


DEFAULTS: Mapping[str, Defaults] = {
    "mnist": Defaults(epochs=1, batch_size=16, learning_rate=0.05, momentum=0.9),
    "digits": Defaults(epochs=2, batch_size=16, learning_rate=0.1, momentum=0.5),
    "lending-club": Defaults(epochs=1, batch_size=32, learning_rate=0.02, momentum=0.5),
}


@frozen
class FitSettings:
    """A checked `fit` configuration: `epochs` passes over the data in an order drawn from (seed, round)."""

    seed: int
    round: int
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float

    @classmethod
    def read(cls, config: Config, defaults: Defaults) -> "FitSettings":
        """Keys: seed (required), round (0), epochs, batch_size, learning_rate, momentum; others are ignored.

        Raises ConfigError naming the key.
        """
        if "seed" not in config:
            raise ConfigError("fit: config lacks 'seed'; training draws no randomness of its own")
        return cls(
            seed=_integer(config, "seed", 0, 0, MAX_SEED),
            round=_integer(config, "round", 0, 0, MAX_SEED),
            epochs=_integer(config, "epochs", defaults.epochs, 1, MAX_EPOCHS),
            batch_size=_integer(config, "batch_size", defaults.batch_size, 1, MAX_BATCH_SIZE),
            learning_rate=_real(config, "learning_rate", defaults.learning_rate, 0.0, 100.0),
            momentum=_real(config, "momentum", defaults.momentum, 0.0, 0.999),
        )


def evaluation_split(config: Config) -> str:
    """The split `evaluate` is to use: config["split"], "validation" if absent. Raises ConfigError."""
    split = config.get("split", "validation")
    if not isinstance(split, str) or split not in SPLITS:
        raise ConfigError(f"evaluate: config['split'] must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def checked_weights(weights: Weights, dimension: int, what: str) -> Weights:
    """`weights` if they are float32[dimension] and finite, else WeightsError naming `what` and where."""
    if weights.dtype != np.float32 or weights.shape != (dimension,):
        raise WeightsError(
            f"{what}: weights must be float32[{dimension}], got {weights.dtype}{list(weights.shape)}"
        )
    finite = np.isfinite(weights)
    if not finite.all():
        raise WeightsError(f"{what}: weight {int(np.argmin(finite))} is not finite")
    return weights


def fedavg(
    tasks: Sequence[Task], weights: Weights, proposers: Sequence[int], configs: Sequence[Config]
) -> Weights:
    """One round of plain federated averaging, for comparison: no masks, no clipping, no vote.

    FedAvg's w + sum_i n_i (w_i - w) / sum_i n_i (McMahan et al. 2017, algorithm 1), summed in float64 in the
    order of `proposers`, which index `tasks`; `configs` holds one fit configuration for each. Returns
    float32[d]. Raises TaskError if there are no proposers or not one configuration each.
    """
    if not proposers or len(configs) != len(proposers):
        raise TaskError(f"fedavg: {len(proposers)} proposers and {len(configs)} configurations")
    total, examples = np.zeros(len(weights), np.float64), 0
    for index, config in zip(proposers, configs, strict=True):
        fitted, count, _ = tasks[index].fit(weights, config)
        total += count * (fitted.astype(np.float64) - weights)
        examples += count
    return (weights + total / examples).astype(np.float32)


def _integer(config: Config, key: str, default: int, low: int, high: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"fit: config[{key!r}] must be an integer in [{low}, {high}], got {value!r}")
    return value


def _real(config: Config, key: str, default: float, low: float, high: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"fit: config[{key!r}] must be a number in [{low}, {high}], got {value!r}")
    return float(value)
