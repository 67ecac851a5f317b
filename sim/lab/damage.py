"""What the lab does to the disk of a node: a damaged or shortened store, no room, a ledger thrown away."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

from attrs import define, field

from flocknode.store import DATABASE
from sim.lab.machine import LabError, hide_mounts, mount_tmpfs, unmount

DISK_BYTES = 256 * 2**20
"""Of a node whose disk is to run full: memory is used only for what it writes."""
SAMPLE_BYTES = 32
FILL_ATTEMPTS = 1_000


def corrupt_store(directory: Path, random: Random) -> None:
    """Flip one bit of a stored block, of the header where there is none. The node must be down.

    Raises `LabError`.
    """
    path = directory / DATABASE
    _fold_log(path)
    with closing(sqlite3.connect(path)) as connection:
        blocks = [value for (value,) in connection.execute("SELECT value FROM block ORDER BY height")]
    data = bytearray(path.read_bytes())
    data[_place_of_a_block(data, blocks, random)] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def _place_of_a_block(data: bytearray, blocks: list[bytes], random: Random) -> int:
    """Some byte of some block in the file. A long block is spread over pages, so it is found by pieces."""
    for block in random.sample(blocks, len(blocks)):
        for start in range(0, len(block) - SAMPLE_BYTES, SAMPLE_BYTES):
            found = data.find(block[start : start + SAMPLE_BYTES])
            if found >= 0:
                return found + random.randrange(SAMPLE_BYTES)
    return random.randrange(SAMPLE_BYTES // 2)


def truncate_store(directory: Path) -> None:
    """Cut the file to half its length. The node must be down. Raises `LabError`."""
    path = directory / DATABASE
    _fold_log(path)
    os.truncate(path, path.stat().st_size // 2)


def start_over(directory: Path) -> None:
    """What an operator does who has lost a store: key and founding files stay, the ledger is thrown away."""
    for path in directory.glob(f"{DATABASE}*"):
        path.unlink()


def _fold_log(path: Path) -> None:
    """Have all that is committed stand in the one file, where damage can hit it."""
    if not path.is_file():
        raise LabError(f"{path}: there is no store to damage yet")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@define(eq=False)
class Disks:
    """Small file systems in memory for the directories of nodes whose disk runs full.

    Seen by this process and its children only, and gone with them.
    """

    _mounted: list[Path] = field(factory=list, init=False)

    def give(self, directory: Path) -> None:
        """Put a disk of its own where a node's directory will be. Raises `LabError`."""
        try:
            if not self._mounted:
                hide_mounts()
            directory.mkdir(mode=0o700, parents=True)
            mount_tmpfs(directory, DISK_BYTES)
        except OSError as error:
            raise LabError(f"no disk of its own for {directory.name}: {error.strerror}") from error
        self._mounted.append(directory)

    def fill(self, directory: Path) -> None:
        """Leave no room: the disk is as large as what is on it. Raises `LabError`.

        The kernel refuses to make it smaller than that, and the node goes on writing while this looks.
        """
        for _ in range(FILL_ATTEMPTS):
            status = os.statvfs(directory)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            try:
                mount_tmpfs(directory, used, remount=True)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise LabError(
                        f"the disk of {directory.name} stays as it is: {error.strerror}"
                    ) from error
            else:
                return
        raise LabError(f"the disk of {directory.name} does not fill: it was written to each time")

    def free(self, directory: Path) -> None:
        mount_tmpfs(directory, DISK_BYTES, remount=True)

    def take_back(self) -> None:
        """Put what is on the disks where they were mounted, and unmount them."""
        while self._mounted:
            directory = self._mounted.pop()
            copy = directory.with_name(f"{directory.name}.copy")
            shutil.copytree(directory, copy, copy_function=shutil.copy2)
            unmount(directory)
            directory.rmdir()
            copy.rename(directory)
