"""The command line: it teaches, starts fast, founds networks, and says what is wrong without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from attrs import evolve
from click.testing import CliRunner, Result

from flocknode.behaviour import MisbehavingLearner, contrary
from flocknode.cli import lazy
from flocknode.cli.main import main
from flocknode.config import Behaviour, ConfigError, load_node_dir
from flocknode.demo.faults import Dropper
from flocknode.demo.options import DemoError, DemoOptions, check
from flocknode.demo.plan import plan_of, seeded_draw
from flocknode.founding import Plan, found, network_params
from flocknode.keystore import KEY_FILE, load_identity
from flocknode.learning.synthetic import SYNTHETIC, SyntheticTask
from flocknode.spool import left_orders
from protocol.duties.vote import judge
from protocol.jobs import EvaluateResult, TrainJob
from protocol.keys import peer_name
from protocol.ledger.judgement import Judgement, Yardstick
from protocol.ledger.state import Phase
from protocol.messages import TransactionKind
from protocol.order import Order
from protocol.params import MICRO, hardened
from sim.scenes import Scene

ADDRESSES = tuple(f"/ip4/127.0.0.1/tcp/{port}" for port in range(4001, 4006))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, *words: str) -> None:
    """Told in words, with an exit code, and without a traceback."""
    assert result.exit_code in (1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output, result.output


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        [], ["demo"], ["network"], ["network", "init"], ["node"], ["node", "run"], ["node", "new"],
        ["node", "id"], ["node", "transfer"], ["node", "fund"], ["node", "join"], ["node", "leave"],
        ["node", "drop"], ["node", "pending"],
        ["ledger"], ["ledger", "show"], ["ledger", "verify"], ["ledger", "export"], ["vectors"],
    ],
    ids="-".join,
)  # fmt: skip
def test_help_teaches_at_every_level(path: list[str]) -> None:
    for flag in ("--help", "-h"):
        result = run(*path, flag)
        assert result.exit_code == 0, result.output
        assert result.output.startswith("Usage: ")
    assert len(result.output.splitlines()) > 5


def test_help_lists_every_command_with_a_line_that_is_its_own() -> None:
    output = run("--help").output
    for name in ("demo", "network", "node", "ledger", "vectors"):
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in output.splitlines()), name


def test_help_pays_for_no_heavy_import() -> None:
    script = (
        "import sys; from flocknode.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('IMPORTED', *sorted(name for name in sys.modules if '.' not in name))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(ended.stdout.rpartition("IMPORTED")[2].split())
    assert "click" in imported
    heavy = {"numba", "numpy", "torch", "libp2p", "trio", "pandas", "sklearn", "rich", "protocol"}
    assert not imported & heavy


def test_unknown_commands_and_options_are_refused() -> None:
    assert_refused(run("deom"), "No such command")
    assert_refused(run("demo", "--bogus"), "No such option")
    assert_refused(run("ledger", "verify", "/nowhere"), "does not exist")


# -- plug-ins --------------------------------------------------------------------------------------


@click.command(short_help="Says hello.")
def hello() -> None:
    """Says hello."""
    click.echo("hello")


@pytest.fixture
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("hello", f"{__name__}:hello", lazy.PLUGINS)]
    monkeypatch.setattr(lazy, "entry_points", lambda group: points if group == lazy.PLUGINS else [])


@pytest.mark.usefixtures("_plugin")
def test_commands_of_other_packages_are_found_through_entry_points() -> None:
    assert "Says hello." in run("--help").output
    assert run("hello").output == "hello\n"
    assert_refused(run("ledger", "hello"), "No such command")


# -- demo options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "3"], ["--nodes 3", "from 4"]),
        (["--nodes", "65"], ["--nodes 65"]),
        (["--nodes", "x"], ["not a valid integer"]),
        (["--rounds", "0"], ["--rounds 0"]),
        (["--task", "chess"], ["chess", "mnist"]),
        (["--profile", "none"], ["none", "hardened"]),
        (["--proposers", "2"], ["--proposers 2", "from 3 to 6"]),
        (["--proposers", "7"], ["--proposers 7"]),
        (["--voters", "0"], ["--voters 0"]),
        (["--voters", "7"], ["--voters 7"]),
        (["--poison", "8"], ["--poison 8"]),
        (["--poison", "-1"], ["--poison -1"]),
        (["--drop", "2"], ["--drop 2", "of 4 proposers 3 must stay", "raise --proposers"]),
        (["--nodes", "4", "--drop", "1"], ["--drop 1", "of 3 proposers 3"]),
        (["--nodes", "20", "--proposers", "19", "--drop", "7"], ["--drop 7"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--report", "/nowhere/at/all.json"], ["--report /nowhere/at/all.json", "no such directory"]),
    ],
)
def test_bad_demo_options_are_told_before_anything_starts(arguments: list[str], words: list[str]) -> None:
    assert_refused(run("demo", *arguments), *words)


def test_a_directory_in_use_is_not_taken_for_a_demo(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert_refused(run("demo", "--dir", tmp_path), "not empty")


@pytest.mark.parametrize("nodes", [4, 5, 7, 8, 20])
def test_default_options_fit_every_size(nodes: int) -> None:
    check(DemoOptions(nodes=nodes))
    with pytest.raises(DemoError, match="--drop"):
        check(DemoOptions(nodes=nodes, drop=nodes))


def test_the_default_network_survives_one_drop() -> None:
    check(DemoOptions(drop=1))
    assert DemoOptions().roles == (4, 2)


def test_a_demo_is_founded_from_its_seed(tmp_path: Path) -> None:
    options = DemoOptions(nodes=5, task="digits", poison=2, drop=1, seed=9)
    plan = plan_of(options)
    first = [load_node_dir(path) for path in found(tmp_path / "a", plan, seeded_draw(9))]
    again = [load_node_dir(path) for path in found(tmp_path / "b", plan, seeded_draw(9))]
    other = [load_node_dir(path) for path in found(tmp_path / "c", plan, seeded_draw(8))]
    assert [node.peer for node in first] == [node.peer for node in again]
    assert first[0].genesis == again[0].genesis
    assert not {node.peer for node in first} & {node.peer for node in other}
    assert [node.config.behaviour.kind for node in first] == ["honest"] * 3 + ["poison"] * 2
    assert {node.config.behaviour.train_delay_ms > 0 for node in first} == {True}
    seeds = [node.config.learning.training_seed for node in first]
    assert len(set(seeds)) == 5
    assert plan_of(DemoOptions(nodes=5)).behaviours[0] == Behaviour()


# -- misbehaviour ----------------------------------------------------------------------------------


@pytest.mark.parametrize("contract", [None, Judgement()])
@pytest.mark.parametrize("current", [0.0, 5e-6, 1.0, -2.5])
@pytest.mark.parametrize("change", [-0.3, 0.0, 0.099, 0.1, 0.101, 0.3])
def test_a_contrary_vote_is_the_opposite_one(
    contract: Judgement | None, current: float, change: float
) -> None:
    params = evolve(hardened(dimension=8, n_proposers=4, n_voters=2), judgement=contract)
    honest = EvaluateResult(current, current + change)
    votes = [judge(params, result, Yardstick())[0] for result in (honest, contrary(honest, params))]
    assert sorted(votes) == [-1, 1]


def test_who_cannot_evaluate_abstains_contrary_or_not() -> None:
    params = hardened(dimension=8, n_proposers=4, n_voters=2)
    for result in (EvaluateResult(None, 3), EvaluateResult(3, None)):
        assert contrary(result, params) is result


def test_training_is_delayed_in_the_rounds_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("flocknode.behaviour.time.sleep", slept.append)
    params = network_params(Plan(task=SYNTHETIC, addresses=ADDRESSES, dimension=8))

    def no_blob(digest: bytes) -> bytes:
        raise KeyError(digest)

    behaviour = Behaviour(train_delay_ms=250, delay_every=2)
    learner = MisbehavingLearner(SyntheticTask(8), params, no_blob, behaviour=behaviour)
    for round_ in (1, 2, 3, 4):
        with pytest.raises(KeyError):
            learner.train(TrainJob(round_, bytes(32), bytes(32)))
    assert [seconds for seconds in slept if seconds] == [0.25, 0.25]


def test_proposers_are_dropped_in_every_second_round_and_come_back() -> None:
    scene = Scene()
    members = {scene.peer(index): index for index in range(5)}

    class Processes:
        def __init__(self) -> None:
            self.said: list[tuple[str, int]] = []

        def kill(self, index: int) -> None:
            self.said.append(("kill", index))

        def start(self, index: int) -> None:
            self.said.append(("start", index))

    processes: Any = Processes()
    dropper = Dropper(processes, members, count=1, every=2)
    for round_ in (1, 2, 3, 4):
        for phase in (Phase.CONTRIBUTE, Phase.AGGREGATE):
            scene.world.run(
                lambda _, round_=round_, phase=phase: (
                    scene.state.round == round_ and scene.state.learning.phase is phase
                ),
                max_virtual_ms=300_000,
            )
            for _ in range(3):
                dropper.step(scene.state)
    assert [word for word, _ in processes.said] == ["kill", "start", "kill", "start"]
    assert [round_ for round_, _ in dropper.killed] == [2, 4]
    assert processes.said[0][1] != processes.said[2][1]
    assert dropper.down == []


# -- network and node ------------------------------------------------------------------------------


def test_init_writes_directories_that_load(tmp_path: Path) -> None:
    nodes = [f"--node={address}" for address in ADDRESSES]
    result = run("network", "init", tmp_path / "net", "--task", "digits", "--pool", 50, "--closed", *nodes)
    assert result.exit_code == 0, result.output
    directories = [load_node_dir(tmp_path / "net" / f"node-{number}") for number in range(5)]
    assert len({directory.genesis.network for directory in directories}) == 1
    assert len({directory.peer for directory in directories}) == 5
    assert {directory.psk for directory in directories} != {None}
    assert [directory.config.learning.shard for directory in directories] == [0, 1, 2, 3, 4]
    genesis = directories[0].genesis
    assert (genesis.pool_units, genesis.params.n_proposers) == (50 * MICRO, 4)
    assert {member.stake_units for member in genesis.members} == {64 * MICRO}
    assert_refused(run("network", "init", tmp_path / "net", *nodes), "not empty")


def test_a_node_may_keep_its_key_to_itself(tmp_path: Path) -> None:
    peer = run("node", "new", tmp_path / "own").output.strip()
    assert peer == run("node", "id", tmp_path / "own").output.strip()
    assert peer == peer_name(load_identity(tmp_path / "own").peer)
    assert (tmp_path / "own" / KEY_FILE).stat().st_mode & 0o077 == 0
    assert_refused(run("node", "new", tmp_path / "own"), "never replaced")
    nodes = [f"--node={address}" for address in ADDRESSES[1:]]
    result = run("network", "init", tmp_path / "net", f"--node={peer}@{ADDRESSES[0]}", *nodes)
    assert "without node.key" in result.output
    invited = tmp_path / "net" / "node-0"
    assert not (invited / KEY_FILE).exists()
    assert_refused(run("node", "id", invited), KEY_FILE)
    (tmp_path / "own" / KEY_FILE).rename(invited / KEY_FILE)
    assert peer_name(load_node_dir(invited).peer) == peer


def test_a_key_that_was_not_invited_is_refused(tmp_path: Path) -> None:
    peer = run("node", "new", tmp_path / "own").output.strip()
    run("node", "new", tmp_path / "other")
    nodes = [f"--node={address}" for address in ADDRESSES[1:]]
    run("network", "init", tmp_path / "net", f"--node={peer}@{ADDRESSES[0]}", *nodes)
    (tmp_path / "other" / KEY_FILE).rename(tmp_path / "net" / "node-0" / KEY_FILE)
    with pytest.raises(ConfigError, match="not listed"):
        load_node_dir(tmp_path / "net" / "node-0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (ADDRESSES[:3], ["4 nodes"]),
        ((*ADDRESSES[:4], ADDRESSES[0]), ["same address"]),
        ((*ADDRESSES[:3], "/ip4/127.0.0.1/tcp/0"), ["port 0"]),
        ((*ADDRESSES[:3], "/ip4/127.0.0.1/udp/4001/quic-v1"), ["QUIC"]),
        ((*ADDRESSES[:3], "localhost:4001"), ["localhost:4001"]),
        ((*ADDRESSES[:3], "nobody@/ip4/127.0.0.1/tcp/4009"), ["peer name"]),
    ],
)
def test_bad_addresses_are_told(arguments: tuple[str, ...], words: list[str], tmp_path: Path) -> None:
    nodes = [f"--node={address}" for address in arguments]
    assert_refused(run("network", "init", tmp_path / "net", *nodes), *words)
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "chess"], ["chess"]),
        (["--profile", "none"], ["none"]),
        (["--proposers", "5"], ["no aggregator"]),
        (["--proposers", "2"], ["n_proposers"]),
        (["--partition", "sideways"], ["partition"]),
        (["--stake", "-1"], ["--stake"]),
    ],
)
def test_bad_network_options_are_told(options: list[str], words: list[str], tmp_path: Path) -> None:
    nodes = [f"--node={address}" for address in ADDRESSES]
    assert_refused(run("network", "init", tmp_path / "net", *nodes, *options), *words)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The directory of a node that does not run, of a network that never did."""
    nodes = [f"--node={address}" for address in ADDRESSES]
    run("network", "init", tmp_path, "--task", "digits", *nodes)
    return tmp_path / "node-0"


