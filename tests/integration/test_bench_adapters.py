"""Adapters of real peers at small sizes. A peer that is not installed is skipped, with how to get it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve

from sim.bench.peers.plan import CLIENT, QUICK, ROUND, Case, RunPlan
from sim.bench.peers.runs import DONE, Run, perform
from sim.bench.peers.systems import CLIENTS, P2PFL, ROUNDS, Interpreters
from sim.bench.peers.virtual_environment import interpreter_of

P2PFL_ENVIRONMENT = "FLOCKNODE_P2PFL_ENV"
"""Names an environment that `flocknode bench peers --p2pfl-env` has made."""

ROUND_CASE = Case(ROUND, 4, QUICK.round_case.d, rounds=2)
PLAN = evolve(QUICK, round_case=ROUND_CASE, round_limit_s=150.0)


def interpreters() -> Interpreters:
    named = os.environ.get(P2PFL_ENVIRONMENT)
    there = named is not None and interpreter_of(Path(named)).exists()
    return Interpreters(p2pfl=Path(named) if named and there else None)


def run(name: str, case: Case, out: Path) -> Run:
    system = next(each for each in (*CLIENTS, *ROUNDS) if each.name == name)
    found = interpreters()
    if (missing := found.missing(system.peer)) is not None:
        hint = f" (for this test: {P2PFL_ENVIRONMENT})" if system.peer == P2PFL else ""
        pytest.skip(missing + hint)
    done = perform(RunPlan(case, system, 1), PLAN, found, out)
    assert done.outcome == DONE, (done.reason, done.log)
    return done


def test_flower_client_masks_and_shares(tmp_path: Path) -> None:
    result = run("flower-client", Case(CLIENT, 5, 2_000), tmp_path).result
    assert result is not None
    assert len(result["seconds"]) == PLAN.repeats
    assert 8 * 2_000 < result["upload"] < 8 * 2_000 + 1_000  # int64, and the weight with it
    assert result["shares"] > 4 * 100  # a box for each other client


@pytest.mark.parametrize("name", ["flocknode", "flower", "flower-secagg", "p2pfl-memory"])
def test_whole_rounds_train_and_are_counted(tmp_path: Path, name: str) -> None:
    result = run(name, ROUND_CASE, tmp_path).result
    assert result is not None
    plain = 4 * ROUND_CASE.d
    assert len(result["round_seconds"]) == len(result["accuracy"]) == 2
    assert min(result["round_seconds"]) > 0
    assert result["accuracy"][-1] > 0.7
    assert len(result["sent"]) == len(result["received"]) == 2
    assert min(result["sent"]) > 0.9 * plain
    assert result["float32_update"] == plain


def test_flowers_secure_rounds_reach_the_plain_ones(tmp_path: Path) -> None:
    plain, secure = (run(name, ROUND_CASE, tmp_path).result for name in ("flower", "flower-secagg"))
    assert plain is not None
    assert secure is not None
    assert secure["accuracy"][-1] == pytest.approx(plain["accuracy"][-1], abs=0.02)
    assert min(secure["sent"]) > 1.9 * min(plain["sent"])  # int64
