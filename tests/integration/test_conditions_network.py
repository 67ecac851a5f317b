"""What real nodes say of themselves: `conditions_network` breaks each of them in its own way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("conditions_network.py")
TIMEOUT_S = 150

pytestmark = pytest.mark.timeout(TIMEOUT_S + 20)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("conditions")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(root / "net")], capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def begun(told: dict[str, Any], node: int, name: str, subject: str | None = None) -> dict[str, Any]:
    """The one line with which the condition began."""
    lines = [line for line in told["lines"][node] if line["event"] == name and line["state"] == "begun"]
    line, *_ = [line for line in lines if subject is None or line["subject"] == subject]
    assert line["level"] == "warning"
    assert {"what", "advice", "since"} <= line.keys()
    return dict(line)


def test_a_node_that_trains_for_too_long_says_both_times(told: dict[str, Any]) -> None:
    line = begun(told, 0, "deadline_missed", "training")
    assert "this node's update does not count" in line["what"]
    assert line["deadline_s"] == 2.0
    assert line["seconds"] > 0
    assert 0 < line["closed_after_s"] < 30


def test_an_update_beyond_the_bound_says_how_much_of_it(told: dict[str, Any]) -> None:
    for node in (1, 2, 3):
        line = begun(told, node, "update_clipped")
        assert line["coordinates"] == 2_410
        assert 0 < line["clipped_coordinates"] <= 2_410
        assert line["largest"] > line["clip"] == 0.002


def test_another_genesis_is_named_on_both_sides_and_nobody_is_refused(told: dict[str, Any]) -> None:
    odd = begun(told, 5, "genesis_differs")
    for node in range(5):
        line = begun(told, node, "genesis_differs")
        assert (line["theirs"], line["network"]) == ([odd["network"]], odd["theirs"][0])
        assert line["differing"] == 1
        assert f"theirs is {odd['network']}, this node's is {line['network']}" in line["what"]
    assert begun(told, 5, "below_quorum")["connected"] == 1
    events = Counter(line["event"] for lines in told["lines"] for line in lines)
    assert events["throttled"] == events["refused"] == 0
    assert told["heights"][5] == 0
    assert min(told["heights"][:5]) > 0


def test_a_node_that_nobody_lets_in_says_so(told: dict[str, Any]) -> None:
    line = begun(told, 6, "not_admitted")
    assert line["refusing"] > line["members"] / 2
    assert "pre-shared key" in line["what"]
    assert "ends the connection" in begun(told, 6, "no_peer")["what"]
    assert "its stake of 7.00 tokens is below the least of 8.00" in begun(told, 6, "not_validator")["what"]


def test_a_node_that_loses_its_stake_is_told_before_and_when(told: dict[str, Any]) -> None:
    near, out = begun(told, 4, "short_of_stake"), begun(told, 4, "not_validator")
    assert "stake of 15.00 tokens is close to the least of 8.00" in near["what"]
    assert out["stake_units"] < out["least_units"] == 8_000_000
    assert out["round"] > near["round"]
    assert "is below the least of 8.00; it has no vote" in out["what"]


def test_a_node_that_is_left_alone_says_so(told: dict[str, Any]) -> None:
    assert "(not reached)" in begun(told, 1, "no_peer")["what"]
    line = begun(told, 1, "below_quorum")
    assert (line["connected"], line["validators"], line["needed"]) == (1, 5, 4)


def test_nothing_is_said_twice(told: dict[str, Any]) -> None:
    """A begin and its end alternate, and no node says much: each has a few things wrong with it."""
    for lines in told["lines"]:
        state: dict[tuple[str, str], str] = {}
        for line in lines:
            key = line["event"], line.get("subject", "")
            assert state.get(key) != line["state"]
            assert key in state or line["state"] == "begun"
            state[key] = line["state"]
        assert len(lines) <= 20
