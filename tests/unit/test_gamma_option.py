"""The gamma of a network, chosen and shown: `--gamma`, manifests, drawn scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner

from flocknode.cli.main import main
from flocknode.config import load_node_dir
from flocknode.demo.options import DemoError, DemoOptions, check
from flocknode.demo.plan import plan_of
from flocknode.founding import network_params
from flocknode.gamma import GammaError, describe_gamma, gamma_settings
from protocol.ledger.adaptive import AdaptiveGamma
from protocol.params import MICRO, hardened
from sim.fuzz.draw import draw_scenario
from sim.scenario.manifest import ScenarioError, parse_scenario
from sim.scenario.write import to_toml

PARAMS = hardened(dimension=8, n_proposers=3, n_voters=2)


def test_a_number_is_tokens_and_adaptive_is_the_rule() -> None:
    assert gamma_settings("2.5") == {"gamma_units": 2_500_000}
    assert gamma_settings("adaptive") == {"adaptive_gamma": AdaptiveGamma()}
    assert describe_gamma(evolve(PARAMS, **gamma_settings("2.5"))) == "2.50"
    assert describe_gamma(evolve(PARAMS, **gamma_settings("adaptive"))) == "adaptive, 1.00 to 9.00"


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "much"])
def test_what_is_no_gamma_is_named(text: str) -> None:
    with pytest.raises(GammaError, match=f"--gamma {text}: a number of tokens from 0, or adaptive"):
        gamma_settings(text)
    with pytest.raises(DemoError, match="--gamma"):
        check(DemoOptions(gamma=text))


def init(directory: Path, gamma: str) -> list[str]:
    nodes = [part for port in range(4) for part in ("--node", f"/ip4/10.0.0.{port}/tcp/4001")]
    return ["network", "init", str(directory), "--task", "digits", *nodes, "--gamma", gamma]


def test_a_network_is_founded_with_it(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, init(tmp_path / "a", "adaptive")).exit_code == 0
    assert load_node_dir(tmp_path / "a" / "node-0").genesis.params.adaptive_gamma == AdaptiveGamma()
    assert CliRunner().invoke(main, init(tmp_path / "b", "4")).exit_code == 0
    assert load_node_dir(tmp_path / "b" / "node-0").genesis.params.gamma_units == 4 * MICRO
    refused = CliRunner().invoke(main, init(tmp_path / "c", "adaptiv"))
    assert refused.exit_code == 1
    assert "--gamma adaptiv: a number of tokens from 0, or adaptive" in refused.output
    too_much = CliRunner().invoke(main, init(tmp_path / "d", "1e12"))
    assert too_much.exit_code == 1
    assert "gamma_units must be in" in too_much.output


def test_a_demo_is_founded_with_it() -> None:
    params = network_params(plan_of(DemoOptions(task="digits", gamma="adaptive")))
    assert params.adaptive_gamma == AdaptiveGamma()
    assert network_params(plan_of(DemoOptions(task="digits"))).adaptive_gamma is None


MANIFEST = """
name = "x"
about = "y"
[network]
nodes = 7
[params]
adaptive_gamma = {}
"""


def test_a_manifest_says_it_and_is_written_again() -> None:
    for table, rule in (
        ("{}", AdaptiveGamma()),
        ("{ window = 3, lowest_units = 5 }", AdaptiveGamma(window=3, lowest_units=5)),
    ):
        scenario = parse_scenario(MANIFEST.format(table), "x.toml")
        assert scenario.params.adaptive_gamma == rule
        assert parse_scenario(to_toml(scenario), "x.toml") == scenario


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("8", "'params.adaptive_gamma' must be a table"),
        ("{ windows = 3 }", "unknown key 'params.adaptive_gamma.windows'"),
        ("{ window = 0 }", r"params.adaptive_gamma: window must be in \[1, 1024\]"),
        ("{ calm_units = 1 }", "params.adaptive_gamma: gamma: .* not ascending"),
        ("{}\ngamma_units = 4", "params: gamma_units: adaptive_gamma sets gamma"),
    ],
)
def test_a_manifest_that_says_it_wrong_is_refused(table: str, what: str) -> None:
    with pytest.raises(ScenarioError, match=what):
        parse_scenario(MANIFEST.format(table), "x.toml")


def test_some_drawn_networks_have_it() -> None:
    drawn = [draw_scenario(seed).params.adaptive_gamma for seed in range(60)]
    assert 2 <= sum(rule is not None for rule in drawn) <= 20
