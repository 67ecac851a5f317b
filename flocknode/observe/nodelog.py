"""What a node's log says of time and traffic, for reports: the one thing that a ledger cannot tell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from flocknode.observe.log import LOG_FILE, set_aside

SCORES: Final[tuple[str, ...]] = ("loss", "accuracy", "balanced_accuracy", "auroc")


@frozen
class Moment:
    """When a node took a block or started, in seconds of the Unix clock; its traffic since it started."""

    time_s: float
    bytes_in: int = 0
    bytes_out: int = 0


@frozen
class Span:
    """From one block to the next at one node."""

    seconds: float
    bytes_in: int
    bytes_out: int


@frozen
class Evaluation:
    """A model's scores on one node's test split of `examples` samples."""

    examples: int
    scores: Mapping[str, float]


@define
class NodeLog:
    """The log of one node, read as it grows. A restart begins a new life; a span never reaches across one."""

    directory: Path
    spans: dict[int, Span] = field(factory=dict, init=False)
    """By the height of the block that ended it."""
    evaluations: dict[int, Evaluation] = field(factory=dict, init=False)
    """By round."""
    height: int = field(default=0, init=False)
    bytes_in: int = field(default=0, init=False)
    bytes_out: int = field(default=0, init=False)
    """Since the node was started last, as of its last block."""
    _last: Moment | None = field(default=None, init=False)
    _file: int | None = field(default=None, init=False)
    _offset: int = field(default=0, init=False)
    """How far which file (its inode) has been read."""

    def read(self) -> list[dict[str, Any]]:
        """Take in what was written since the last call; the new entries, in order."""
        entries = list(self._new_entries())
        for entry in entries:
            self._take(entry)
        return entries

    def _new_entries(self) -> Iterator[dict[str, Any]]:
        for data in self._new_data():
            # A line that is still being written, or that a kill cut short, is no entry.
            whole = data.rfind(b"\n") + 1
            self._offset += whole
            for line in data[:whole].splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict):
                    yield entry

    def _new_data(self) -> Iterator[bytes]:
        """What was written since the last call, file by file: a full log is set aside and a new one begun."""
        path = self.directory / LOG_FILE
        with ExitStack() as closing:
            files = []
            # Opened before any is read, the newest first: one renamed meanwhile comes twice, not never.
            for name in (path, *set_aside(path)):
                with suppress(FileNotFoundError):
                    files.append(closing.enter_context(name.open("rb")))
            by_inode = {os.fstat(file.fileno()).st_ino: file for file in files}
            inodes = list(reversed(by_inode))
            unread = inodes[inodes.index(self._file) :] if self._file in by_inode else inodes
            for inode in unread:
                if inode != self._file:
                    self._file, self._offset = inode, 0
                by_inode[inode].seek(self._offset)
                yield by_inode[inode].read()

    def _take(self, entry: dict[str, Any]) -> None:
        match entry.get("event"):
            case "started":
                # An engine that was started over in a running process finds the traffic counted on.
                self._last = Moment(time_of(entry), entry.get("bytes_in", 0), entry.get("bytes_out", 0))
                self.height = entry["height"]
            case "block":
                moment = Moment(time_of(entry), entry["bytes_in"], entry["bytes_out"])
                if self._last is not None:
                    self.spans[entry["height"]] = Span(
                        moment.time_s - self._last.time_s,
                        moment.bytes_in - self._last.bytes_in,
                        moment.bytes_out - self._last.bytes_out,
                    )
                self._last, self.height = moment, entry["height"]
                self.bytes_in, self.bytes_out = moment.bytes_in, moment.bytes_out
            case "evaluation":
                scores = {name: float(entry[name]) for name in SCORES if name in entry}
                self.evaluations[entry["round"]] = Evaluation(entry["num_examples"], scores)
            case _:
                pass


def time_of(entry: Mapping[str, Any]) -> float:
    """Return when an entry was written, in seconds of the Unix clock."""
    return datetime.fromisoformat(entry["time"]).timestamp()
