"""How a node that was away came back: what counts as its time, its bytes, and the others' rounds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sim.scenario import returns
from sim.scenario.manifest import ScenarioError, parse_scenario
from sim.scenario.returns import CaughtUp, Return, Returns
from sim.scenario.write import to_toml

BLOCK = 1_000
HEAD = 'name = "x"\nabout = "x"\n[network]\nnodes = 4\n'


@pytest.fixture(autouse=True)
def block_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "encode_stored_block", lambda stored: bytes(BLOCK))


def ledger(height: int) -> list[Any]:
    """A round for every two blocks."""
    return [
        SimpleNamespace(
            stored=SimpleNamespace(block=SimpleNamespace(height=h)),
            before=SimpleNamespace(round=(h - 1) // 2),
            after=SimpleNamespace(round=h // 2),
        )
        for h in range(1, height + 1)
    ]


def came_back(round_s: Callable[[int], float], catch_up_s: float = 0.5) -> Return:
    """Node 1 has two blocks and comes back when node 0 has forty; block 41 is taken as it catches up."""
    seen, at_s = Returns(2), 0.0
    seen.started(0, 0, at_s)
    seen.started(1, 0, at_s)
    back_s = 0.0
    for height in range(1, 81):
        at_s += round_s(height // 2) / 2
        seen.took_block(0, height, at_s, 7)
        if height <= 2:
            seen.took_block(1, height, at_s, 1)
        if height == 40:
            back_s = at_s
            seen.started(1, 2, at_s)
    for height in range(3, 41):
        seen.took_block(1, height, back_s + catch_up_s * (height - 2) / 38, 1_200 * (height - 2))
    seen.took_block(1, 41, back_s + 9.0, 10**9)
    (back,) = seen.judged(ledger(80)).values()
    return back


def test_a_return_is_measured_from_the_start_to_the_last_block_that_others_had() -> None:
    back = came_back(lambda round_: 1.0)
    assert (back.node, back.first_height, back.last_height, back.rounds) == (1, 3, 40, 19)
    assert back.seconds == pytest.approx(0.5)
    assert (back.received_bytes, back.block_bytes) == (38 * 1_200, 38 * BLOCK)
    assert back.usual_s == back.meanwhile_s == pytest.approx(1.0)
    assert list(back.shortfalls(CaughtUp(rounds=19))) == []


def test_rounds_that_are_slow_only_while_the_node_catches_up_are_seen() -> None:
    back = came_back(lambda round_: 3.0 if 20 <= round_ < 26 else 1.0, catch_up_s=12.0)
    assert back.usual_s == pytest.approx(1.0)
    assert back.meanwhile_s == pytest.approx(3.0)
    (shortfall,) = back.shortfalls(CaughtUp())
    assert "others' rounds take 3.00 s" in shortfall


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (CaughtUp(rounds=20), "should have missed 20 rounds"),
        (CaughtUp(within_s=0.4), "took 0.5 s"),
        (CaughtUp(received=1.1), "received 45600 bytes"),
        (CaughtUp(slower=0.9), "others' rounds"),
    ],
)
def test_each_bound_is_told_where_it_does_not_hold(wanted: CaughtUp, told: str) -> None:
    (shortfall,) = came_back(lambda round_: 1.0).shortfalls(wanted)
    assert told in shortfall


def test_a_node_that_never_has_them_has_not_caught_up() -> None:
    seen = Returns(2)
    seen.started(0, 40, 0.0)
    seen.started(1, 2, 1.0)
    seen.took_block(1, 39, 2.0, 5)
    (back,) = seen.judged(ledger(40)).values()
    assert list(back.shortfalls(CaughtUp()))[-1].endswith("has not caught up")


def test_nobody_that_lacked_nothing_was_away() -> None:
    seen = Returns(2)
    seen.started(0, 2, 0.0)
    seen.started(1, 2, 1.0)
    assert seen.judged(ledger(2)) == {}


def test_a_manifest_says_how_a_node_must_come_back() -> None:
    text = HEAD + '[machine]\nblock_us = 9\n[expect]\ncaught_up = { "node 3" = { rounds = 9, slower = 2 } }\n'
    scenario = parse_scenario(text, "x.toml")
    ((selector, wanted),) = scenario.expect.caught_up
    assert (str(selector), wanted) == ("node 3", CaughtUp(rounds=9, slower=2.0))
    assert parse_scenario(to_toml(scenario), "again") == scenario


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ('caught_up = { "node 9" = {} }', "expect.caught_up"),
        ('caught_up = { "node 3" = { round = 9 } }', "expect.caught_up.node 3.round"),
        ('caught_up = { "node 3" = { rounds = 0 } }', "expect.caught_up.node 3"),
        ("caught_up = 3", "expect.caught_up"),
    ],
)
def test_what_is_wrong_with_it_is_named(table: str, key: str) -> None:
    with pytest.raises(ScenarioError, match=key):
        parse_scenario(f"{HEAD}[expect]\n{table}\n", "x.toml")
