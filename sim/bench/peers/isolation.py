"""A process with a time limit, which leaves nothing behind: whatever it started is killed with it.

Killing its process group is not enough: Ray and node launchers start sessions of their own. On Linux this
process adopts what its descendants leave behind (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so that every process
that a run started stays below it and can be found.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
from attrs import frozen

PR_SET_CHILD_SUBREAPER = 36
KILL_ROUNDS = 50
KILL_PAUSE_S = 0.05
TAIL_LINES = 12
_FILE = re.compile(r'"(/[^"]+)"')
_ROOT = re.compile(r"site-packages|path|python3\.\d+")
"""Directories from which packages are imported; `path` is the one that a run gets."""


@frozen
class Finished:
    """How a process ended. `exit_code`: None where it was killed because its time was up."""

    exit_code: int | None
    seconds: float
    killed: int
    """Processes that were left when it had ended."""


def run_isolated(
    command: Sequence[str], env: Mapping[str, str], directory: Path, log: Path, limit_s: float
) -> Finished:
    """Run `command` for at most `limit_s` seconds in `directory`, output to `log`; then kill all it started.

    The same if this process is interrupted meanwhile. OSError where it cannot be started.
    """
    _adopt_orphans(True)
    before = descendants(os.getpid())
    begun = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    exit_code: int | None = None
    killed = 0
    try:
        with suppress(subprocess.TimeoutExpired):
            exit_code = process.wait(limit_s)
    finally:
        seconds = time.monotonic() - begun
        killed = _kill_all(process, before)
        _adopt_orphans(False)
    return Finished(exit_code, seconds, killed)


def descendants(pid: int) -> set[int]:
    """All processes below `pid` now; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything; the parent is the second field after it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found: set[int] = set()
    left = [pid]
    while left:
        for child in children.get(left.pop(), ()):
            if child not in found:
                found.add(child)
                left.append(child)
    return found


def log_tail(log: Path) -> list[str]:
    """The last lines that a run wrote, for readers on other machines."""
    try:
        return [
            readable(line) for line in log.read_text(errors="replace").rstrip().splitlines()[-TAIL_LINES:]
        ]
    except OSError:
        return []


def readable(line: str) -> str:
    """Without colours, and with files named by their package, not by where it lies on this machine."""
    return _FILE.sub(lambda found: f'"{_in_package(Path(found[1]))}"', click.unstyle(line))


def _in_package(file: Path) -> Path:
    parts = file.parts
    roots = [place for place, part in enumerate(parts) if _ROOT.fullmatch(part)]
    return Path(*parts[roots[-1] + 1 :]) if roots else Path(file.name)


def _adopt_orphans(adopt: bool) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def _kill_all(process: subprocess.Popen[bytes], before: set[int]) -> int:
    """Kill the process, its group and every new descendant, and reap them; how many there were."""
    killed: set[int] = set()
    running = process.poll() is None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if running:
        process.wait()
    for _ in range(KILL_ROUNDS):
        left = descendants(os.getpid()) - before - {process.pid}
        if not left:
            break
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        killed |= left
        time.sleep(KILL_PAUSE_S)
    return len(killed)
