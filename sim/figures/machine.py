"""The machine that something was measured on, in one line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "numpy")
CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> str:
    """CPU model, cores that this process may use, memory, system, and the versions that count.

    Asks installed packages for their versions without importing them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [_cpu_model(), f"{cores} cores", *_memory(), platform.system()]
    parts += [f"Python {platform.python_version()}", *(_library(name) for name in LIBRARIES)]
    return ", ".join(parts)


def _cpu_model() -> str:
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return f"{named[0]} ({platform.machine()})" if named else platform.processor() or platform.machine()


def _memory() -> list[str]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return []
    return [f"{total / 2**30:.0f} GiB of memory"]


def _library(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"
