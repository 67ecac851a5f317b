"""How often Python looks for garbage while histories run.

Engines make few cycles and keep much, so that the usual haste finds little and costs one part in twelve. Most
of what is young lives for a round: to look once in several rounds finds the same, and looks through it once.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 1_000_000, 20, 20
"""Of `gc.set_threshold`."""


def collect_seldom() -> None:
    """For a process that does nothing but run histories. What is loaded by now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
