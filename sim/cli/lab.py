"""`flocknode lab`: real node processes on a network of their own, and what breaks it."""

from __future__ import annotations

import click

from flocknode.cli.lazy import LazyGroup

COMMANDS = {
    "run": ("sim.cli.lab_run:run", "Run a scenario with real node processes."),
    "clean": ("sim.cli.lab_run:clean", "Remove what a killed lab has left behind."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Break the network of real node processes.")
def lab() -> None:
    """Run scenarios with real node processes, each in a network namespace of its own (Linux, as root)."""
