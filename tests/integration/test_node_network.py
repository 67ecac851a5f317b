"""Whole networks on the shell: real engines that learn, drop out and return; then real processes."""

import asyncio
import json
import multiprocessing
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from engine_network import Network, genesis_of
from node_world import IDENTITIES, MODEL, PEERS

from flocknode.config import (
    LearningSettings,
    NodeConfig,
    NodeDirectory,
    NodeSettings,
    load_node_dir,
    write_node_dir,
)
from flocknode.learning.task import TaskError
from flocknode.observe.ledger import walk
from flocknode.process import main
from flocknode.store import Store, open_reader
from flocknode.transport.base import Member
from protocol.events import Persist


async def test_five_engines_learn_and_a_node_that_was_away_catches_up(tmp_path: Path) -> None:
    network = Network(tmp_path, 5)
    async with network.node(0) as n0, network.node(1) as n1, network.node(2), network.node(3):
        async with network.node(4) as n4:
            await network.until(lambda: len(n0.logged("evaluation")) >= 1 and n4.logged("settled"))
        away_at = network.engines[4].height
        await network.until(lambda: network.engines[0].height >= away_at + 3)
        async with network.node(4) as n4:
            assert network.engines[4].height == away_at
            round_ = network.engines[0].state.round
            await network.until(lambda: all(e.state.round > round_ for e in network.engines.values()))
            await network.until(lambda: n4.logged("evaluation"))
    chains = [network.blocks(number) for number in range(5)]
    shortest = min(map(len, chains))
    assert shortest > away_at + 3
    # Certificates may differ from node to node, blocks may not: their hashes are compared below.
    for chain in chains:
        assert [height for height, _ in chain[:shortest]] == list(range(1, shortest + 1))
    heads = {line["height"]: line["hash"] for line in n0.logged("block")}
    for n in (n1, n4):
        told = {line["height"]: line["hash"] for line in n.logged("block")}
        assert told.items() <= heads.items() or heads.items() <= told.items()
    first, *_ = n0.logged("evaluation")
    assert first["round"] == 1
    assert first["num_examples"] == 54
    assert 0.5 < first["accuracy"] <= 1
    (block, *_), (settled, *_) = n0.logged("block"), n0.logged("traffic")
    assert block["bytes_out"] > 0
    assert len(settled["peers"]) == 4
    assert {"time", "node", "level"} <= block.keys()


class Spoilt:
    """A task that fails where a user's might: in training, or on one of its splits."""

    def __init__(self, task: Any, *, split: str = "", trains: bool = True) -> None:
        self._task, self._split, self._trains = task, split, trains

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def fit(self, weights: Any, config: Any) -> Any:
        if not self._trains:
            raise RuntimeError("no memory left on the accelerator")
        return self._task.fit(weights, config)

    def evaluate(self, weights: Any, config: Any) -> Any:
        if config.get("split") == self._split:
            raise TaskError(f"{self._split}: no samples")
        return self._task.evaluate(weights, config)


async def test_a_task_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Node 0 cannot train, 1 not validate, 2 not test; five nodes can do without one of each."""
    network = Network(tmp_path, 5)
    async with (
        network.node(0, spoil=lambda task: Spoilt(task, trains=False)) as n0,
        network.node(1, spoil=lambda task: Spoilt(task, split="validation")) as n1,
        network.node(2, spoil=lambda task: Spoilt(task, split="test")) as n2,
        network.node(3) as n3,
        network.node(4) as n4,
    ):
        await network.until(
            lambda: n0.logged("job_failed") and n1.logged("abstained") and n2.logged("evaluation_failed")
        )
        assert [condition.name for condition in n1.node.conditions] == ["abstained"]
    (train,) = [line for line in n0.logged("job_failed") if line["subject"] == "train"]
    assert train["what"].endswith(
        "failed: this node's update does not count. It says: RuntimeError: no memory left on the accelerator"
    )
    abstained, *_ = n1.logged("abstained")
    assert abstained["what"].endswith("because evaluation failed: TaskError: validation: no samples")
    tested, *_ = n2.logged("evaluation_failed")
    assert tested["what"].endswith("could not be evaluated on the test split: TaskError: test: no samples")
    assert {line["level"] for line in (train, abstained, tested)} == {"warning"}
    for n in (n3, n4):
        assert not [name for name in ("job_failed", "abstained", "evaluation_failed") if n.logged(name)]


# -- processes -----------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def write_network(base: Path, count: int) -> list[Path]:
    members = tuple(
        Member(peer, f"/ip4/127.0.0.1/tcp/{port}")
        for peer, port in zip(PEERS, free_ports(count), strict=False)
    )
    paths = [base / f"node{i}" for i in range(count)]
    for i, path in enumerate(paths):
        config = NodeConfig(
            node=NodeSettings(name=f"node{i}", listen=members[i].address),
            learning=LearningSettings(task="digits", shard=i, shards=count, seed=1),
            members=members,
        )
        directory = NodeDirectory(
            path=path, config=config, genesis=genesis_of(count), identity=IDENTITIES[i], psk=b"p" * 32
        )
        write_node_dir(directory, MODEL)
        assert load_node_dir(path) == directory
    return paths


def start(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flocknode.process", str(path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def start_forked(path: Path) -> ForkServerProcess:
    """As `start`, from a process that has imported everything once: a node costs seconds of imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flocknode.assembly", "flocknode.learning.trainer"])
    process = context.Process(target=main, args=(path,), daemon=True)
    process.start()
    return process


def logged(path: Path, event: str) -> list[dict[str, Any]]:
    with suppress(FileNotFoundError):
        lines = (path / "node.log").read_text().splitlines()
        return [json.loads(line) for line in lines if f'"event":"{event}"' in line]
    return []


