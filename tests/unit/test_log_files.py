"""A node's log takes a bounded place on the disk, and whoever reads it as it grows misses no line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flocknode.observe.log import LOG_FILE, LOG_FILES, LogFile, make_logger, set_aside
from flocknode.observe.nodelog import NodeLog

FULL = 2_000


def number(line: dict[str, object]) -> object:
    return line["number"]


def test_full_files_are_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / LOG_FILE
    file = LogFile(path, FULL)
    for count in range(1_000):
        file.write(json.dumps({"event": "line", "number": count}) + "\n")
    file.close()
    names = [path, *set_aside(path)]
    assert sorted(tmp_path.iterdir()) == sorted(names)
    assert len(names) == LOG_FILES
    assert all(0 < name.stat().st_size <= FULL for name in names)
    kept = [json.loads(line)["number"] for name in reversed(names) for line in name.read_text().splitlines()]
    assert kept == list(range(1_000 - len(kept), 1_000))


def test_a_line_longer_than_a_file_is_whole(tmp_path: Path) -> None:
    file = LogFile(tmp_path / LOG_FILE, 10)
    for size in (5, 50, 5):
        file.write("x" * size + "\n")
    file.close()
    assert (tmp_path / f"{LOG_FILE}.1").read_text() == "x" * 50 + "\n"


def test_a_new_life_goes_on_with_the_file_of_the_last(tmp_path: Path) -> None:
    for _ in range(3):
        file = LogFile(tmp_path / LOG_FILE, 25)
        file.write("ten bytes\n")
        file.close()
    assert (tmp_path / LOG_FILE).read_text() == "ten bytes\n"
    assert (tmp_path / f"{LOG_FILE}.1").read_text() == "ten bytes\n" * 2


def test_where_no_file_can_be_opened_the_full_one_is_written_on(tmp_path: Path) -> None:
    file = LogFile(tmp_path / LOG_FILE, 15)
    (tmp_path / f"{LOG_FILE}.new").mkdir()
    log = make_logger([file], "n", "info")
    for count in range(3):
        log.info("line", number=count)
    file.close()
    lines = (tmp_path / LOG_FILE).read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1, 2]
    assert not (tmp_path / f"{LOG_FILE}.1").exists()


@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_a_reader_misses_nothing_and_takes_nothing_twice(tmp_path: Path, at_once: int) -> None:
    """However many lines, within what is kept, are written between two looks."""
    log, file = NodeLog(tmp_path), LogFile(tmp_path / LOG_FILE, FULL)
    logger = make_logger([file], "n", "info")
    read: list[object] = []
    for start in range(0, 400, at_once):
        for count in range(start, min(400, start + at_once)):
            logger.info("line", number=count, filling="." * 20)
        read += [number(line) for line in log.read()]
    file.close()
    assert (tmp_path / f"{LOG_FILE}.{LOG_FILES - 1}").exists()
    assert read == list(range(400))


def test_a_late_reader_begins_with_the_oldest_file(tmp_path: Path) -> None:
    file = LogFile(tmp_path / LOG_FILE, FULL)
    logger = make_logger([file], "n", "info")
    for count in range(100):
        logger.info("line", number=count)
    file.close()
    read = [number(line) for line in NodeLog(tmp_path).read()]
    assert read == list(range(100 - len(read), 100))
    assert len(read) > FULL // 120
