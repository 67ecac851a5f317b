"""What a round takes between real processes over libp2p, without training (docs/PROTOCOL.md section 10).

Every proposer contributes a synthetic update that costs nothing to make. What is reported is what the nodes'
ledgers and logs say. The first round, in which the nodes connect, does not count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Protocol

from attrs import frozen

from flocknode.config import load_node_dir
from flocknode.demo.fleet import Fleet, no_wraps, preload
from flocknode.demo.plan import free_addresses, seeded_draw
from flocknode.demo.watch import watch
from flocknode.founding import Plan, found
from flocknode.learning.synthetic import SYNTHETIC
from flocknode.observe.follow import Follower
from flocknode.observe.report import phase_bytes, phase_seconds, upload_bytes
from flocknode.wraps import Wraps

FLOAT32_BYTES = 4


@frozen
class RoundBench:
    """Medians over the rounds that count. `sent`: bytes that all nodes together sent, by phase.

    `upload`: bytes that a proposer sent while it contributed; `round_seconds`: each round that counts.
    """

    nodes: int
    proposers: int
    dimension: int
    profile: str
    round_seconds: tuple[float, ...]
    seconds: Mapping[str, float]
    sent: Mapping[str, int]
    upload: int
    accepted: int


class Watcher(Protocol):
    """Who looks at the nodes while they run."""

    def enter(self, index: int) -> Wraps:
        """In the new process of a node, before it is one; see `Fleet`."""

    def began(self, fleet: Fleet) -> None:
        """The first round has ended: what comes counts."""

    def ended(self, fleet: Fleet) -> None:
        """The last round has ended; the nodes still run."""


class _Nobody:
    def enter(self, index: int) -> Wraps:
        return no_wraps(index)

    def began(self, fleet: Fleet) -> None: ...

    def ended(self, fleet: Fleet) -> None: ...


NOBODY: Watcher = _Nobody()


def bench_round(
    nodes: int,
    dimension: int,
    rounds: int,
    profile: str,
    progress: Callable[[int], None] = lambda ended: None,
    watcher: Watcher = NOBODY,
) -> RoundBench:
    """Run `rounds` + 1 rounds among `nodes` processes; `progress` hears how many have ended, again and again.

    Raises `ConfigError`, `DemoError`.
    """
    with tempfile.TemporaryDirectory(prefix="flocknode-bench-") as root:
        plan = Plan(
            name="bench",
            task=SYNTHETIC,
            addresses=free_addresses(nodes),
            profile=profile,
            dimension=dimension,
        )
        directories = [load_node_dir(path) for path in found(Path(root), plan, seeded_draw(0))]
        preload(directories[0])
        follower = Follower(directories[0].genesis, [directory.path for directory in directories])
        with Fleet([directory.path for directory in directories], watcher.enter) as fleet:
            fleet.start_all()
            watch(fleet, follower, 1, lambda: progress(len(follower.rounds)))
            watcher.began(fleet)
            watch(fleet, follower, rounds + 1, lambda: progress(len(follower.rounds)))
            watcher.ended(fleet)
    logs = {directory.peer: log for directory, log in zip(directories, follower.logs, strict=True)}
    counted = follower.rounds[1 : rounds + 1]
    return RoundBench(
        nodes=nodes,
        proposers=directories[0].genesis.params.n_proposers,
        dimension=dimension,
        profile=profile,
        round_seconds=tuple(sum(phase_seconds(record, follower.logs).values()) for record in counted),
        seconds=_medians([phase_seconds(record, follower.logs) for record in counted]),
        sent={k: int(v) for k, v in _medians([phase_bytes(r, follower.logs) for r in counted]).items()},
        upload=_median_upload([upload_bytes(record, logs) for record in counted]),
        accepted=sum(record.accepted for record in counted),
    )


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: median(row[name] for row in rows if name in row) for name in names}


def _median_upload(uploads: Sequence[Mapping[bytes, int]]) -> int:
    sizes = [size for by_peer in uploads for size in by_peer.values()]
    return int(median(sizes)) if sizes else 0


def render(bench: RoundBench) -> str:
    """As text, one line a phase."""
    lines = [
        f"{bench.nodes} node processes, {bench.proposers} proposers, {bench.dimension} weights, "
        f"profile {bench.profile}; {bench.accepted} of {len(bench.round_seconds)} rounds accepted",
        "",
        f"{'phase':<12}{'seconds':>10}{'kB sent by all':>18}",
    ]
    for name, seconds in bench.seconds.items():
        lines.append(f"{name:<12}{seconds:>10.3f}{bench.sent[name] / 1e3:>18,.0f}")
    total = sum(bench.sent.values())
    lines.append(f"{'round':<12}{median(bench.round_seconds):>10.3f}{total / 1e3:>18,.0f}")
    ratio = bench.upload / (FLOAT32_BYTES * bench.dimension)
    lines += [
        "",
        f"slowest round {max(bench.round_seconds):.3f} s",
        f"a proposer sends {bench.upload / 1e3:,.0f} kB to contribute, {ratio:.2f} x the float32 update; "
        f"a node sends {total / bench.nodes / 1e3:,.0f} kB a round",
    ]
    return "\n".join(lines)
