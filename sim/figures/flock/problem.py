"""What the clients of an experiment learn, who holds which samples, and the network that they train."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from attrs import frozen

from flocknode.learning import lending_club
from flocknode.learning.datasets import load_dataset
from flocknode.learning.models import MODELS
from flocknode.learning.partition import Split, partition_dirichlet, partition_iid, split_shard
from flocknode.learning.task import DEFAULTS, Defaults
from sim.figures.flock.images import FINDINGS, SIDE, load_images
from sim.figures.flock.networks import StackedCnn, StackedMlp, StackedNetwork

LENDING_CLUB = "lending-club"
MNIST = "mnist"
IMAGES = "images"

MNIST_SIDE = 28
ALPHA = 1.0
"""Dirichlet concentration of the label-skewed shards: a client holds mostly three or four of ten classes."""
MIN_PER_CLIENT = 40
"""Six of these are a voter's validation split; with fewer a vote says nothing."""

CNN_DEFAULTS = Defaults(epochs=1, batch_size=16, learning_rate=0.1, momentum=0.5)


@frozen(eq=False)
class Problem:
    """features float32[n, f]; targets float32[n, classes], rows one-hot or, if `multi_label`, any 0s and 1s.

    `class_weights` float32[classes] weigh the loss, `splits` say who holds what, one per client.
    """

    name: str
    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    multi_label: bool
    class_weights: npt.NDArray[np.float32]
    network: StackedNetwork
    defaults: Defaults
    splits: tuple[Split, ...]

    @property
    def clients(self) -> int:
        return len(self.splits)

    @property
    def test(self) -> npt.NDArray[np.int64]:
        """Everybody's test samples: what the figures score."""
        return np.concatenate([split.test for split in self.splits])


@lru_cache(maxsize=4)
def load_problem(
    task: str, clients: int, seed: int, images: Path | None = None, labels: Path | None = None
) -> Problem:
    """The problem `task`, its samples dealt out by `seed`.

    Lending Club: IID, the network of `MODELS`. MNIST, and pictures of one's own in the folder `images` with
    the CSV file `labels`: Dirichlet shards, the small CNN. ImageError, DatasetError, PartitionError.
    """
    if task == LENDING_CLUB:
        return _lending_club(clients, seed)
    if task == MNIST:
        return _mnist(clients, seed)
    if task == IMAGES and images is not None and labels is not None:
        return _pictures(clients, seed, images, labels)
    raise ValueError(f"unknown problem {task!r}, or pictures without a folder and labels")


def _lending_club(clients: int, seed: int) -> Problem:
    data = load_dataset(LENDING_CLUB)
    shards = partition_iid(data.labels, clients, seed)
    return Problem(
        name=LENDING_CLUB,
        features=data.features,
        targets=np.eye(data.classes, dtype=np.float32)[data.labels],
        multi_label=False,
        class_weights=np.array(lending_club.CLASS_WEIGHTS, np.float32),
        network=StackedMlp(MODELS[LENDING_CLUB]),
        defaults=DEFAULTS[LENDING_CLUB],
        splits=tuple(split_shard(data.labels, shard, seed) for shard in shards),
    )


def _mnist(clients: int, seed: int) -> Problem:
    data = load_dataset(MNIST)
    return Problem(
        name=MNIST,
        features=data.features,
        targets=np.eye(data.classes, dtype=np.float32)[data.labels],
        multi_label=False,
        class_weights=np.ones(data.classes, np.float32),
        network=StackedCnn(MNIST_SIDE, data.classes),
        defaults=CNN_DEFAULTS,
        splits=_skewed(data.labels, clients, seed),
    )


def _pictures(clients: int, seed: int, images: Path, labels: Path) -> Problem:
    pictures = load_images(images, labels)
    # Skewed by the first finding, for shares of several labels at once are not defined; none is a class too.
    first = np.where(pictures.findings.any(axis=1), pictures.findings.argmax(axis=1), len(FINDINGS))
    return Problem(
        name=IMAGES,
        features=pictures.pixels,
        targets=pictures.findings.astype(np.float32),
        multi_label=True,
        class_weights=np.ones(len(FINDINGS), np.float32),
        network=StackedCnn(SIDE, len(FINDINGS)),
        defaults=CNN_DEFAULTS,
        splits=_skewed(first.astype(np.int64), clients, seed),
    )


def _skewed(labels: npt.NDArray[np.int64], clients: int, seed: int) -> tuple[Split, ...]:
    enough = min(MIN_PER_CLIENT, len(labels) // clients)
    shards = partition_dirichlet(labels, clients, ALPHA, seed, min_per_node=enough)
    return tuple(split_shard(labels, shard, seed) for shard in shards)
