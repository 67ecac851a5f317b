"""Whole rounds of flocknode: node processes over libp2p, everything on, read from their ledgers and logs."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from flocknode.config import load_node_dir
from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.plan import free_addresses, seeded_draw, training_seed
from flocknode.demo.watch import watch
from flocknode.founding import Plan, found
from flocknode.learning.synthetic import SYNTHETIC
from flocknode.observe.follow import Follower
from flocknode.observe.report import phase_seconds, scores_by_round, upload_bytes
from sim.bench.peers.adapter import Json, adapt
from sim.bench.peers.shards import TASK


def measure(spec: Json) -> Json:
    """`spec["training"]` False: updates cost nothing to make, so that only the protocol takes time.

    `upload`: bytes that a proposer sends while it contributes, over the float32 update.
    """
    nodes, rounds, seed = spec["nodes"], spec["rounds"], spec["seed"]
    plan = Plan(
        name="bench",
        task=TASK if spec["training"] else SYNTHETIC,
        addresses=free_addresses(nodes),
        seed=seed,
        dimension=spec["dimension"],
        training_seeds=tuple(training_seed(seed, index) for index in range(nodes)),
    )
    directories = [load_node_dir(path) for path in found(Path.cwd() / "nodes", plan, seeded_draw(seed))]
    preload(directories[0])
    follower = Follower(directories[0].genesis, [directory.path for directory in directories])
    first: list[float] = []

    def note() -> None:
        if follower.rounds and not first:
            first.append(time.time() - spec["started"])

    with Fleet([directory.path for directory in directories]) as fleet:
        fleet.start_all()
        watch(fleet, follower, rounds, note)
    ended = follower.rounds[:rounds]
    logs = {directory.peer: log for directory, log in zip(directories, follower.logs, strict=True)}
    uploads = [size for record in ended[1:] for size in upload_bytes(record, logs).values()]
    scores = scores_by_round(ended, follower.logs, {}) if spec["training"] else []
    heights = [[end.height for end in record.phases] for record in ended]
    return {
        "round_seconds": [sum(phase_seconds(record, follower.logs).values()) for record in ended],
        "launch_seconds": first[0],
        "accuracy": [each.get("accuracy") for each in scores],
        "sent": [_mean_bytes(follower, each, "bytes_out") for each in heights],
        "received": [_mean_bytes(follower, each, "bytes_in") for each in heights],
        "accepted": sum(record.accepted for record in ended),
        "proposers": directories[0].genesis.params.n_proposers,
        "upload": median(uploads) if uploads else None,
        "float32_update": 4 * directories[0].genesis.params.dimension,
    }


def _mean_bytes(follower: Follower, heights: list[int], direction: str) -> float:
    """Bytes of one node between the blocks of a round, the mean over nodes."""
    spans = [log.spans[height] for log in follower.logs for height in heights if height in log.spans]
    total: int = sum(getattr(span, direction) for span in spans)
    return total / len(follower.logs)


if __name__ == "__main__":
    adapt(measure)
