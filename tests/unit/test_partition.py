"""Shards and splits: nothing lost, nothing shared, the asked-for skew, and the same answer everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flocknode.learning.partition import (
    MIN_SPLITTABLE,
    PartitionError,
    partition_dirichlet,
    partition_iid,
    split_shard,
)


def labels_of(counts):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def largest_class_share(labels, shards):
    """Mean over nodes of the share of a node's most common class."""
    return np.mean([np.bincount(labels[shard]).max() / len(shard) for shard in shards])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=10).filter(lambda c: sum(c) >= 80),
    nodes=st.integers(1, 10),
    seed=st.integers(0, 2**40),
    alpha=st.one_of(st.none(), st.floats(1e-3, 100)),
)
def test_every_sample_is_in_exactly_one_shard_and_one_split(counts, nodes, seed, alpha):
    labels = labels_of(counts)
    if alpha is None:
        shards = partition_iid(labels, nodes, seed)
    else:
        shards = partition_dirichlet(labels, nodes, alpha, seed, min_per_node=8)
    assert len(shards) == nodes
    held = []
    for shard in shards:
        assert len(shard) >= 8
        split = split_shard(labels, shard, seed)
        parts = [split.train, split.validation, split.test]
        assert all(len(part) for part in parts)
        assert all((np.diff(part) > 0).all() for part in parts)
        assert sorted(np.concatenate(parts)) == list(shard)
        held += list(np.concatenate(parts))
    assert sorted(held) == list(range(len(labels)))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 300), min_size=1, max_size=10).filter(lambda c: sum(c) >= MIN_SPLITTABLE),
    seed=st.integers(0, 2**40),
)
def test_splits_are_70_15_15_in_total_and_in_every_class(counts, seed):
    labels = labels_of(counts)
    split = split_shard(labels, np.arange(len(labels)), seed)
    for part, share in ((split.train, 0.70), (split.validation, 0.15), (split.test, 0.15)):
        assert abs(len(part) - share * len(labels)) <= 2
        for cls, count in enumerate(counts):
            assert abs((labels[part] == cls).sum() - share * count) < 2


def test_iid_shards_have_equal_sizes():
    sizes = {len(shard) for shard in partition_iid(labels_of([100, 57]), 7, 3)}
    assert sizes == {22, 23}


def test_iid_shards_mirror_the_population():
    labels = labels_of([9000, 1000])
    for shard in partition_iid(labels, 5, 1):
        assert abs((labels[shard] == 1).mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 2000)


def test_smaller_alpha_skews_labels_more():
    labels = labels_of([400] * 10)
    shares = [
        np.mean(
            [largest_class_share(labels, partition_dirichlet(labels, 8, alpha, seed)) for seed in range(5)]
        )
        for alpha in (0.05, 0.5, 1000.0)
    ]
    assert shares[0] > 0.5 > shares[1] > 0.2
    assert shares[2] < 0.15


def test_dirichlet_class_proportions_have_the_moments_of_the_distribution():
    # One class over N nodes: mean 1/N, variance (N-1) / (N^2 (N alpha + 1)).
    nodes, alpha, labels = 4, 0.5, np.zeros(2000, np.int64)
    shares = np.array(
        [
            [len(s) for s in partition_dirichlet(labels, nodes, alpha, seed, min_per_node=0)]
            for seed in range(400)
        ]
    ) / len(labels)
    np.testing.assert_allclose(shares.mean(0), 1 / nodes, atol=0.05)
    expected = (nodes - 1) / (nodes**2 * (nodes * alpha + 1))
    np.testing.assert_allclose(shares.var(0), expected, rtol=0.25)


def test_a_vanishing_alpha_gives_each_class_one_owner():
    labels = labels_of([50, 50, 50])
    shards = partition_dirichlet(labels, 2, 1e-320, 4, min_per_node=0)
    for cls in range(3):
        assert sorted((labels[shard] == cls).sum() for shard in shards) == [0, 50]


@pytest.mark.parametrize(
    "partition", [partition_iid, lambda labels, nodes, seed: partition_dirichlet(labels, nodes, 0.5, seed)]
)
def test_a_seed_fixes_the_partition_and_nothing_global_is_read_or_advanced(partition):
    labels = labels_of([80, 90, 100])
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = partition(labels, 5, 9)
    np.random.seed(2)
    second, other = partition(labels, 5, 9), partition(labels, 5, 10)
    np.random.seed(1)
    partition(labels, 5, 9)
    assert (np.random.get_state()[1] == before).all()
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: partition_iid(y, 0, 1), "nodes"),
        (lambda y: partition_iid(y, 2, -1), "seed"),
        (lambda y: partition_iid(y, 21, 1), "20 samples do not give 21 nodes 1 each"),
        (lambda y: partition_iid(y.reshape(4, 5), 2, 1), "one-dimensional"),
        (lambda y: partition_dirichlet(y, 2, 0.0, 1), "alpha"),
        (lambda y: partition_dirichlet(y, 2, float("nan"), 1), "alpha"),
        (lambda y: partition_dirichlet(y, 2, float("inf"), 1), "alpha"),
        (lambda y: partition_dirichlet(y, 3, 0.5, 1, min_per_node=7), "7 each"),
        (lambda y: partition_dirichlet(y, 3, 0.5, 1, min_per_node=-1), "min_per_node"),
        (lambda y: split_shard(y, np.arange(5), 1), "5 samples"),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(PartitionError, match=message):
        call(np.zeros(20, np.int64))
