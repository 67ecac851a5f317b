"""A sweep: many independent runs, each a pure function of its description, computed by any engine once.

What a run gave is written to a file of its own as soon as it is known, so a sweep that was stopped goes on
where it was. Results are read back from that file even when they are fresh: whoever computed them, and in
whatever order, the figures see the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs
from attrs import frozen

R = TypeVar("R")
"""A run: a hashable attrs value."""

Result = dict[str, Any]
"""What a run gives: anything that JSON holds, floats finite."""

Progress = Callable[[int], None]
"""Hears how many more runs are done."""


class SweepError(RuntimeError):
    """A run failed, or an engine cannot be had; the message says which."""


class Engine(Protocol):
    """Where runs are computed. `results` yields (number of the run, its result) as each is done."""

    def results(self, execute: Callable[[R], Result], runs: Sequence[R]) -> Iterator[tuple[int, Result]]: ...


@frozen
class Store:
    """Results under `directory`, one file each. `stamp` names the code behind them: new code, new files."""

    directory: Path
    stamp: str

    def path(self, run: object) -> Path:
        """Where the result of `run`, an attrs value, is kept."""
        return self.directory / f"{run_key(run, self.stamp)}.json"

    def get(self, run: object) -> Result | None:
        """The stored result; None where there is none, or only a damaged one."""
        try:
            stored = json.loads(self.path(run).read_text())
            result = stored["result"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return result if isinstance(result, dict) else None

    def put(self, run: object, result: Result) -> None:
        """Whole or not at all, also if the process is killed meanwhile. OSError where that fails."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.path(run)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({"run": _described(run), "result": result}, allow_nan=False))
        partial.replace(path)


def run_key(run: object, stamp: str) -> str:
    """32 hex digits that name a run of this code."""
    text = json.dumps([stamp, type(run).__qualname__, _described(run)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code_stamp(sources: Sequence[Path], versions: Sequence[str]) -> str:
    """A digest of the Python files `sources`, of all files in those that are packages, and of `versions`.

    `versions`: of libraries whose numbers count.
    """
    state = hashlib.sha256("\n".join(versions).encode())
    for source in sources:
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            state.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


def sweep(
    runs: Sequence[R],
    execute: Callable[[R], Result],
    store: Store,
    engine: Engine,
    progress: Progress = lambda done: None,
) -> dict[R, Result]:
    """The result of every run, those that `store` holds not computed again.

    `execute` is a function of a module, so that it can be sent to another process; `runs` are hashable attrs
    values, and the same run given twice is computed once. `progress` hears at once of those found in `store`.
    SweepError from the engine; what was done before it stays stored.
    """
    different = list(dict.fromkeys(runs))
    missing = [run for run in different if store.get(run) is None]
    progress(len(different) - len(missing))
    for number, result in engine.results(execute, missing):
        store.put(missing[number], result)
        progress(1)
    return {run: _stored(store, run) for run in different}


def _stored(store: Store, run: object) -> Result:
    result = store.get(run)
    if result is None:
        raise SweepError(f"{store.path(run)}: the result that was written cannot be read back")
    return result


def _described(run: object) -> Any:
    return attrs.asdict(run)  # type: ignore[arg-type]
