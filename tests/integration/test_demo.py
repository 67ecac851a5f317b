"""`flocknode demo` and `flocknode node run` in real processes, judged by exit code, report and ledgers."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flocknode.demo.plan import free_addresses
from flocknode.observe.ledger import walk
from flocknode.observe.rounds import rounds_of
from protocol.keys import peer_from_name, peer_name

COMMAND = [sys.executable, "-m", "flocknode.cli.main"]
TIMEOUT_S = 110
NODES, ROUNDS = 5, 2

pytestmark = pytest.mark.timeout(TIMEOUT_S + 20)


def flocknode(*arguments: object, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Where it hangs it is killed, and the nodes it started end with it."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def demo(root: Path, *options: object, rounds: int = ROUNDS) -> dict[str, Any]:
    """The report of a demo that passed, whose nodes are left in `root`/net."""
    ended = flocknode(
        "demo", "--task", "digits", "--nodes", NODES, "--rounds", rounds, "--dir", root / "net",
        "--report", root / "report.json", *options,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report: dict[str, Any] = json.loads((root / "report.json").read_text())
    assert_sound(report, rounds)
    return report


def assert_sound(report: dict[str, Any], rounds: int = ROUNDS) -> None:
    """What holds of every demo."""
    assert report["consistent"] is True
    assert report["supply_conserved"] is True
    assert len(report["nodes"]) == NODES
    peers = {node["peer"] for node in report["nodes"]}
    assert peers == {peer_name(peer_from_name(peer)) for peer in peers}
    assert [entry["round"] for entry in report["rounds"]] == list(range(1, rounds + 1))
    assert len(report["plain_fedavg"]) == rounds
    least = min(node["height"] for node in report["nodes"])
    assert least >= 1 + 5 * rounds
    for entry in report["rounds"]:
        assert entry["aggregator"] not in entry["proposers"]
        assert set(entry["contributed"]) | set(entry["dropped"]) == set(entry["proposers"])
        assert set(entry["votes"]) == set(entry["voters"]) <= peers
        assert set(entry["seconds"]) >= {"share", "contribute", "aggregate", "challenge", "vote"}
        assert all(seconds > 0 for seconds in entry["seconds"].values())
        assert not set(entry["slashed"]) & set(entry["rewarded"])
        # An update of 2,410 weights, 4 bytes each, and a commitment.
        assert all(size > 4 * 2_410 for size in entry["upload_bytes"].values())


def test_an_honest_demo_learns_what_plain_fedavg_learns(tmp_path: Path) -> None:
    report = demo(tmp_path, rounds=5)
    lines = [json.loads(line) for path in tmp_path.glob("net/*/node.log") for line in path.open()]
    assert {line["event"] for line in lines} >= {"ready", "block", "evaluation", "stopped"}
    assert [line for line in lines if line["level"] != "info"] == []  # nothing is wrong, so nothing is said
    assert (report["task"], report["profile"], report["seed"]) == ("digits", "hardened", 0)
    for entry, plain in zip(report["rounds"], report["plain_fedavg"], strict=True):
        assert (entry["accepted"], entry["verdict"], entry["attempts"]) == (True, "TRUSTED", 1)
        assert entry["dropped"] == []
        assert set(entry["votes"].values()) == {1}
        assert set(entry["upload_bytes"]) == set(entry["contributed"])
        # Masks cancel, and the encoding rounds to about 2^-18: the same model but for that.
        assert entry["loss"] == pytest.approx(plain["loss"], rel=0.01)
        assert entry["accuracy"] == pytest.approx(plain["accuracy"], abs=0.01)
    assert report["rounds"][-1]["loss"] < report["rounds"][0]["loss"]
    assert {node["role"] for node in report["nodes"]} == {"honest"}
    stakes = sum(node["stake"] for node in report["nodes"])
    rewards = sum(sum(entry["rewarded"].values()) for entry in report["rounds"])
    assert stakes >= NODES * 64_000_000 + rewards
    assert flocknode("ledger", "verify", tmp_path / "net" / "node-4").returncode == 0


@pytest.mark.parametrize("profile", ["hardened", "vcdfl"])
def test_a_demo_survives_a_drop_and_a_poisoner(tmp_path: Path, profile: str) -> None:
    report = demo(tmp_path, "--drop", 1, "--poison", 1, "--profile", profile)
    assert report["profile"] == profile
    assert [node["role"] for node in report["nodes"]].count("poison") == 1
    first, second = report["rounds"]
    assert first["dropped"] == []
    (gone,) = second["dropped"]
    assert len(second["contributed"]) == 3
    role = next(node["role"] for node in report["nodes"] if node["peer"] == gone)
    assert role in ("drop", "poison")
    # Killed where it hurts: its secrets were shared and pinned, its update was not there.
    record = list(rounds_of(walk(tmp_path / "net" / "node-0")))[1]
    assert peer_from_name(gone) in record.sharers
    assert peer_from_name(gone) not in record.contributors
    # It came back, and has every block.
    assert len({node["height"] for node in report["nodes"]}) <= 2


def test_a_terminal_shows_the_rounds_as_they_go(tmp_path: Path) -> None:
    terminal, theirs = os.openpty()
    command = [*COMMAND, "demo", "--task", "digits", "--nodes", "4", "--rounds", "2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "110"}
    seen = b""
    with subprocess.Popen(command, stdout=theirs, env=environment) as run:
        os.close(theirs)
        try:
            while chunk := _read(terminal):
                seen += chunk
        finally:
            run.kill()
    os.close(terminal)
    text = seen.decode()
    for word in ("importing and compiling", "round 1 of 2", "proposer", "aggregator", "challenge", "TRUSTED",
                 "FedAvg", "stakes", "4 ledgers are identical"):  # fmt: skip
        assert word in text, text[-2_000:]


def _read(terminal: int) -> bytes:
    """What is on the terminal now; nothing once whoever wrote to it is gone."""
    ready, _, _ = select.select([terminal], [], [], TIMEOUT_S)
    try:
        return os.read(terminal, 65_536) if ready else b""
    except OSError:
        return b""


def wait_for_nodes(root: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(root.glob("node-*/ledger.db"))) < count:
        assert time.monotonic() < deadline, "the nodes did not start"
        time.sleep(0.1)


def processes_of(root: Path) -> list[int]:
    """Processes that have a file of a node in `root` open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                targets = [os.readlink(file) for file in (entry / "fd").iterdir()]
            except OSError:
                continue
            if any(target.startswith(str(root)) for target in targets):
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_stopped_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    options = ["--task", "digits", "--nodes", str(NODES), "--rounds", "900", "--quiet", "--dir", tmp_path]
    with subprocess.Popen([*COMMAND, "demo", *options], stderr=subprocess.PIPE, text=True) as launcher:
        try:
            wait_for_nodes(tmp_path, NODES)
            assert len(processes_of(tmp_path)) >= NODES
            launcher.send_signal(number)
            _, said = launcher.communicate(timeout=30)
        finally:
            launcher.kill()
    if number is signal.SIGKILL:
        assert launcher.returncode == -signal.SIGKILL
    else:
        assert launcher.returncode == 130
        assert "no node is left running" in said
    deadline = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(tmp_path) == []


