"""A node's profile before and after: the files, what is computed from them, and the section about them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import CliRunner, Result

from flocknode.cli.main import main
from sim.bench.profiling.counters import COUNTED
from sim.bench.profiling.profile import Profile, write
from sim.bench.profiling.sampling import Samples
from sim.bench.round import RoundBench
from sim.figures.profile.claims import EACH_PAIR, GOAL, MEDIAN_PAIR, profile_claims
from sim.figures.profile.read import AFTER, BEFORE, ROUNDS, read_profile
from sim.figures.profile.section import PICTURE, TITLE
from sim.figures.results import default_document
from sim.figures.told import ToldError

BENCH = RoundBench(8, 3, 50_000, "hardened", (0.5, 0.7, 0.6), {"share": 0.1}, {"share": 9}, 40, 3)
COUNTS = dict.fromkeys(COUNTED, 4.0)
SLOW = Profile(
    BENCH,
    (0, 1),
    {"CPU ms, user": 150.0, "CPU ms, system": 50.0, "wakeups": 500.0, **COUNTS},
    Samples(
        {"codec": 50, "yamux": 10, "noise": 20, "ledger": 20, "idle": 7},
        {"decode (protocol/codec.py)": 50, "a|b (x.py)": 10},
        {},
    ),
)
FAST = evolve(
    SLOW,
    per_round={"CPU ms, user": 75.0, "CPU ms, system": 25.0, "wakeups": 125.0, **COUNTS},
    samples=Samples({"codec": 5, "yamux": 10, "noise": 3, "ledger": 2, "idle": 7}, {"a|b (x.py)": 10}, {}),
)
PAIRS = [
    {"before_s": 1.0, "after_s": 0.5, "before_slowest_s": 1.5, "after_slowest_s": 0.9, "calibration_ms": 20},
    {"before_s": 0.8, "after_s": 0.9, "before_slowest_s": 1.2, "after_slowest_s": 1.1},
    {"before_s": 1.2, "after_s": 0.6, "before_slowest_s": 1.4, "after_slowest_s": 0.8, "calibration_ms": 40},
]
UNWATCHED: dict[str, Any] = {
    "command": "flocknode bench round --nodes 8 --rounds 8",
    "seeds": "7",
    "machine": "a machine",
    "pairs": PAIRS,
}


def put(out: Path, before: Profile | None = None, after: Profile | None = None, rounds: Any = None) -> None:
    """Into `out`/profile, the profiles as their command writes them."""
    target = out / "profile"
    target.mkdir(parents=True)
    for name, profile in ((BEFORE, before), (AFTER, after)):
        if profile is not None:
            write(profile, target / "made")
            (target / "made" / "profile.json").rename(target / name)
    if rounds is not None:
        (target / ROUNDS).write_text(json.dumps(rounds))


def collect(out: Path) -> Result:
    return CliRunner().invoke(main, ["sim", "figures", "all", "--out", str(out), "--collect"])


def document(out: Path) -> str:
    result = collect(out)
    assert result.exit_code == 0, result.output
    return default_document(out).read_text()


def verdicts(out: Path) -> dict[str, bool]:
    told = read_profile(out)
    assert told is not None
    return {claim.statement: claim.holds for claim in profile_claims(told)}


def test_the_section_compares_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    out = tmp_path / "results"
    put(out, SLOW, FAST, UNWATCHED)
    text = document(out)
    section = text.split(f"## {TITLE}\n")[1]
    assert "| CPU ms, both | 200.0 | 100.0 | -50.0 % |" in section
    assert "| wakeups | 500.0 | 125.0 | -75.0 % |" in section
    assert "| transactions | 4.0 | 4.0 | +0.0 % |" in section
    assert "| codec | 50.0 % | 25.0 % | 100.0 | 25.0 | -75.0 % |" in section
    assert "| yamux | 10.0 % | 50.0 % | 20.0 | 50.0 | +150.0 % |" in section
    largest = (
        "codec (50.0 %, 100.0 ms, after 25.0 ms); noise (20.0 %, 40.0 ms, after 15.0 ms); ledger (20.0 %"
    )
    assert f"the 3 largest parts were: {largest}" in section
    assert "| `decode (protocol/codec.py)` | 50.0 % | – |" in section
    assert "| `a\\|b (x.py)` | 10.0 % | 50.0 % |" in section
    assert "| 2 | 0.800 | 0.900 | 1.125 | 1.200 | 1.100 | – |" in section
    assert "| median | 1.000 | 0.600 | 0.500 | 1.400 | 0.900 | 30.0 |" in section
    assert "Seeds: 7." in section
    assert f"{TITLE}: a machine." in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert {f"results/profile/{PICTURE}.png", f"results/profile/{BEFORE}"} <= set(links)
    for link in links:
        assert (default_document(out).parent / link).is_file(), link
    assert "Not there" not in section
    assert text == document(out)


def test_what_is_claimed_is_computed_from_the_pairs(tmp_path: Path) -> None:
    out = tmp_path / "results"
    put(out, SLOW, FAST, UNWATCHED)
    assert verdicts(out) == {GOAL: True, EACH_PAIR: False, MEDIAN_PAIR: True}
    text = document(out)
    goals = text.split("## Goals and budgets of this project")[1].split(f"## {TITLE}")[0]
    assert re.search(rf"\| {re.escape(GOAL)} \|.*0\.600 s, the median of 3 pairs.*\| yes \|", goals)
    assert "shorter in 2 of 3 pairs; after / before from 0.500 to 1.125." in text
    worse = [{**pair, "after_s": 1.3} for pair in PAIRS]
    (out / "profile" / ROUNDS).write_text(json.dumps({**UNWATCHED, "pairs": worse}))
    assert verdicts(out) == {GOAL: False, EACH_PAIR: False, MEDIAN_PAIR: False}
    (out / "profile" / ROUNDS).write_text(json.dumps({**UNWATCHED, "pairs": PAIRS[:1]}))
    assert verdicts(out) == {GOAL: True, EACH_PAIR: True, MEDIAN_PAIR: True}


def test_rounds_of_other_networks_do_not_decide_the_goal(tmp_path: Path) -> None:
    out = tmp_path / "results"
    put(out, rounds={**UNWATCHED, "command": "flocknode bench round --nodes 80"})
    assert verdicts(out).keys() == {EACH_PAIR, MEDIAN_PAIR}
    assert f'**Not decided**: "{GOAL}"' in document(out)


@pytest.mark.parametrize(("name", "other"), [(BEFORE, AFTER), (AFTER, BEFORE)])
def test_one_profile_alone_is_told_and_the_other_named(tmp_path: Path, name: str, other: str) -> None:
    out = tmp_path / "results"
    put(out, before=SLOW if name == BEFORE else None, after=SLOW if name == AFTER else None)
    text = document(out)
    assert f"**Not there: {other}.**" in text
    assert f"**Not there: {ROUNDS}.**" in text
    assert "| wakeups | 500.0 | – |" in text
    assert "| codec | 50.0 % | 100.0 | – |" in text
    assert f"[{name}]" in text
    assert f"[{other}]" not in text
    assert (out / "profile" / f"{PICTURE}.svg").is_file()


def test_profiles_of_different_commands_are_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "results"
    put(out, SLOW, evolve(FAST, bench=evolve(BENCH, dimension=9)))
    assert "**The two profiles were made by different commands**" in document(out)


def test_nothing_there_is_no_section(tmp_path: Path) -> None:
    assert read_profile(tmp_path) is None
    assert "nothing is finished there" in collect(tmp_path).output


PAIR = PAIRS[0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (BEFORE, {"command": 3}, "command: text is needed, not 3"),
        (BEFORE, {"median_round_seconds": "fast"}, "median_round_seconds: a number of at least 0 is needed"),
        (AFTER, {"nodes": 2.5}, "nodes: a whole number is needed"),
        (AFTER, {"samples": {}}, "samples.busy: missing"),
        (AFTER, {"samples": 5}, "samples: an object is needed, not 5"),
        (AFTER, {"per_node_and_round": {"wakeups": 1}}, "per_node_and_round.CPU ms, user: missing"),
        (AFTER, {"share_by_part": {"codec": True}}, "share_by_part.codec: a number"),
        (AFTER, {"sampled_nodes": [0, "x"]}, r"sampled_nodes\[1\]: a number"),
        (ROUNDS, {"pairs": {}}, "pairs: a list is needed"),
        (ROUNDS, {"pairs": []}, "pairs: at least one pair is needed"),
        (ROUNDS, {"pairs": [PAIR, {**PAIR, "before_s": 0}]}, r"pairs\[1\]\.before_s: a number above 0"),
        (ROUNDS, {"pairs": [{"before_s": 1}]}, r"pairs\[0\]\.after_s: missing"),
        (ROUNDS, {"pairs": [{**PAIR, "calibration": 2}]}, r"pairs\[0\]\.calibration: unknown"),
        (ROUNDS, {"pairs": [{**PAIR, "after_s": float("nan")}]}, r"pairs\[0\]\.after_s: a number"),
        (ROUNDS, {"seed": "1"}, "seed: unknown"),
    ],
)
def test_what_does_not_fit_is_named_by_file_and_key(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    put(tmp_path, SLOW, FAST, UNWATCHED)
    path = tmp_path / "profile" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ToldError, match=rf"{re.escape(name)}: {message}"):
        read_profile(tmp_path)


def test_files_that_are_no_objects_stop_the_command_with_their_names(tmp_path: Path) -> None:
    put(tmp_path, SLOW, FAST, [])
    result = collect(tmp_path)
    assert (result.exit_code, f"{ROUNDS}: an object is needed" in result.output) == (1, True)
    (tmp_path / "profile" / BEFORE).write_text("{")
    assert f"{BEFORE}: not JSON" in collect(tmp_path).output


def test_the_help_says_how_before_and_after_are_made() -> None:
    told = CliRunner().invoke(main, ["bench", "profile", "--help"]).output
    for name in (BEFORE, AFTER, ROUNDS):
        assert f"profile/{name}" in told
