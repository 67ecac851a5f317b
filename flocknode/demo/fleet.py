"""The nodes of a demo, each in a process of its own: started, killed, started again, never left behind.

Nodes are forked from the launcher, which has imported and compiled everything by then: seven start in the
time of one, and one that was killed is back at once. For that the launcher keeps to one thread (`threads`).
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from flocknode.config import NodeDirectory
from flocknode.learning.synthetic import SYNTHETIC
from flocknode.wraps import NO_WRAPS, Wraps

OUTPUT_FILE = "output.log"
"""Where a node's standard output and error go: what it says before it has a log, or as it crashes."""

IMPORTED_LATE = (
    "flocknode.process",
    "flocknode.transport.libp2p_guest",
    "flocknode.transport.libp2p_host",
)
"""What a node imports when it needs it."""

STOP_TIMEOUT_S = 10.0
POLL_S = 0.01


def preload(directory: NodeDirectory) -> None:
    """Import, compile and read what the nodes of this network have in common, without starting a thread."""
    from flocknode.assembly import warm_kernels
    from flocknode.learning.datasets import load_dataset
    from flocknode.transport.libp2p_quiet import import_libp2p

    import_libp2p()
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    warm_kernels(directory.genesis.params, directory.genesis.network)
    task = directory.config.learning.task
    if task != SYNTHETIC:
        importlib.import_module("flocknode.learning.loading")
        importlib.import_module("flocknode.learning.poisoning")
        load_dataset(task)
    # The first full collection of each fork would touch, and so copy, every page of what is loaded here.
    gc.collect()
    gc.freeze()


def no_wraps(index: int) -> Wraps:
    """A node as it is, where its launcher is."""
    return NO_WRAPS


class Fleet:
    """Runs the nodes of `directories` by index; leaving its context stops them all.

    A node gets SIGTERM when it is to stop, also, from itself, when its launcher is gone: a launcher that was
    killed leaves no process behind either. `enter` is called in each new process, with the index of the node
    that it will be: it may take the process elsewhere, and says what is put around the node's parts.
    `outputs`: where the nodes' standard output goes, in place of their directories.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        enter: Callable[[int], Wraps] = no_wraps,
        outputs: Path | None = None,
    ) -> None:
        self.directories = tuple(directories)
        self._enter = enter
        self._outputs = outputs
        self.pids: dict[int, int] = {}
        """The last process of each node that was started, ended or not."""
        self.paused: set[int] = set()
        self._exit_codes: dict[int, int] = {}
        # Only the launcher holds the writing end: when it is gone, a node that reads sees the end.
        self._lifeline, self._held = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        os.close(self._held)
        os.close(self._lifeline)

    def start(self, index: int) -> None:
        """Start a node that does not run."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(self._held)
                self._live(index)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        self.pids[index] = pid
        self._exit_codes.pop(index, None)

    def start_all(self) -> None:
        for index in range(len(self.directories)):
            self.start(index)

    def kill(self, index: int) -> None:
        """SIGKILL, and wait until the process is gone."""
        self._signal(index, signal.SIGKILL)
        self._wait([index], STOP_TIMEOUT_S)
        self.paused.discard(index)

    def pause(self, index: int) -> None:
        """SIGSTOP: the node stands still until `resume`."""
        self._signal(index, signal.SIGSTOP)
        self.paused.add(index)

    def resume(self, index: int) -> None:
        self._signal(index, signal.SIGCONT)
        self.paused.discard(index)

    def output(self, index: int) -> Path:
        """The file that a node's standard output and error go to."""
        if self._outputs is None:
            return self.directories[index] / OUTPUT_FILE
        return self._outputs / f"{self.directories[index].name}-{OUTPUT_FILE}"

    def last_words(self, index: int) -> str:
        """The last line that a node wrote to its output, or where to look."""
        try:
            said = self.output(index).read_text(errors="replace").strip().splitlines()
        except OSError:
            said = []
        return said[-1] if said else f"see {self.directories[index]}"

    def exit_code(self, index: int) -> int | None:
        """How a node ended: None while it runs, minus the signal where one ended it."""
        if index not in self._exit_codes:
            pid, status = os.waitpid(self.pids[index], os.WNOHANG)
            if pid:
                self._exit_codes[index] = os.waitstatus_to_exitcode(status)
        return self._exit_codes.get(index)

    def is_running(self, index: int) -> bool:
        return index in self.pids and self.exit_code(index) is None

    def running(self) -> list[int]:
        return [index for index in self.pids if self.is_running(index)]

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM to all that run, SIGKILL to those that have not ended when time is up."""
        for index in sorted(self.paused):
            self.resume(index)
        running = self.running()
        for index in running:
            self._signal(index, signal.SIGTERM)
        for index in self._wait(running, timeout_s):
            self.kill(index)

    def _live(self, index: int) -> NoReturn:
        """The process of one node, as `flocknode node run` has it, but for where its output goes."""
        from flocknode.process import main

        # Ctrl-C is for the launcher, which then stops its nodes in order.
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(self.output(index), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        wraps = self._enter(index)
        threading.Thread(target=_end_with_launcher, args=(self._lifeline,), daemon=True).start()
        main(self.directories[index], wraps=wraps)

    def _signal(self, index: int, number: signal.Signals) -> None:
        # Not reaped yet, so the id is still that of our own process, even if it has just ended.
        if self.is_running(index):
            os.kill(self.pids[index], number)

    def _wait(self, indices: Sequence[int], timeout_s: float) -> list[int]:
        """Those that still run when time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = [index for index in indices if self.is_running(index)]
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(POLL_S)


def _end_with_launcher(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
