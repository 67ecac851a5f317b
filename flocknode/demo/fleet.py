"""The nodes of a demo, each in a process of its own: started, killed, started again, never left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

OUTPUT_FILE = "output.log"
"""Where a node's standard output and error go: what it says there before it has a log, or as it crashes."""

STOP_TIMEOUT_S = 10.0


class Fleet:
    """Runs nodes by index, each in a process of its own; leaving its context stops them all.

    A node gets SIGTERM when it is to stop, also from itself when whoever launched it is gone, so that even
    a launcher that was killed leaves no process behind.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(directories)
        self._context = _server()
        self._processes: dict[int, ForkServerProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, index: int) -> None:
        """Start a node that does not run."""
        process = self._context.Process(
            target=_live, args=(self.directories[index],), name=self.directories[index].name, daemon=True
        )
        process.start()
        self._processes[index] = process

    def start_all(self) -> None:
        for index in range(len(self.directories)):
            self.start(index)

    def kill(self, index: int) -> None:
        """SIGKILL, and wait until the process is gone."""
        process = self._processes[index]
        process.kill()
        process.join(STOP_TIMEOUT_S)

    def is_alive(self, index: int) -> bool:
        process = self._processes.get(index)
        return process is not None and process.is_alive()

    def pid(self, index: int) -> int | None:
        """The process id of a node that was started."""
        process = self._processes.get(index)
        return None if process is None else process.pid

    def exit_codes(self) -> dict[int, int | None]:
        """Of every node that was started: None while it runs, minus the signal where one ended it."""
        return {index: process.exitcode for index, process in self._processes.items()}

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM to all that run, SIGKILL to those that have not ended when time is up."""
        running = [process for process in self._processes.values() if process.is_alive()]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + timeout_s
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in running:
            if process.is_alive():
                process.kill()
                process.join()

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `work(*arguments)`, computed where everything is imported already.

        Raises what it raised. Both are module level and picklable.
        """
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(sender, work, arguments), daemon=True)
        process.start()
        sender.close()
        try:
            succeeded, result = receiver.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"{work.__name__} ended with exit code {process.exitcode}") from None
        finally:
            receiver.close()
        process.join()
        if succeeded:
            return result
        raise result


def _server() -> multiprocessing.context.ForkServerContext:
    # One thread for BLAS in each of many processes on few cores, and none that a fork would lose.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flocknode.demo.nursery"])
    return context


def prepare() -> None:
    """Have the fork server started, with everything imported; takes seconds the first time."""
    process = _server().Process(target=_nothing, daemon=True)
    process.start()
    process.join()


def _nothing() -> None:
    pass


def _answer(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _detach()
    try:
        answer = (True, work(*arguments))
    except Exception as error:
        answer = (False, error)
    sender.send(answer)
    sender.close()


def _live(directory: Path) -> None:
    """The process of one node, as `flocknode node run` has it."""
    from flocknode.process import main

    _detach()
    output = os.open(directory / OUTPUT_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    main(directory)


def _detach() -> None:
    """Ctrl-C is for the launcher alone, which then stops its nodes; and nobody outlives the launcher."""
    os.setsid()
    threading.Thread(target=_end_with_launcher, daemon=True).start()


def _end_with_launcher() -> None:
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        wait([launcher.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
