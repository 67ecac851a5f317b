"""A disk of the lab can be filled while somebody writes to it all the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sim.lab.machine import LabError, check_machine

try:
    check_machine()
    WHY_NOT = None
except LabError as error:
    WHY_NOT = str(error)

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"needs root on Linux, and nft: {WHY_NOT}")

WRITER = """
import errno, os, sys, time
path = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("up", flush=True)
for _ in range(131_072):  # 512 MiB, twice the disk: if it has no limit, the test fails and the machine lives
    try:
        os.write(path, bytes(4096))
        time.sleep(1e-4)
    except OSError as error:
        sys.exit(0 if error.errno == errno.ENOSPC else 1)
sys.exit("no limit")
"""

FILL = """
import errno, os, subprocess, sys
from pathlib import Path
from sim.lab.damage import Disks
disks, directory = Disks(), Path(sys.argv[1])
disks.give(directory)
disks.fill(directory)  # of an empty disk nothing is left either
with (directory / "first").open("wb") as file:
    try:
        file.write(bytes(1 << 20))
        file.flush()
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        sys.exit("an empty disk has no limit")
disks.free(directory)
(directory / "first").unlink()
for number in range(20):
    writer = subprocess.Popen(
        [sys.executable, "-c", sys.argv[2], str(directory / "log")], stdout=subprocess.PIPE
    )
    writer.stdout.readline()
    disks.fill(directory)
    assert writer.wait(10) == 0, f"writer {number} ended with {writer.returncode}"
    os.truncate(directory / "log", 4096)
    disks.free(directory)
disks.take_back()
assert (directory / "log").stat().st_size == 4096
print("filled")
"""


def test_a_disk_is_filled_under_a_writer_that_does_not_stop(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FILL, str(tmp_path / "disk"), WRITER]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "filled\n"
