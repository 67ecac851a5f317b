"""A task without data, for measuring the protocol alone: every node pulls the model towards one point.

An update costs one pass over the weights and imports no torch, and the loss falls with every round, so that
honest aggregates are voted for.
"""

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from flocknode.learning.task import Config, Metrics, Weights, checked_weights

SYNTHETIC = "synthetic"
SAMPLES = 1_000
"""What each node claims to have trained on."""

STEP = np.float32(0.5)
SPREAD = 0.05


@frozen(eq=False)
class SyntheticTask:
    """A `Task` of `dimension` weights; the point is the same for all, a pure function of `seed`."""

    dimension: int
    seed: int = 0
    name: str = SYNTHETIC
    train_count: int = SAMPLES
    validation_count: int = SAMPLES
    test_count: int = SAMPLES
    _goal: npt.NDArray[np.float32] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        goal = np.random.default_rng(self.seed).uniform(-SPREAD, SPREAD, self.dimension).astype(np.float32)
        object.__setattr__(self, "_goal", goal)

    def initial_weights(self, seed: int) -> Weights:
        """The origin, whatever the seed."""
        return np.zeros(self.dimension, np.float32)

    def fit(self, weights: Weights, config: Config) -> tuple[Weights, int, Metrics]:
        """Half the way to the goal."""
        checked_weights(weights, self.dimension, f"{self.name} fit")
        update = STEP * (self._goal - weights)
        scores = {"loss": self._loss(weights), "largest_update": float(np.abs(update).max())}
        return weights + update, SAMPLES, scores

    def evaluate(self, weights: Weights, config: Config) -> tuple[float, int, Metrics]:
        """The mean squared distance from the goal; there is nothing to be accurate about."""
        checked_weights(weights, self.dimension, f"{self.name} evaluate")
        return self._loss(weights), SAMPLES, {}

    def _loss(self, weights: Weights) -> float:
        return float(np.mean(np.square(self._goal - weights, dtype=np.float64)))
