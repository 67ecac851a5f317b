"""`--gamma`, of every command that founds a network."""

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
