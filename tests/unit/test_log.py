"""Logging never ends a node: full disks, closed files, values without words, libraries' wrong arguments."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flocknode.observe.log import Bridge, make_logger, open_log


class Flaky(io.StringIO):
    """A file that cannot be written for a while."""

    error: Exception | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)


def lines(file: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ValueError("I/O operation on closed file"),
        UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range"),
        BrokenPipeError(),
        MemoryError(),
    ],
)
def test_a_sink_that_fails_costs_its_lines_and_says_how_many(error: Exception) -> None:
    flaky, other = Flaky(), io.StringIO()
    log = make_logger([flaky, other], "n", "info")
    log.info("one")
    flaky.error = error
    log.info("two")
    log.warning("three")
    flaky.error = None
    log.info("four")
    assert [line["event"] for line in lines(flaky)] == ["one", "log_lines_lost", "four"]
    assert lines(flaky)[1]["lines"] == 2
    assert [line["event"] for line in lines(other)] == ["one", "two", "three", "four"]


def test_a_full_disk_and_a_closed_file_are_survived(tmp_path: Path) -> None:
    full = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115
    log = make_logger([full], "n", "info")
    for number in range(2_000):
        log.info("line", number=number)
    with pytest.raises(OSError, match="No space"):
        full.close()
    log.info("closed by now")
    log, file = open_log(tmp_path, "n", "info")
    file.close()
    log.info("after the end")


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("value", [Unspeakable(), {b"key": 1}, {1: Unspeakable()}, np.zeros(3), "\ud800"])
def test_a_value_that_json_cannot_say_costs_no_more_than_its_event_s_fields(value: object) -> None:
    file = io.StringIO()
    make_logger([file], "n", "info").warning("odd", value=value, good=1)
    (line,) = lines(file)
    assert (line["event"], line["node"], line["level"]) == ("odd", "n", "warning")
    assert ("unloggable" in line) != ("good" in line)


def test_a_value_that_holds_itself_is_survived() -> None:
    file, circle = io.StringIO(), []
    circle.append(circle)
    make_logger([file], "n", "info").info("odd", value=circle)
    assert lines(file)[0]["unloggable"].startswith("ValueError")


def test_what_libraries_say_wrongly_is_said_anyway() -> None:
    file = io.StringIO()
    bridge = Bridge(make_logger([file], "n", "info"))
    logger = logging.getLogger("test_log.library")
    logger.propagate = False
    logger.addHandler(bridge)
    try:
        logger.warning("%d of %d", "x")
        logger.log(35, "a level of its own")
        logger.warning("%s", Unspeakable())
        logger.error("fine: %s", 1)
    finally:
        logger.removeHandler(bridge)
    assert [(line["message"], line["level"]) for line in lines(file)] == [
        ("%d of %d", "warning"),
        ("a level of its own", "warning"),
        ("%s", "warning"),
        ("fine: 1", "error"),
    ]
