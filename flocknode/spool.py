"""How an operator's command reaches a node: a file in the node's directory, which nobody else can write to.

No port and no socket: whoever may write the node's files may speak for it, and a command that is given while
the node is down is there when it comes back.
"""

from __future__ import annotations

import os
import pwd
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flocknode.files import PARTIAL, write_file

DIRECTORY = "commands"
MAX_COMMAND_BYTES = 4096


class SpoolError(OSError):
    """A command cannot be left, read or removed; the message names the file, whose it is, and its mode."""


def submit(directory: Path, transaction: bytes) -> None:
    """Leave a canonically encoded transaction for the node of `directory`. Raises OSError.

    The superuser leaves it as the owner of `directory`, so that a node that runs as another user can read and
    remove it. Raises `SpoolError` where that owner may not write to the spool.
    """
    spool = directory / DIRECTORY
    with _as_owner_of(directory):
        try:
            spool.mkdir(mode=0o700, exist_ok=True)
            write_file(spool / f"{time.time_ns():020d}", [transaction], 0o600)
        except PermissionError as error:
            owner = _user_of(directory.stat().st_uid)
            raise SpoolError(
                f"{_described(spool, error)}; the node's directory is {owner}'s: "
                f"chown -R --reference={directory} {spool} puts it right"
            ) from error


def waiting(directory: Path) -> list[tuple[Path, bytes]]:
    """Return the commands left so far, oldest first, each with its file, to be removed once it was heard."""
    return look(directory)[0]


def look(directory: Path) -> tuple[list[tuple[Path, bytes]], list[str]]:
    """Return what `waiting` does, and a sentence about each file that cannot be heard.

    A file too long for a command is removed unheard. What cannot be read, or is no regular file, is left
    where it is: it costs its command, not the node.
    """
    spool = directory / DIRECTORY
    commands: list[tuple[Path, bytes]] = []
    faults: list[str] = []
    try:
        paths = sorted(spool.iterdir())
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [_described(spool, error)]
    for path in paths:
        if path.name.endswith(PARTIAL):
            continue
        try:
            data = _read(path)
            if len(data) > MAX_COMMAND_BYTES:
                path.unlink()
                faults.append(f"{path}: longer than {MAX_COMMAND_BYTES} bytes, and removed")
            else:
                commands.append((path, data))
        except FileNotFoundError:
            continue  # its sender has taken it back
        except OSError as error:
            faults.append(_described(path, error))
    return commands, faults


def remove(path: Path) -> None:
    """Remove the file of a command that was heard. Raises `SpoolError`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SpoolError(
            f"{_described(path.parent, error)}: {path.name} stays, and is not heard again"
        ) from error


def _read(path: Path) -> bytes:
    """One byte more than a command may have, at most. A pipe would let the node wait for ever."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SpoolError("not a regular file")
        return file.read(MAX_COMMAND_BYTES + 1)


@contextmanager
def _as_owner_of(directory: Path) -> Iterator[None]:
    """Act as the owner of `directory` where this is the superuser: nothing is created that it cannot use.

    Not by changing owners afterwards: the owner could have put a link in the way.
    """
    found = directory.stat()
    if os.geteuid() != 0 or found.st_uid == 0:
        yield
        return
    user, group = os.geteuid(), os.getegid()
    os.setegid(found.st_gid)
    try:
        os.seteuid(found.st_uid)
        try:
            yield
        finally:
            os.seteuid(user)
    finally:
        os.setegid(group)


def _described(path: Path, error: OSError) -> str:
    """Return the path, what is wrong, and whose the file is, as far as that can be seen."""
    words = f"{path}: {error.strerror or error}"
    with suppress(OSError):
        found = path.lstat()
        words += f" (owner {_user_of(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o})"
    return words


def _user_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
