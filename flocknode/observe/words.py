"""Lists in words, for lines that people read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MOST_NAMED: Final = 8
"""How many things a line names one by one."""


def listed(words: Iterable[str]) -> str:
    """Return a list in words, cut to what a person reads."""
    all_ = list(words)
    more = f" and {len(all_) - MOST_NAMED} more" if len(all_) > MOST_NAMED else ""
    return ", ".join(all_[:MOST_NAMED]) + more
