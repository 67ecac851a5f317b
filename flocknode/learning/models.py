"""The models as shapes: a network is a chain of dense layers, its weights one flat float32 vector.

The engine masks, encodes and adds vectors and knows no layers; this module is the only place that says which
coordinate is which. numpy only, so that a node can build and check a genesis model without importing torch.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from attrs import field, frozen
from attrs.validators import deep_iterable, ge, instance_of, min_len

from flocknode.learning import lending_club


@frozen
class Mlp:
    """A multilayer perceptron with ReLU between layers; `widths` runs from inputs to classes (logits)."""

    widths: tuple[int, ...] = field(
        validator=[min_len(2), deep_iterable([instance_of(int), ge(1)], instance_of(tuple))]
    )

    @property
    def dimension(self) -> int:
        """Length d of the flat weight vector."""
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.widths))

    def blocks(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(offset, shape) of each parameter in the flat vector: matrix [outputs, inputs], bias [outputs]."""
        offset = 0
        for inputs, outputs in pairwise(self.widths):
            yield offset, (outputs, inputs)
            offset += outputs * inputs
            yield offset, (outputs,)
            offset += outputs

    def initial_weights(self, seed: int) -> npt.NDArray[np.float32]:
        """float32[d], a pure function of `seed` (>= 0): He et al. 2015 eq. 10 in its uniform form, biases 0.

        Drawn as uniform doubles and rounded once: a normal draw goes through libm, whose last bit differs
        between platforms, and every node must derive the same genesis model.
        """
        rng = np.random.default_rng(seed)
        weights = np.zeros(self.dimension, np.float32)
        for offset, shape in self.blocks():
            if len(shape) == 2:
                size = shape[0] * shape[1]
                weights[offset : offset + size] = (2.0 * rng.random(size) - 1.0) * np.sqrt(6.0 / shape[1])
        return weights


MODELS = {
    "mnist": Mlp((784, 64, 10)),
    "digits": Mlp((64, 32, 10)),
    "lending-club": Mlp((lending_club.FEATURES, 64, 32, 2)),
}
"""The network of each task."""
