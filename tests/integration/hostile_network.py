"""A network of real processes with one hostile member, which says what nothing of ours would say.

Run as a script: nodes are forked, which a test runner full of threads should not do. Prints, as JSON, how the
nodes ended and what their logs tell.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from flocknode.config import NodeDirectory, load_node_dir
from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.plan import free_addresses, seeded_draw
from flocknode.demo.watch import watch
from flocknode.founding import Plan, found
from flocknode.observe.follow import Follower
from flocknode.transport.base import MAX_MESSAGE_BYTES
from flocknode.transport.libp2p import Libp2pTransport
from flocknode.transport.libp2p_options import Libp2pOptions
from flocknode.transport.standing import Standing

SETTINGS = {"phase_deadline_ms": 3_000, "train_deadline_ms": 8_000, "view_timeout_ms": 1_000}
NODES, HOSTILE = 5, 4
LINKED_S, SAID_S = 20.0, 1.0
SAYINGS = (
    [b"", b"", b""],
    [b"\x00", b"\xff", b"\x98"],
    [bytes(MAX_MESSAGE_BYTES), bytes(MAX_MESSAGE_BYTES - 1)],
    [b"\x98\xff\xff" * 100, b"\x93\x01\x02\x03", b"", b""],
)
"""For each honest node in turn."""


class Deaf:
    """A handler that hears nothing and holds nothing."""

    def received(self, peer: bytes, message: bytes) -> None: ...

    def peer_up(self, peer: bytes) -> None: ...

    def peer_down(self, peer: bytes) -> None: ...

    def standing_changed(self, peer: bytes, standing: Standing) -> None: ...

    async def read_blob(self, peer: bytes, digest: bytes, index: int) -> bytes | None:
        return None


async def attack(directory: NodeDirectory, victims: list[bytes], mode: str) -> int:
    """Say all of `SAYINGS`, to each victim its own or, by gossip, to all; returns how many were linked."""
    node = directory.config.node
    transport = Libp2pTransport(
        directory.identity, node.listen, psk=directory.psk, options=Libp2pOptions(broadcast_mode=mode)
    )
    transport.set_members(directory.config.members)
    await transport.start(Deaf())
    try:
        deadline = asyncio.get_running_loop().time() + LINKED_S
        while len(transport.connected()) < len(victims):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)
        linked = len(transport.connected())
        if mode == "gossipsub":
            await asyncio.sleep(2 * SAID_S)  # the mesh forms with the next heartbeat
            for message in (message for sayings in SAYINGS for message in sayings):
                transport.broadcast(message)
        else:
            for victim, sayings in zip(victims, SAYINGS, strict=True):
                for message in sayings:
                    transport.send(victim, message)
        await asyncio.sleep(SAID_S)
        return linked
    finally:
        await transport.stop()


def run(root: Path, mode: str) -> dict[str, object]:
    plan = Plan(task="digits", addresses=free_addresses(NODES), seed=1, settings=SETTINGS)
    paths = found(root, plan, seeded_draw(1))
    for path in paths:
        config = path / "node.toml"
        text = config.read_text()
        assert 'broadcast = "push"' in text
        config.write_text(text.replace('broadcast = "push"', f'broadcast = "{mode}"'))
    directories = [load_node_dir(path) for path in paths]
    honest = [path for index, path in enumerate(paths) if index != HOSTILE]
    preload(directories[0])
    follower = Follower(directories[0].genesis, honest)
    with Fleet(honest) as fleet:
        fleet.start_all()
        watch(fleet, follower, 1)
        linked = asyncio.run(attack(directories[HOSTILE], [d.peer for d in directories[:HOSTILE]], mode))
        watch(fleet, follower, len(follower.rounds) + 2)
    events = [
        Counter(json.loads(line)["event"] for line in (path / "node.log").read_text().splitlines())
        for path in honest
    ]
    return {
        "linked": linked,
        "exit_codes": [fleet.exit_code(index) for index in range(len(honest))],
        "rounds": len(follower.rounds),
        "rejected": [count["rejected"] for count in events],
        "failed": [count["message_failed"] + count["crashed"] for count in events],
        "penalised": [count["penalised"] for count in events],
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), sys.argv[2])))
