"""Files that are there whole or not at all, whatever interrupts the writing."""

import os
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial"
"""The suffix of a file that is being written: what bears it at start-up was left by a crash."""


def write_file(path: Path, parts: Iterable[bytes | memoryview], mode: int = 0o644) -> None:
    """Write `parts` to `path` durably, replacing what is there at once or not at all. Raises OSError."""
    partial = partial_of(path)
    _write(partial, parts, mode)
    partial.rename(path)
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Like `write_file`, but raises FileExistsError, and leaves the file alone, where `path` exists."""
    partial = partial_of(path)
    _write(partial, [data], mode)
    try:
        os.link(partial, path)
    finally:
        partial.unlink()
    sync_directory(path.parent)


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


def sync_directory(directory: Path) -> None:
    """Make the renames inside `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(partial: Path, parts: Iterable[bytes | memoryview], mode: int) -> None:
    # A leftover of a crash may have any mode and any owner: start from nothing, and never through a link.
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(descriptor)
