"""Many copies of one small network, their weights stacked, so that all clients train in one computation.

A stack is float32[c, d]: row i is the flat vector of client i, laid out as `blocks` says. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod
from typing import Protocol

import numpy as np
import torch
from attrs import frozen
from torch.nn import functional

from flocknode.learning.models import Mlp
from flocknode.learning.task import Weights

Shape = tuple[int, ...]


class StackedNetwork(Protocol):
    """A network that c clients have with c different weights."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of the parameters, in the order in which they lie in the flat vector."""
        ...

    def initial_weights(self, seed: int) -> Weights:
        """float32[d], a pure function of `seed`."""
        ...

    def logits(self, parameters: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """float32[c, n, classes] of the inputs `x`, float32[c, n, f]; parameters are float32[c, *shape]."""
        ...


def dimension(network: StackedNetwork) -> int:
    """Length d of one client's weights."""
    return sum(prod(shape) for shape in network.shapes)


def parameters_of(network: StackedNetwork, stack: torch.Tensor) -> list[torch.Tensor]:
    """The parameters as views of `stack`, float32[c, d]."""
    sizes = [prod(shape) for shape in network.shapes]
    ends = list(accumulate(sizes))
    return [
        stack[:, end - size : end].view(len(stack), *shape)
        for size, end, shape in zip(sizes, ends, network.shapes, strict=True)
    ]


@frozen
class StackedMlp:
    """`flocknode.learning.models.Mlp`, as FLock has it for Lending Club; the flat vectors are the same."""

    mlp: Mlp

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(shape for _, shape in self.mlp.blocks())

    def initial_weights(self, seed: int) -> Weights:
        """See `Mlp.initial_weights`."""
        return self.mlp.initial_weights(seed)

    def logits(self, parameters: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """See `StackedNetwork.logits`."""
        for index in range(0, len(parameters), 2):
            x = _dense(x, parameters[index], parameters[index + 1])
            if index < len(parameters) - 2:
                x = functional.relu(x)
        return x


KERNEL = 3
STRIDE = 2
CHANNELS = (4, 8)
LEAK = 0.1
"""Slope below zero: with none, one poisoned aggregate can silence every map for good."""


@frozen
class StackedCnn:
    """Two 3 x 3 convolutions that halve the picture, to 4 and to 8 channels, then one dense layer.

    Inputs are pictures of `side` x `side` grey values, row by row. All clients' convolutions are one grouped
    convolution, client by client in the channels.
    """

    side: int
    classes: int

    @property
    def sides(self) -> tuple[int, int]:
        """Of the maps after each convolution."""
        first = -(-self.side // STRIDE)
        return first, -(-first // STRIDE)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        first, second = CHANNELS
        return (
            (first, KERNEL * KERNEL),
            (first,),
            (second, first * KERNEL * KERNEL),
            (second,),
            (self.classes, second * self.sides[1] ** 2),
            (self.classes,),
        )

    def initial_weights(self, seed: int) -> Weights:
        """He et al. 2015 eq. 10 in its uniform form, biases 0, as `Mlp.initial_weights` draws them."""
        rng = np.random.default_rng(seed)
        return np.concatenate(
            [
                (2.0 * rng.random(prod(shape)) - 1.0) * np.sqrt(6.0 / shape[1])
                if len(shape) == 2
                else np.zeros(shape)
                for shape in self.shapes
            ]
        ).astype(np.float32)

    def logits(self, parameters: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """See `StackedNetwork.logits`."""
        clients, samples, _ = x.shape
        maps = x.view(clients, samples, self.side, self.side).transpose(0, 1)
        for layer, inputs in enumerate((1, CHANNELS[0])):
            kernel, bias = parameters[2 * layer], parameters[2 * layer + 1]
            maps = functional.conv2d(
                maps,
                kernel.reshape(-1, inputs, KERNEL, KERNEL),
                bias.reshape(-1),
                stride=STRIDE,
                padding=KERNEL // 2,
                groups=clients,
            )
            maps = functional.leaky_relu(maps, LEAK)
        return _dense(maps.reshape(samples, clients, -1).transpose(0, 1), parameters[4], parameters[5])


def _dense(x: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x [c, n, inputs], matrix [c, outputs, inputs], bias [c, outputs]."""
    return torch.baddbmm(bias.unsqueeze(1), x, matrix.transpose(1, 2))
