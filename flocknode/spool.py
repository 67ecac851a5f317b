"""How an operator's orders reach a node, and how its answers come back: files in the node's directory.

No port and no socket: whoever may write the node's files may speak for it, and an order that is given while
the node is down is there when it comes back. An order is one file under `commands/`, named after its id and
written whole or not at all; the node removes it once what became of it is durable. What waits, and what
became of the last orders, stands in `orders.json`, which the node writes anew whenever that changes.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flocknode.files import PARTIAL, partial_of, write_file
from protocol.codec import DecodeError, decode, encode
from protocol.messages import TransactionKind
from protocol.order import ORDER_BYTES, Order

DIRECTORY = "commands"
VIEW_FILE = "orders.json"
SUFFIX = ".order"
SET_ASIDE = ".bad"
"""The suffix of what is no order, and stays for the operator to look at."""
MOST_AT_ONCE = 64
MODE = 0o600


class SpoolError(OSError):
    """An order cannot be left; the message names the directory, whose it is, and its mode."""


def new_order(kind: TransactionKind, peer: bytes, amount_units: int, replaces: int | None = None) -> Order:
    """Return an order with an id of its own: nanoseconds since 1970, then eight random bytes."""
    order_id = time.time_ns().to_bytes(8, "big") + secrets.token_bytes(8)
    return Order(order_id, kind, peer, amount_units, replaces)


def given_at_s(order_id: bytes) -> float:
    """Return when `new_order` made an id, in seconds since 1970."""
    return int.from_bytes(order_id[:8], "big") / 1e9


def submit(directory: Path, order: Order) -> Path:
    """Leave an order for the node of `directory`; returns its file. Raises OSError.

    The superuser leaves it as the owner of `directory`, so that a node that runs as another user can read and
    remove it. Raises `SpoolError` where that owner may not write to the spool.
    """
    spool = directory / DIRECTORY
    path = spool / f"{order.id.hex()}{SUFFIX}"
    with _as_owner_of(directory):
        try:
            spool.mkdir(mode=0o700, exist_ok=True)
            write_file(path, [encode(order)], MODE)
        except PermissionError as error:
            owner = _user_of(directory.stat().st_uid)
            raise SpoolError(
                f"{spool}: {error.strerror} ({_whose(spool)}); the node's directory is {owner}'s: "
                f"chown -R --reference={directory} {spool} puts it right"
            ) from error
    return path


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


def _whose(path: Path) -> str:
    try:
        found = path.lstat()
    except OSError as error:
        return error.strerror or repr(error)
    return f"owner {_user_of(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o}"


def _user_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def left_orders(directory: Path) -> list[tuple[Path, Order]]:
    """Return the orders that the node has not taken yet, oldest first, as far as they can be read."""
    found = []
    for path in _entries(directory / DIRECTORY):
        try:
            found.append((path, _read_order(path)))
        except (OSError, DecodeError):
            continue
    return sorted(found, key=lambda entry: entry[1].id)


def read_view(directory: Path) -> dict[str, Any] | None:
    """Return what the node last showed, None where there is nothing. Raises OSError, ValueError."""
    try:
        view = json.loads((directory / VIEW_FILE).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(view, dict):
        raise ValueError(f"{directory / VIEW_FILE}: not a JSON object")
    return view


class Spool:
    """The node's side. Nothing here raises for what lies in the directory: it is told, and left or set aside.

    All methods are called on one thread.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._heard: dict[bytes, list[Path]] = {}
        """The files of each order that was given to the engine, until it is taken."""
        self._done: set[Path] = set()
        """Files not to be looked at again in this life: told of, or taken and not to be removed."""
        self._unread: set[Path] = set()
        """Files that could not be read, and were told of."""
        self._unlisted = False

    def hear(self) -> tuple[list[bytes], list[str]]:
        """Return the orders, encoded, that came since the last call, and what the operator should know."""
        orders: list[bytes] = []
        troubles: list[str] = []
        try:
            entries = _entries(self._directory / DIRECTORY)
            self._unlisted = False
        except OSError as error:
            if not self._unlisted:
                troubles.append(f"{error} ({_whose(self._directory / DIRECTORY)})")
            self._unlisted = True
            return orders, troubles
        waiting = {path for paths in self._heard.values() for path in paths}
        self._unread.intersection_update(entries)
        for path in entries:
            if path in waiting or path in self._done:
                continue
            if len(orders) == MOST_AT_ONCE:
                break
            try:
                order = _read_order(path)
            except FileNotFoundError:
                continue
            except OSError as error:  # perhaps for now only: it is tried again, and told once
                if path not in self._unread:
                    troubles.append(f"an order cannot be read: {error} ({_whose(path)})")
                self._unread.add(path)
            except DecodeError as error:
                troubles.append(f"{path}: no order: {error}{self._set_aside(path)}")
            else:
                self._unread.discard(path)
                if order.id not in self._heard:
                    orders.append(encode(order))
                self._heard.setdefault(order.id, []).append(path)
        return orders, troubles

    def _set_aside(self, path: Path) -> str:
        try:
            path.rename(path.with_name(path.name + SET_ASIDE))
        except OSError as error:
            self._done.add(path)
            return f"; it cannot be set aside: {error.strerror}"
        return ""

    def show(self, taken: Sequence[bytes], view: Mapping[str, object]) -> list[str]:
        """Write the view, remove the orders that are taken; return what the operator should know."""
        troubles = []
        path = self._directory / VIEW_FILE
        try:
            _replace(path, json.dumps({**view, "pid": os.getpid(), "time": time.time()}).encode() + b"\n")
        except OSError as error:
            troubles.append(f"{path}: {error.strerror}")
        for order_id in taken:
            for file in self._heard.pop(order_id, []):
                try:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    self._done.add(file)
                    troubles.append(f"{file}: {error.strerror} ({_whose(file.parent)})")
        return troubles


def _entries(spool: Path) -> list[Path]:
    """Return what lies in the spool and may be an order, by name. Raises OSError."""
    try:
        names = sorted(os.listdir(spool))
    except FileNotFoundError:
        return []
    return [spool / name for name in names if not name.endswith((PARTIAL, SET_ASIDE))]


def _read_order(path: Path) -> Order:
    """Raises `DecodeError` for what is no order, OSError for what cannot be read."""
    try:
        # Neither a pipe, which would let the node wait for ever, nor a link to somewhere else.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if stat.S_ISREG(path.lstat().st_mode):
            raise
        raise DecodeError("not a regular file") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DecodeError("not a regular file")
        return decode(Order, os.read(descriptor, ORDER_BYTES + 1), ORDER_BYTES)
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file at once. It need not survive a power cut: it is written again."""
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    partial.rename(path)