def test_orders_are_left_for_a_node_that_is_down_and_shown(node: Path) -> None:
    other = load_node_dir(node.parent / "node-1").peer
    told = run("node", "transfer", node, peer_name(other), "2.5")
    assert told.exit_code == 3
    assert "is not running. The order is left for its next start" in told.output
    assert run("node", "fund", node, "1", "--no-wait").exit_code == 0
    assert run("node", "leave", node, "--replace", "4", "--no-wait").exit_code == 0
    left = [evolve(order, id=bytes(16)) for _, order in left_orders(node)]
    assert left == [
        Order(bytes(16), TransactionKind.TRANSFER, other, 2_500_000),
        Order(bytes(16), TransactionKind.FUND, bytes(32), 1_000_000),
        Order(bytes(16), TransactionKind.LEAVE, bytes(32), 0, 4),
    ]
    shown = run("node", "pending", node).output
    assert "The node is not running" in shown
    assert f"transfer of 2.5 tokens to {peer_name(other)} (" in shown
    assert "leave in place of number 4" in shown
    assert shown.count("the node has not heard it yet") == 3
    found = json.loads(run("node", "pending", node, "--json").output)
    assert [row["amount_units"] for row in found["unheard"]] == [2_500_000, 1_000_000, 0]
    assert (found["running"], found["waiting"]) == (False, [])


