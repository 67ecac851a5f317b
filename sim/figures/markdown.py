"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table_row(cells: Sequence[str]) -> str:
    """One line; a bar within a cell is escaped."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column holds names, the others hold numbers."""
    rule = "|---|" + "---:|" * (len(columns) - 1)
    return "\n".join([table_row(columns), rule, *map(table_row, rows)])
