"""The directories of labs, and those that a lab left behind which was killed.

Everything else of a lab lives in its processes: namespaces, bridge, packet filters, disks in memory. The
nodes themselves the kernel kills with their launcher. The lock on a directory is held by the lab and by all
its nodes, so what is not locked belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sim.lab.machine import LabError

PREFIX = "flocknode-lab-"
LOCK_FILE = "lab.lock"
YOUNG_S = 60.0
"""Within so many seconds a directory without a lock counts as just made."""


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A directory for the nodes: `keep`, which must be new or empty and stays, or one that goes in any case.

    Raises `LabError`.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise LabError(f"{keep}: not empty; the nodes of a lab need a new directory")
        yield keep.absolute()
        return
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def remove_leftovers(parent: Path | None = None) -> list[Path]:
    """Remove the directories of labs that are gone, and return them."""
    removed = []
    for root in sorted((parent or Path(tempfile.gettempdir())).glob(f"{PREFIX}*")):
        if _is_ours(root) and _is_abandoned(root):
            shutil.rmtree(root, ignore_errors=True)
            removed.append(root)
    return removed


def _is_ours(root: Path) -> bool:
    try:
        status = root.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _is_abandoned(root: Path) -> bool:
    """Whether no lab and no node of one holds the lock."""
    try:
        lock = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Of a lab that has just begun, or of one that was killed at that moment.
        return time.time() - root.stat().st_mtime > YOUNG_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