@pytest.mark.parametrize("tokens", ["0", "-1", "nan", "inf", "-inf", "1e400", "0.0000001", "many", "2e12"])
def test_amounts_that_are_none_are_refused(tokens: str, node: Path) -> None:
    assert_refused(run("node", "fund", node, "--", tokens), "TOKENS")
    assert left_orders(node) == []


@pytest.mark.parametrize(
    ("tokens", "units"), [("1e-6", 1), ("0.1", 100_000), ("1152921504606", 1152921504606 * 10**6)]
)
def test_amounts_are_exact(tokens: str, units: int, node: Path) -> None:
    assert run("node", "fund", node, tokens, "--no-wait").exit_code == 0
    assert [order.amount_units for _, order in left_orders(node)] == [units]


def test_orders_for_nobody_are_refused(node: Path) -> None:
    assert_refused(run("node", "transfer", node, "nobody", "1"), "PEER")
    for command in (("fund", node.parent, "1"), ("pending", node.parent), ("drop", node.parent, "1")):
        assert_refused(run("node", *command), "node.toml")
    assert_refused(run("node", "drop", node, 2**41), "NUMBER")
    assert_refused(run("node", "fund", node, "1", "--replace", "-1"), "--replace")
    assert not (node.parent / "commands").exists()
    (node / "orders.json").write_text("[]")
    assert_refused(run("node", "pending", node), "orders.json", "not a JSON object")


def test_a_directory_that_is_no_node_does_not_run(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "flocknode.cli.main", "node", "run", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "node.toml" in ended.stderr
    assert "Traceback" not in ended.stderr
