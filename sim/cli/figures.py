"""`flocknode sim figures`: the papers' experiments, run again."""

from __future__ import annotations

import click

from flocknode.cli.lazy import LazyGroup

COMMANDS = {
    "all": ("sim.cli.figures_all:everything", "All of them, the peers too, and RESULTS.md."),
    "flock": ("sim.cli.figures_flock:flock", "FLock: poisoning, votes and stakes, with real training."),
    "vcdfl": ("sim.cli.figures_vcdfl:vcdfl", "VCD-FL: what verification costs, what compression saves."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Run the papers' experiments again and draw them.")
def figures() -> None:
    """Run the papers' experiments again, draw them, and say whether each claim holds here.

    Every figure is written as PNG, SVG and the CSV behind it; the text beside them is computed from the same
    data. Needs the extra `figures`: pip install 'flocknode[figures]'.
    """
