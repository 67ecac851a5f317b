"""What becomes of every attack, pinned: a change that lets one succeed, or fail, shows here.

Those that differ between the profiles are run in both, most others in the default one. docs/ATTACKS.md is
held to the same table and to what these runs find; real learning is left to the command.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flocknode.cli.main import main
from sim.adversaries.actor import Actor
from sim.adversaries.coalition import Coalition
from sim.adversaries.registry import BEHAVIOURS, HONEST, make_filter
from sim.attacks.attack import PROFILES, AttackError, Outcome
from sim.attacks.gallery import FAMILIES, GALLERY, NAMES
from sim.attacks.poisoning import POISONING
from sim.attacks.table import rows_of, to_markdown
from sim.attacks.trial import Staging, run_trial
from sim.casting import first_roles
from sim.filters import Filter
from sim.scenario.manifest import ScenarioError
from sim.scenario.selectors import parts_of_roles
from sim.scenes import Cast, Scene

DOCUMENT = Path(__file__).parents[2] / "docs" / "ATTACKS.md"
SEED = 1

EXPECTED = {
    "label-flip": ("succeeds", "succeeds"),
    "sign-flip": ("succeeds", "succeeds"),
    "scaling": ("succeeds", "succeeds"),
    "backdoor-trigger": ("succeeds", "succeeds"),
    "opposite-voting": ("harmless", "harmless"),
    "opposite-voting-by-all": ("succeeds", "succeeds"),
    "lazy-voting": ("detected", "detected"),
    "unread-voting": ("succeeds", "succeeds"),
    "unopened-vote": ("detected", "detected"),
    "abstaining": ("harmless", "harmless"),
    "abstaining-by-all": ("succeeds", "succeeds"),
    "lazy-aggregator": ("detected", "detected"),
    "keyless-forger": ("detected", "detected"),
    "no-sum": ("detected", "detected"),
    "colluding-forger-1": ("detected", "detected"),
    "colluding-forger-2": ("detected", "detected"),
    "colluding-forger-3": ("detected", "detected"),
    "check-forger": ("detected", "detected"),
    "kernel-forgery": ("succeeds", "detected"),
    "rushing-challenger": ("succeeds", "detected"),
    "rogue-commitment": ("succeeds", "detected"),
    "two-claims": ("detected", "detected"),
    "unbounded-contribution": ("harmless", "harmless"),
    "whole-bound-contribution": ("succeeds", "succeeds"),
    "broken-check": ("detected", "detected"),
    "framed-aggregator": ("harmless", "harmless"),
    "framed-by-stalling": ("harmless", "harmless"),
    "sabotage-for-profit": ("harmless", "harmless"),
    "poison-for-profit": ("succeeds", "succeeds"),
    "false-dropout": ("succeeds", "harmless"),
    "isolated-victim": ("harmless", "harmless"),
    "two-survivor-sets": ("harmless", "harmless"),
    "copied-mask-key": ("detected", "detected"),
    "replayed-shares": ("harmless", "harmless"),
    "update-by-linear-algebra": ("succeeds", "harmless"),
    "update-by-guess": ("succeeds", "harmless"),
    "bad-shares-from-dealer": ("harmless", "detected"),
    "bad-shares-then-dropout": ("detected", "detected"),
    "bad-shares-from-holder": ("harmless", "detected"),
    "bad-z-to-some": ("harmless", "harmless"),
    "inflated-weight": ("detected", "detected"),
    "unprovable-sabotage": ("succeeds", "succeeds"),
    "silent-holders": ("harmless", "succeeds"),
    "withheld-reveal": ("harmless", "harmless"),
    "false-reveal": ("harmless", "harmless"),
    "beacon-nudge": ("succeeds", "succeeds"),
    "vote-grinding": ("harmless", "harmless"),
    "late-advert": ("harmless", "harmless"),
    "stake-shift": ("harmless", "harmless"),
    "equivocating-leader": ("harmless", "harmless"),
    "withholding-leader": ("harmless", "harmless"),
    "censoring-leader": ("harmless", "harmless"),
    "twin": ("detected", "detected"),
    "equivocating-validator": ("harmless", "harmless"),
    "equivocating-voter": ("detected", "detected"),
    "replayed-statements": ("harmless", "harmless"),
    "flooding": ("detected", "detected"),
    "oversized-messages": ("detected", "detected"),
    "eclipse": ("harmless", "harmless"),
    "eclipsed-voter": ("succeeds", "succeeds"),
    "leave-after-forging": ("detected", "detected"),
    "leave-before-forging": ("detected", "detected"),
}
"""Outcomes in the paper's profile, and in the hardened one."""

DEAR = {
    *(attack.name for attack in POISONING),
    "no-sum",
    "colluding-forger-1",
    "colluding-forger-2",
    "vote-grinding",
    "flooding",
    "eclipse",
    "leave-after-forging",
}
"""Attacks that take seconds, or are much like another."""


def both_or_hardened(name: str) -> tuple[str, ...]:
    paper, hardened = EXPECTED[name]
    return ("hardened",) if paper == hardened or name == "rushing-challenger" else PROFILES


RUN = [(name, profile) for name in NAMES if name not in DEAR for profile in both_or_hardened(name)]


def test_the_table_names_every_attack() -> None:
    assert tuple(EXPECTED) == NAMES
    assert {outcome.value for outcome in Outcome} >= {o for pair in EXPECTED.values() for o in pair}


