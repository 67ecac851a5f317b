"""Fuzzing campaigns: what is drawn, what counts, and how a failing scenario gets smaller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner

from protocol.messages import TransactionKind
from sim.adversaries.registry import BEHAVIOURS
from sim.cli.fuzz import fuzz
from sim.fuzz.campaign import Campaign, run_campaign
from sim.fuzz.draw import draw_scenario, history_seed
from sim.fuzz.history import SIMULATOR, History, run_history
from sim.fuzz.shrink import shrink
from sim.scenario.manifest import Expectation, FaultKind, LinkTable, Scenario, parse_scenario
from sim.scenario.run import run_scenario
from sim.scenario.selectors import Part

DRAWN = [draw_scenario(history_seed(1, number)) for number in range(300)]
FOR_GOOD = (FaultKind.CORRUPT, FaultKind.TRUNCATE)


def test_a_scenario_is_a_function_of_its_seed() -> None:
    assert draw_scenario(7) == draw_scenario(7) != draw_scenario(8)
    assert len({history_seed(seed, number) for seed in range(10) for number in range(100)}) == 1_000


def test_what_is_drawn_covers_every_fault_and_every_behaviour() -> None:
    faults = {fault.do for scenario in DRAWN for fault in scenario.faults}
    # A node that lost its store contradicts itself where it comes back to the same round, and pays for it
    # (docs/PROTOCOL.md section 11.5, 13): manifests wipe with care, a deck cannot.
    assert faults == set(FaultKind) - {FaultKind.RESTART, FaultKind.WIPE}
    named = {table.behaviour for scenario in DRAWN for table in scenario.nodes}
    assert len(named & set(BEHAVIOURS)) > len(BEHAVIOURS) / 2
    assert any(table.twin for scenario in DRAWN for table in scenario.nodes)
    assert {scenario.network.profile for scenario in DRAWN} == {"hardened", "vcdfl"}


@pytest.mark.parametrize("scenario", DRAWN, ids=lambda scenario: scenario.name)
def test_no_more_nodes_are_faulty_for_good_than_the_protocol_bears(scenario: Scenario) -> None:
    faulty = {table.who[0].number for table in scenario.nodes}
    for fault in scenario.faults:
        if fault.do in FOR_GOOD or (fault.do is FaultKind.KILL and fault.for_s is None):
            assert fault.who[0].part is Part.NODE
            faulty.add(fault.who[0].number)
        elif fault.order is TransactionKind.LEAVE:
            # Its vote is one less to be faulty among.
            faulty.add(fault.who[0].number)
        elif fault.do is not FaultKind.ORDER:
            assert fault.for_s is not None or fault.do is FaultKind.CLOCK
    assert len(faulty) <= (scenario.network.nodes - 1) // 3


FAILING = """
name = "failing"
about = "It expects what does not come about, and has much in it that does not matter."
[network]
nodes = 5
rounds = 3
[link]
loss = 0.02
[[nodes]]
who = "voter 0"
behaviour = "contrarian"
[[faults]]
at = "round 1 / contribute"
do = "pause"
who = "proposer 0"
for_s = 0.5
[[faults]]
at = "round 2 / share"
after_s = 0.1
do = "slow"
who = "all"
delay_ms = 20
for_s = 0.5
[expect]
verdicts = { 1 = "LAZY_AGGREGATOR" }
"""


def test_a_failing_scenario_is_shrunk_to_what_it_takes_to_fail() -> None:
    history = run_history(parse_scenario(FAILING, "failing.toml"), 3)
    assert history.invariant == "expectation"
    smallest = shrink(history)
    assert smallest.invariant == "expectation"
    assert "round 1 reads TRUSTED, not LAZY_AGGREGATOR" in smallest.what
    assert smallest.scenario.faults == ()
    assert smallest.scenario.nodes == ()
    assert smallest.scenario.link == LinkTable()
    assert smallest.scenario.network.rounds == 1


def test_shrinking_is_bounded() -> None:
    runs = []
    history = run_history(parse_scenario(FAILING, "failing.toml"), 3)
    shrink(history, 2, lambda: runs.append(1))
    assert len(runs) == 2


def test_a_history_counts_if_it_is_long_enough_and_something_struck() -> None:
    quiet = parse_scenario('name = "q"\nabout = "Quiet."\n[network]\nnodes = 4\n', "quiet.toml")
    idle = run_history(quiet, 1)
    assert (idle.rounds, idle.struck, idle.invariant) == (3, {}, None)
    assert not idle.counts
    short = evolve(idle, rounds=2, struck={"kill": 1})
    assert not short.counts
    assert evolve(short, rounds=3).counts
    assert evolve(short, invariant="agreement").counts


def test_a_campaign_counts_what_struck_and_tells_what_failed() -> None:
    campaign = Campaign(1)
    history = run_history(parse_scenario(FAILING, "failing.toml"), 3)
    campaign.take(history)
    told = campaign.to_json({3: "failing.toml"})
    assert told["failed"] == told["histories"] == 1
    assert told["failures"] == [{"seed": 3, "invariant": "expectation", "scenario": "failing.toml"}]
    assert told["coverage"] == {"contrarian": 1, "link loss": 1, "pause": 1, "slow": 1}


def test_the_histories_of_a_campaign_do_not_depend_on_how_many_run_at_once() -> None:
    def seen(workers: int) -> set[tuple[int, int]]:
        found: list[History] = []
        run_campaign(11, 3, workers, take=found.append)
        return {(history.seed, history.events) for history in found}

    alone, together = seen(1), seen(2)
    assert len(alone & together) >= 2


def test_the_command_writes_what_came_of_it(tmp_path: Path) -> None:
    target = tmp_path / "fuzz.json"
    arguments = ["--histories", "2", "--seed", "5", "--jobs", "1", "--json", str(target)]
    result = CliRunner().invoke(fuzz, [*arguments, "--failures", str(tmp_path / "failures")])
    assert result.exit_code == 0, result.output
    told = json.loads(target.read_text())
    assert set(told) == {"seed", "histories", "idle", "failed", "rounds", "events", "coverage", "failures"}
    assert told["histories"] == 2
    assert told["rounds"] >= 6
    assert not (tmp_path / "failures").exists()


def test_the_command_keeps_a_failing_scenario_and_says_how_to_replay_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every drawn history is made to expect something that cannot be."""
    wrong = Expectation(ended=0, aborted=(1,))

    def draw(seed: int) -> Scenario:
        return evolve(parse_scenario(FAILING, "failing.toml"), name=f"drawn-{seed}", expect=wrong)

    monkeypatch.setattr("sim.fuzz.campaign.draw_scenario", draw)
    failures = tmp_path / "failures"
    arguments = ["--histories", "1", "--seed", "5", "--jobs", "1", "--failures", str(failures)]
    result = CliRunner().invoke(fuzz, arguments)
    assert result.exit_code == 1
    (kept,) = failures.iterdir()
    seed = int(kept.stem)
    assert f"replay: flocknode sim run {kept} --seed {seed}" in result.output
    replayed = run_scenario(parse_scenario(kept.read_text(), str(kept)), seed)
    assert any("should have been aborted" in failure for failure in replayed.failures)


def test_a_fault_waits_for_a_statement_of_an_adversary_that_also_says_what_is_none() -> None:
    """Campaign 4006: what an oversender says beyond every limit ended the campaign."""
    scenario = parse_scenario(
        """
        name = "armed-oversender"
        about = "A node that sends too much dies as it sends its sealed vote."
        [network]
        nodes = 7
        rounds = 3
        [[nodes]]
        who = "voter 0"
        behaviour = "oversender"
        [[faults]]
        at = "round 1 / share"
        do = "kill"
        who = "voter 0"
        sends = "SEALED_VOTE"
        for_s = 2
        """,
        "armed.toml",
    )
    history = run_history(scenario, 1)
    assert history.invariant is None, history.what
    assert {"kill", "oversender"} <= set(history.struck)


def test_a_mistake_of_the_simulator_fails_the_history_and_not_the_campaign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the harness")

    monkeypatch.setattr("sim.fuzz.history.run_scenario", broken)
    history = run_history(DRAWN[0], 1)
    assert history.invariant == SIMULATOR
    assert "ZeroDivisionError: the harness" in history.what
    assert history.counts
