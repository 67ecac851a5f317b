"""Every experiment, small, by its command: the files, the claims in them, and the document about all."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_figures
from attrs import frozen
from click.testing import CliRunner, Result

from flocknode.cli.main import main
from sim.bench.peers.runs import DONE, LOST
from sim.bench.peers.summary import time_goal
from sim.figures.flock import plan as flock_plan
from sim.figures.flock.chapter import RUNS as FLOCK_RUNS
from sim.figures.flock.chapter import count_runs
from sim.figures.results import claim_table, default_document, read_all, summary
from sim.figures.vcdfl import plan as vcdfl_plan
from sim.figures.vcdfl.cost import PROFILES
from sim.figures.vcdfl.run import RUNS as VCDFL_RUNS

PICTURE = re.compile(r"!\[([^\]]+)\]\(([^)]+)\)")
FLOCK_FIGURES = (
    "accuracy-lending-club",
    "tokens-malicious-lending-club",
    "tokens-honest-lending-club",
    "survival-malicious",
    "survival-honest",
    "who-pays",
    "adaptive-gamma",
    "contract-alone",
)
VCDFL_FIGURES = ("dimension", "clients", "dropouts", "compression", "growth")


@frozen
class Made:
    """What the commands left: the directory, the document, and what they said."""

    out: Path
    document: Path
    said: str

    @property
    def text(self) -> str:
        return self.document.read_text()

    def stored(self) -> dict[Path, int]:
        """Files of single runs, and when each was written."""
        directories = (self.out / FLOCK_RUNS, self.out / VCDFL_RUNS, self.out / "peers" / "runs")
        return {path: path.stat().st_mtime_ns for each in directories for path in each.iterdir()}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flock_plan, "QUICK", small_figures.FLOCK)
        patch.setattr(vcdfl_plan, "QUICK", small_figures.VCDFL)
        patch.setattr("sim.bench.peers.plan.QUICK", small_figures.PEERS)
        yield


@pytest.fixture(scope="module")
def made(small: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("docs") / "results"
    compared = call("bench", "peers", "--out", out / "peers", "--quick", "--only", "flocknode")
    assert compared.exit_code == 0, compared.output
    result = call("sim", "figures", "all", "--out", out, "--quick", "--jobs", 1)
    assert result.exit_code == 0, result.output
    return Made(out, default_document(out), result.output)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """Its directory without the single runs."""
    runs = shutil.ignore_patterns("*-runs", "runs", "work", "path")
    shutil.copytree(made.out, tmp_path / "results", ignore=runs)
    return tmp_path / "results"


def told_claims(out: Path) -> list[dict[str, object]]:
    chapters = [json.loads((out / f"{name}-claims.json").read_text()) for name in ("flock", "vcdfl")]
    return [*chapters[0], *chapters[1], *json.loads((out / "peers" / "results.json").read_text())["goals"]]


def sections(text: str, heading: str) -> dict[str, str]:
    """By title."""
    parts = re.split(rf"^{heading} ", text, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0]: re.split(r"^##? ", part, flags=re.MULTILINE)[0] for part in parts}


def test_every_figure_has_its_files(made: Made) -> None:
    names = [*(f"flock-{name}" for name in FLOCK_FIGURES), *(f"vcdfl-{name}" for name in VCDFL_FIGURES)]
    for name in names:
        for suffix in ("png", "svg", "csv"):
            assert (made.out / f"{name}.{suffix}").stat().st_size > 50
    told = [picture for _, picture in PICTURE.findall(made.text)]
    assert told == [f"results/{name}.png" for name in names] + [
        f"results/peers/peers-{name}.png" for name in ("client", "round", "bytes")
    ]


def test_the_files_are_what_was_run(made: Made) -> None:
    told = {str(claim["name"]): claim["holds"] for claim in told_claims(made.out)}
    assert told["bytes-topk_local-100"] is False  # masks undo the paper's compression
    assert told["bytes-shared_support-100"] is True
    with (made.out / "vcdfl-dimension.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["profile"] for row in rows} == set(PROFILES)
    assert {int(row["weights"]) for row in rows} == set(small_figures.VCDFL.dimensions)
    assert f"flocknode sim figures flock --out {made.out} --quick" in (made.out / "flock.md").read_text()
    written = json.loads((made.out / "peers" / "results.json").read_text())
    outcomes = {run["system"]: run["outcome"] for run in written["runs"]}
    assert outcomes == {"flocknode-client": DONE, "flocknode": LOST, "flocknode-untrained": LOST}
    assert "not done after 0 s" in (made.out / "peers" / "results.md").read_text()


def test_every_picture_exists_with_its_paragraph_command_and_seeds(made: Made) -> None:
    directory = made.document.parent
    for link in re.findall(r"\]\(([^)]+)\)", made.text):
        assert (directory / link).is_file(), link
    figures = {title: body for title, body in sections(made.text, "###").items() if PICTURE.search(body)}
    assert len(figures) == len(FLOCK_FIGURES) + len(VCDFL_FIGURES) + 2  # the peers' have two sections
    for title, body in figures.items():
        pictures = len(PICTURE.findall(body))
        commands = re.findall(r"^Command: `flocknode [^`]+--quick`\. Seeds: \S", body, flags=re.MULTILINE)
        assert len(commands) == pictures, title
        paragraphs = [part for part in body.split("\n\n")[1:] if part[:1].isalnum()]
        assert len(paragraphs) > pictures, title


def test_every_claim_stands_there_with_its_verdict(made: Made) -> None:
    claims = told_claims(made.out)
    table = sections(made.text, "##")["All claims"]
    assert table.count("\n| ") == 1 + len(claims)
    for claim in claims:
        verdict = "holds" if claim["holds"] else "**does not hold**"
        assert f"| {claim['statement']} | {claim['found']} | {verdict} |" in table
    holding = sum(bool(claim["holds"]) for claim in claims)
    assert f"{holding} hold here and {len(claims) - holding} do not" in made.text
    assert f"{holding} of {len(claims)} claims hold here: {made.document}" in made.said


def test_goals_missed_and_not_measured_are_named(made: Made, copied: Path) -> None:
    goals = sections(made.text, "##")["Goals and budgets of this project"]
    assert f"| {time_goal(100, 1_000_000)} |  | not measured | **open** |" in goals
    assert "The adaptive gamma keeps more than 95 % of the honest clients" in goals
    path = copied / "vcdfl-claims.json"
    claims = json.loads(path.read_text())
    goal = next(claim for claim in claims if claim["name"].startswith("client-n-log-n"))
    path.write_text(json.dumps([{**claim, "holds": claim is not goal} for claim in claims]))
    assert call("sim", "figures", "all", "--out", copied, "--collect").exit_code == 0
    text = default_document(copied).read_text()
    goals = sections(text, "##")["Goals and budgets of this project"]
    assert f"| {goal['statement']} | {goal['rule']} | {goal['found']} | **no** |" in goals
    past = sections(text, "###")["Past the paper's range"]
    assert f'What does not hold: "{goal["statement"]}"' in past


def test_small_sizes_lost_runs_and_machines_are_told(made: Made) -> None:
    assert made.text.count("**Made with --quick, at small sizes: nothing to quote.**") == 3
    assert "| flocknode | 1 | lost: not done after 0 s |" in made.text
    machines = sections(made.text, "##")["Machines"]
    assert re.search(r": .+, \d+ cores, .*Python 3\.\d+\.\d+, torch \d.*, numpy \d", machines)
    assert machines.count("\n- ") == 1  # all were made on this one


def test_what_is_done_is_not_done_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made.stored()
    assert len(list((made.out / FLOCK_RUNS).iterdir())) == count_runs(small_figures.FLOCK) == 12
    gone = next(path for path in before if path.parent.name == FLOCK_RUNS)
    gone.unlink()
    text = made.text
    monkeypatch.setattr("sim.figures.report.draw", lambda panels, stem, columns: None)
    result = call("sim", "figures", "all", "--out", made.out, "--quick", "--jobs", 1)
    assert result.exit_code == 0, result.output
    after = made.stored()
    assert after.keys() == before.keys()
    assert {path for path in after if after[path] != before[path]} == {gone}
    assert made.text == text
    compared = call("bench", "peers", "--out", made.out / "peers", "--quick", "--only", "flocknode")
    assert compared.exit_code == 0
    assert made.stored() == after


def test_parts_that_are_missing_are_named_with_what_makes_them(copied: Path, tmp_path: Path) -> None:
    for path in copied.glob("vcdfl*"):
        path.unlink()
    shutil.rmtree(copied / "peers")
    document = tmp_path / "elsewhere" / "told.md"
    result = call("sim", "figures", "all", "--out", copied, "--collect", "--document", document)
    assert result.exit_code == 0, result.output
    text = document.read_text()
    assert f"    flocknode sim figures vcdfl --out {copied}" in text
    assert "pip install 'flocknode[bench]'" in text
    assert f"    flocknode bench peers --out {copied / 'peers'}" in text
    assert "(../results/flock-who-pays.png)" in text
    empty = call("sim", "figures", "all", "--out", tmp_path / "empty", "--collect")
    assert empty.exit_code == 1
    assert "nothing is finished there" in empty.output


def test_a_stopped_command_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.figures.flock.chapter.make_chapter", stop)
    result = call("sim", "figures", "all", "--out", tmp_path, "--quick", "--jobs", 1)
    assert result.exit_code == 1
    assert "stopped; the same command goes on from here" in result.output


def test_files_that_do_not_fit_are_named(copied: Path) -> None:
    (copied / "flock-claims.json").write_text("[]")
    result = call("sim", "figures", "all", "--out", copied, "--collect")
    assert result.exit_code == 1
    assert "flock.json: does not fit flock-claims.json" in result.output
    (copied / "flock-claims.json").write_text("[")
    assert "flock-claims.json: not JSON" in call("sim", "figures", "all", "--out", copied, "--collect").output


def test_a_summary_counts(made: Made) -> None:
    claims = read_all(made.out).claims
    holding, failing = ([claim for claim in claims if claim.holds is holds][:2] for holds in (True, False))
    assert summary(()) == "Nothing is claimed of it."
    assert summary(holding) == "All 2 claims hold here."
    assert summary([*holding, failing[0]]).startswith("2 of 3 claims hold here. What does not hold: ")
    table = claim_table([("a figure", claim) for claim in failing])
    assert table.count("**does not hold** |") == 2
    assert table.count("| a figure |") == 2