@pytest.mark.parametrize(("name", "profile"), RUN)
def test_what_becomes_of_it(name: str, profile: str) -> None:
    (attack,) = (attack for attack in GALLERY if attack.name == name)
    result = attack.run(profile, SEED)
    assert result.outcome.value == EXPECTED[name][PROFILES.index(profile)], result
    assert not result.wrongly_blamed
    entry = re.search(rf"^\*\*{name}\*\*: (.*?)(?:\n\n|\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert entry is not None
    assert attack.about in entry[1]
    assert f"{result.found}." in entry[1]


def test_the_document_has_the_same_outcomes_in_the_same_order() -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\w+) \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {name: (paper, hardened) for name, paper, hardened in rows if name != "attack"} == EXPECTED
    assert [name for name, _, _ in rows if name != "attack"] == list(NAMES)


def test_an_attack_that_does_not_strike_is_no_result() -> None:
    trial = run_trial(Staging(cast=lambda scene: {scene.aggregator: Filter()}), "hardened", SEED)
    with pytest.raises(AttackError, match="idle: it never struck"):
        trial.result("idle", reached=False, struck=False, found="nothing")
    result = trial.result("idle", reached=False, found="nothing")
    assert (result.outcome, result.cost_units, result.rounds_lost) == (Outcome.HARMLESS, 0, 0)


# -- the command -------------------------------------------------------------------------------------


def attacks(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sim", "attacks", *map(str, arguments)])


def test_the_command_writes_what_it_prints(tmp_path: Path) -> None:
    file = tmp_path / "attacks.json"
    result = attacks("--only", "kernel-forgery", "--json", file)
    assert result.exit_code == 0, result.output
    paper, hardened = json.loads(file.read_text())
    assert set(paper) >= {"attack", "profile", "outcome", "blamed", "cost_units", "rounds_lost", "seed"}
    assert (paper["profile"], paper["outcome"], paper["blamed"]) == ("vcdfl", "succeeds", [])
    assert (hardened["profile"], hardened["outcome"], hardened["blamed"]) == (
        "hardened",
        "detected",
        ["aggregator"],
    )
    assert hardened["cost_units"] == 32_000_000
    (line,) = (line for line in result.output.splitlines() if line.startswith("kernel-forgery"))
    assert line.split()[1:3] == ["succeeds", "detected"]
    kernel = [attack for attack in GALLERY if attack.name == "kernel-forgery"]
    results = [attack.run(profile, SEED) for attack in kernel for profile in PROFILES]
    (row,) = rows_of(kernel, results)
    assert f"| {' | '.join(row)} |" in DOCUMENT.read_text()
    assert "**kernel-forgery**" in to_markdown([("The sum", kernel)], results)


def test_the_command_lists_and_refuses() -> None:
    listed = attacks("--list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == list(NAMES)
    assert "--list names them all" in attacks("--only", "no-such-attack").output
    assert "not with --only" in attacks("--markdown", "x.md", "--only", "twin").output
    assert len({title for title, _ in FAMILIES}) == len(FAMILIES)


# -- behaviours by name ------------------------------------------------------------------------------


def cast_of(*names: str) -> Cast:
    """The aggregator and a proposer misbehave, each by one name."""

    def cast(scene: Scene) -> dict[int, Filter]:
        numbers = {identity.peer: i for i, identity in enumerate(scene.founding.identities)}
        parts, coalition = parts_of_roles(first_roles(scene.founding), numbers), Coalition()
        filters = {}
        for name, member in zip(names, (scene.aggregator, scene.proposers[0]), strict=True):
            actor = Actor(founding=scene.founding, member=member, parts=parts, coalition=coalition)
            made = make_filter(name, actor)
            assert made is not None
            filters[member] = made
        return filters

    return cast


SORTED = sorted(BEHAVIOURS)
PAIRS = list(zip(SORTED[::2], SORTED[1::2] + SORTED[: len(SORTED) % 2], strict=True))


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_behaviour_runs_in_any_role_and_blames_nobody_else(pair: tuple[str, str]) -> None:
    """Two of seven are faulty: the round ends, and whoever is blamed is one of them."""
    trial = run_trial(Staging(cast=cast_of(*pair)), "hardened", SEED)
    assert not trial.stalled
    assert trial.broken is None
    assert trial.blamed() <= set(trial.adversaries)


def test_unknown_behaviours_and_options_are_refused() -> None:
    founding = Scene().founding
    numbers = {identity.peer: i for i, identity in enumerate(founding.identities)}
    parts = parts_of_roles(first_roles(founding), numbers)

    def actor(alone: bool = False, **options: object) -> Actor:
        return Actor(
            founding=founding, member=0, parts=parts, coalition=Coalition(), options=options, alone=alone
        )

    assert make_filter(HONEST, actor()) is None
    for name, who, what in [
        ("no-such", actor(), "unknown behaviour"),
        ("poisoner", actor(victim=1), "no option 'victim'"),
        ("box-spoiler", actor(victim="1"), "must be int"),
        ("box-spoiler", actor(victim=99), "no node 99"),
        ("two-faced-voter", actor(misled=9), "must be within"),
        ("garbage-dealer", actor(secret="all"), "mask, self or check"),
        ("accomplice", actor(alone=True), "not in the lab"),
    ]:
        with pytest.raises(ScenarioError, match=what):
            make_filter(name, who)