def wait_until(condition: Callable[[], object], processes: Iterable[Callable[[], int | None]]) -> None:
    """Until `condition` holds; fails when a process, given as what tells its exit code, has ended."""
    while not condition():
        assert [exit_code() for exit_code in processes] == [None] * 4
        time.sleep(0.2)


def test_processes_learn_survive_kill_9_and_stop_cleanly(tmp_path: Path) -> None:
    paths = write_network(tmp_path, 4)
    first, others = start(paths[0]), [start_forked(path) for path in paths[1:]]
    try:
        exit_codes = [lambda: first.poll(), *(lambda process=process: process.exitcode for process in others)]
        wait_until(lambda: all(logged(path, "settled") for path in paths), exit_codes)
        (ready,) = logged(paths[1], "ready")
        assert ready["address"] == load_node_dir(paths[1]).config.node.listen
        second = start(paths[1])
        _, told = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"{paths[1]} is in use by process {others[0].pid}" in told

        height = len(logged(paths[1], "block"))
        first.send_signal(signal.SIGKILL)
        first.communicate()
        first = start(paths[0])
        # Four nodes cannot agree with one of them gone for good: that rounds go on shows that it is back.
        round_ = logged(paths[1], "settled")[-1]["round"]
        wait_until(lambda: all(logged(p, "settled")[-1]["round"] > round_ + 1 for p in paths), exit_codes)
        with open_reader(paths[0]) as ledger:
            heights = [number for number, _ in ledger.blocks()]
        assert heights == list(range(1, len(heights) + 1))
        assert len(heights) > height
    finally:
        first.send_signal(signal.SIGTERM)
        for process in others:
            process.terminate()
        _, told = first.communicate(timeout=60)
        for process in others:
            process.join(60)
    assert (first.returncode, told) == (0, "")
    assert [process.exitcode for process in others] == [0, 0, 0]
    for path in paths:
        assert logged(path, "stopped")
        assert not logged(path, "crashed")
        assert not list(path.glob("ledger.db-*"))
        assert_only_due_blobs(path)


def assert_only_due_blobs(path: Path) -> None:
    """A node's blob directory holds what docs/PROTOCOL.md section 7.6 allows, and no other file.

    What a round's blobs are the node has written down; what the ledger pinned in earlier rounds is gone.
    """
    steps = list(walk(path))
    state = steps[-1].after
    models = {state.model_digest, state.previous_model_digest}
    models |= set() if state.best is None else {state.best.digest}
    over: set[bytes] = set()
    for learning in (step.after.learning for step in steps if step.after.round < state.round - 1):
        over |= {contribution.upload_digest for contribution in learning.contributors}
        over |= {learning.candidate} | (set() if learning.claim is None else {learning.claim.sum_digest})
    with closing(sqlite3.connect(path / "ledger.db")) as database:
        rows = database.execute("SELECT key FROM record WHERE bucket = 'blob'").fetchall()
    rounds = {key[8:]: int.from_bytes(key[:8], "big") for (key,) in rows}
    late = {digest for digest, round_ in rounds.items() if round_ >= state.round - 1}
    assert rounds.keys() <= late | models
    found = {file.name for file in (path / "blobs").iterdir()}
    assert state.model_digest.hex() in found
    assert found <= {digest.hex() for digest in late | models}
    assert over - models
    assert not found & {digest.hex() for digest in over - models}


def test_a_process_that_cannot_run_names_the_reason(tmp_path: Path) -> None:
    (path, *_) = write_network(tmp_path, 4)
    (path / "node.key").chmod(0o644)
    assert refusal(path).startswith(f"flocknode: {path / 'node.key'} is open to others")
    (path / "node.key").chmod(0o600)
    (path / "ledger.db").write_bytes(b"no database" * 1000)
    assert refusal(path) == f"flocknode: node0: {path / 'ledger.db'}: file is not a database\n"
    (line,) = logged(path, "cannot_run")
    assert line["why"] == f"{path / 'ledger.db'}: file is not a database"


SLOW_START = """
import sys, time
from pathlib import Path
from flocknode import assembly
from flocknode.process import main

def slow_resume(genesis, snapshot, blocks):
    for _ in blocks:
        print("reading", flush=True)
        time.sleep(0.1)

def slow_task(directory):
    print("reading", flush=True)
    time.sleep(600)

setattr(assembly, sys.argv[2], {"resume": slow_resume, "_load_task": slow_task}[sys.argv[2]])
main(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("slow", ["resume", "_load_task"])
def test_sigterm_ends_a_process_that_still_starts(tmp_path: Path, slow: str) -> None:
    """While it reads its ledger, and while it loads its data; it would take ten minutes of each."""
    (path, *_) = write_network(tmp_path, 4)
    asyncio.run(write_blocks(path, 6_000))
    command = [sys.executable, "-c", SLOW_START, str(path), slow]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGTERM)
    told = process.stdout.read()
    assert process.wait() == 0
    assert told.count("reading") < 1_000
    assert [line["signal"] for line in logged(path, "stopping")] == ["SIGTERM"]
    assert logged(path, "stopped")
    assert not logged(path, "ready")


async def write_blocks(path: Path, count: int) -> None:
    """Rows that are no blocks: nobody gets to look into them."""
    store = await Store.open(path)
    await store.commit([Persist("block", height.to_bytes(8, "big"), b"-") for height in range(1, count + 1)])
    await store.close()


def refusal(path: Path) -> str:
    """What a process says that ends with an error."""
    process = start(path)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    return told
