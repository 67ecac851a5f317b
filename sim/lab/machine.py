"""What the fault lab needs of its machine, and the system calls that Python 3.11 has no name for."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
PAGE_BYTES = 4096
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_REMOUNT = 0x20
PR_SET_PDEATHSIG = 1


class LabError(Exception):
    """The lab cannot run a scenario here, or not as it stands; the message says what to change."""


def check_machine(
    euid: int | None = None, platform: str = sys.platform, path: str | None = None, pyroute2: str = "pyroute2"
) -> None:
    """Raises `LabError` for the first thing that is missing; nothing has been created by then.

    The arguments are for tests: the effective user, `sys.platform`, the search path, the package's name.
    """
    if platform != "linux":
        raise LabError("the lab runs on Linux only: it puts each node into a network namespace of its own")
    if (os.geteuid() if euid is None else euid) != 0:
        raise LabError("the lab needs root, for network namespaces and packet filters: run it with sudo")
    if importlib.util.find_spec(pyroute2) is None:
        raise LabError("the lab needs pyroute2: pip install 'flocknode[lab]'")
    if shutil.which("nft", path=path) is None:
        raise LabError("the lab needs nft, which drops packets: apt-get install nftables")


def unshare(flags: int) -> None:
    """unshare(2). Raises `OSError`."""
    _call("unshare", flags)


def setns(descriptor: int, kind: int) -> None:
    """setns(2). Raises `OSError`."""
    _call("setns", descriptor, kind)


def mount_tmpfs(target: Path, size_bytes: int, *, remount: bool = False) -> None:
    """Mount a file system of so many bytes in memory, or change its size. Raises `OSError`.

    It has a page at the least: to the kernel a size of 0 means no limit but the machine's memory.
    """
    flags = MS_REMOUNT if remount else 0
    options = f"size={max(size_bytes, PAGE_BYTES)},mode=700".encode()
    _call("mount", b"flocknode-lab", os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), options)


def unmount(target: Path) -> None:
    """umount(2). Raises `OSError`."""
    _call("umount", os.fsencode(target))


def hide_mounts() -> None:
    """From here on, what this process mounts is seen by it and its children only, and is gone with them."""
    unshare(CLONE_NEWNS)
    _call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)


def die_with(parent: int) -> None:
    """Have the kernel kill this process with `parent`, its parent: also one that SIGSTOP has stopped."""
    _call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before it was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
