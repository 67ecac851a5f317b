"""What every figure is made of: bands, curves, tables, claims, and the files that they become."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sim.figures.claims import Claim, claim_lines
from sim.figures.plots import Curve, FigureError, Panel, band_over_seeds, draw, line
from sim.figures.report import Chapter, Figure, Table, write_chapter

X = np.arange(5.0)


def panel(title: str = "a panel", seeds: int = 3) -> Panel:
    values = np.random.default_rng(1).random((seeds, 5))
    curves = [
        Curve("ours", X, band_over_seeds(values), style=0),
        Curve("theirs", X, line(X / 10), style=1, foreign=True),
    ]
    return Panel(title, "round", "accuracy", tuple(curves), reference=(0.5, "chance"))


def claim(*, holds: bool) -> Claim:
    return Claim(
        name="grows",
        statement="It grows",
        source="a paper",
        rule="last above first",
        holds=holds,
        found="0.1, then 0.2.",
        numbers={"last": 0.2, "first": 0.1},
    )


def test_a_band_is_students_interval_of_the_mean() -> None:
    band = band_over_seeds(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    # t(0.975, 4) = 2.7764451, standard error sqrt(2.5 / 5).
    assert band.mean[0] == 3.0
    assert band.high[0] - 3.0 == pytest.approx(2.7764451 * np.sqrt(0.5), abs=1e-6)
    assert band.mean[0] - band.low[0] == pytest.approx(band.high[0] - 3.0)


def test_one_seed_has_no_band_and_no_axes_are_refused() -> None:
    band = band_over_seeds(np.ones((1, 3)))
    assert np.array_equal(band.low, band.high)
    with pytest.raises(FigureError, match=r"\[seeds, x\], got \(3,\)"):
        band_over_seeds(np.ones(3))


def test_the_same_data_give_the_same_bytes_of_svg(tmp_path: Path) -> None:
    first = draw([panel(), panel("another")], tmp_path / "a")
    second = draw([panel(), panel("another")], tmp_path / "b")
    assert first[1].read_bytes() == second[1].read_bytes()
    assert first[0].read_bytes() == second[0].read_bytes()


def test_a_curve_that_does_not_fit_its_axis_is_named(tmp_path: Path) -> None:
    bad = Panel("p", "x", "y", (Curve("short", X, line(X[:2]), 0),))
    with pytest.raises(FigureError, match="curve 'short' has 5 places, 2 values"):
        draw([bad], tmp_path / "a")
    with pytest.raises(FigureError, match="no panels"):
        draw([], tmp_path / "a")


def test_a_chapter_becomes_files_that_say_what_holds(tmp_path: Path) -> None:
    figure = Figure(
        name="one",
        title="One figure",
        text="What is shown.",
        panels=(panel(),),
        table=Table(("round", "value"), ((1, 0.123456789012), (2, 0.5))),
        claims=(claim(holds=True), claim(holds=False)),
    )
    chapter = Chapter(name="test", title="A test", command="make it", text="How.", figures=(figure,))
    write_chapter(chapter, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["one.csv", "one.png", "one.svg", "test-claims.json", "test.json", "test.md"]
    with (tmp_path / "out" / "one.csv").open() as file:
        assert list(csv.reader(file)) == [["round", "value"], ["1", "0.1234568"], ["2", "0.5"]]
    told = json.loads((tmp_path / "out" / "test-claims.json").read_text())
    assert [entry["holds"] for entry in told] == [True, False]
    assert list(told[0]["numbers"]) == ["first", "last"]
    text = (tmp_path / "out" / "test.md").read_text()
    assert "**Holds here**: 0.1, then 0.2." in text
    assert "**Does not hold here**" in text
    assert claim_lines(chapter.claims).splitlines()[1] == "grows  does not hold: 0.1, then 0.2."
