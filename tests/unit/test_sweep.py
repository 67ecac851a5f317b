"""Sweeps: the same results whoever computes them and in whatever order, and never computed twice."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from sim.figures import local_engine
from sim.figures.local_engine import LocalEngine
from sim.figures.ray_engine import RayEngine
from sim.figures.sweep import R, Result, Store, SweepError, code_stamp, run_key, sweep


@frozen
class Squared:
    number: int
    log: str = ""


def square(run: Squared) -> Result:
    if run.log:
        with Path(run.log).open("a") as file:
            file.write(f"{run.number}\n")
    return {"square": run.number**2, "third": run.number / 3, "pair": (1, 2)}


def kill_itself(run: Squared) -> Result:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def fail_at_three(run: Squared) -> Result:
    if run.number == 3:
        raise SweepError("the third")
    return square(run)


@frozen
class Backwards:
    """Another engine: the last run first."""

    def results(self, execute: Callable[[R], Result], runs: Sequence[R]) -> Iterator[tuple[int, Result]]:
        for number in reversed(range(len(runs))):
            yield number, execute(runs[number])


RUNS = [Squared(number) for number in range(6)]


def test_processes_and_order_change_nothing(tmp_path: Path) -> None:
    engines = (LocalEngine(1), LocalEngine(2), Backwards())
    results = [sweep(RUNS, square, Store(tmp_path / str(i), "s"), e) for i, e in enumerate(engines)]
    assert results[0] == results[1] == results[2]
    assert [results[0][run]["square"] for run in RUNS] == [0, 1, 4, 9, 16, 25]
    files = [{p.name: p.read_text() for p in (tmp_path / str(i)).iterdir()} for i in range(3)]
    assert files[0] == files[1] == files[2]


def test_fresh_results_are_those_that_a_later_sweep_reads(tmp_path: Path) -> None:
    store = Store(tmp_path, "s")
    fresh = sweep(RUNS, square, store, LocalEngine())
    assert fresh == sweep(RUNS, square, store, LocalEngine())
    assert fresh[RUNS[1]]["pair"] == [1, 2]


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    runs = [Squared(number, str(log)) for number in range(6)]
    store = Store(tmp_path / "runs", "s")
    with pytest.raises(SweepError, match="the third"):
        sweep(runs, fail_at_three, store, LocalEngine())
    assert log.read_text().split() == ["0", "1", "2"]
    heard: list[int] = []
    results = sweep([*runs, runs[0]], square, store, LocalEngine(), heard.append)
    assert log.read_text().split() == ["0", "1", "2", "3", "4", "5"]
    assert heard == [3, 1, 1, 1]
    assert [results[run]["square"] for run in runs] == [0, 1, 4, 9, 16, 25]


def test_an_interrupt_keeps_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(futures: Sequence[Future[Result]]) -> Iterator[Future[Result]]:
        yield next(as_completed(futures))
        raise KeyboardInterrupt

    monkeypatch.setattr(local_engine, "as_completed", interrupted)
    runs = [Squared(number) for number in range(40)]
    store = Store(tmp_path, "s")
    with pytest.raises(KeyboardInterrupt):
        sweep(runs, square, store, LocalEngine(2))
    kept = [store.get(run) for run in runs]
    # What had begun is a beginning of the list, whatever the first to be done was.
    assert sum(result is not None for result in kept) > 0
    assert all(
        result in (None, square(run) | {"pair": [1, 2]}) for run, result in zip(runs, kept, strict=True)
    )
    monkeypatch.undo()
    assert sweep(runs, square, store, LocalEngine(1))[runs[39]]["square"] == 39**2


def test_a_killed_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="a process of the sweep was killed"):
        sweep(RUNS[:3], kill_itself, Store(tmp_path, "s"), LocalEngine(2))


@pytest.mark.parametrize("damage", ["", "{", '{"run": {}}', '{"result": 3}', "[]"])
def test_a_damaged_result_is_computed_anew(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path, "s")
    sweep(RUNS, square, store, LocalEngine())
    store.path(RUNS[2]).write_text(damage)
    assert sweep(RUNS, square, store, LocalEngine())[RUNS[2]]["square"] == 4
    assert json.loads(store.path(RUNS[2]).read_text())["run"] == {"number": 2, "log": ""}


def test_other_code_has_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = code_stamp([tmp_path], ["torch 1"])
    assert before == code_stamp([tmp_path], ["torch 1"])
    assert before != code_stamp([tmp_path], ["torch 2"])
    (tmp_path / "a.py").write_text("x = 2\n")
    after = code_stamp([tmp_path], ["torch 1"])
    assert before != after
    assert run_key(RUNS[0], before) != run_key(RUNS[0], after)
    assert run_key(RUNS[0], before) != run_key(RUNS[1], before)


def test_what_is_not_a_number_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path, "s").put(RUNS[0], {"loss": float("nan")})


# -- Ray -------------------------------------------------------------------------------------------


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match=r"pip install 'flocknode\[ray\]'"):
        sweep(RUNS, square, Store(tmp_path, "s"), RayEngine())


class _FakeRay(types.ModuleType):
    """Ray's interface as far as the engine uses it; tasks are done in reverse order."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))
        self.asked: list[dict[str, Any]] = []
        self.most_pending = 0
        self.is_up = False

    def is_initialized(self) -> bool:
        return self.is_up

    def init(self, **options: Any) -> None:
        self.asked.append(options)
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: Any) -> Any:
        return lambda execute: types.SimpleNamespace(remote=lambda run: _Task(execute, run))

    def wait(self, pending: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most_pending = max(self.most_pending, len(pending))
        return pending[-num_returns:], pending[:-num_returns]

    def get(self, task: _Task) -> Result:
        try:
            return task.execute(task.run)
        except SweepError as error:
            raise self.exceptions.RayError(str(error)) from error


class _Task:
    def __init__(self, execute: Callable[[Any], Result], run: object) -> None:
        self.execute, self.run = execute, run


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> _FakeRay:
    fake = _FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_ray_gives_what_this_machine_gives(fake_ray: _FakeRay, tmp_path: Path) -> None:
    here = sweep(RUNS, square, Store(tmp_path / "here", "s"), LocalEngine())
    there = sweep(RUNS, square, Store(tmp_path / "there", "s"), RayEngine("auto"))
    assert here == there
    assert fake_ray.asked == [{"address": "auto", "include_dashboard": False, "log_to_driver": False}]
    assert fake_ray.most_pending == 4
    assert not fake_ray.is_up


def test_what_fails_on_the_cluster_is_told_and_the_rest_kept(fake_ray: _FakeRay, tmp_path: Path) -> None:
    store = Store(tmp_path, "s")
    with pytest.raises(SweepError, match="Ray: the third"):
        sweep(RUNS, fail_at_three, store, RayEngine())
    assert not fake_ray.is_up
    assert sum(store.get(run) is not None for run in RUNS) == 0
    assert sweep(RUNS, square, store, RayEngine())[RUNS[3]]["square"] == 9


def test_ray_itself(tmp_path: Path) -> None:
    """With functions of this package: Ray's processes do not find those of a test."""
    pytest.importorskip("ray")
    from sim.figures.flock.experiment import FlockRun, execute

    runs = [
        FlockRun(task="lending-club", rule="vote", malicious_percent=25, seed=seed, rounds=3, clients=16)
        for seed in (1, 2, 3)
    ]
    here = sweep(runs, execute, Store(tmp_path / "here", "s"), LocalEngine())
    assert here == sweep(runs, execute, Store(tmp_path / "there", "s"), RayEngine())
