"""Who holds which samples: IID and Dirichlet shards, and each shard's train/validation/test split.

Every function is a pure function of its arguments, so processes that share a seed agree on disjoint shards
without talking to each other. Every sample lands in exactly one shard and exactly one split.
"""

import numpy as np
import numpy.typing as npt
from attrs import frozen

Indices = npt.NDArray[np.int64]

# Sorted by label, every 20 consecutive samples of a shard give 14 to training, 3 to validation and 3 to test.
# The places are spread out so that a class with few samples still reaches all three.
SPLIT_PERIOD = 20
VALIDATION_PLACES = (2, 9, 15)
TEST_PLACES = (5, 12, 18)
MIN_SPLITTABLE = TEST_PLACES[0] + 1
"""Fewest samples for which no split is empty."""

MIN_PER_NODE = 8


class PartitionError(ValueError):
    """The samples cannot be dealt out as asked; the message names the argument at fault."""


@frozen(eq=False)
class Split:
    """Sample numbers (int64, ascending, disjoint) of one node's three splits."""

    train: Indices
    validation: Indices
    test: Indices


def partition_iid(labels: npt.NDArray[np.int64], nodes: int, seed: int) -> list[Indices]:
    """Deal the samples out uniformly at random: `nodes` ascending int64 shards, sizes differing by at most 1.

    `labels` is int64[n]; only its length matters here. Raises PartitionError if some node would get nothing.
    """
    _check(labels, nodes, seed, min_per_node=1)
    order = np.random.default_rng(seed).permutation(len(labels))
    return [np.sort(shard) for shard in np.array_split(order, nodes)]


def partition_dirichlet(
    labels: npt.NDArray[np.int64], nodes: int, alpha: float, seed: int, min_per_node: int = MIN_PER_NODE
) -> list[Indices]:
    """Label skew: the samples of each class are divided over the nodes in proportions drawn from Dir(alpha).

    The p_k ~ Dir_N(alpha) scheme of Li, Diao, Chen, He, "Federated Learning on Non-IID Data Silos" (ICDE
    2022, arXiv 2102.02079, section 4.1): small `alpha` gives each node few classes, large `alpha` approaches
    IID. The paper redraws until nobody is too small, which need not end; here a node short of `min_per_node`
    samples takes random ones from whoever then holds most.

    `labels` is int64[n]. Returns `nodes` ascending int64 shards. Raises PartitionError for an alpha that is
    not finite and positive, or if there are fewer than `nodes * min_per_node` samples.
    """
    _check(labels, nodes, seed, min_per_node)
    if not (np.isfinite(alpha) and alpha > 0):
        raise PartitionError(f"alpha must be finite and positive, got {alpha}")
    rng = np.random.default_rng(seed)
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(nodes, alpha))
        # An alpha near 0 underflows every gamma draw and numpy returns NaN: its limit is one owner per class.
        if not np.isfinite(shares).all():
            shares = np.eye(nodes)[rng.integers(nodes)]
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for node, part in enumerate(np.split(members, cuts)):
            owner[part] = node
    _top_up(owner, nodes, min_per_node, rng)
    return [np.flatnonzero(owner == node) for node in range(nodes)]


def split_shard(labels: npt.NDArray[np.int64], shard: Indices, seed: int) -> Split:
    """Split one shard 70/15/15, stratified: each class within one and a half samples of its exact share.

    Systematic sampling of the shard in (label, random) order, so the totals are right as well, and classes
    too small to be in every split are no special case. `labels` is int64[n] of the whole data set, `shard`
    int64[m] numbers into it. Raises PartitionError if the shard has fewer than MIN_SPLITTABLE samples.
    """
    if len(shard) < MIN_SPLITTABLE:
        raise PartitionError(f"a shard of {len(shard)} samples cannot be split: {MIN_SPLITTABLE} are needed")
    shuffled = np.random.default_rng(seed).permutation(shard)
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    place = np.arange(len(shard)) % SPLIT_PERIOD
    validation, test = np.isin(place, VALIDATION_PLACES), np.isin(place, TEST_PLACES)
    return Split(
        train=np.sort(ordered[~(validation | test)]),
        validation=np.sort(ordered[validation]),
        test=np.sort(ordered[test]),
    )


def _top_up(owner: Indices, nodes: int, minimum: int, rng: np.random.Generator) -> None:
    """Move random samples, in place, from the largest shards until every node owns at least `minimum`."""
    sizes = np.bincount(owner, minlength=nodes)
    while min(sizes) < minimum:
        poor, rich = int(np.argmin(sizes)), int(np.argmax(sizes))
        count = min(minimum - sizes[poor], sizes[rich] - minimum)
        owner[rng.choice(np.flatnonzero(owner == rich), count, replace=False)] = poor
        sizes = np.bincount(owner, minlength=nodes)


def _check(labels: npt.NDArray[np.int64], nodes: int, seed: int, min_per_node: int) -> None:
    if labels.ndim != 1:
        raise PartitionError(f"labels must be one-dimensional, got shape {labels.shape}")
    if nodes < 1:
        raise PartitionError(f"nodes must be at least 1, got {nodes}")
    if seed < 0:
        raise PartitionError(f"seed must not be negative, got {seed}")
    if min_per_node < 0:
        raise PartitionError(f"min_per_node must not be negative, got {min_per_node}")
    if len(labels) < nodes * min_per_node:
        raise PartitionError(f"{len(labels)} samples do not give {nodes} nodes {min_per_node} each")
