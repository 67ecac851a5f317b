"""Every scenario that is shipped comes about as it says, and a run is a function of scenario and seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner

import sim
from sim.cli.run import run as run_command
from sim.fuzz.draw import draw_scenario
from sim.scenario.manifest import Scenario, ScenarioError, load_scenario, parse_scenario
from sim.scenario.run import run_scenario
from sim.scenario.write import to_toml

FOLDER = Path(sim.__file__).parent / "scenarios"
SHIPPED = sorted(FOLDER.glob("*.toml"))
LAB = sorted((FOLDER / "lab").glob("*.toml"))
ROOT = Path(__file__).resolve().parents[2]
SEED = 1
SEEDS = {"key-copying-openers": 2}
"""Where its adversary leads no block of the first rounds with seed 1."""


def named(path: Path) -> str:
    return path.stem


def test_there_is_a_scenario_for_each_point_at_which_somebody_may_drop_out() -> None:
    assert len(SHIPPED) >= 20
    assert {
        "drop-before-share",
        "drop-after-share",
        "drop-after-upload",
        "drop-holder-before-unmasking",
        "drop-before-reveal",
        "drop-voter-before-vote",
        "drop-aggregator-before-claim",
        "drop-leader",
        "drop-most-that-may",
        "drop-one-too-many",
    } <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=named)
def test_a_scenario_comes_about_as_it_says(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    result = run_scenario(scenario, SEEDS.get(path.stem, SEED), keep_trace=200)
    assert result.violation is None, result.violation.what
    assert not result.failures
    assert len(result.strikes) >= len(scenario.faults)
    if result.struck:
        assert any(result.struck.values()), "no adversary in it ever bent anything"


@pytest.mark.parametrize("path", [*SHIPPED, *LAB], ids=named)
def test_a_scenario_is_the_same_when_it_is_written_and_read_again(path: Path) -> None:
    scenario = load_scenario(path)
    assert parse_scenario(to_toml(scenario), path.name) == scenario


@pytest.mark.parametrize("seed", range(60))
def test_what_a_fuzzer_draws_is_the_same_when_it_is_written_and_read_again(seed: int) -> None:
    scenario = draw_scenario(seed)
    assert parse_scenario(to_toml(scenario), "drawn.toml") == scenario


def digest(hash_seed: str, path: Path) -> str:
    code = (
        "import sys; from pathlib import Path; from sim.scenario.manifest import load_scenario; "
        "from sim.scenario.run import run_scenario; "
        "print(run_scenario(load_scenario(Path(sys.argv[1])), 5).trace_digest)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.strip()


def test_a_run_replays_to_the_same_bytes_in_any_process() -> None:
    path = FOLDER / "drop-leader.toml"
    once, again = digest("1", path), digest("2", path)
    assert once == again == run_scenario(load_scenario(path), 5).trace_digest
    assert run_scenario(load_scenario(path), 6).trace_digest != once


QUIET = parse_scenario('name = "quiet"\nabout = "Nothing."\n[network]\nnodes = 4\nrounds = 1\n', "quiet.toml")


def test_an_expectation_that_does_not_hold_is_told() -> None:
    wrong = evolve(QUIET, expect=evolve(QUIET.expect, aborted=(1,), contributors={1: 2}))
    result = run_scenario(wrong, SEED)
    assert not result.passed
    assert result.violation is None
    assert result.failures == (
        "round 1 was accepted, and should have been aborted",
        "round 1 has 3 contributors, not 2",
    )


def test_an_unknown_behaviour_and_two_for_one_node_are_refused() -> None:
    def cast(*behaviours: str) -> Scenario:
        nodes = "".join(f'[[nodes]]\nwho = 0\nbehaviour = "{name}"\n' for name in behaviours)
        return parse_scenario(to_toml(QUIET) + nodes, "cast.toml")

    with pytest.raises(ScenarioError, match="unknown behaviour 'nice'"):
        run_scenario(cast("nice"), SEED)
    with pytest.raises(ScenarioError, match="node 0 is to be both"):
        run_scenario(cast("poisoner", "contrarian"), SEED)


def test_the_command_reports_and_traces(tmp_path: Path) -> None:
    report, trace = tmp_path / "report.json", tmp_path / "trace.txt"
    scenario = tmp_path / "quiet.toml"
    scenario.write_text(to_toml(QUIET))
    arguments = [str(scenario), "--seed", "2", "--report", str(report), "--trace", str(trace)]
    result = CliRunner().invoke(run_command, arguments)
    assert result.exit_code == 0, result.output
    assert "no invariant was violated" in result.output
    assert '"passed": true' in report.read_text()
    assert len(trace.read_text().splitlines()) > 500
    missing = CliRunner().invoke(run_command, [str(tmp_path / "none.toml")])
    assert missing.exit_code == 1
    assert "none.toml: No such file" in missing.output
