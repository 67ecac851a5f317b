"""`flocknode sim`: many engines under one virtual clock."""

from __future__ import annotations

import click

from flocknode.cli.lazy import LazyGroup

COMMANDS = {
    "run": ("sim.cli.run:run", "Run a scenario in virtual time."),
    "fuzz": ("sim.cli.fuzz:fuzz", "Run scenarios drawn at random; shrink and report what fails."),
    "figures": ("sim.cli.figures:figures", "Run the papers' experiments again and draw them."),
    "honest": ("sim.cli.honest:honest", "Long runs of honest nodes: does anybody pay for honesty?"),
    "attacks": ("sim.cli.attacks:attacks", "Run every attack and say what becomes of it."),
    "mutants": ("sim.cli.mutants:mutants", "Plant bugs and say which check finds each."),
    "wire": ("sim.cli.wire:wire", "Fuzz what a node reads and what its engine hears."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Simulate networks that fail, lie and collude.")
def sim() -> None:
    """Simulate whole networks: real engines, virtual time, one seed.

    A run is a function of scenario and seed: the same two give the same history, byte for byte, so whatever
    goes wrong can be replayed.
    """
