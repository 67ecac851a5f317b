"""`flocknode sim honest` in small: real training, real votes, the ledger's own settlement."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from attrs import evolve

from flocknode.learning.loading import load_task
from flocknode.learning.trainer import LocalTask
from protocol.ledger.judgement import Judgement
from sim.figures.local_engine import LocalEngine
from sim.honest.experiment import FLOCK, HonestRun, execute, least_share, load_problem
from sim.honest.report import Findings, Plan, run_all, write_report

PLAN = Plan(tasks=("digits",), partitions=("dirichlet",), sizes=(5,), seeds=(4,), rounds=20, poison_rounds=10)
RUN = HonestRun(task="digits", partition="dirichlet", nodes=5, seed=4, rounds=8)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return run_all(PLAN, tmp_path_factory.mktemp("honest"), LocalEngine(1))


def test_no_honest_node_pays_for_honesty(findings: Findings) -> None:
    result = findings.results[PLAN.honest(("digits", "dirichlet", 5), "interim", 4)]
    assert result["rounds"] == 20
    assert result["first_out"] is None
    assert least_share(result, 5) > 0.9
    assert 0 < result["best_round"] <= 20
    assert result["accuracy"]["best"] > result["accuracy"]["initial"] + 0.5
    assert sum(result["last"]) <= 5 * 64_000_000


def test_poison_that_turns_a_model_around_pays(findings: Findings) -> None:
    row = next(row for row in findings.poison_rows() if row[0].endswith("sign-x10"))
    assert float(row[1]) > 1.0
    assert float(row[2]) >= 0.0


def test_the_report_names_every_run_and_what_does_not_hold(findings: Findings, tmp_path: Path) -> None:
    text = write_report(findings, tmp_path, "flocknode sim honest").read_text()
    assert "digits, dirichlet, 5 nodes" in text
    with (tmp_path / "honest.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(PLAN.runs())
    run = PLAN.honest(("digits", "dirichlet", 5), "interim", 4)
    poor = {**findings.results[run], "least": [1_000_000] * 5}
    failures = evolve(findings, results={**findings.results, run: poor}).failures()
    assert "digits dirichlet 5 nodes, seed 4: a stake fell to 0.02" in failures


def test_a_run_is_a_function_of_what_it_is_asked_for() -> None:
    first, again = execute(RUN), execute(RUN)
    assert first == again
    assert execute(evolve(RUN, contract=FLOCK))["best_round"] is None
    strict = execute(evolve(RUN, rule=Judgement(tolerance_permille=1)))
    assert strict["accepted"] < first["accepted"]


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_nodes_hold_the_samples_that_they_would_hold_in_a_network(partition: str) -> None:
    problem = load_problem("digits", partition, 5, 3)
    for node in (0, 4):
        task = load_task("digits", node, 5, 3, partition)
        assert isinstance(task, LocalTask)
        assert (problem.features[problem.splits[node].train] == task.train.features).all()
        assert (problem.targets[problem.splits[node].validation].argmax(1) == task.validation.labels).all()
