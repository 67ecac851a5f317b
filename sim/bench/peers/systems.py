"""The systems that are measured, what each needs, and the adapter that runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sim.bench.peers.virtual_environment import interpreter_of

Json = dict[str, Any]

TASK = "mnist"
"""What is trained; the model is `flocknode.learning.models.MODELS` of it."""

OWN = "flocknode"
FLOWER = "flower"
P2PFL = "p2pfl"
NAMES = (OWN, FLOWER, P2PFL)

INSTALL_FLOWER = "Flower is not installed: pip install 'flocknode[bench]'"


@frozen
class System:
    """`label`: as tables name it. `peer`: one of `NAMES`. `spec`: what its adapter is told."""

    name: str
    label: str
    peer: str
    adapter: str
    spec: Mapping[str, Any] = field(factory=dict)


CLIENTS = (
    System("flocknode-client", "flocknode: shares, masks, encoding, commitment", OWN, "own_client"),
    System("flower-client", "Flower SecAgg+: shares, masks", FLOWER, "flower_client"),
)

ROUNDS = (
    System("flocknode", "flocknode, 8 processes, libp2p", OWN, "own_round", {"training": True}),
    System(
        "flocknode-untrained",
        "flocknode, the same without training",
        OWN,
        "own_round",
        {"training": False},
    ),
    System("flower", "Flower simulation, plain FedAvg", FLOWER, "flower_round", {"secure": False}),
    System("flower-secagg", "Flower simulation, SecAgg+", FLOWER, "flower_round", {"secure": True}),
    System("p2pfl-memory", "p2pfl, in-process memory protocol", P2PFL, "p2pfl_round", {"protocol": "memory"}),
    System("p2pfl-grpc", "p2pfl, gRPC", P2PFL, "p2pfl_round", {"protocol": "grpc"}),
)


@frozen
class Interpreters:
    """Which Python runs a peer's adapters. `p2pfl`: a virtual environment of its own, made beforehand."""

    p2pfl: Path | None = None
    without: Mapping[str, str] = field(factory=dict)
    """Why a peer cannot be run, where something went wrong beforehand."""
    installed: Callable[[str], bool] = lambda module: find_spec(module) is not None

    def of(self, peer: str) -> Path | None:
        """None where the peer is not there; `missing` says why."""
        if self.missing(peer) is not None:
            return None
        return interpreter_of(self.p2pfl) if peer == P2PFL and self.p2pfl else Path(sys.executable)

    def missing(self, peer: str) -> str | None:
        """What to do to have this peer, in one line; None where it is there."""
        if peer in self.without:
            return self.without[peer]
        if peer == FLOWER and not (self.installed("flwr") and self.installed("ray")):
            return INSTALL_FLOWER
        if peer == P2PFL and self.p2pfl is None:
            return "p2pfl has no virtual environment: name one with --p2pfl-env, it is made there"
        return None
