"""Whole rounds of p2pfl, all nodes in this process, over its memory protocol or over gRPC.

The settings are those of p2pfl's own examples (`set_standalone_settings`); all nodes are in the train set.
Model and training are flocknode's, behind p2pfl's interfaces for both. Runs where only p2pfl is installed.
"""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from p2pfl.settings import Settings

Settings.general.DISABLE_RAY = True  # before the rest is imported, which would start a Ray instance

from p2pfl.communication.protocols.protobuff.client import ProtobuffClient  # noqa: E402
from p2pfl.communication.protocols.protobuff.grpc import GrpcCommunicationProtocol  # noqa: E402
from p2pfl.communication.protocols.protobuff.memory import MemoryCommunicationProtocol  # noqa: E402
from p2pfl.learning.dataset.p2pfl_dataset import P2PFLDataset  # noqa: E402
from p2pfl.learning.frameworks.learner import Learner  # noqa: E402
from p2pfl.learning.frameworks.p2pfl_model import P2PFLModel  # noqa: E402
from p2pfl.node import Node  # noqa: E402
from p2pfl.node_state import NodeState  # noqa: E402
from p2pfl.utils.topologies import TopologyFactory, TopologyType  # noqa: E402
from p2pfl.utils.utils import set_standalone_settings, wait_convergence  # noqa: E402

from sim.bench.peers.adapter import Json, adapt  # noqa: E402
from sim.bench.peers.shards import Shards, read_shards  # noqa: E402

POLL_S = 0.01
FRAMEWORK = "numpy"


class Model(P2PFLModel):  # type: ignore[misc]
    """One flat vector."""

    def get_parameters(self) -> list[Any]:
        return [self.model]

    def set_parameters(self, params: Any) -> None:
        if isinstance(params, bytes):
            params, info = self.decode_parameters(params)
            self.additional_info.update(info)
        self.model = np.array(params[0], dtype=np.float32)

    def get_framework(self) -> str:
        return FRAMEWORK


class ShardLearner(Learner):  # type: ignore[misc]
    """Trains one shard."""

    def __init__(self, shards: Shards, node: int, trained: list[float]) -> None:
        super().__init__()
        self._shards, self._node, self._round, self._trained = shards, node, 0, trained

    def fit(self) -> P2PFLModel:
        self._round += 1
        start = time.perf_counter()
        model = self.get_model()
        fitted, count = self._shards.fit(self._node, model.get_parameters()[0], self._round)
        model.set_parameters([fitted])
        model.set_contribution([self.addr], count)
        self._trained.append(time.perf_counter() - start)
        return model

    def interrupt_fit(self) -> None:
        """A local epoch is over before it could be interrupted."""

    def evaluate(self) -> dict[str, float]:
        return {}

    def get_framework(self) -> str:
        return FRAMEWORK


class Watch:
    """Hears of rounds that end at a node, and of bytes that one sends."""

    def __init__(self) -> None:
        self.ends: dict[int, dict[str, float]] = {}
        self.sent: dict[int, dict[str, int]] = {}
        self.received: dict[int, dict[str, int]] = {}
        self.models: dict[int, dict[str, Any]] = {}
        self.nodes: dict[str, Node] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """In place of two of p2pfl's methods, which go on to do what they did."""
        increase, log_send = NodeState.increase_round, ProtobuffClient.log_successful_send

        def increased(state: Any) -> None:
            model = np.array(self.nodes[state.addr].learner.get_model().get_parameters()[0])
            increase(state)
            with self._lock:
                self.ends.setdefault(state.round, {})[state.addr] = time.monotonic()
                self.models.setdefault(state.round, {})[state.addr] = model

        def sent(client: Any, message: Any) -> None:
            size = message.ByteSize()
            with self._lock:
                current = self.nodes[client.self_addr].state.round
                number = 0 if current is None else current + 1
                for counts, addr in ((self.sent, client.self_addr), (self.received, client.nei_addr)):
                    by_node = counts.setdefault(number, {})
                    by_node[addr] = by_node.get(addr, 0) + size
            log_send(client, message)

        NodeState.increase_round = increased
        ProtobuffClient.log_successful_send = sent


def measure(spec: Json) -> Json:
    """`spec["protocol"]`: memory or grpc. RuntimeError where the rounds do not end at all nodes in time."""
    set_standalone_settings()
    Settings.general.LOG_DIR = str(Path.cwd() / "logs")
    shards = read_shards(Path(spec["shards"]))
    rounds, watch = spec["rounds"], Watch()
    trained: list[float] = []
    watch.install()
    nodes = [_node(spec, shards, number, trained) for number in range(spec["nodes"])]
    watch.nodes = {node.addr: node for node in nodes}
    for node in nodes:
        node.start()
    TopologyFactory.connect_nodes(TopologyFactory.generate_matrix(TopologyType.FULL, len(nodes)), nodes)
    wait_convergence(nodes, len(nodes) - 1, only_direct=False, wait=60)
    start, learning = time.monotonic(), time.time()
    nodes[0].set_start_learning(rounds=rounds, epochs=1, trainset_size=len(nodes))
    deadline = start + spec["limit_s"]
    while len(watch.ends.get(rounds, {})) < len(nodes):
        if time.monotonic() > deadline:
            done = {number: len(ends) for number, ends in sorted(watch.ends.items())}
            raise RuntimeError(f"not all of {rounds} rounds ended at all nodes: {done} nodes by round")
        time.sleep(POLL_S)
    ends = [start, *[max(watch.ends[number].values()) for number in range(1, rounds + 1)]]
    result = {
        "round_seconds": [after - before for before, after in pairwise(ends)],
        "launch_seconds": ends[1] - start + learning - spec["started"],
        "accuracy": [
            float(np.mean([shards.accuracy(model) for model in watch.models[number].values()]))
            for number in range(1, rounds + 1)
        ],
        "sent": _mean(watch.sent, rounds, len(nodes)),
        "received": _mean(watch.received, rounds, len(nodes)),
        "training_seconds": median(trained),
        "float32_update": 4 * len(shards.initial),
        "proposers": len(nodes),
    }
    for node in nodes:
        node.stop()
    return result


def _node(spec: Json, shards: Shards, number: int, trained: list[float]) -> Node:
    memory = spec["protocol"] == "memory"
    node = Node(
        Model(shards.initial.copy()),
        P2PFLDataset(DatasetDict({name: Dataset.from_dict({"x": [0]}) for name in ("train", "test")})),
        learner=ShardLearner(shards, number, trained),
        protocol=MemoryCommunicationProtocol() if memory else GrpcCommunicationProtocol(),
        addr=f"node-{number}" if memory else "127.0.0.1",
    )
    return node


def _mean(counts: dict[int, dict[str, int]], rounds: int, nodes: int) -> list[float]:
    """Bytes of one node in each round, the mean over nodes."""
    return [sum(counts.get(number, {}).values()) / nodes for number in range(1, rounds + 1)]


if __name__ == "__main__":
    adapt(measure)
