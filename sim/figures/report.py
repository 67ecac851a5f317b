"""A figure as files: PNG, SVG, the CSV behind it, and what it says about its claims."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from sim.figures.claims import Claim, claim_list
from sim.figures.plots import Panel, draw

Cell = str | int | float


@frozen(eq=False)
class Table:
    """The data behind a figure. Every row has a cell for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def write_csv(self, path: Path) -> None:
        """Floats with 7 significant digits, the same bytes for the same data."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([f"{x:.7g}" if isinstance(x, float) else x for x in row] for row in self.rows)


@frozen(eq=False, kw_only=True)
class Figure:
    """`name`: of the files. `text`: one paragraph, what is shown and how it came about.

    `seeds`: those of its runs, where they are not the chapter's.
    """

    name: str
    title: str
    text: str
    panels: tuple[Panel, ...]
    table: Table
    claims: tuple[Claim, ...]
    columns: int = 2
    seeds: str = ""


@frozen(eq=False, kw_only=True)
class Chapter:
    """Figures of one experiment. `command`: what makes them again. `text`: how it was done.

    `seeds`: of the runs, in words. `machine`: where they were made.
    """

    name: str
    title: str
    command: str
    text: str
    figures: tuple[Figure, ...]
    seeds: str = ""
    machine: str = ""

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(claim for figure in self.figures for claim in figure.claims)


def write_chapter(chapter: Chapter, out: Path) -> None:
    """Into `out`: three files a figure, <chapter>.md, <chapter>-claims.json, and <chapter>.json for `all`.

    FigureError from drawing, OSError from writing.
    """
    out.mkdir(parents=True, exist_ok=True)
    for figure in chapter.figures:
        draw(figure.panels, out / figure.name, figure.columns)
        figure.table.write_csv(out / f"{figure.name}.csv")
    claims = [claim.to_json() for claim in chapter.claims]
    (out / f"{chapter.name}-claims.json").write_text(json.dumps(claims, indent=2) + "\n")
    (out / f"{chapter.name}.md").write_text(chapter_markdown(chapter))
    (out / f"{chapter.name}.json").write_text(json.dumps(_record(chapter), indent=2) + "\n")


def _record(chapter: Chapter) -> dict[str, Any]:
    """What `sim.figures.told` reads back; claims by name, in full they stand in <chapter>-claims.json."""
    return {
        "title": chapter.title,
        "command": chapter.command,
        "text": chapter.text,
        "machine": chapter.machine,
        "figures": [
            {
                "name": figure.name,
                "title": figure.title,
                "text": figure.text,
                "seeds": figure.seeds or chapter.seeds,
                "claims": [claim.name for claim in figure.claims],
            }
            for figure in chapter.figures
        ],
    }


def chapter_markdown(chapter: Chapter) -> str:
    """The chapter as Markdown, its pictures by their file names."""
    parts = [f"# {chapter.title}", f"    {chapter.command}", chapter.text]
    for figure in chapter.figures:
        parts += _figure_markdown(figure)
    return "\n\n".join(parts) + "\n"


def _figure_markdown(figure: Figure) -> Sequence[str]:
    return [
        f"## {figure.title}",
        f"![{figure.title}]({figure.name}.svg)",
        f"{figure.text} Data: [{figure.name}.csv]({figure.name}.csv).",
        *([claim_list(figure.claims)] if figure.claims else []),
    ]
