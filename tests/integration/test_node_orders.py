"""Orders to real node processes: numbered, refused with figures, shown, replaced, dropped, carried, kept."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from node_world import PEERS
from test_node_network import logged, start_forked, write_network

from flocknode.cli.main import main
from flocknode.observe.ledger import end_of, read_genesis, walk
from protocol.keys import peer_name

PATIENCE_S = 60
TOKEN = 10**6


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["node", *(str(argument) for argument in arguments)])


def pending(path: Path) -> dict[str, Any]:
    found = json.loads(run("pending", path, "--json").output)
    assert isinstance(found, dict)
    return found


def until(condition: Any) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "not in time"
        time.sleep(0.1)


def signal_to(processes: list[ForkServerProcess], number: signal.Signals) -> None:
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, number)


def test_orders_are_numbered_carried_replaced_dropped_and_survive_kill_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_replay(*_: object) -> Any:
        raise AssertionError("a command replays the ledger")

    paths = write_network(tmp_path, 4)
    node, other = paths[0], peer_name(PEERS[1])
    processes = [start_forked(path) for path in paths]
    try:
        until(lambda: all(logged(path, "ready") for path in paths))
        with monkeypatch.context() as patch:
            patch.setattr("protocol.ledger.chain.replay", no_replay)
            given = [run("transfer", node, other, tokens, "--no-wait") for tokens in ("1.5", "2", "0.25")]
            assert [result.exit_code for result in given] == [0, 0, 0], given[0].output
            for number, result in enumerate(given):
                assert result.output.startswith(f"number {number}: transfer of ")
            refused = run("transfer", node, other, "40")
            assert refused.exit_code == 1
            assert "refused: at most " in refused.output
            assert "stake less the bond of 32" in refused.output
            carried = run("fund", node, "1", "--timeout", PATIENCE_S)
            assert carried.exit_code == 0, carried.output
            assert carried.output.splitlines()[-1].startswith("number 3: fund of 1 tokens; carried by block ")
            assert "the stake is " in carried.output

            # Two of four stand still: nothing is carried.
            signal_to(processes[2:], signal.SIGSTOP)
            assert run("transfer", node, other, "3", "--no-wait").exit_code == 0
            assert run("fund", node, "0.5", "--no-wait").exit_code == 0
            shown = pending(node)
            assert [(row["number"], row["kind"], row["why"]) for row in shown["waiting"]] == [
                (4, "transfer", None),
                (5, "fund", None),
            ]
            assert "number 4: transfer of 3 tokens" in run("pending", node).output
            assert run("drop", node, "4", "--no-wait").exit_code == 0
            assert run("fund", node, "0.75", "--replace", "5", "--no-wait").exit_code == 0
            late = run("leave", node, "--timeout", "0.5")
            assert late.exit_code == 3
            assert "number 6: leave waits" in late.output
            nothing = run("drop", node, "9")
            assert nothing.exit_code == 1
            assert "no transaction of number 9 waits" in nothing.output
            assert run("drop", node, "6", "--no-wait").exit_code == 0

            signal_to(processes[:1], signal.SIGKILL)
            processes[0].join(60)
            left = run("fund", node, "0.125")
            assert left.exit_code == 3
            assert "is not running" in left.output
            (order,) = (node / "commands").iterdir()
            data = order.read_bytes()
        processes[0] = start_forked(node)
        signal_to(processes[2:], signal.SIGCONT)
        until(lambda: (shown := pending(node)) and not shown["waiting"] and not shown["unheard"])
        ended = {(row["number"], row["kind"]): row for row in view_of(node)["orders"] if row["height"]}
        assert {key: row["status"] for key, row in ended.items()} == {
            **dict.fromkeys([(0, "transfer"), (1, "transfer"), (2, "transfer"), (3, "fund")], "carried"),
            (4, "transfer"): "dropped",
            (4, "cancel"): "carried",
            (5, "fund"): "carried",
            (6, "leave"): "dropped",
            (6, "cancel"): "carried",
            (7, "fund"): "carried",
        }
        assert ended[5, "fund"]["amount_units"] == 750_000
        order.write_bytes(data)  # a copy of the file, once more
        until(lambda: not order.exists())
        height = logged(node, "block")[-1]["height"]
        until(lambda: logged(node, "block")[-1]["height"] > height)
    finally:
        for process in processes:
            process.terminate()
        signal_to([process for process in processes[2:] if process.is_alive()], signal.SIGCONT)
        for process in processes:
            process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    account = end_of(read_genesis(node), list(walk(node))).state.account(PEERS[0])
    assert account is not None
    assert (account.nonce, account.member) == (8, True)
    assert not logged(node, "orders")


def view_of(path: Path) -> dict[str, Any]:
    view = json.loads((path / "orders.json").read_text())
    assert isinstance(view, dict)
    return view
