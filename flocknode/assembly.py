"""A node put together from its directory: importing this costs numba, building one libp2p, learning torch."""

from __future__ import annotations

import asyncio
import fcntl
import secrets
from contextlib import suppress
from functools import partial

from flocknode.behaviour import MisbehavingLearner
from flocknode.blobs import BlobStore
from flocknode.config import GENESIS_FILE, Behaviour, ConfigError, NodeDirectory
from flocknode.learner import Learner
from flocknode.learning.datasets import cache_directory
from flocknode.learning.synthetic import SYNTHETIC, SyntheticTask
from flocknode.learning.task import Task
from flocknode.node import Node, StateMachine
from flocknode.observe.log import Logger
from flocknode.store import Store
from flocknode.transport.libp2p import Libp2pTransport
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.wraps import NO_WRAPS, Wraps
from protocol import jobs
from protocol.checkpoint import checkpoint_bytes
from protocol.engine import Engine
from protocol.ledger.resume import resume
from protocol.params import ProtocolParams
from protocol.secagg.scheme import SchemeError, build_scheme
from protocol.secagg.security import SecurityError


async def build_node(directory: NodeDirectory, store: Store, log: Logger, wraps: Wraps = NO_WRAPS) -> Node:
    """Everything that a node needs before it may promise anything: compiled kernels, its data, its blobs.

    Raises `ConfigError` and what `load_task`, `BlobStore` and `Libp2pTransport` raise.
    """
    config, genesis = directory.config, directory.genesis
    params = genesis.params
    _, task, blobs, max_blob_bytes = await asyncio.gather(
        asyncio.to_thread(warm_kernels, params, genesis.network),
        asyncio.to_thread(_load_task, directory),
        asyncio.to_thread(BlobStore, directory.path),
        asyncio.to_thread(_largest_blob_bytes, directory),
    )
    weight = task.train_count

    def new_engine() -> StateMachine:
        engine = Engine(directory.identity, genesis, secrets.token_bytes, directory.dealer, weight=weight)
        return wraps.engine(engine)

    transport = Libp2pTransport(
        directory.identity,
        config.node.listen,
        psk=directory.psk,
        options=Libp2pOptions(broadcast_mode=config.node.broadcast),
    )
    return Node(
        engine=new_engine(),
        store=store,
        blobs=blobs,
        transport=wraps.transport(transport),
        members=config.members,
        learner=_learner(directory, task, blobs),
        run_aggregation=jobs.run,
        log=log,
        max_blob_bytes=max_blob_bytes,
        resume=partial(resume, genesis),
        commands=directory.path,
        new_engine=new_engine,
    )


def _learner(directory: NodeDirectory, task: Task, blobs: BlobStore) -> Learner:
    behaviour, params = directory.config.behaviour, directory.genesis.params
    hyperparameters = directory.config.learning.hyperparameters()
    if behaviour == Behaviour():
        return Learner(task, params, blobs.read, hyperparameters)
    return MisbehavingLearner(task, params, blobs.read, hyperparameters, behaviour=behaviour)


def warm_kernels(params: ProtocolParams, network: bytes) -> None:
    """Have every kernel compiled or loaded, and the network's commitment key expanded.

    Where nothing is compiled yet, one process does it and the others wait for its files.
    """
    cache = cache_directory()
    lock = None
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "kernels.lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        jobs.warm(params, network)
    finally:
        if lock is not None:
            lock.close()


def _largest_blob_bytes(directory: NodeDirectory) -> int:
    params = directory.genesis.params
    try:
        scheme = build_scheme(params, bytes(32), bytes(32))  # sizes do not depend on the network's keys
    except (SchemeError, SecurityError) as error:
        raise ConfigError(f"{directory.path / GENESIS_FILE}: {error}") from error
    return max(checkpoint_bytes(params), scheme.upload_bytes)


def _load_task(directory: NodeDirectory) -> Task:
    settings, behaviour = directory.config.learning, directory.config.behaviour
    dimension = directory.genesis.params.dimension
    if settings.task == SYNTHETIC:
        return SyntheticTask(dimension, settings.seed)
    from flocknode.learning.loading import load_task

    task = load_task(
        settings.task,
        settings.shard,
        settings.shards,
        settings.seed,
        partition=settings.partition,
        alpha=settings.alpha,
    )
    if task.dimension != dimension:
        raise ConfigError(
            f"{directory.path}: task {task.name} has {task.dimension} weights, the genesis says {dimension}"
        )
    import torch

    torch.set_num_threads(directory.config.node.torch_threads)
    if behaviour.kind == "poison":
        from flocknode.learning.poisoning import PoisonedTask
        from flocknode.learning.trainer import LocalTask

        assert isinstance(task, LocalTask)
        return PoisonedTask(task, behaviour.scale)
    return task
