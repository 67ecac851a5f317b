"""`flocknode sim mutants`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Plant bugs and say which check finds each.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this mutant; may be given again.")
@click.option(
    "--budget",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Histories drawn at random for a mutant that its own scenarios do not catch.",
)
@click.option("--jobs", type=click.IntRange(1, 64), help="Processes.  [default: one for each processor]")
@click.option("--json", "json_file", type=FILE, help="Write the results to this file too.")
@click.option("--markdown", "markdown_file", type=FILE, help="Write the table to this file as Markdown.")
@click.option("--list", "listed", is_flag=True, help="Name the mutants and what they do, and plant none.")
def mutants(
    only: tuple[str, ...],
    budget: int,
    jobs: int | None,
    json_file: Path | None,
    markdown_file: Path | None,
    listed: bool,
) -> None:
    """Plant one bug at a time in the protocol, and run scenarios until an invariant is violated.

    Each mutant swaps a function of the protocol for a wrong one, in memory. Scenarios that are aimed at it
    run first, then some that are drawn at random. Whatever catches it is run again without the mutant, and
    must pass. A mutant that survives is a missing check. Exit code 1 if one does, or if a scenario fails
    without its mutant.

    \b
    Examples:
      flocknode sim mutants
      flocknode sim mutants --only u2-pinned-twice --budget 200
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from sim.mutants.catalogue import MUTANTS
    from sim.mutants.hunt import Found, hunt_all
    from sim.mutants.table import replay_of, to_json, to_markdown, to_text

    if unknown := [name for name in only if name not in MUTANTS]:
        raise click.BadParameter(f"{unknown[0]!r}: --list names them all", param_hint="--only")
    chosen = [mutant for name, mutant in MUTANTS.items() if not only or name in only]
    if listed:
        width = max(len(mutant.name) for mutant in chosen)
        for mutant in chosen:
            click.echo(f"{mutant.name.ljust(width)}  {mutant.about}")
        return
    try:
        with click.progressbar(length=len(chosen), label="mutants", file=sys.stderr) as bar:

            def show(found: Found) -> None:
                bar.update(1)

            results = hunt_all(chosen, budget, min(jobs or os.cpu_count() or 1, len(chosen)), show)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; nothing was written") from None
    click.echo(to_text(results))
    try:
        if json_file is not None:
            json_file.write_text(to_json(chosen, results))
        if markdown_file is not None:
            markdown_file.write_text(to_markdown(chosen, results))
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    for found in results:
        if found.invariant is None:
            click.echo(f"{found.mutant} survived {found.tried} histories: a check is missing", err=True)
        elif found.innocent is not None:
            click.echo(f"without {found.mutant}, {found.innocent} fails too: {replay_of(found)}", err=True)
    caught = sum(found.is_clean for found in results)
    click.echo(f"\n{caught} of {len(results)} mutants caught, each by a scenario that passes without it")
    sys.exit(0 if caught == len(results) else 1)
