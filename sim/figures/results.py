"""docs/RESULTS.md: every claim, every figure and every goal, out of what stands in one directory."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from sim.bench.peers import render
from sim.bench.peers.runs import LOST, SKIPPED
from sim.bench.peers.summary import SOURCE, undecided
from sim.figures.claims import Claim, claim_list
from sim.figures.flock import sources
from sim.figures.markdown import table_row
from sim.figures.profile import section
from sim.figures.profile.claims import BUDGET, profile_claims
from sim.figures.profile.picture import draw_parts
from sim.figures.profile.read import PROFILE, ToldProfile, read_profile
from sim.figures.told import (
    PEERS,
    ToldChapter,
    ToldComparison,
    ToldFigure,
    read_chapter,
    read_comparison,
)
from sim.figures.vcdfl import claims as vcdfl

CHAPTERS = ("flock", "vcdfl")
PAPERS = (sources.FLOCK, vcdfl.PAPER)
PLAINLY_OURS = (sources.OURS, SOURCE)
GOALS = (sources.FLOCK_REMARK, vcdfl.OURS, BUDGET)
"""Sources of claims that are goals of this project; those of the comparison with peers all are."""
QUICK = "--quick"
QUICK_NOTE = "**Made with --quick, at small sizes: nothing to quote.**"
INSTALL_PEERS = "pip install 'flocknode[bench]'"
NOT_MADE = "Not made yet. This makes it:"


@frozen(kw_only=True)
class Told:
    """All that a directory holds; None for what is not there."""

    chapters: dict[str, ToldChapter | None]
    peers: ToldComparison | None
    profile: ToldProfile | None

    @property
    def empty(self) -> bool:
        return self.peers is None and self.profile is None and not any(self.chapters.values())

    @property
    def by_figure(self) -> tuple[tuple[str, Claim], ...]:
        """Every claim after the title of what it is about, in the order of the document."""
        figures = [figure for chapter in self.chapters.values() if chapter for figure in chapter.figures]
        parts = [(figure.title, figure.claims) for figure in figures]
        parts += [(render.TITLE, self.peers.goals)] if self.peers else []
        parts += [(section.TITLE, profile_claims(self.profile))] if self.profile else []
        return tuple((title, claim) for title, claims in parts for claim in claims)

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(claim for _, claim in self.by_figure)

    @property
    def goals(self) -> tuple[Claim, ...]:
        """Claims that are goals of this project."""
        others = tuple(claim for claim in self.claims if claim.source in GOALS)
        return (*others, *(self.peers.goals if self.peers else ()))


def read_all(out: Path) -> Told:
    """What `out` holds. ToldError for damaged files, OSError."""
    chapters = {name: read_chapter(out, name) for name in CHAPTERS}
    return Told(chapters=chapters, peers=read_comparison(out), profile=read_profile(out))


def default_document(out: Path) -> Path:
    """Beside the directory: docs/RESULTS.md for docs/results."""
    return Path(os.path.normpath(out)).parent / "RESULTS.md"


def write_results(told: Told, out: Path, document: Path) -> None:
    """Write `document`, its links leading into `out`, and the picture of a profile. FigureError, OSError."""
    if told.profile is not None and told.profile.by_file:
        draw_parts(told.profile, out / PROFILE / section.PICTURE)
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(results_markdown(told, out, document))


def results_markdown(told: Told, out: Path, document: Path) -> str:
    """The whole document; what is not there yet is named with the command that makes it."""
    at = Path(os.path.relpath(out, document.parent)).as_posix() + "/"
    command = shlex.join(["flocknode", "sim", "figures", "all", "--out", str(out)])
    holding = sum(claim.holds for claim in told.claims)
    parts = [
        "# Results",
        f"Written by `{command}` out of what the runs gave; nothing here is written by hand. "
        "Each part has its command and its seeds; with the same seeds all but times repeat exactly. "
        f"Of {len(told.claims)} claims, the papers' and ours, {holding} hold here and "
        f"{len(told.claims) - holding} do not.",
        "## Machines",
        _machines(told),
        "## All claims",
        claim_table(told.by_figure),
        "## Goals and budgets of this project",
        *_goals(told),
    ]
    for name, chapter in told.chapters.items():
        parts += _chapter(name, chapter, out, at)
    parts += _peers(told.peers, out, at)
    parts += section.markdown(told.profile, at) if told.profile else []
    return "\n\n".join(parts) + "\n"


def whose(claim: Claim) -> str:
    """A paper's claim or this project's, and where it stands."""
    if claim.source.startswith(PAPERS):
        return f"the paper: {claim.source}"
    if claim.source in PLAINLY_OURS:
        return "ours"
    return claim.source if claim.source.startswith("ours") else f"ours: {claim.source}"


def claim_table(claims: Sequence[tuple[str, Claim]]) -> str:
    """One line a claim: what it is about, whose it is, what is claimed and measured, and the verdict."""
    lines = ["| about | claimed by | claim | measured here | verdict |", "|---|---|---|---|---|"]
    lines += [
        table_row([title, whose(claim), claim.statement, claim.found, _verdict(claim)])
        for title, claim in claims
    ]
    return "\n".join(lines)


def _verdict(claim: Claim) -> str:
    return claim.verdict if claim.holds else f"**{claim.verdict}**"


def _machines(told: Told) -> str:
    by_part = {chapter.title: chapter.machine for chapter in told.chapters.values() if chapter}
    by_part |= {render.TITLE: told.peers.machine} if told.peers else {}
    by_part |= {section.TITLE: told.profile.machine} if told.profile else {}
    machines = dict.fromkeys(by_part.values())
    return "\n".join(
        f"- {', '.join(part for part, other in by_part.items() if other == machine)}: {machine}."
        for machine in machines
    )


# -- goals -----------------------------------------------------------------------------------------


def _goals(told: Told) -> list[str]:
    missed = [goal for goal in told.goals if not goal.holds]
    lines = ["| goal | how it is decided | measured here | met |", "|---|---|---|---|"]
    for goal in told.goals:
        met = "yes" if goal.holds else "**no**"
        lines.append(table_row([goal.statement, goal.rule, goal.found, met]))
    open_ = undecided(told.peers.goals if told.peers else ())
    lines += [table_row([name, "", "not measured", "**open**"]) for name in open_]
    text = f"{len(told.goals) - len(missed)} goals are met, {len(missed)} are missed"
    return [f"{text}, {len(open_)} were not measured.", "\n".join(lines)]


# -- chapters --------------------------------------------------------------------------------------


def _chapter(name: str, chapter: ToldChapter | None, out: Path, at: str) -> list[str]:
    if chapter is None:
        command = shlex.join(["flocknode", "sim", "figures", name, "--out", str(out)])
        return [f"## {name}", NOT_MADE, f"    {command}"]
    parts = [f"## {chapter.title}", f"    {chapter.command}", *_quick(chapter.command), chapter.text]
    for figure in chapter.figures:
        parts += _figure(figure, chapter, at)
    return parts


def _figure(figure: ToldFigure, chapter: ToldChapter, at: str) -> list[str]:
    name = f"{at}{figure.name}"
    return [
        f"### {figure.title}",
        f"[![{figure.title}]({name}.png)]({name}.svg)",
        f"{figure.text} {summary(figure.claims)}",
        *([claim_list(figure.claims)] if figure.claims else []),
        f"{_made(chapter.command, figure.seeds)} Data: [{figure.name}.csv]({name}.csv).",
    ]


def summary(claims: Sequence[Claim]) -> str:
    """How many hold here, and which do not."""
    failing = [claim for claim in claims if not claim.holds]
    if not claims:
        return "Nothing is claimed of it."
    if not failing:
        return (
            "What is claimed of it holds here."
            if len(claims) == 1
            else f"All {len(claims)} claims hold here."
        )
    listed = "; ".join(f'"{claim.statement}" ({claim.found.rstrip(".")})' for claim in failing)
    return f"{len(claims) - len(failing)} of {len(claims)} claims hold here. What does not hold: {listed}."


def _made(command: str, seeds: str) -> str:
    return f"Command: `{command}`. Seeds: {seeds}."


def _quick(command: str) -> list[str]:
    return [QUICK_NOTE] if QUICK in shlex.split(command) else []


# -- peers -----------------------------------------------------------------------------------------


def _peers(peers: ToldComparison | None, out: Path, at: str) -> list[str]:
    if peers is None:
        command = shlex.join(["flocknode", "bench", "peers", "--out", str(out / PEERS)])
        left_out = (
            "Left out: the comparison was not made, or the extra that it needs is not installed. "
            "These make it; `figures all` then takes it from there:"
        )
        return [f"## {render.TITLE}", left_out, f"    {INSTALL_PEERS}\n    {command}"]
    lost, skipped = (sum(run.outcome == what for run in peers.runs) for what in (LOST, SKIPPED))
    sections = render.sections(
        peers.clients,
        peers.rounds,
        peers.goals,
        peers.runs,
        heading="###",
        at=f"{at}{PEERS}/",
        made=_made(peers.command, peers.seeds),
    )
    return [
        f"## {render.TITLE}",
        f"    {peers.command}",
        *_quick(peers.command),
        f"{render.how(peers.machine)} Of {len(peers.runs)} runs {lost} were lost and {skipped} could not be "
        f"made; all are listed. {summary(peers.goals)}",
        *sections,
    ]
