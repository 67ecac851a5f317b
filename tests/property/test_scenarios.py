"""Every shipped scenario: it passes, what it says breaks really breaks, and it replays to the same bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner

from protocol.ledger.block import BlockKind, Reason
from protocol.ledger.state import Fault
from protocol.secagg.verification import Verdict
from sim.cli.run import run as run_command
from sim.scenario.manifest import Scenario, ScenarioError, load_scenario, parse_scenario
from sim.scenario.run import Run, run_scenario
from sim.scenario.selectors import Part, Selector

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "sim" / "scenarios").glob("*.toml"))
GUIDE = ROOT / "docs" / "SCENARIOS.md"
SEED = 1

REPLAYED = ("equivocating-aggregator", "store-back-in-time")
HASHED = "two-faced-dealer"

TELLERS = frozenset({"accomplice", "eavesdropper"})
"""Behaviours that only tell: what their accomplices do with it is what shows."""


def run(scenario: Scenario) -> Run:
    return run_scenario(scenario, SEED, keep_trace=200)


def shipped(name: str) -> Scenario:
    return load_scenario(ROOT / "sim" / "scenarios" / f"{name}.toml")


def told(result: Run) -> str:
    what = result.violation.what if result.violation else ""
    return f"seed {SEED}: {result.failures} {what}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_passes_and_all_that_it_names_strikes(path: Path) -> None:
    scenario = load_scenario(path)
    result = run(scenario)
    assert result.passed, told(result)
    struck = Counter(strike.kind for strike in result.strikes)
    assert not Counter(fault.do for fault in scenario.faults) - struck, "a fault never struck"
    idle = {name for name, times in result.struck.items() if not times} - TELLERS
    assert not idle, "an adversary never bent anything"


@pytest.mark.parametrize("seed", [6, 7])
def test_a_stalling_proposer_makes_no_honest_aggregator_pay(seed: int) -> None:
    """Found by a campaign: enough nodes waited for the proposer's upload until the dispute's deadline."""
    result = run_scenario(shipped("framed-by-stalling"), seed, keep_trace=100_000)
    assert result.passed, told(result)
    aggregator = str(result.stage.parts.aggregators[0])
    lines = list(result.stage.world.trace.lines)
    begins = next(i for i, line in enumerate(lines) if '"phase": "DISPUTE"' in line)
    ends = next(i for i, line in enumerate(lines) if '"kind": "DISPUTE"' in line)
    fetches = [line.split() for line in lines[begins:ends] if " fetch " in line]
    assert {words[4] for words in fetches} == {aggregator}


def test_each_dropout_point_has_its_scenario() -> None:
    names = {path.stem for path in SHIPPED}
    assert len(names) >= 20
    assert names >= {
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
    }


def test_each_shipped_scenario_is_listed_and_no_other() -> None:
    _, _, rest = GUIDE.read_text().partition("## What is shipped")
    listing, _, _ = rest.partition("## In the lab")
    listed = re.findall(r"`([a-z-]+)`", listing[listing.index("**") :])
    assert sorted(listed) == sorted(path.stem for path in SHIPPED)


def test_the_example_of_the_guide_comes_about() -> None:
    _, example, _ = GUIDE.read_text().split("```", 2)
    result = run(parse_scenario(example.removeprefix("toml"), GUIDE.name))
    assert result.passed, told(result)
    assert len(result.strikes) == 1


# -- a function of scenario and seed -----------------------------------------------------------------------


@pytest.mark.parametrize("name", REPLAYED)
def test_a_run_replays_to_the_same_bytes(name: str) -> None:
    first, second = run(shipped(name)), run(shipped(name))
    assert (first.trace_digest, first.events) == (second.trace_digest, second.events)
    assert run_scenario(shipped(name), SEED + 1, keep_trace=200).trace_digest != first.trace_digest


def test_a_run_does_not_depend_on_the_order_of_sets(tmp_path: Path) -> None:
    digests = set()
    for hash_seed in ("0", "4711"):
        report = tmp_path / f"{hash_seed}.json"
        command = ["sim", "run", f"sim/scenarios/{HASHED}.toml", "--seed", str(SEED), "--quiet"]
        subprocess.run(
            [sys.executable, "-m", "flocknode.cli.main", *command, "--report", str(report)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            check=True,
        )
        digests.add(json.loads(report.read_text())["trace"])
    assert len(digests) == 1


# -- who tests the tester ----------------------------------------------------------------------------------

PROPOSER = Selector(Part.PROPOSER, 0)
WRONG: Mapping[str, tuple[dict[str, object], str]] = {
    "accepted": ({"aborted": (1,)}, "round 1 was accepted, and should have been aborted"),
    "not over": ({"accepted": (9,)}, "round 9 was still open, and should have been accepted"),
    "verdict": (
        {"verdicts": {1: Verdict.UNBOUNDED}},
        "round 1 reads LAZY_AGGREGATOR, not UNBOUNDED",
    ),
    "no verdict": ({"verdicts": {9: Verdict.TRUSTED}}, "round 9 reads nothing, not TRUSTED"),
    "block": ({"blocks": {1: (BlockKind.ABORT,)}}, "round 1 has no ABORT block"),
    "reason": (
        {"reasons": {1: Reason.NO_PROGRESS}},
        "round 1 ended for no reason, not NO_PROGRESS",
    ),
    "sharers": ({"sharers": {1: 3}}, "round 1 has 4 sharers, not 3"),
    "contributors": ({"contributors": {1: 3}}, "round 1 has 4 contributors, not 3"),
    "votes": ({"votes": {1: (1, -1)}}, "round 1 has votes [1, 1], not [1, -1]"),
    "views": ({"views": {1: 5}}, "round 1 took 1 views for a block at most, not 5"),
    "paid": (
        {"paid": ((PROPOSER, Fault.BAD_DEALING),)},
        "proposer 0 (node 6) did not pay for BAD_DEALING",
    ),
    "unpaid": ({"unpaid": (Selector(Part.AGGREGATOR),)}, "node 2 paid for FORGED_AGGREGATE"),
    "evicted": ({"evicted": (PROPOSER,)}, "node 6 is still a validator"),
    "down": ({"down": (PROPOSER,)}, "node 6 runs, and should have refused to"),
    "ended": ({"ended": 40}, "node 0 has ended 1 rounds of 40"),
}


@pytest.fixture(scope="module")
def lazy() -> Run:
    return run(shipped("lazy-aggregator"))


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_expectation_fails_and_says_why(lazy: Run, wrong: dict[str, object], message: str) -> None:
    scenario = lazy.stage.scenario
    ending = evolve(lazy.ending, scenario=evolve(scenario, expect=evolve(scenario.expect, **wrong)))
    assert message in ending.failures()


def test_a_round_without_its_reason_fails_and_says_which_it_had() -> None:
    scenario = shipped("drop-one-too-many-sharers")
    expect = evolve(scenario.expect, reasons={1: Reason.NO_AGGREGATE}, refused=(1,))
    result = run(evolve(scenario, expect=expect))
    assert not result.passed
    assert "round 1 ended for TOO_FEW_SHARERS, not NO_AGGREGATE" in result.failures
    assert "round 1 was aborted, and should have been refused" in result.failures


CAST = 'name = "x"\nabout = "y"\n[network]\nnodes = 4\n[[nodes]]\n'


@pytest.mark.parametrize(
    ("cast", "message"),
    [
        ('who = 0\nbehaviour = "saint"\n', "unknown behaviour 'saint': choose one of abstainer, "),
        ('who = 0\nbehaviour = "poisoner"\noptions = { x = 1 }\n', "'poisoner' has no option 'x'"),
        ('who = 0\nbehaviour = "z-spoiler"\noptions = { holders = "x" }\n', "option 'holders' must be int"),
        ('who = "leader"\nbehaviour = "poisoner"\n', "nobody is leader in round 1"),
        (
            'who = [0, 1]\nbehaviour = "poisoner"\n[[nodes]]\nwho = 1\nbehaviour = "contrarian"\n',
            "node 1 is to be both poisoner and contrarian",
        ),
    ],
)
def test_a_cast_that_cannot_be_is_refused(cast: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        run(parse_scenario(CAST + cast, "x.toml"))


# -- the command -------------------------------------------------------------------------------------------

QUIET = 'name = "quiet"\nabout = "Nothing."\n[network]\nnodes = 4\nrounds = 1\n'


def test_the_command_reports_and_traces(tmp_path: Path) -> None:
    report, trace, scenario = (tmp_path / name for name in ("report.json", "trace.txt", "quiet.toml"))
    scenario.write_text(QUIET)
    arguments = [str(scenario), "--seed", "2", "--report", str(report), "--trace", str(trace)]
    result = CliRunner().invoke(run_command, arguments)
    assert result.exit_code == 0, result.output
    assert "no invariant was violated" in result.output
    assert json.loads(report.read_text())["passed"] is True
    assert len(trace.read_text().splitlines()) > 500
    scenario.write_text(QUIET + "[expect]\naborted = [1]\n")
    result = CliRunner().invoke(run_command, [str(scenario)])
    assert result.exit_code == 1
    assert "not as expected: round 1 was accepted, and should have been aborted" in result.output
    missing = CliRunner().invoke(run_command, [str(tmp_path / "none.toml")])
    assert missing.exit_code == 1
    assert "none.toml: No such file" in missing.output
