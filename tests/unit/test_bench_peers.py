"""The comparison with peers: what is counted, said and killed; no peer is needed here."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from flocknode.learning.loading import load_task
from flocknode.learning.task import fedavg
from sim.bench.peers.adapter import adapt
from sim.bench.peers.compare import Comparison, compare, prepare_interpreters, write_comparison
from sim.bench.peers.isolation import Finished, descendants, log_tail, readable, run_isolated
from sim.bench.peers.own_client import measure as measure_own_client
from sim.bench.peers.plan import CLIENT, FULL, QUICK, ROUND, Case, RunPlan
from sim.bench.peers.render import client_table, round_table, run_table, to_markdown
from sim.bench.peers.runs import DONE, LOST, QUIET, SKIPPED, Run, environment, judge, perform, record
from sim.bench.peers.shards import read_shards, write_shards
from sim.bench.peers.summary import client_rows, goals, round_rows
from sim.bench.peers.systems import CLIENTS, NAMES, P2PFL, ROUNDS, Interpreters
from sim.bench.peers.virtual_environment import VirtualEnvironmentError, ensure, torch_requirement

CASE = Case(CLIENT, 20, 100_000)
ROUND_CASE = Case(ROUND, 8, 50_890, rounds=3)


def client_run(system: str, seed: int, seconds: list[float], upload: int) -> Run:
    plan = RunPlan(CASE, next(each for each in CLIENTS if each.name == system), seed)
    return record(plan, DONE, result={"seconds": seconds, "upload": upload, "shares": 10})


def round_run(system: str, seed: int, **what: Any) -> Run:
    plan = RunPlan(ROUND_CASE, next(each for each in ROUNDS if each.name == system), seed)
    result = {
        "round_seconds": [9.0, 1.0, 2.0],
        "launch_seconds": 10.0,
        "accuracy": [0.8, 0.9, 0.9],
        "sent": [5000, 1000, 3000],
        "received": [5000, 2000, 2000],
        **what,
    }
    return record(plan, DONE, result=result)


# -- plan ------------------------------------------------------------------------------------------


def test_systems_take_turns_and_share_their_seeds() -> None:
    runs = FULL.runs(NAMES)
    first = [(run.case, run.system.name) for run in runs if run.seed == 1]
    assert [(run.case, run.system.name) for run in runs] == first * len(FULL.seeds)
    assert {(case.n, case.d) for case, _ in first if case.part == CLIENT} == {
        (n, d) for n in (20, 100) for d in (100_000, 1_000_000)
    }
    assert [name for case, name in first if case.part == ROUND] == [system.name for system in ROUNDS]
    assert FULL.round_case.d == 784 * 64 + 64 + 64 * 10 + 10
    assert len({run.name for run in runs}) == len(runs)
    assert {run.system.peer for run in FULL.runs(["flower"])} == {"flower"}


def test_every_system_gets_the_data_that_our_nodes_have(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards.npz", 4, 3)
    shards = read_shards(tmp_path / "shards.npz")
    tasks = [load_task("mnist", node, 4, 3) for node in range(4)]
    assert np.array_equal(shards.initial, tasks[0].initial_weights(3))
    config = {"seed": shards.training_seeds[2], "round": 1}
    fitted, count = shards.fit(2, shards.initial, 1)
    expected = fedavg(tasks, shards.initial, [2], [config])
    assert np.allclose(fitted, expected, atol=1e-6)
    assert count == tasks[2].train_count
    samples = sum(task.test_count for task in tasks)
    right = sum(task.test_count * task.evaluate(fitted, {"split": "test"})[2]["accuracy"] for task in tasks)
    assert shards.accuracy(fitted) == pytest.approx(right / samples)


def test_our_client_is_measured_with_its_bytes() -> None:
    result = measure_own_client({"n": 5, "d": 300, "repeats": 2, "seed": 1})
    assert len(result["seconds"]) == 2
    assert result["upload"] == 4 * 5 * 1025 + 8192  # 300 + 2 * 2048 masked coordinates, and C_i


# -- medians, ratios, goals ------------------------------------------------------------------------


def test_medians_are_over_runs_and_ratios_against_the_peer() -> None:
    runs = [
        client_run("flocknode-client", 1, [0.01, 0.03, 0.02], 500),
        client_run("flower-client", 1, [0.2], 1000),
        client_run("flocknode-client", 2, [0.04], 500),
        client_run("flower-client", 2, [0.4], 1000),
        client_run("flocknode-client", 3, [0.05], 500),
        client_run("flower-client", 3, [0.1], 1000),
    ]
    own, peer = client_rows(runs)
    assert (own.seconds, own.upload, own.runs) == (0.04, 500, 3)
    assert peer.seconds == 0.2
    told = {goal.name: goal for goal in goals([own, peer], [])}
    assert told["client-time-20-100000"].holds
    assert told["client-time-20-100000"].numbers["ratio"] == pytest.approx(0.2)
    assert told["client-bytes-20-100000"].numbers["ratio"] == pytest.approx(0.5)
    slower = goals([evolve(own, seconds=0.041, upload=601), peer], [])
    assert [goal.holds for goal in slower] == [False, False]
    assert "| 40.0 | 0.20 | 0 | 0.50 |" in client_table([own, evolve(peer)]).replace("  ", " ")


def test_the_first_round_does_not_count_and_lost_runs_are_counted() -> None:
    lost = evolve(round_run("flower", 2), outcome=LOST, result=None, reason="not done after 5 s")
    (row,) = round_rows([round_run("flower", 1), lost])
    assert (row.seconds, row.slowest, row.sent, row.received) == (1.5, 2.0, 2000, 2000)
    assert (row.runs, row.lost, row.skipped) == (1, 1, 0)
    assert row.accuracy == (0.8, None, None)
    assert row.launch == 10.0


def test_goals_of_rounds_follow_the_numbers() -> None:
    bare = round_run("flocknode-untrained", 1, round_seconds=[5.0, 0.6, 0.6])
    trained = round_run("flocknode", 1, upload=150.0, float32_update=100, accepted=3)
    told = {goal.name: goal for goal in goals([], round_rows([bare, trained]))}
    assert told["round-seconds"].holds
    assert told["round-upload"].holds
    slow = round_run("flocknode-untrained", 1, round_seconds=[0.1, 0.61, 0.61])
    heavy = round_run("flocknode", 1, upload=151.0, float32_update=100, accepted=3)
    assert not any(goal.holds for goal in goals([], round_rows([slow, heavy])))
    assert goals([], round_rows([evolve(bare, outcome=LOST, result=None)])) == []


def test_tables_name_what_is_lost_with_its_last_words() -> None:
    lost = evolve(
        round_run("p2pfl-grpc", 7),
        outcome=LOST,
        result=None,
        reason="not done after 5 s",
        log=("DEADLINE_EXCEEDED",),
    )
    runs = [round_run("flocknode", 7), lost]
    rows = round_rows(runs)
    text = to_markdown([], rows, [], runs, "a machine", "a command")
    assert "| p2pfl-grpc | 7 | lost: not done after 5 s |" in text
    assert "    DEADLINE_EXCEEDED" in text
    assert "None could be decided" in text
    assert run_table(runs).count("\n") == 3
    assert "| p2pfl, gRPC | - | - | - | - | - / - | - | - / - / - | 0 | 1 | 0 |" in round_table(rows)


# -- processes -------------------------------------------------------------------------------------

ORPHANS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
    os._exit(0)
print("began", flush=True)
time.sleep(300 if sys.argv[1] == "hang" else 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("how", ["hang", "end"])
def test_nothing_that_a_run_started_outlives_it(tmp_path: Path, how: str) -> None:
    before = descendants(os.getpid())
    log = tmp_path / "log"
    command = [sys.executable, "-c", ORPHANS, how]
    finished = run_isolated(command, dict(os.environ), tmp_path, log, 2.0 if how == "hang" else 60.0)
    assert finished.exit_code == (None if how == "hang" else 0)
    assert finished.killed >= 2
    assert log_tail(log) == ["began"]
    time.sleep(0.05)
    assert descendants(os.getpid()) - before == set()


def test_a_run_is_done_only_with_a_result(tmp_path: Path) -> None:
    run = RunPlan(CASE, CLIENTS[0], 1)
    result, log = tmp_path / "result.json", tmp_path / "log"
    log.write_text("\n".join(f"line {number}" for number in range(50)))

    def judged(exit_code: int | None) -> Run:
        return judge(run, Finished(exit_code, 1.5, 2), result, log, 30)

    assert (judged(0).outcome, judged(0).reason) == (LOST, "ended without a result")
    assert judged(None).reason == "not done after 30 s"
    assert judged(1).reason == "ended with exit code 1"
    assert judged(1).log[-1] == "line 49"
    assert len(judged(1).log) < 20
    result.write_text(json.dumps({"seconds": [1.0]}))
    assert judged(1).outcome == LOST
    assert judged(0).result == {"seconds": [1.0]}
    assert Run.from_json(json.loads(json.dumps(judged(1).to_json()))) == judged(1)


def test_an_adapter_writes_its_result_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, result = tmp_path / "spec.json", tmp_path / "result.json"
    spec.write_text('{"n": 3}')
    monkeypatch.setattr(sys, "argv", ["adapter", str(spec), str(result)])
    adapt(lambda given: {"twice": 2 * given["n"]})
    assert json.loads(result.read_text()) == {"twice": 6}
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_adapters_are_told_to_stay_quiet_and_find_only_our_packages(tmp_path: Path) -> None:
    env = environment(tmp_path)
    assert env["FLWR_TELEMETRY_ENABLED"] == env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env.items() >= QUIET.items()
    assert {path.name for path in Path(env["PYTHONPATH"]).iterdir()} == {"flocknode", "protocol", "sim"}


# -- peers that are missing ------------------------------------------------------------------------


def test_a_missing_peer_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    none = Interpreters(installed=lambda module: False)
    plan = evolve(QUICK, round_case=ROUND_CASE)
    only_client = evolve(plan, seeds=(1,))
    client_runs = [run for run in only_client.runs(NAMES) if run.case.part == CLIENT]
    assert [run.system.peer for run in client_runs] == ["flocknode", "flower"]
    assert "pip install 'flocknode[bench]'" in (none.missing("flower") or "")
    assert "--p2pfl-env" in (none.missing(P2PFL) or "")
    assert none.missing("flocknode") is None
    comparison = compare(plan, ["flower", "p2pfl"], none, tmp_path)
    assert {run.outcome for run in comparison.runs} == {SKIPPED}
    assert all("install" in run.reason or "env" in run.reason for run in comparison.runs)
    assert not (tmp_path / "runs").exists()  # asked again when it is there
    write_comparison(comparison, tmp_path, "command")
    written = json.loads((tmp_path / "results.json").read_text())
    assert len(written["runs"]) == len(comparison.runs)
    for chart in ("peers-client", "peers-round", "peers-bytes"):
        assert (tmp_path / f"{chart}.png").stat().st_size > 0
        assert (tmp_path / f"{chart}.svg").stat().st_size > 0


def test_an_environment_that_cannot_be_made_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_ = tmp_path / "env"
    (environment_ / "bin").mkdir(parents=True)
    python = environment_ / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'no matching distribution'\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(VirtualEnvironmentError, match="no matching distribution"):
        ensure(environment_, tmp_path / "log")
    interpreters = prepare_interpreters(NAMES, environment_, tmp_path / "log")
    assert "no matching distribution" in (interpreters.missing(P2PFL) or "")
    python.write_text("#!/bin/sh\nexit 0\n")
    ensure(environment_, tmp_path / "log")
    assert prepare_interpreters(NAMES, environment_, tmp_path / "log").missing(P2PFL) is None
    assert prepare_interpreters(["flocknode"], tmp_path / "no", tmp_path / "log").missing(P2PFL) is not None
    assert "+" not in torch_requirement()


def test_an_empty_comparison_is_written_too(tmp_path: Path) -> None:
    write_comparison(Comparison((), (), (), ()), tmp_path, "command")
    assert "Every run" in (tmp_path / "results.md").read_text()


def test_a_stored_run_of_other_rounds_is_made_again(tmp_path: Path) -> None:
    plan = evolve(QUICK, round_case=ROUND_CASE, client_cases=())
    (run, *_) = plan.runs(["flower"])
    (tmp_path / "runs").mkdir()
    stored = tmp_path / "runs" / f"{run.name}.json"
    none = Interpreters(installed=lambda module: False)
    for rounds, outcome in ((ROUND_CASE.rounds, DONE), (ROUND_CASE.rounds + 1, SKIPPED)):
        stored.write_text(json.dumps(evolve(round_run("flower", 1), rounds=rounds).to_json()))
        assert perform(run, plan, none, tmp_path).outcome == outcome


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '  File "/home/a/env/lib/python3.11/site-packages/grpc/_server.py", line 9',
            '"grpc/_server.py", line 9',
        ),
        (
            '  File "/usr/lib/python3.11/concurrent/futures/thread.py", line 167',
            '"concurrent/futures/thread.py"',
        ),
        ('  File "/home/a/peers/path/sim/bench/peers/adapter.py", line 20', '"sim/bench/peers/adapter.py"'),
        ('  File "/home/a/script.py", line 1', '"script.py", line 1'),
        ("\x1b[90m[ \x1b[92mINFO\x1b[0m ] done", "[ INFO ] done"),
    ],
)
def test_last_words_name_no_place_on_this_machine(line: str, told: str) -> None:
    assert told in readable(line)
    assert "/home" not in readable(line)
    assert "\x1b" not in readable(line)
