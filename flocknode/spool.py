"""How an operator's command reaches a node: a file in the node's directory, which nobody else can write to.

No port and no socket: whoever may write the node's files may speak for it, and a command that is given while
the node is down is there when it comes back.
"""

from __future__ import annotations

import time
from pathlib import Path

from flocknode.files import PARTIAL, write_file

DIRECTORY = "commands"
MAX_COMMAND_BYTES = 4096


def submit(directory: Path, transaction: bytes) -> None:
    """Leave a canonically encoded transaction for the node of `directory`. Raises OSError."""
    spool = directory / DIRECTORY
    spool.mkdir(mode=0o700, exist_ok=True)
    write_file(spool / f"{time.time_ns():020d}", [transaction], 0o600)


def waiting(directory: Path) -> list[tuple[Path, bytes]]:
    """The commands left so far, oldest first, each with its file, which is to be removed once it was heard.

    A file too long for a command is removed unheard. Raises OSError.
    """
    spool = directory / DIRECTORY
    if not spool.is_dir():
        return []
    commands = []
    for path in sorted(spool.iterdir()):
        if path.name.endswith(PARTIAL):
            continue
        with path.open("rb") as file:
            data = file.read(MAX_COMMAND_BYTES + 1)
        if len(data) > MAX_COMMAND_BYTES:
            path.unlink()
        else:
            commands.append((path, data))
    return commands
