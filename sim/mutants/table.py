"""What found which planted bug: as a table for the screen, as JSON, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sim.mutants.hunt import DRAWN, Found
from sim.mutants.planting import Mutant

COLUMNS = ("mutant", "caught by", "scenario", "seed", "histories", "without it")
SURVIVED = "SURVIVED"

Cells = tuple[str, ...]


def cells_of(found: Found) -> Cells:
    """In the order of `COLUMNS`."""
    return (
        found.mutant,
        found.invariant or SURVIVED,
        found.scenario or "-",
        str(found.seed) if found.invariant else "-",
        str(found.tried),
        "-" if found.invariant is None else found.innocent or "passes",
    )


def to_text(results: Sequence[Found]) -> str:
    """The table for the screen."""
    rows = [COLUMNS, *(cells_of(found) for found in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def to_json(mutants: Sequence[Mutant], results: Sequence[Found]) -> str:
    """A list with an object for each mutant: what it breaks, and what found it with which seed."""
    about = {mutant.name: mutant for mutant in mutants}
    rows = [
        {
            "mutant": found.mutant,
            "about": about[found.mutant].about,
            "breaks": about[found.mutant].breaks,
            "caught_by": found.invariant,
            "scenario": found.scenario or None,
            "seed": found.seed if found.invariant else None,
            "histories": found.tried,
            "without_it": found.innocent,
        }
        for found in results
    ]
    return json.dumps(rows, indent=2) + "\n"


def to_markdown(mutants: Sequence[Mutant], results: Sequence[Found]) -> str:
    """One table, with what each bug does and which sentence of docs/PROTOCOL.md that is against."""
    about = {mutant.name: mutant for mutant in mutants}
    lines = ["| mutant | what it does | what it breaks | caught by | with |", "|---|---|---|---|---|"]
    for found in results:
        mutant = about[found.mutant]
        text = f"{mutant.about} | {_escaped(mutant.breaks)}"
        lines.append(f"| {found.mutant} | {text} | {found.invariant or SURVIVED} | {_with(found)} |")
    return "\n".join(lines) + "\n"


def _with(found: Found) -> str:
    if found.invariant is None:
        return f"{found.tried} histories"
    return f"{found.scenario}, seed {found.seed}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def replay_of(found: Found) -> str:
    """How to see the scenario of a violation again, without the bug."""
    if found.scenario == DRAWN:
        return f"the scenario that is drawn from seed {found.seed}"
    return f"flocknode sim run sim/mutants/manifests/{found.scenario}.toml --seed {found.seed}"
