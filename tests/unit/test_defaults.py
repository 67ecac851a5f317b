"""What `flocknode demo` shows is what `flocknode network init` makes: the defaults of founding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from flocknode.cli.main import main
from flocknode.config import ConfigError, load_node_dir
from flocknode.defaults import (
    DEMO_INTERVAL_S,
    HORIZON_ROUNDS,
    NETWORK_INTERVAL_S,
    NETWORK_PATIENCE,
    REWARD_TOKENS,
    PaceError,
    PaceOptions,
    describe_pace,
    founding_settings,
    pool_units,
)
from flocknode.demo.options import DemoOptions
from flocknode.demo.plan import plan_of
from flocknode.founding import Plan, network_params
from protocol.ledger.economy import UNITS
from protocol.params import MICRO, Genesis, ProtocolParams

NODES = [word for n in range(5) for word in ("--node", f"/ip4/127.0.0.1/tcp/{4001 + n}")]
DIFFER = {"pace", "pool_rounds"}
"""Where a demo and a network are not alike: how fast, and how long."""


def init(directory: Path, *options: object) -> Genesis:
    words = ["network", "init", str(directory), *NODES, "--task", "digits", *map(str, options)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return load_node_dir(directory / "node-0").genesis


def test_a_network_has_the_parameters_that_the_demo_shows(tmp_path: Path) -> None:
    made = init(tmp_path / "net")
    shown = plan_of(DemoOptions(nodes=5, task="digits"))
    params = network_params(shown)
    names = {field.name for field in attrs.fields(ProtocolParams)} - DIFFER
    assert {n: getattr(made.params, n) for n in names} == {n: getattr(params, n) for n in names}
    assert {member.stake_units for member in made.members} == {shown.stake_units}
    reward = REWARD_TOKENS * UNITS
    assert made.pool_units / made.params.pool_rounds == shown.pool_units / params.pool_rounds == reward


def test_a_network_has_a_round_a_minute_and_a_patience_and_the_demo_neither(tmp_path: Path) -> None:
    pace, shown = init(tmp_path / "net").params.pace, network_params(plan_of(DemoOptions())).pace
    assert pace is not None
    assert shown is not None
    assert (pace.interval_ms, pace.rounds, pace.patience) == (NETWORK_INTERVAL_S * 1000, 0, NETWORK_PATIENCE)
    assert (shown.interval_ms, shown.rounds, shown.patience) == (DEMO_INTERVAL_S, 5, 0)


def test_the_pool_lasts_as_long_as_the_network(tmp_path: Path) -> None:
    ending, endless = init(tmp_path / "a", "--rounds", 7), init(tmp_path / "b")
    assert (ending.params.pool_rounds, ending.pool_units) == (7, 70 * UNITS)
    assert (endless.params.pool_rounds, endless.pool_units) == (HORIZON_ROUNDS, 10 * HORIZON_ROUNDS * UNITS)
    chosen = init(tmp_path / "c", "--pool", 3, "--pool-rounds", 9)
    assert (chosen.params.pool_rounds, chosen.pool_units) == (9, 3 * UNITS)
    assert pool_units(PaceOptions(rounds=2)) == 20 * UNITS


def test_nothing_ends_training_where_it_is_not_to_rest(tmp_path: Path) -> None:
    pace = init(tmp_path / "net", "--no-rest", "--interval", 2.5).params.pace
    assert pace is not None
    assert (pace.interval_ms, pace.rounds, pace.patience, pace.heeds_done) == (2_500, 0, 0, False)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--interval", "-1"], "--interval -1: from 0 to 86400 seconds"),
        (["--rounds", "-1"], "--rounds -1: from 0 to"),
        (["--patience", "-2"], "--patience -2: from 0 to"),
        (["--resume-price", "-1"], "--resume-price -1: from 0 to"),
        (["--rounds", "3", "--no-rest"], "--no-rest: training"),
        (["--pool-rounds", "0"], "0 is not in the range"),
    ],
)
def test_an_option_out_of_range_is_named(tmp_path: Path, options: list[str], what: str) -> None:
    result = CliRunner().invoke(main, ["network", "init", str(tmp_path / "net"), *NODES, *options])
    assert result.exit_code != 0
    assert what in result.output
    assert not (tmp_path / "net").exists()


def test_a_pace_in_words() -> None:
    def words(**options: object) -> str:
        settings = founding_settings(contract="flock", pace=PaceOptions(**options))  # type: ignore[arg-type]
        return describe_pace(attrs.evolve(network_params(plan_of(DemoOptions())), **settings, judgement=None))

    assert words(interval_s=3, rounds=5, patience=0) == "a round every 3 s, 5 rounds"
    assert words(interval_s=0, rests=False) == "rounds without end"
    with pytest.raises(PaceError, match="--interval"):
        PaceOptions(interval_s=1e9).pace(voters_say_done=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stake_units": MICRO}, "stakes of 1 tokens: a validator needs 8, and a network four validators"),
        ({"stakes": {0: 0}}, "a network four validators"),
        ({"voters": 4}, "4 voters among 4 nodes: at most 3"),
    ],
)
def test_a_network_that_could_never_run_is_not_founded(options: dict[str, Any], words: str) -> None:
    addresses = tuple(f"/ip4/127.0.0.1/tcp/{4001 + index}" for index in range(4))
    with pytest.raises(ConfigError, match=words):
        network_params(Plan(task="digits", addresses=addresses, **options))
