"""One run: its spec, its process, and what is written down of it, also where it is lost."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

import flocknode
import protocol
import sim
from sim.bench.peers.isolation import Finished, log_tail, run_isolated
from sim.bench.peers.plan import ROUND, Plan, RunPlan
from sim.bench.peers.shards import write_shards
from sim.bench.peers.systems import Interpreters

Json = dict[str, Any]

DONE = "done"
LOST = "lost"
SKIPPED = "skipped"

ADAPTERS = "sim.bench.peers"
GRACE_S = 20.0
"""How much earlier than its process an adapter gives up, so that it can say how far it came."""

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""For every system: no telemetry, nothing fetched, one thread a process."""


@frozen(kw_only=True)
class Run:
    """What became of one run. `reason` and `log` where it is lost or skipped; `result` where it is done."""

    part: str
    n: int
    d: int
    rounds: int
    system: str
    seed: int
    outcome: str
    seconds: float = 0.0
    result: Mapping[str, Any] | None = None
    reason: str = ""
    log: tuple[str, ...] = ()
    killed: int = 0

    def to_json(self) -> Json:
        return asdict(self)

    @staticmethod
    def from_json(data: Json) -> Run:
        return Run(**{**data, "log": tuple(data["log"])})


def perform(run: RunPlan, plan: Plan, interpreters: Interpreters, out: Path) -> Run:
    """The run, or what is stored of it from an earlier call. A peer that is missing is not stored."""
    interpreter = interpreters.of(run.system.peer)
    stored = out / "runs" / f"{run.name}.json"
    if stored.exists():
        known = Run.from_json(json.loads(stored.read_text()))
        if known.rounds == run.case.rounds:
            return known
    if interpreter is None:
        reason = interpreters.missing(run.system.peer) or ""
        return record(run, SKIPPED, reason=reason)
    directory = _fresh(out / "work" / run.name)
    result_file = directory / "result.json"
    limit_s = plan.limit_s(run.case)
    spec = _spec(run, plan, out, limit_s - GRACE_S)
    (directory / "spec.json").write_text(json.dumps(spec))
    module = f"{ADAPTERS}.{run.system.adapter}"
    command = [str(interpreter), "-m", module, str(directory / "spec.json"), str(result_file)]
    log = directory / "output.log"
    finished = run_isolated(command, environment(out), directory, log, limit_s)
    done = judge(run, finished, result_file, log, limit_s)
    stored.parent.mkdir(parents=True, exist_ok=True)
    partial = stored.with_suffix(".partial")
    partial.write_text(json.dumps(done.to_json(), indent=1))
    partial.replace(stored)
    return done


def judge(run: RunPlan, finished: Finished, result_file: Path, log: Path, limit_s: float) -> Run:
    """Done only where the adapter ended well and wrote a result."""
    seconds, killed = finished.seconds, finished.killed
    if finished.exit_code is None:
        why = f"not done after {limit_s:.0f} s"
    elif finished.exit_code != 0:
        why = f"ended with exit code {finished.exit_code}"
    elif not result_file.exists():
        why = "ended without a result"
    else:
        result = json.loads(result_file.read_text())
        return record(run, DONE, seconds=seconds, killed=killed, result=result)
    return record(run, LOST, seconds=seconds, killed=killed, reason=why, log=tuple(log_tail(log)))


def record(run: RunPlan, outcome: str, **what: Any) -> Run:
    """A run with the fields of its plan."""
    case = run.case
    return Run(
        part=case.part,
        n=case.n,
        d=case.d,
        rounds=case.rounds,
        system=run.system.name,
        seed=run.seed,
        outcome=outcome,
        **what,
    )


def environment(out: Path) -> dict[str, str]:
    """Of every adapter. Its path adds our own packages and nothing they need: p2pfl pins other versions."""
    path = out.absolute() / "path"
    path.mkdir(parents=True, exist_ok=True)
    for package in (flocknode, protocol, sim):
        link = path / package.__name__
        link.unlink(missing_ok=True)
        link.symlink_to(Path(package.__path__[0]).absolute(), target_is_directory=True)
    return {**os.environ, **QUIET, "PYTHONPATH": str(path)}


def _spec(run: RunPlan, plan: Plan, out: Path, limit_s: float) -> Json:
    case = run.case
    spec: Json = {"seed": run.seed, "limit_s": limit_s, "started": time.time(), **run.system.spec}
    if case.part != ROUND:
        return {**spec, "n": case.n, "d": case.d, "repeats": plan.repeats}
    shards = out.absolute() / "work" / f"shards-{case.n}-{run.seed}.npz"
    if not shards.exists():
        shards.parent.mkdir(parents=True, exist_ok=True)
        write_shards(shards, case.n, run.seed)
    return {
        **spec,
        "nodes": case.n,
        "rounds": case.rounds,
        "dimension": case.d,
        "shards": str(shards),
        "cores": os.cpu_count() or 1,
    }


def _fresh(directory: Path) -> Path:
    """A directory for one run; what an earlier, interrupted one left there is removed."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory.absolute()
