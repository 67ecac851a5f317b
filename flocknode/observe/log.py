"""Structured logs: one JSON object a line, with wall-clock time and the node's name."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeAlias

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from flocknode.faults import describe_error

Logger: TypeAlias = FilteringBoundLogger

LOG_FILE = "node.log"
LOG_BYTES = 64 << 20
"""When a log file is full and a new one is begun."""
LOG_FILES = 4
"""How many are kept, the one that is written included: a node's log takes at most 256 MiB."""
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class Sink(Protocol):
    """Takes finished lines; `write` may raise OSError, which costs the line."""

    def write(self, line: str, /) -> object: ...


class LogFile:
    """Append lines to a file; a full one is set aside under the names NAME.1 (the newest) to NAME.3.

    `max_bytes`: when a file is full; a line is never cut in two.
    """

    def __init__(self, path: Path, max_bytes: int = LOG_BYTES) -> None:
        """Raises OSError where the file cannot be opened."""
        self.name = str(path)
        self._path = path
        self._max_bytes = max_bytes
        # Line buffered: a node that is killed has logged everything up to then.
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._bytes = os.fstat(self._file.fileno()).st_size

    def write(self, line: str) -> None:
        """Append a line, which ends with a newline. Raises OSError."""
        size = len(line.encode())
        if self._bytes and self._bytes + size > self._max_bytes:
            with suppress(OSError):  # the full file is written on
                self._set_aside()
        self._file.write(line)
        self._bytes += size

    def close(self) -> None:
        """Close the file. Raises OSError where its last line cannot be written."""
        self._file.close()

    def _set_aside(self) -> None:
        # The new file comes first: where it cannot be opened, nothing is renamed.
        fresh_path = self._path.with_name(f"{self._path.name}.new")
        fresh = fresh_path.open("w", buffering=1, encoding="utf-8")
        names = [self._path, *set_aside(self._path)]
        for newer, older in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                newer.rename(older)
        fresh_path.rename(self._path)
        full, self._file, self._bytes = self._file, fresh, 0
        full.close()


def set_aside(path: Path) -> list[Path]:
    """Return the names of the full log files of `path`, the newest first, whether they exist or not."""
    return [path.with_name(f"{path.name}.{number}") for number in range(1, LOG_FILES)]


def open_log(directory: Path, node: str, level: str, console: bool = False) -> tuple[Logger, LogFile]:
    """A logger that appends to `directory`/node.log, and to standard error if `console`, and its open file.

    Every line has "time" (UTC, ISO 8601), "node", "level" and "event". Raises KeyError for an unknown level,
    OSError for a file that cannot be opened.
    """
    file = LogFile(directory / LOG_FILE)
    return make_logger([file, sys.stderr] if console else [file], node, level), file


def make_logger(sinks: Sequence[Sink], node: str, level: str) -> Logger:
    """A logger that writes each record as a line of JSON to every sink."""
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_to_json),
    ]
    logger: Logger = structlog.wrap_logger(
        _Sinks(sinks),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
        node=node,
    )
    return logger


class _Sinks:
    """What structlog calls with a finished line.

    A sink that cannot be written (a full disk, a closed pipe or file, an encoding without some letter) costs
    log lines and not the node: what a node must not go on without, its store refuses. How many lines a sink
    lost is the first thing that it is told once it can be written again.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = [_Sink(sink) for sink in sinks]

    def msg(self, line: str) -> None:
        for sink in self._sinks:
            sink.write(line)

    debug = info = warning = error = critical = exception = log = msg


class _Sink:
    def __init__(self, file: Sink) -> None:
        self._file = file
        self._lost = 0

    def write(self, line: str) -> None:
        try:
            if self._lost:
                self._file.write(json.dumps({"event": "log_lines_lost", "lines": self._lost}) + "\n")
                self._lost = 0
            self._file.write(line + "\n")
        except Exception:
            self._lost += 1


REPEATED_S = 10.0
MOST_REMEMBERED = 256


class Bridge(logging.Handler):
    """Sends what libraries say through the standard logging module to a node's log, without repeating it."""

    def __init__(self, logger: Logger, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self._logger = logger
        self._said: dict[tuple[str, object], tuple[float, int]] = {}
        """When each message was written last, and how often it came since."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the same one again `REPEATED_S` later, with how often it came meanwhile.

        Never raises, whatever arguments the library gave.
        """
        with suppress(Exception):
            self._emit(record)

    def _emit(self, record: logging.LogRecord) -> None:
        key = record.name, record.msg
        last_s, repeated = self._said.pop(key, (record.created - REPEATED_S, 0))
        if 0 <= record.created - last_s < REPEATED_S:
            self._said[key] = last_s, repeated + 1
            return
        self._said[key] = record.created, 0
        if len(self._said) > MOST_REMEMBERED:
            del self._said[next(iter(self._said))]
        fields: dict[str, object] = {"logger": record.name, "message": _message(record)}
        if repeated:
            fields["repeated"] = repeated
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        self._logger.log(_known_level(record.levelno), "library", **fields)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return str(record.msg)


def _known_level(level: int) -> int:
    """Return the level of structlog's that is not above a level of the logging module's."""
    return max((known for known in LEVELS.values() if known <= level), default=logging.DEBUG)


def _to_json(event: EventDict, **options: object) -> str:
    """Return the line of an event. Never raises: what JSON cannot say costs the event its fields."""
    try:
        return json.dumps(event, default=_plain, separators=(",", ":"))
    except Exception as error:
        known = {name: event[name] for name in ("time", "node", "level", "event") if name in event}
        fields = {name: str(value) for name, value in known.items()}
        return json.dumps({**fields, "unloggable": describe_error(error)}, separators=(",", ":"))


def _plain(value: object) -> object:
    """Digests and peers as hex; numpy scalars as numbers; anything else as its text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", 1) == 1:
        return item()
    return str(value)
