"""A network of real processes in which every node has something wrong with it, each something else.

Run as a script: nodes are forked, which a test runner full of threads should not do. Seven nodes:

    0         trains for longer than the deadline
    1 to 3    honest; their updates are clipped, because the network's bound is tiny
    4         votes against its own judgement, and has the stake for one such vote
    5         another genesis
    6         another pre-shared key, and a stake below the least

At the end all are stopped but node 1, which is alone then. Prints, as JSON, the warnings of each node.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from flocknode.config import Behaviour, load_node_dir
from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.plan import free_addresses, seeded_draw
from flocknode.founding import Plan, found
from flocknode.keystore import PSK_FILE
from flocknode.observe.nodelog import NodeLog
from protocol.params import MICRO

NODES = 7
ALONE = 1
SETTINGS = {
    "phase_deadline_ms": 2_000,
    "train_deadline_ms": 2_000,
    "view_timeout_ms": 1_000,
    "clip_micro": 2_000,
}
PATIENCE_S = 60.0
EXPECTED = {
    0: {"deadline_missed"},
    1: {"update_clipped", "genesis_differs"},
    2: {"update_clipped"},
    3: {"update_clipped"},
    4: {"short_of_stake", "not_validator"},
    5: {"genesis_differs", "below_quorum"},
    6: {"not_admitted", "not_validator", "no_peer"},
}


def run(root: Path) -> dict[str, object]:
    plan = Plan(
        task="digits",
        addresses=free_addresses(NODES),
        seed=1,
        proposers=4,
        voters=4,
        settings=SETTINGS,
        behaviours={0: Behaviour(train_delay_ms=6_000), 4: Behaviour(kind="poison")},
        stakes={4: 15 * MICRO, 6: 7 * MICRO},
        psk=b"p" * 32,
    )
    paths = found(root, plan, seeded_draw(1))
    genesis = load_node_dir(paths[5]).genesis
    (paths[5] / "genesis.bin").write_bytes(evolve(genesis, note=b"another network").to_bytes())
    (paths[6] / PSK_FILE).write_text((b"q" * 32).hex() + "\n")
    preload(load_node_dir(paths[0]))
    logs = [NodeLog(path) for path in paths]
    lines: list[list[dict[str, Any]]] = [[] for _ in paths]

    def wait(has: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not has() and time.monotonic() < deadline_s:
            for log, kept in zip(logs, lines, strict=True):
                kept += [entry for entry in log.read() if entry["level"] != "info" or "state" in entry]
            time.sleep(0.05)

    def said(node: int, names: set[str]) -> bool:
        return names <= {line["event"] for line in lines[node]}

    with Fleet(paths) as fleet:
        fleet.start_all()
        wait(lambda: all(said(node, names) for node, names in EXPECTED.items()))
        for node in range(NODES):
            if node != ALONE:
                fleet.kill(node)
        wait(lambda: said(ALONE, {"no_peer", "below_quorum"}))
    return {"lines": lines, "heights": [log.height for log in logs]}


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
