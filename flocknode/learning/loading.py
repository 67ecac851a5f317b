"""A node's part of a task: data, partition, split and trainer put together. Imports torch."""

from pathlib import Path

from flocknode.learning.datasets import load_dataset
from flocknode.learning.partition import partition_dirichlet, partition_iid, split_shard
from flocknode.learning.task import MAX_SEED, PARTITIONS, TASK_NAMES, Task, TaskError
from flocknode.learning.trainer import local_task


def load_task(
    name: str,
    node_index: int,
    nodes: int,
    seed: int,
    partition: str = "iid",
    alpha: float = 0.5,
    cache: Path | None = None,
) -> Task:
    """The part of task `name` that belongs to node `node_index` of `nodes`.

    All nodes pass the same `seed`, `partition` ("iid", or "dirichlet" with concentration `alpha`) and get
    disjoint shards that cover the data. `cache` is where parsed data are kept (default:
    datasets.cache_directory()). Raises TaskError here, PartitionError,
    DatasetError or SchemaError from below.
    """
    if name not in TASK_NAMES:
        raise TaskError(f"unknown task {name!r}: choose one of {', '.join(TASK_NAMES)}")
    if not 0 <= node_index < nodes:
        raise TaskError(f"node_index must be in [0, {nodes}), got {node_index}")
    if not 0 <= seed <= MAX_SEED:
        raise TaskError(f"seed must be in [0, 2^63), got {seed}")
    if partition not in PARTITIONS:
        raise TaskError(f"unknown partition {partition!r}: choose one of {', '.join(PARTITIONS)}")

    data = load_dataset(name, cache)
    if partition == "iid":
        shards = partition_iid(data.labels, nodes, seed)
    else:
        shards = partition_dirichlet(data.labels, nodes, alpha, seed)
    return local_task(data, split_shard(data.labels, shards[node_index], seed))
