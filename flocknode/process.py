"""The process of one node: `python -m flocknode.process DIR` (docs/PROTOCOL.md section 1).

What an operator may have got wrong is checked before anything heavy is imported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from flocknode.blobs import BlobStoreError
from flocknode.config import ConfigError, NodeDirectory, load_node_dir
from flocknode.faults import FatalError, describe_error
from flocknode.keystore import KeystoreError
from flocknode.learning.datasets import DatasetError
from flocknode.learning.partition import PartitionError
from flocknode.learning.task import TaskError
from flocknode.observe.log import Bridge, Logger, open_log
from flocknode.store import Store, StoreError
from flocknode.transport.base import TransportError
from flocknode.wraps import NO_WRAPS, Wraps

if TYPE_CHECKING:
    from flocknode.node import Node

EXPECTED = (
    BlobStoreError,
    ConfigError,
    DatasetError,
    FatalError,
    KeystoreError,
    PartitionError,
    StoreError,
    TaskError,
    TransportError,
)
"""What an operator can do something about, and the end of a node's promises: told without a traceback."""


SWITCH_INTERVAL_S = 0.0002
"""The network waits for what becomes durable on a thread of its own; that thread must not wait in turn, five
milliseconds as is usual, until the event loop lets go of the interpreter."""


def main(directory: Path, console: bool = False, wraps: Wraps = NO_WRAPS) -> NoReturn:
    """Run the node of `directory` until SIGINT or SIGTERM; `console` logs to standard error as well.

    Ends the process: 0 after a clean stop, 1 after an error, which is told on standard error and in the log.
    """
    code = run(directory, console, wraps)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed by whoever started this, or on a full disk
            stream.flush()
    # At a normal exit the interpreter would wait for training that may still run on its thread, and whose
    # result nobody wants. All files are closed and durable by now.
    os._exit(code)


def run(directory: Path, console: bool = False, wraps: Wraps = NO_WRAPS) -> int:
    """As `main`, but returns the exit code."""
    try:
        node_directory = load_node_dir(directory)
        settings = node_directory.config.node
        log, file = open_log(directory, settings.name, settings.log_level, console)
    except (ConfigError, KeystoreError, OSError) as error:
        _tell(str(error))
        return 1
    bridge = Bridge(log)
    logging.getLogger().addHandler(bridge)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        asyncio.run(_live(node_directory, log, wraps))
        return 0
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, EXPECTED):
            log.error("cannot_run", why=str(cause))
            _tell(f"{settings.name}: {cause}")
        else:
            log.error("crashed", why=describe_error(cause), exc_info=error)
            _tell(f"{settings.name} crashed, see {file.name}: {describe_error(cause)}")
        return 1
    finally:
        logging.getLogger().removeHandler(bridge)
        with suppress(OSError):  # the last lines, on a full disk
            file.close()


def _tell(what: str) -> None:
    """Say on standard error what ended the node, in one line, if anybody can read it."""
    with suppress(Exception):
        print("flocknode:", " ".join(what.split()), file=sys.stderr, flush=True)


def _cause(error: BaseException) -> BaseException:
    """Return the failure that ended a group of tasks; of several, as on a full disk, an expected one."""
    failures = [error]
    while any(isinstance(failure, BaseExceptionGroup) for failure in failures):
        failures = [
            part
            for failure in failures
            for part in (failure.exceptions if isinstance(failure, BaseExceptionGroup) else (failure,))
        ]
    return next((failure for failure in failures if isinstance(failure, EXPECTED)), failures[0])


async def _live(directory: NodeDirectory, log: Logger, wraps: Wraps) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _asked_to_stop, number, stop, log)
    building, stopping = loop.create_task(_build(directory, log, wraps)), loop.create_task(stop.wait())
    await asyncio.wait({building, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not building.done():
        # Nothing is promised or half written yet, and threads that compile or read need not be waited for.
        log.info("stopped")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    node = await building
    await node.run(stop)


async def _build(directory: NodeDirectory, log: Logger, wraps: Wraps) -> Node:
    store = await Store.open(directory.path)
    try:
        from flocknode.assembly import build_node

        return await build_node(directory, store, log, wraps)
    except BaseException:
        await store.close()
        raise


def _asked_to_stop(number: int, stop: asyncio.Event, log: Logger) -> None:
    log.info("stopping", signal=signal.Signals(number).name)
    stop.set()
    # Whoever asks twice wants it now.
    asyncio.get_running_loop().remove_signal_handler(number)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m flocknode.process DIR")
    main(Path(sys.argv[1]))
