"""A run that coverage guides: libFuzzer, by way of atheris, in a process of its own.

libFuzzer ends the process that it runs in, so the command line starts this module in a child, and reads what
it says: lines of JSON on standard output, libFuzzer's own words on standard error.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

JITTED = ("algebra.field", "algebra.ntt", "algebra.shamir", "secagg.encoding", "secagg.interpolation")
"""Under `protocol`: numba compiles their functions and must find them as they were written."""
_FEATURES = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
ERROR_LINES = 60


def is_available() -> bool:
    """Is atheris installed?"""
    return find_spec("atheris") is not None


@frozen
class Settings:
    """`corpus`: a directory of inputs that is added to; without it they are forgotten."""

    target: str
    runs: int
    seed: int
    max_rss_mb: int
    crashes: str
    corpus: str | None = None


@define
class Result:
    """What a child said last. `edges` and `features` are libFuzzer's measures of coverage."""

    executions: int = 0
    peak_rss_mb: int = 0
    growth_mb: int = 0
    edges: int = 0
    features: int = 0
    inputs: int = 0
    crash: str | None = None
    errors: list[str] = field(factory=list)


def run_guided(settings: Settings, progress: Callable[[int], None]) -> Result:
    """In a child, up to `settings.runs` executions or the first failure; meanwhile `progress(executions)`."""
    command = [sys.executable, "-m", "sim.fuzzing.guided", json.dumps(_as_dict(settings))]
    result = Result()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout is not None
    try:
        for line in child.stdout:
            _take(result, line, progress)
    finally:
        child.terminate()
        child.wait()
    return result


def _take(result: Result, line: str, progress: Callable[[int], None]) -> None:
    if line.startswith("{"):
        for name, value in json.loads(line).items():
            setattr(result, name, value)
        progress(result.executions)
        return
    measured = _FEATURES.search(line)
    if measured is not None:
        result.edges, result.features, result.inputs = (int(number) for number in measured.groups())
    result.errors = [*result.errors, line.rstrip()][-ERROR_LINES:]


def _as_dict(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__annotations__}


# -- in the child --------------------------------------------------------------------------------


def main(settings: Settings) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["protocol", "flocknode", "sim"], exclude=_as_they_are()):
        from sim.fuzzing.targets import make_target
        from sim.fuzzing.watching import Watch, peak_rss_mb

        target = make_target(settings.target)

    def say(**fields: Any) -> None:
        print(json.dumps(fields), flush=True)

    def report(executions: int) -> None:
        say(executions=executions, peak_rss_mb=peak_rss_mb(), growth_mb=watch.growth_mb)

    watch = Watch(settings.target, target, settings.max_rss_mb, Path(settings.crashes), report)

    def execute(data: bytes) -> None:
        try:
            watch(data)
        except Exception:
            report(watch.executions)
            say(crash=str(watch.save()))
            raise
        if watch.executions >= settings.runs:
            report(watch.executions)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        """libFuzzer's own mutations and the target's, in turn."""
        if seed % 2:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        return target.bent(data, Random(seed))[:max_size]

    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(settings.corpus or scratch) / "inputs"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(target.seeds()):
            (corpus / f"seed-{number:04}").write_bytes(data)
        arguments = [
            f"-runs={settings.runs}",
            f"-seed={settings.seed % 2**32 or 1}",
            f"-max_len={target.input_bytes}",
            f"-rss_limit_mb={2 * settings.max_rss_mb}",
            f"-artifact_prefix={scratch}/",
            str(corpus),
        ]
        atheris.Setup(["flocknode", *arguments], execute, custom_mutator=mutate)
        atheris.Fuzz()


def _as_they_are() -> list[str]:
    """Modules that are not instrumented: compiled ones, and those of `sim` that read nothing."""
    root = Path(__file__).parents[1]
    own = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in root.rglob("*.py")]
    return [f"protocol.{name}" for name in JITTED] + [
        name for name in own if not name.startswith("sim.scenario.")
    ]


if __name__ == "__main__":
    main(Settings(**json.loads(sys.argv[1])))
