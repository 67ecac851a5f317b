"""Real engines that learn, on one hub of one process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, evolve, field
from node_world import DIGITS, IDENTITIES, MODEL, PEERS, Running, living

from flocknode.blobs import BlobStore
from flocknode.learning.loading import load_task
from flocknode.store import open_reader
from flocknode.transport.memory import Hub, MemoryTransport
from protocol.blob import blob_digest
from protocol.engine import Engine
from protocol.ledger.resume import resume
from protocol.params import MICRO, Genesis, GenesisMember, hardened, sort_members
from protocol.sortition import default_roles


def genesis_of(count: int) -> Genesis:
    proposers, voters = default_roles(count)
    params = hardened(dimension=DIGITS.dimension, n_proposers=proposers, n_voters=voters)
    return Genesis(
        name="shell",
        task="digits",
        params=evolve(params, phase_deadline_ms=3_000, view_timeout_ms=1_000),
        members=sort_members([GenesisMember(peer, 64 * MICRO) for peer in PEERS[:count]]),
        beacon=bytes(32),
        model_digest=blob_digest(MODEL),
    )


@define(eq=False)
class Network:
    """Real engines on one hub, each in a directory of its own."""

    base: Path
    count: int
    hub: Hub = field(factory=Hub)
    engines: dict[int, Engine] = field(factory=dict)

    @asynccontextmanager
    async def node(
        self,
        number: int,
        transport: type[MemoryTransport] = MemoryTransport,
        spoil: Callable[[Any], Any] = lambda task: task,
    ) -> AsyncIterator[Running]:
        """Run a node; `spoil` makes the task that it learns with from the built-in one."""
        genesis, directory = genesis_of(self.count), self.base / f"node{number}"
        task = spoil(load_task("digits", number, self.count, seed=1))
        entropy = np.random.default_rng(number).bytes
        engine = Engine(IDENTITIES[number], genesis, entropy, weight=task.train_count)
        self.engines[number] = engine
        if not directory.exists():
            directory.mkdir()
            BlobStore(directory).put(blob_digest(MODEL), MODEL)
        members = range(self.count)
        async with living(
            directory,
            engine,
            self.hub,
            number,
            members,
            task,
            params=genesis.params,
            transport_class=transport,
            resume=partial(resume, genesis),
        ) as running:
            yield running

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110  the condition is about several engines at once
            await asyncio.sleep(0.02)

    def blocks(self, number: int) -> list[tuple[int, bytes]]:
        with open_reader(self.base / f"node{number}") as ledger:
            return list(ledger.blocks())
