"""The fault lab with real processes: its short scenarios, how runs fail and end, and that nothing is left.

Needs root on Linux, for network namespaces. About 100 seconds on two idle cores.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from flocknode.demo.threads import POOLS
from sim.lab.machine import LabError, check_machine

SCENARIOS = Path("sim/scenarios/lab").resolve()
TIMEOUT_S = 210
MARK = "FLOCKNODE_LAB_TEST"
GONE_S = 10.0

SMALL = """
name = "small"
about = "For tests of how a run ends."
[network]
nodes = 4
rounds = {rounds}
patience_s = 100
[[faults]]
at_s = 0
do = "pause"
who = 0
for_s = {pause_s}
{expect}
"""


def why_not() -> str | None:
    """Why the lab cannot run here."""
    try:
        check_machine()
        from sim.lab.wires import open_namespace

        open_namespace().close()
    except LabError as error:
        return str(error)
    return None


WHY_NOT = why_not()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=f"needs root on Linux, and nft: {WHY_NOT}"),
    pytest.mark.timeout(TIMEOUT_S + 30),
]


@frozen
class Bench:
    """Runs the command line with a mark in its environment, which its nodes inherit."""

    root: Path
    mark: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **dict.fromkeys(POOLS, "1"), MARK: self.mark, "TMPDIR": str(self.root)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flocknode.cli.main", "lab", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return process.returncode, out, err

    def processes(self) -> list[int]:
        """Processes that bear the mark."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def directories(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("flocknode-lab-*"))


def machine() -> dict[str, object]:
    """What of the machine a lab might leave something in."""
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    named = Path("/run/netns")
    return {
        "devices": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": sorted(Path("/proc/self/mounts").read_text().splitlines()),
        "named namespaces": sorted(path.name for path in named.iterdir()) if named.is_dir() else [],
        "tables": rules.stdout,
    }


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Nothing of a lab may be left when a test is over: no process, and so no namespace without a name."""
    before = machine()
    (tmp_path / "tmp").mkdir()
    bench = Bench(tmp_path / "tmp", uuid.uuid4().hex)
    yield bench
    assert bench.processes() == []
    assert bench.directories() == []
    assert machine() == before


def small(tmp_path: Path, *, rounds: int = 1, pause_s: float = 0.1, expect: str = "") -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL.format(rounds=rounds, pause_s=pause_s, expect=expect))
    return str(path)


def sound_report(path: Path) -> dict[str, Any]:
    """The report of a run in which all honest nodes end with one ledger, as far as each has got."""
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["failures"] == []
    nodes = [node for node in report["nodes"] if node["honest"]]
    assert all(node["fault"] is None for node in nodes)
    up = {node["head"] for node in nodes if node["up"] and node["height"] == nodes[0]["height"]}
    assert len(up) == 1
    return report


@pytest.mark.parametrize(
    "name", ["kill-nine", "split-and-heal", "bad-line", "broken-disks", "cheats", "late-node"]
)
def test_scenario(bench: Bench, tmp_path: Path, name: str) -> None:
    report = tmp_path / "report.json"
    code, out, err = bench.run("run", str(SCENARIOS / f"{name}.toml"), "--report", str(report))
    assert code == 0, f"seed 1: {out}{err}"
    found = sound_report(report)
    struck = {fault["do"] for fault in found["faults"] if fault["who"] or fault["groups"]}
    numbers = [entry["round"] for entry in found["rounds"]]
    assert numbers == list(range(1, len(numbers) + 1))
    match name:
        case "kill-nine":
            assert len(numbers) >= 10
            assert len(found["faults"]) >= 5
            assert all(node["up"] and node["exit_code"] == 0 for node in found["nodes"])
        case "split-and-heal":
            assert struck == {"partition", "cut", "disconnect"}
        case "bad-line":
            assert struck == {"loss", "slow", "pause"}
        case "broken-disks":
            assert struck == {"corrupt", "truncate", "disk-full"}
            said = " ".join(err.split())
            assert "node 1 ended by itself, exit code 1" in said
            assert "node 2 ended by itself, exit code 1" in said
            assert "ledger.db:damaged" in "".join(err.split())  # a long path wraps anywhere
            assert [node["node"] for node in found["nodes"] if not node["up"]] == [1]
        case "late-node":
            (back,) = found["returns"]
            assert back["node"] == 4
            assert back["seconds"] is not None
        case "cheats":
            assert "FORGED_AGGREGATE" in {entry["fault"] for entry in found["paid"]}


def test_an_expectation_that_fails_is_named_and_ends_in_1(bench: Bench, tmp_path: Path) -> None:
    report, scenario = tmp_path / "report.json", small(tmp_path, expect="[expect]\nrefused = [1]")
    code, out, err = bench.run("run", scenario, "--report", str(report), "--quiet")
    assert code == 1, err
    assert "FAILED" in out
    # Aborted where one of the four nodes stalled for a second: all of its proposers are needed.
    how = "accepted" if json.loads(report.read_text())["rounds"][0]["accepted"] else "aborted"
    assert f"round 1 was {how}, and should have been refused" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_in_order(bench: Bench, tmp_path: Path, number: signal.Signals) -> None:
    with bench.start("run", small(tmp_path, rounds=1_000, pause_s=1_000)) as process:
        wait_for(process, "pause 0")
        process.send_signal(number)
        assert process.wait(timeout=60) == 130


def test_a_killed_lab_takes_its_nodes_along_and_is_cleaned_up(bench: Bench, tmp_path: Path) -> None:
    with bench.start("run", small(tmp_path, rounds=1_000, pause_s=1_000)) as process:
        wait_for(process, "pause 0")  # so one of the nodes stands still when the launcher goes
        assert len(bench.processes()) == 5
        process.kill()
    while bench.processes():  # they die with their launcher, and hold its lock until they have
        time.sleep(0.05)
    left = bench.directories()
    assert len(left) == 1
    code, out, _ = bench.run("clean")
    assert code == 0
    assert out == f"removed {bench.root / left[0]}\n"
    code, out, _ = bench.run("clean")
    assert (code, out) == (0, "nothing was left behind\n")


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read what a lab says until it says this."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"the lab ended without saying {words!r}")


def test_what_cannot_be_run_is_one_line_and_2(bench: Bench, tmp_path: Path) -> None:
    busy = '[[faults]]\nat = "round 1"\ndo = "busy"\nwho = 1\nfactor = 2\nfor_s = 1'
    code, _, err = bench.run("run", small(tmp_path, expect=busy))
    assert code == 2
    assert err.startswith("Error: faults[1].do: the lab has no 'busy'")
    assert len(err.splitlines()) == 1


def test_without_nft_nothing_is_created(bench: Bench, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "flocknode.cli.main", "lab", "run", small(tmp_path)],
        env={**bench.environment, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        2,
        "Error: the lab needs nft, which drops packets: apt-get install nftables\n",
    )
