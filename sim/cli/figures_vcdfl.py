"""`flocknode sim figures vcdfl`: what a verified round costs, and what compression saves."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click


@click.command(short_help="VCD-FL: verification, client, traffic; compression; growth.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory for the figures; what is already measured there is not measured again.",
)
@click.option("--quick", is_flag=True, help="Tiny sizes, in seconds: a first look, nothing to quote.")
def vcdfl(out: Path, quick: bool) -> None:
    """Measure both profiles over weights, clients and dropouts, train with compression, and draw it all.

    One measurement at a time, because times are what counts: leave the machine alone meanwhile (about a
    quarter of an hour). Each is stored as it is done, and a stopped run goes on where it was. Published
    figures stand beside ours, labelled as other people's machines. Every claim is computed from the data and
    printed, also where it does not hold.

    \b
    Examples:
      flocknode sim figures vcdfl --out results
      flocknode sim figures vcdfl --out /tmp/look --quick
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from sim.figures.claims import claim_lines
    from sim.figures.plots import FigureError
    from sim.figures.report import write_chapter
    from sim.figures.sweep import SweepError
    from sim.figures.vcdfl.plan import PAPER, QUICK
    from sim.figures.vcdfl.run import measure

    plan = QUICK if quick else PAPER
    command = shlex.join(["flocknode", "sim", "figures", "vcdfl", "--out", str(out)]) + (
        " --quick" if quick else ""
    )
    try:
        with click.progressbar(length=len(plan.jobs()), label="vcdfl", file=sys.stderr) as bar:
            chapter = measure(plan, out, command, bar.update)
        write_chapter(chapter, out)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    except (FigureError, SweepError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command goes on from here") from None
    click.echo(claim_lines(chapter.claims))
    click.echo(f"{len(chapter.figures)} figures in {out}, text in {out / 'vcdfl.md'}")