@pytest.fixture
def network(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Four nodes founded and run as on four machines, one of them with a key of its own."""
    addresses = free_addresses(4)
    peer = flocknode("node", "new", tmp_path / "own").stdout.strip()
    nodes = [f"--node={address}" for address in (*addresses[:3], f"{peer}@{addresses[3]}")]
    founded = flocknode("network", "init", tmp_path / "net", "--task", "digits", "--closed", *nodes)
    assert founded.returncode == 0, founded.stderr
    (tmp_path / "own" / "node.key").rename(tmp_path / "net" / "node-3" / "node.key")
    directories = [str(tmp_path / "net" / f"node-{number}") for number in range(4)]
    running = [
        subprocess.Popen([*COMMAND, "node", "run", directory], stderr=subprocess.PIPE, text=True)
        for directory in directories
    ]
    yield running
    for process in running:
        process.kill()
        process.communicate()


def test_nodes_run_on_their_own(tmp_path: Path, network: list[subprocess.Popen[str]]) -> None:
    directories = [tmp_path / "net" / f"node-{number}" for number in range(4)]
    deadline = time.monotonic() + 90
    while "round" not in (log := _log(directories[0])) or '"kind":"OUTCOME"' not in log:
        assert time.monotonic() < deadline, log
        assert all(process.poll() is None for process in network)
        time.sleep(0.2)
    for process in network:
        process.terminate()
    assert [process.wait(30) for process in network] == [0, 0, 0, 0]
    for directory in directories:
        (first, *_) = rounds_of(walk(directory))
        assert (first.accepted, first.verdict) == (True, "TRUSTED")
        assert len(first.proposers) == 3


def _log(directory: Path) -> str:
    path = directory / "node.log"
    return path.read_text() if path.exists() else ""
