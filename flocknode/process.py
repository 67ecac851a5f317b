"""The process of one node: `python -m flocknode.process DIR` (docs/PROTOCOL.md section 1)."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from flocknode.blobs import BlobStore, BlobStoreError
from flocknode.config import ConfigError, LearningSettings, NodeDirectory, load_node_dir
from flocknode.keystore import KeystoreError
from flocknode.learner import Learner
from flocknode.learning.datasets import DatasetError, cache_directory
from flocknode.learning.partition import PartitionError
from flocknode.learning.task import Task, TaskError, load_task
from flocknode.node import Node
from flocknode.observe.log import Bridge, Logger, open_log
from flocknode.store import Store, StoreError
from flocknode.transport.base import TransportError
from flocknode.transport.libp2p import Libp2pOptions, Libp2pTransport
from protocol import jobs
from protocol.checkpoint import checkpoint_bytes
from protocol.engine import Engine
from protocol.params import ProtocolParams
from protocol.secagg.scheme import build_scheme
from protocol.secagg.security import SecurityError

EXPECTED = (
    BlobStoreError,
    ConfigError,
    DatasetError,
    KeystoreError,
    PartitionError,
    SecurityError,
    StoreError,
    TaskError,
    TransportError,
)
"""What an operator can do something about: told without a traceback."""


def main(directory: Path, console: bool = False) -> NoReturn:
    """Run the node of `directory` until SIGINT or SIGTERM; `console` logs to standard error as well.

    Ends the process: 0 after a clean stop, 1 after an error, which is told on standard error and in the log.
    """
    code = run(directory, console)
    sys.stdout.flush()
    sys.stderr.flush()
    # At a normal exit the interpreter would wait for training that may still run on its thread, and whose
    # result nobody wants. All files are closed and durable by now.
    os._exit(code)


def run(directory: Path, console: bool = False) -> int:
    """As `main`, but returns the exit code."""
    try:
        node_directory = load_node_dir(directory)
        settings = node_directory.config.node
        log, file = open_log(directory, settings.name, settings.log_level, console)
    except (ConfigError, KeystoreError, OSError) as error:
        print(f"flocknode: {error}", file=sys.stderr)
        return 1
    bridge = Bridge(log)
    logging.getLogger().addHandler(bridge)
    try:
        asyncio.run(_live(node_directory, log))
        return 0
    except KeyboardInterrupt:
        return 0
    except EXPECTED as error:
        log.error("cannot_run", why=str(error))
        print(f"flocknode: {settings.name}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        log.error("crashed", why=str(error), exc_info=error)
        print(f"flocknode: {settings.name} crashed, see {file.name}: {error!r}", file=sys.stderr)
        return 1
    finally:
        logging.getLogger().removeHandler(bridge)
        file.close()


async def _live(directory: NodeDirectory, log: Logger) -> None:
    stop = asyncio.Event()
    store = await Store.open(directory.path)
    try:
        node = await _build(directory, store, log)
    except BaseException:
        await store.close()
        raise
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _asked_to_stop, number, stop, log)
    await node.run(stop)


def _asked_to_stop(number: int, stop: asyncio.Event, log: Logger) -> None:
    log.info("stopping", signal=signal.Signals(number).name)
    stop.set()
    # Whoever asks twice wants it now.
    asyncio.get_running_loop().remove_signal_handler(number)


async def _build(directory: NodeDirectory, store: Store, log: Logger) -> Node:
    """Everything a node needs before it may promise anything: compiled kernels, its data, its blobs."""
    config, genesis = directory.config, directory.genesis
    params = genesis.params
    _, task, blobs, max_blob_bytes = await asyncio.gather(
        asyncio.to_thread(warm_kernels, params, genesis.network),
        asyncio.to_thread(_load_task, directory),
        asyncio.to_thread(BlobStore, directory.path),
        asyncio.to_thread(largest_blob_bytes, params),
    )
    return Node(
        engine=Engine(
            directory.identity, genesis, secrets.token_bytes, directory.dealer, weight=task.train_count
        ),
        store=store,
        blobs=blobs,
        transport=Libp2pTransport(
            directory.identity,
            config.node.listen,
            psk=directory.psk,
            options=Libp2pOptions(broadcast_mode=config.node.broadcast),
        ),
        members=config.members,
        learner=Learner(task, params, blobs.read, config.learning.hyperparameters()),
        run_aggregation=jobs.run,
        log=log,
        max_blob_bytes=max_blob_bytes,
        commands=directory.path,
    )


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


def largest_blob_bytes(params: ProtocolParams) -> int:
    """The size of the largest blob of a network: a model, or an upload.

    Raises `protocol.secagg.security.SecurityError` for parameters that the network must not run with.
    """
    # Sizes do not depend on the network's keys.
    return max(checkpoint_bytes(params), build_scheme(params, bytes(32), bytes(32)).upload_bytes)


def _load_task(directory: NodeDirectory) -> Task:
    settings, behaviour = directory.config.learning, directory.config.behaviour
    task = _task_of(settings)
    dimension = directory.genesis.params.dimension
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


def _task_of(settings: LearningSettings) -> Task:
    return load_task(
        settings.task,
        settings.shard,
        settings.shards,
        settings.seed,
        partition=settings.partition,
        alpha=settings.alpha,
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m flocknode.process DIR")
    main(Path(sys.argv[1]))
