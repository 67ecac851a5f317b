"""What a node does how often, counted inside its process and read by its launcher.

The counts lie in memory that launcher and nodes share, so that reading them costs a node nothing. Fewer of
these is what makes a round faster.
"""

from __future__ import annotations

import mmap
import os
import selectors
from collections.abc import Callable, Sequence
from time import perf_counter_ns, thread_time_ns
from typing import Any, Final

import numpy as np
import numpy.typing as npt

COUNTED: Final = (
    "events handled",
    "transactions",
    "records",
    "us in transactions",
    "CPU us in transactions",
    "file fsyncs",
    "signatures checked",
    "signatures made",
    "loop passes",
    "messages in",
    "messages out",
    "bytes in",
    "bytes out",
)
"""A transaction of the ledger is one fsync more, and most of its time is waiting: for the disk, and for the
interpreter's lock, on a thread of its own. Bytes are payload, chunks of blobs included."""


class Board:
    """One row of counters per node, shared with processes that are forked from here."""

    def __init__(self, nodes: int) -> None:
        size = nodes * len(COUNTED) * 8
        self._rows: npt.NDArray[np.int64] = np.frombuffer(mmap.mmap(-1, size), np.int64).reshape(nodes, -1)

    def read(self) -> npt.NDArray[np.int64]:
        """int64 (nodes, counters), as of now."""
        return self._rows.copy()

    def count_here(self, index: int) -> None:
        """Count in this process from now on: it is node `index`."""
        row = self._rows[index]
        cell = {name: position for position, name in enumerate(COUNTED)}
        for owner, attribute, counts in _watched():
            positions = [(cell[name], size) for name, size in counts]
            setattr(owner, attribute, _counting(getattr(owner, attribute), row, positions))
        for owner, attribute, (wall, cpu) in _timed():
            timed = _timing(getattr(owner, attribute), row, cell[wall], cell[cpu])
            setattr(owner, attribute, timed)


Size = Callable[[Sequence[Any]], int]


def _one(arguments: Sequence[Any]) -> int:
    return 1


def _watched() -> list[tuple[Any, str, tuple[tuple[str, Size], ...]]]:
    """Which calls are counted, as (owner, attribute, ((counter, how much by the call's arguments), ...))."""
    from flocknode import store
    from flocknode.transport.base import Counters
    from protocol import keys
    from protocol.engine import Engine

    return [
        (Engine, "handle", (("events handled", _one),)),
        (store, "_write", (("transactions", _one), ("records", lambda given: len(given[1])))),
        (os, "fsync", (("file fsyncs", _one),)),
        # `verify` remembers what it has checked; it asks libsodium once for each check that it makes.
        (keys, "sodium_verifies", (("signatures checked", _one),)),
        (keys.Identity, "sign", (("signatures made", _one),)),
        (selectors.EpollSelector, "select", (("loop passes", _one),)),
        (Counters, "message_in", (("messages in", _one), ("bytes in", lambda given: given[2]))),
        (Counters, "message_out", (("messages out", _one), ("bytes out", lambda given: given[2]))),
        (Counters, "chunk_in", (("bytes in", lambda given: given[2]),)),
        (Counters, "chunk_out", (("bytes out", lambda given: given[2]),)),
    ]


def _timed() -> list[tuple[Any, str, tuple[str, str]]]:
    """Which calls are timed, with the names of their microseconds and of their thread's CPU microseconds."""
    from flocknode import store

    return [(store, "_write", ("us in transactions", "CPU us in transactions"))]


def _counting(
    call: Callable[..., Any], row: npt.NDArray[np.int64], counts: Sequence[tuple[int, Size]]
) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        for position, size in counts:
            row[position] += size(arguments)
        return call(*arguments, **named)

    return counted


def _timing(call: Callable[..., Any], row: npt.NDArray[np.int64], wall: int, cpu: int) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        began_ns, cpu_began_ns = perf_counter_ns(), thread_time_ns()
        try:
            return call(*arguments, **named)
        finally:
            row[wall] += (perf_counter_ns() - began_ns) // 1000
            row[cpu] += (thread_time_ns() - cpu_began_ns) // 1000

    return timed
