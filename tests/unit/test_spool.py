"""The files between an operator and a node: nothing that lies there ends the node or is done twice."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from flocknode import spool as spool_module
from flocknode.spool import Spool, given_at_s, left_orders, new_order, read_view, submit
from protocol.codec import encode
from protocol.messages import TransactionKind
from protocol.order import Order


def fund(units: int) -> Order:
    return new_order(TransactionKind.FUND, bytes(32), units)


def test_orders_are_heard_in_the_order_given_and_removed_when_taken(tmp_path: Path) -> None:
    orders = [fund(units) for units in range(3)]
    paths = [submit(tmp_path, order) for order in orders]
    assert [order for _, order in left_orders(tmp_path)] == orders
    spool = Spool(tmp_path)
    assert spool.hear() == ([encode(order) for order in orders], [])
    assert spool.hear() == ([], [])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    assert spool.show((orders[1].id,), {"height": 4}) == []
    assert [path.exists() for path in paths] == [True, False, True]
    view = read_view(tmp_path)
    assert view is not None
    assert (view["height"], view["pid"]) == (4, os.getpid())
    assert given_at_s(orders[0].id) <= given_at_s(orders[1].id) <= view["time"]
    # A new life hears again what was not taken.
    assert Spool(tmp_path).hear() == ([encode(orders[0]), encode(orders[2])], [])


def test_many_orders_come_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MOST_AT_ONCE", 2)
    for units in range(5):
        submit(tmp_path, fund(units))
    spool = Spool(tmp_path)
    assert [len(spool.hear()[0]) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_an_order_that_cannot_be_read_is_told_of_once_and_left(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, own = submit(tmp_path, fund(1)), fund(2)
    submit(tmp_path, own)
    open_file = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == foreign:
            raise OSError(error, os.strerror(error), str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    spool = Spool(tmp_path)
    orders, troubles = spool.hear()
    assert orders == [encode(own)]
    (trouble,) = troubles
    assert str(foreign) in trouble
    assert spool.hear() == ([], [])
    assert foreign.exists()
    assert [order for _, order in left_orders(tmp_path)] == [own]


def test_a_directory_that_cannot_be_read_or_written_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = fund(1)
    path = submit(tmp_path, order)
    spool = Spool(tmp_path)
    assert spool.hear()[0] == [encode(order)]

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", "commands")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        assert len(spool.hear()[1]) == 1
        assert spool.hear() == ([], [])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        patch.setattr(spool_module, "_replace", refuse)
        assert len(spool.show((order.id,), {})) == 2
    assert path.exists()
    assert spool.hear() == ([], [])  # heard in this life, and known by its id in the next
    assert read_view(tmp_path) is None


def test_a_spool_that_is_no_directory_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "commands").write_text("a file")
    orders, troubles = Spool(tmp_path).hear()
    assert orders == []
    assert len(troubles) == 1
    with pytest.raises(OSError, match="commands"):
        submit(tmp_path, fund(1))


def test_a_view_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "orders.json.partial").write_text("left by a crash")
    spool.show((), {"height": 1})
    assert json.loads((tmp_path / "orders.json").read_text())["height"] == 1
    assert (tmp_path / "orders.json").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "orders.json.partial").exists()


def test_an_order_that_could_not_be_read_for_a_moment_is_heard_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be left for the whole life of the node, and its command waited for ever."""
    order = new_order(TransactionKind.FUND, bytes(32), 5)
    submit(tmp_path, order)
    hearing = Spool(tmp_path)

    def no_descriptor(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(spool_module.os, "open", no_descriptor)
        orders, (trouble,) = hearing.hear()
        assert (orders, "Too many open files" in trouble) == ([], True)
        assert hearing.hear() == ([], [])  # told once
    assert hearing.hear() == ([encode(order)], [])
