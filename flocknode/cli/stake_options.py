"""`--gamma` and `--contract`, of every command that founds a network."""

from __future__ import annotations

import click

gamma_option = click.option(
    "--gamma",
    metavar="TOKENS|adaptive",
    default="8",
    show_default=True,
    help="What a lost vote costs. With adaptive it follows how clear the votes are: docs/PROTOCOL.md "
    "section 6.",
)

contract_option = click.option(
    "--contract",
    type=click.Choice(["interim", "flock"]),
    default="interim",
    show_default=True,
    help="What a refused sum costs: by how much worse it made the model, or FLock's whole gamma, shared by "
    "those who refused. docs/PROTOCOL.md section 6.",
)
