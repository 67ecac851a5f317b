"""kill -9 of the leader and of the aggregator in the middle of a phase: the round ends, and they catch up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flocknode.demo.threads import POOLS

SCRIPT = Path(__file__).with_name("kill_network.py")
TIMEOUT_S = 120


def run_network(root: Path, seed: int, *, nodes: int, rounds: int, down: bool = False) -> dict[str, Any]:
    """What the script found. One that hangs is killed, and its nodes end with it."""
    arguments = [str(SCRIPT), str(root), str(seed), str(nodes), str(rounds), "down" if down else "back"]
    ended = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **dict.fromkeys(POOLS, "1")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def assert_sound(found: dict[str, Any], blows: int) -> None:
    assert len(found["killed"]) == blows
    assert found["faults"] == [None] * len(found["heights"])
    assert found["consistent"]
    assert found["supply_conserved"]
    # Everyone, the killed as well, has the last block of the last round, and stopped cleanly.
    assert min(found["heights"]) >= found["last_height"]
    assert set(found["exit_codes"]) == {0}
    numbers = [number for number, *_ in found["rounds"]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.timeout(TIMEOUT_S + 20)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_leaders_and_aggregators_are_killed_in_turn_and_come_back(tmp_path: Path, seed: int) -> None:
    found = run_network(tmp_path, seed, nodes=5, rounds=4)
    assert_sound(found, blows=3)
    assert {blow["victim"] for blow in found["killed"]} == {"leader", "aggregator"}
    # Once all are back, rounds are accepted again.
    assert all(accepted for _, accepted, *_ in found["rounds"][-2:])


@pytest.mark.timeout(TIMEOUT_S + 20)
def test_an_aggregator_that_stays_down_is_replaced(tmp_path: Path) -> None:
    found = run_network(tmp_path, 4, nodes=7, rounds=2, down=True)
    assert_sound(found, blows=1)
    (blow,) = found["killed"]
    _, accepted, verdict, attempts = found["rounds"][blow["round"] - 1]
    # Killed after its claim had gone out it is not missed; before, the next in order takes over.
    assert (accepted, verdict) == (True, "TRUSTED")
    assert attempts in (1, 2)
