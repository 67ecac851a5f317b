"""The poisoner of FLock's experiments, as a task: it learns flipped labels and pushes its update harder."""

from math import isfinite

import numpy as np
from attrs import field, frozen

from flocknode.learning.task import Config, Metrics, TaskError, Weights
from flocknode.learning.trainer import LocalTask


@frozen(eq=False)
class BoostedTask:
    """`task` with an update that is multiplied by `scale`, so that it outweighs those of others.

    fit returns w + scale * (w' - w), with the honest sample count (it is public and capped, so lying there
    gains nothing that `scale` does not). Raises TaskError for a scale that is not finite.
    """

    task: LocalTask
    scale: float = 1.0

    def __attrs_post_init__(self) -> None:
        if not isfinite(self.scale):
            raise TaskError(f"scale must be finite, got {self.scale}")

    @property
    def trained(self) -> LocalTask:
        """What w' is fitted to."""
        return self.task

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def dimension(self) -> int:
        return self.task.dimension

    @property
    def train_count(self) -> int:
        return self.task.train_count

    @property
    def validation_count(self) -> int:
        return self.task.validation_count

    @property
    def test_count(self) -> int:
        return self.task.test_count

    def initial_weights(self, seed: int) -> Weights:
        """See `Task.initial_weights`."""
        return self.task.initial_weights(seed)

    def fit(self, weights: Weights, config: Config) -> tuple[Weights, int, Metrics]:
        """The boosted update; metrics are those of `trained`, "largest_update" after scaling."""
        fitted, count, scores = self.trained.fit(weights, config)
        update = self.scale * (fitted.astype(np.float64) - weights)
        scores["largest_update"] = float(np.abs(update).max())
        return (weights + update).astype(np.float32), count, scores

    def evaluate(self, weights: Weights, config: Config) -> tuple[float, int, Metrics]:
        """The honest evaluation of the wrapped task."""
        return self.task.evaluate(weights, config)


@frozen(eq=False)
class PoisonedTask(BoostedTask):
    """`task` as a malicious proposer sees it: training label y becomes classes - 1 - y.

    evaluate is the honest one, for how such a node votes is not a matter of learning.
    """

    _flipped: LocalTask = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        BoostedTask.__attrs_post_init__(self)
        object.__setattr__(self, "_flipped", self.task.with_flipped_labels())

    @property
    def trained(self) -> LocalTask:
        """The flipped labels."""
        return self._flipped
