"""The profile of a round: what a stack counts as, what is counted in a process, what is written."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flocknode.store import Store
from protocol.events import Persist
from protocol.keys import Identity, verify
from sim.bench.profiling import sampling
from sim.bench.profiling.counters import COUNTED, Board
from sim.bench.profiling.parts import IDLE, NAMES, OTHER, part_of
from sim.bench.profiling.processes import Usage, usage_of
from sim.bench.profiling.profile import Profile, per_round, render, write
from sim.bench.profiling.sampling import ProfileError, Sampler, read_stacks
from sim.bench.round import RoundBench
from sim.cli.bench import bench

LOOP = "_run_once (asyncio/base_events.py:1922)"
ENGINE = "Engine.handle (protocol/engine.py:191)"


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        ([LOOP, ENGINE, "verify (protocol/keys.py:77)"], "signature checks"),
        ([LOOP, "certificate_holds (protocol/certificates.py:9)", "hash (x.py:1)"], "signature checks"),
        ([LOOP, ENGINE], "engine rules"),
        ([LOOP, ENGINE, "encode (protocol/codec.py:3)", "join (posixpath.py:1)"], "codec"),
        (["_worker (thread.py:83)", "_write (flocknode/store.py:262)"], "ledger: SQLite and fsync"),
        ([LOOP, "meth (structlog/_native.py:1)", "dumps (json/__init__.py:2)"], "logging"),
        ([LOOP, "read (libp2p/x.py:2)", "acquire (trio/_sync.py:6)"], "sockets, trio and libp2p"),
        ([LOOP, "_apply (protocol/algebra/ntt.py:5)"], "kernels and jobs"),
        ([LOOP, "EpollSelector.select (selectors.py:468)"], IDLE),
        (["_worker (concurrent/futures/thread.py:81)"], IDLE),
        ([LOOP], "asyncio and threads"),
        (["<module> (x.py:1)"], OTHER),
        ([], IDLE),
    ],
)
def test_a_stack_counts_for_one_part(frames: list[str], part: str) -> None:
    assert part_of(frames) == part
    assert part in (*NAMES, IDLE)


def test_stacks_are_counted_by_part_and_function_without_those_that_wait() -> None:
    samples = read_stacks(
        [
            f"{LOOP};{ENGINE} 3",
            f"{LOOP};{ENGINE.replace('191', '7')} 2",
            f"{LOOP};EpollSelector.select (selectors.py:468) 10",
            "no count",
            "",
        ]
    )
    assert (samples.parts["engine rules"], samples.parts[IDLE], samples.busy) == (5, 10, 5)
    assert samples.functions == {"Engine.handle (protocol/engine.py)": 5}
    assert samples.within["_run_once (asyncio/base_events.py)"] == 5


def test_without_py_spy_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sampling.shutil, "which", lambda name: None)
    with pytest.raises(ProfileError, match=r"flocknode\[profile\]"):
        Sampler([os.getpid()], tmp_path)


async def open_and_commit(directory: Path) -> None:
    store = await Store.open(directory)
    await store.commit([Persist("meta", b"k", b"v"), Persist("meta", b"l", b"v")])
    await store.close()


def test_a_forked_node_counts_on_the_board_of_its_launcher(tmp_path: Path) -> None:
    board = Board(2)
    identity = Identity.from_seed(b"p" * 32)
    pid = os.fork()
    if pid == 0:  # the counting stays in this process
        board.count_here(1)
        signature = identity.sign(b"profile")
        verify(identity.peer, b"profile", signature)
        verify(identity.peer, b"profile", signature)
        asyncio.run(open_and_commit(tmp_path))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    counts = dict(zip(COUNTED, board.read()[1], strict=True))
    assert (counts["signatures made"], counts["signatures checked"]) == (1, 1)
    assert (counts["transactions"], counts["records"]) == (1, 2)
    assert min(counts["us in transactions"], counts["CPU us in transactions"]) > 0
    assert not board.read()[0].any()


def test_the_kernel_tells_what_a_process_used() -> None:
    before = usage_of(os.getpid())
    used = usage_of(os.getpid()).since(before)
    assert before.user_s > 0
    assert used.wakeups >= 0
    with pytest.raises(OSError, match="No such file"):
        usage_of(2**22 + 1)


def test_the_profile_is_means_over_nodes_and_rounds_and_is_written_whole(tmp_path: Path) -> None:
    counted = np.arange(2 * len(COUNTED), dtype=np.int64).reshape(2, -1)
    means = per_round([Usage(1.0, 0.5, 30, 2), Usage(3.0, 0.5, 10, 2)], counted, rounds=4)
    assert means["CPU ms, user"] == 500
    assert means["wakeups"] == 5
    assert means[COUNTED[0]] == (0 + len(COUNTED)) / 8
    samples = read_stacks([f"{LOOP};{ENGINE} 3", f"{LOOP};verify (protocol/keys.py:7) 1"])
    round_ = RoundBench(2, 1, 10, "hardened", (0.5, 0.7, 0.6), {"share": 0.1}, {"share": 9}, 40, 3)
    profile = Profile(round_, (0,), means, samples)
    write(profile, tmp_path / "out")
    data = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert data["median_round_seconds"] == 0.6
    assert data["share_by_part"]["engine rules"] == 0.75
    assert sum(data["share_by_part"].values()) == 1
    text = (tmp_path / "out" / "profile.md").read_text()
    assert text == render(profile)
    assert "| signature checks | 25.0 % |" in text


def test_the_command_asks_for_a_directory() -> None:
    result = CliRunner().invoke(bench, ["profile", "--nodes", "8"])
    assert result.exit_code == 2
    assert "--out" in result.output
