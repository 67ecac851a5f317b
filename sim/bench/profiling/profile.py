"""Where the time of a round goes: the nodes of `flocknode bench round`, counted and sampled as they run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from attrs import asdict, frozen

from flocknode.demo.fleet import Fleet
from flocknode.wraps import NO_WRAPS, Wraps
from sim.bench.profiling.counters import COUNTED, Board
from sim.bench.profiling.parts import IDLE
from sim.bench.profiling.processes import Usage, usage_of
from sim.bench.profiling.sampling import SAMPLES_PER_S, TOP, Sampler, Samples
from sim.bench.round import RoundBench, bench_round

Json: TypeAlias = dict[str, object]


class Spy:
    """Watches a fleet from the end of its first round to the end of its last one."""

    def __init__(self, nodes: int, sampled: Sequence[int]) -> None:
        self._board = Board(nodes)
        self._sampled = tuple(sampled)
        self._directory = tempfile.TemporaryDirectory(prefix="flocknode-profile-")
        self._sampler: Sampler | None = None
        self._usage: list[Usage] = []
        self._counts = self._board.read()
        self.samples: Samples | None = None
        self.used: list[Usage] = []
        """By node, between the two moments; `counted` likewise, int64 (nodes, counters)."""
        self.counted = self._counts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def enter(self, index: int) -> Wraps:
        self._board.count_here(index)
        return NO_WRAPS

    def began(self, fleet: Fleet) -> None:
        pids = [fleet.pids[index] for index in range(len(fleet.directories))]
        if self._sampled:
            self._sampler = Sampler([pids[index] for index in self._sampled], Path(self._directory.name))
        self._usage, self._counts = [usage_of(pid) for pid in pids], self._board.read()

    def ended(self, fleet: Fleet) -> None:
        self.counted = self._board.read() - self._counts
        now = [usage_of(fleet.pids[index]) for index in range(len(fleet.directories))]
        self.used = [after.since(before) for after, before in zip(now, self._usage, strict=True)]
        if self._sampler is not None:
            self.samples = self._sampler.stop()


@frozen
class Profile:
    """`per_round`: means over nodes and rounds: CPU milliseconds and counts. `samples`: of some nodes."""

    bench: RoundBench
    sampled: tuple[int, ...]
    per_round: Mapping[str, float]
    samples: Samples

    def to_json(self) -> Json:
        busy = max(1, self.samples.busy)
        return {
            "command": f"flocknode bench profile --nodes {self.bench.nodes} "
            f"--rounds {len(self.bench.round_seconds)} --dimension {self.bench.dimension} "
            f"--profile {self.bench.profile}",
            "nodes": self.bench.nodes,
            "dimension": self.bench.dimension,
            "median_round_seconds": median(self.bench.round_seconds),
            "round_seconds": list(self.bench.round_seconds),
            "phase_seconds": dict(self.bench.seconds),
            "per_node_and_round": dict(self.per_round),
            "sampled_nodes": list(self.sampled),
            "samples_per_second": SAMPLES_PER_S,
            "samples": {"busy": self.samples.busy, "idle": self.samples.parts[IDLE]},
            "share_by_part": {
                part: count / busy for part, count in self.samples.parts.items() if part != IDLE
            },
            "share_by_function": {name: n / busy for name, n in self.samples.functions.items()},
            "share_within_function": {name: n / busy for name, n in self.samples.within.items()},
        }


def profile_rounds(
    nodes: int,
    dimension: int,
    rounds: int,
    profile: str,
    sampled: Sequence[int],
    progress: Callable[[int], None] = lambda ended: None,
) -> Profile:
    """Run rounds as `bench_round` does and watch the nodes, those of `sampled` (indices) by their stacks.

    Raises `ProfileError`, and as `bench_round`; OSError where there is no /proc.
    """
    with Spy(nodes, sampled) as spy:
        bench = bench_round(nodes, dimension, rounds, profile, progress, spy)
    assert spy.samples is not None
    return Profile(bench, tuple(sampled), per_round(spy.used, spy.counted, rounds), spy.samples)


def per_round(
    used: Sequence[Usage], counted: np.ndarray[tuple[int, int], np.dtype[np.int64]], rounds: int
) -> dict[str, float]:
    """Means over nodes and rounds of what was used and of `counted` (nodes, counters)."""
    shares = len(used) * rounds
    totals = {name: sum(asdict(usage)[name] for usage in used) for name in asdict(used[0])}
    return {
        "CPU ms, user": 1e3 * totals["user_s"] / shares,
        "CPU ms, system": 1e3 * totals["system_s"] / shares,
        "wakeups": totals["wakeups"] / shares,
        "displaced": totals["displaced"] / shares,
        **{name: float(n) / shares for name, n in zip(COUNTED, counted.sum(axis=0), strict=True)},
    }


def render(profile: Profile) -> str:
    """As markdown: counts, parts, functions."""
    data, busy = profile, max(1, profile.samples.busy)
    lines = [
        f"# A round of {data.bench.nodes} node processes, profiled",
        "",
        f"`{profile.to_json()['command']}`. Median round "
        f"{median(data.bench.round_seconds):.3f} s while watched; {len(data.bench.round_seconds)} rounds.",
        "",
        "| per node and round | |",
        "|---|---:|",
        *(f"| {name} | {value:,.1f} |" for name, value in data.per_round.items()),
        "",
        f"Of {busy} samples of working threads of nodes {', '.join(map(str, data.sampled))}:",
        "",
        "| part | share |",
        "|---|---:|",
        *(
            f"| {part} | {100 * count / busy:.1f} % |"
            for part, count in sorted(data.samples.parts.items(), key=lambda item: -item[1])
            if part != IDLE
        ),
        "",
        "| function at work | share |",
        "|---|---:|",
        *(f"| `{name}` | {100 * n / busy:.1f} % |" for name, n in list(data.samples.functions.items())[:TOP]),
    ]
    return "\n".join(lines) + "\n"


def write(profile: Profile, target: Path) -> None:
    """profile.json and profile.md into the directory `target`."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "profile.json").write_text(json.dumps(profile.to_json(), indent=2) + "\n")
    (target / "profile.md").write_text(render(profile))
