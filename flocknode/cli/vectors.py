"""`flocknode vectors`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Write test vectors for other implementations.")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def vectors(directory: Path) -> None:
    """Write test vectors as JSON files into DIR, so that another implementation can check itself.

    They cover the field's pseudo-random generator, encoding, interpolation, both commitments, Shamir shares,
    sortition, block hashes and one whole round. They are the same on every machine.
    """
    from flocknode.vectors import write_vectors

    for path in write_vectors(directory):
        click.echo(path)
