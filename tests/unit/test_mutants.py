"""Planted bugs are found by the checks that are there to find them, and leave no trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import sim.invariants.liveness
from protocol import certificates, compose, tally
from protocol.consensus import Agreement
from sim.cli.mutants import mutants as command
from sim.mutants.catalogue import ALL, MUTANTS
from sim.mutants.hunt import Found, hunt, manifest_of
from sim.mutants.planting import Hunter, Mutant, Swap
from sim.mutants.table import to_markdown, to_text

QUICK = (
    "decides-on-prepare",
    "quorum-of-two-thirds",
    "high-qc-not-raised",
    "vote-before-its-record",
    "all-timeouts-kept",
    "invalid-block-raises",
    "merkle-leaf-without-dealer",
    "complaints-ignored",
    "evidence-unproven",
    "weight-unbounded",
    "both-share-kinds",
    "reveal-before-aggregate",
    "commitment-unblinded",
    "bound-not-checked",
    "equation-19-left-out",
    "self-masks-left-in",
    "blob-chunk-unverified",
    "beacon-over-the-outcome",
    "supply-leak-on-rounding",
    "adverts-pinned-late",
    "aggregator-proposes",
    "ties-refused",
    "gamma-by-its-own-vote",
    "tallies-for-ever",
    "cheap-silence",
    "asks-again-at-once",
    "serves-without-bound",
    "pushes-blocks",
    "whole-gamma-for-any-refusal",
    "last-four-not-spared",
    "best-never-moves",
    "openings-unread",
    "foreigners-reported",
)
"""Those that take about a second each; `flocknode sim mutants` runs them all."""


# -- planting --------------------------------------------------------------------------------------


def everything() -> Mapping[tuple[str, str], int]:
    """What stands under each name of the protocol, the simulator and their classes."""
    found: dict[tuple[str, str], int] = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] not in ("protocol", "sim", "flocknode"):
            continue
        for key, value in vars(module).items():
            found[name, key] = id(value)
            if isinstance(value, dict) and not key.startswith("__"):
                found.update({(f"{name}.{key}", repr(k)): id(v) for k, v in value.items() if callable(v)})
            if isinstance(value, type) and value.__module__ == name:
                found.update({(f"{name}.{key}", k): id(v) for k, v in vars(value).items() if callable(v)})
    return found


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_planting_is_undone(mutant: Mutant) -> None:
    before = everything()
    with mutant.plant():
        assert everything() != before
    assert everything() == before


def two_thirds(right: Any) -> Any:
    return lambda n: 2 * n // 3


def made_up(*swaps: Swap) -> Mutant:
    return Mutant(
        name="m", about="a", breaks="b", caught_by="c", swaps=swaps, hunters=(Hunter(manifest="calm"),)
    )


def test_a_function_is_swapped_wherever_it_was_imported() -> None:
    with made_up(Swap(certificates, "quorum", two_thirds)).plant():
        assert certificates.quorum(4) == sim.invariants.liveness.quorum(4) == 2
    assert certificates.quorum(4) == sim.invariants.liveness.quorum(4) == 3


def test_tables_of_functions_are_swapped_too() -> None:
    right = compose._aggregate
    with made_up(Swap(compose, "_aggregate", lambda _: two_thirds)).plant():
        assert right not in compose._BY_PHASE.values()
    assert right in compose._BY_PHASE.values()


def test_results_that_were_remembered_are_forgotten() -> None:
    bitmap, roster = b"\x01", (bytes(32),)
    assert tally.members_of(roster, bitmap) == {bytes(32)}
    with made_up(Swap(certificates, "quorum", two_thirds)).plant():
        assert tally.members_of.cache_info().currsize == 0
        tally.members_of(roster, bitmap)
    assert tally.members_of.cache_info().currsize == 0


def test_planting_is_undone_after_an_error() -> None:
    before = everything()
    with pytest.raises(ZeroDivisionError), MUTANTS["no-lock-across-views"].plant():
        raise ZeroDivisionError
    assert everything() == before


def test_planting_is_undone_where_a_later_swap_cannot_be_made() -> None:
    def refuse(right: Any) -> Any:
        raise LookupError("no such bug")

    swaps = (Swap(certificates, "quorum", two_thirds), Swap(Agreement, "_prepare", refuse))
    before = everything()
    with pytest.raises(LookupError, match="no such bug"), made_up(*swaps).plant():
        raise AssertionError("planted")
    assert everything() == before


# -- the catalogue ---------------------------------------------------------------------------------


def test_every_mutant_names_what_it_breaks_and_has_a_hunter() -> None:
    assert len(ALL) == len(MUTANTS) >= 18
    for mutant in ALL:
        assert all((mutant.about, mutant.breaks, mutant.caught_by, mutant.swaps, mutant.hunters)), mutant.name
        for hunter in mutant.hunters:
            assert manifest_of(hunter).name == hunter.manifest
        for swap in mutant.swaps:
            assert isinstance(swap.owner, ModuleType | type)
            assert swap.name in vars(swap.owner), f"{mutant.name}: {swap.name}"


def test_every_manifest_is_used() -> None:
    used = {hunter.manifest for mutant in ALL for hunter in mutant.hunters}
    kept = {path.stem for path in (Path(sim.__file__).parent / "mutants" / "manifests").glob("*.toml")}
    assert kept == used


# -- the hunt --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_caught_by_the_invariant_that_is_there_to_find_it(name: str) -> None:
    mutant = MUTANTS[name]
    found = hunt(mutant, budget=0)
    assert found.invariant == mutant.caught_by, found.what
    assert found.innocent is None, f"{found.scenario}, seed {found.seed}, fails without the mutant"


def test_a_bug_that_does_nothing_survives() -> None:
    found = hunt(made_up(Swap(certificates, "quorum", lambda right: lambda n: right(n))), budget=0)
    assert (found.invariant, found.tried, found.is_clean) == (None, 1, False)
    assert "SURVIVED" in to_text([found])


# -- the command -----------------------------------------------------------------------------------


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    table, rows = tmp_path / "mutants.md", tmp_path / "mutants.json"
    arguments = [
        "--only",
        "quorum-of-two-thirds",
        "--jobs",
        "1",
        "--json",
        str(rows),
        "--markdown",
        str(table),
    ]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(rows.read_text())
    assert (row["mutant"], row["caught_by"], row["seed"]) == ("quorum-of-two-thirds", "quorums", 1)
    assert row["without_it"] is None
    assert "| quorum-of-two-thirds |" in table.read_text()
    assert "1 of 1 mutants caught" in result.output


def test_the_command_knows_its_mutants() -> None:
    result = CliRunner().invoke(command, ["--only", "sunshine"])
    assert result.exit_code == 2
    assert "--list names them all" in result.output
    assert "dispute-without-deadline" in CliRunner().invoke(command, ["--list"]).output


def test_a_pipe_in_a_sentence_does_not_break_the_table() -> None:
    found = Found(
        mutant="bound-not-checked", invariant=None, scenario="", seed=0, tried=3, innocent=None, what=""
    )
    (line,) = to_markdown(ALL, [found]).splitlines()[2:]
    assert line.count("|") - line.count("\\|") == 6
