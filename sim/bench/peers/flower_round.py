"""Whole rounds of Flower's simulation, plain FedAvg or SecAgg+ with its server workflow.

All clients train in every round. The simulation moves messages within one machine and opens no socket for
them; their bytes are those of Flower's own serialisation.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import ndarrays_to_parameters
from flwr.common.serde import message_to_proto
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.simulation import run_simulation

from sim.bench.peers.adapter import Json, adapt
from sim.bench.peers.shards import Shards, read_shards


class Client(NumPyClient):  # type: ignore[misc]
    """One shard, trained by flocknode's own loop."""

    def __init__(self, shards: str, node: int, notes: Path) -> None:
        self._shards = read_shards(Path(shards))
        self._node = node
        self._notes = notes

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        start = time.perf_counter()
        fitted, count = self._shards.fit(self._node, parameters[0].astype(np.float32), int(config["round"]))
        _note(self._notes, {"training": time.perf_counter() - start})
        return [fitted], count, {}


def measure(spec: Json) -> Json:
    """`spec["secure"]`: with SecAgg+."""
    shards = read_shards(Path(spec["shards"]))
    nodes, rounds = spec["nodes"], spec["rounds"]
    notes = Path.cwd() / "notes"
    notes.mkdir()
    clock = Clock()

    def evaluate(round_: int, arrays: list[Any], config: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        clock.pause()
        clock.take(arrays[0].astype(np.float32), shards)
        clock.go_on()
        return 0.0, {}

    strategy = FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=nodes,
        min_available_clients=nodes,
        initial_parameters=ndarrays_to_parameters([shards.initial]),
        evaluate_fn=evaluate,
        on_fit_config_fn=lambda round_: {"round": round_},
        accept_failures=False,
    )
    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Any, context: Context) -> None:
        legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=rounds), strategy=strategy)
        threshold = 2 * nodes // 3 + 1
        secure = SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=threshold / nodes)
        DefaultWorkflow(fit_workflow=secure if spec["secure"] else None)(grid, legacy)

    counting = _counting_mod(str(notes))
    client = ClientApp(
        client_fn=lambda context: Client(
            spec["shards"], int(context.node_config["partition-id"]), notes
        ).to_client(),
        mods=[counting, secaggplus_mod] if spec["secure"] else [counting],
    )
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=nodes,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {
                "num_cpus": spec["cores"],
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            },
        },
    )
    noted = [json.loads(line) for path in sorted(notes.iterdir()) for line in path.read_text().splitlines()]
    trained = sum("training" in note for note in noted)
    if len(clock.accuracy) != rounds + 1 or clock.unchanged or trained != nodes * rounds:
        raise RuntimeError(
            f"{len(clock.accuracy) - 1} of {rounds} rounds ended, {clock.unchanged} of them with the model "
            f"that they began with; clients trained {trained} times"
        )
    return {
        "round_seconds": clock.rounds,
        "launch_seconds": clock.first - spec["started"],
        "accuracy": clock.accuracy[1:],
        "sent": _by_round(noted, "sent", nodes, rounds),
        "received": _by_round(noted, "received", nodes, rounds),
        "training_seconds": median(note["training"] for note in noted if "training" in note),
        "float32_update": 4 * len(shards.initial),
        "proposers": nodes,
    }


class Clock:
    """Seconds from one evaluation's end to the next one's start: a round, without the evaluation.

    `unchanged`: rounds that left the model as it was, which is how a failed SecAgg+ round looks.
    """

    def __init__(self) -> None:
        self.unchanged = 0
        self._last: Any = None
        self.rounds: list[float] = []
        self.accuracy: list[float] = []
        self.first = 0.0
        self._since: float | None = None

    def pause(self) -> None:
        now = time.monotonic()
        if self._since is not None:
            self.rounds.append(now - self._since)
            self.first = self.first or time.time()

    def take(self, weights: Any, shards: Shards) -> None:
        self.accuracy.append(shards.accuracy(weights))
        self.unchanged += self._last is not None and np.array_equal(self._last, weights)
        self._last = weights.copy()

    def go_on(self) -> None:
        self._since = time.monotonic()


def _counting_mod(notes: str) -> Any:
    """A Flower mod that notes the size of every message to and from a client."""

    def count(message: Message, context: Context, call_next: Any) -> Message:
        received = message_to_proto(message).ByteSize()
        round_ = message.metadata.group_id
        reply: Message = call_next(message, context)
        sent = message_to_proto(reply).ByteSize()
        _note(Path(notes), {"round": round_, "received": received, "sent": sent})
        return reply

    return count


def _note(notes: Path, entry: Json) -> None:
    """Each process writes a file of its own: clients run in several."""
    with (notes / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _by_round(noted: list[Json], direction: str, nodes: int, rounds: int) -> list[float]:
    """Bytes of one client in each round, the mean over clients."""
    return [
        sum(note[direction] for note in noted if note.get("round") == str(number)) / nodes
        for number in range(1, rounds + 1)
    ]


if __name__ == "__main__":
    adapt(measure)
