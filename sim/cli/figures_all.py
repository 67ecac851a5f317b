"""`flocknode sim figures all`: every experiment, and the document about all of them."""

from __future__ import annotations

from pathlib import Path

import click

from sim.cli.bench_peers import peers
from sim.cli.figures_flock import flock
from sim.cli.figures_vcdfl import vcdfl


@click.command(name="all", short_help="All of them, the peers too, and RESULTS.md.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory.")
@click.option(
    "--document",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the document goes.  [default: RESULTS.md beside DIR]",
)
@click.option("--quick", is_flag=True, help="Small sizes: a first look, nothing to quote.")
@click.option("--collect", is_flag=True, help="Run nothing; only write the document from what DIR holds.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="Local processes for FLock's runs.  [default: one a processor]",
)
@click.pass_context
def everything(
    context: click.Context, out: Path, document: Path | None, quick: bool, collect: bool, jobs: int | None
) -> None:
    """Make every figure in DIR and the document about them: all claims, all goals, every picture.

    First FLock's experiments, then VCD-FL's, then the comparison with Flower and p2pfl: one that is finished
    in DIR/peers is taken; where none is there and the extra `bench` is missing, the document says what was
    left out. Finished runs are kept under DIR and not made again, so a stopped command goes on where it was.

    Times want a quiet machine and FLock's runs want all of it, so the parts can be made apart, in any order,
    on different days, and collected at the end. What a node does in a round, before and after changes, is
    told where DIR/profile has it: `flocknode bench profile --help` says how to make it.

    \b
    Examples:
      flocknode sim figures all --out docs/results
      flocknode sim figures all --out /tmp/look --quick
      flocknode sim figures flock --out docs/results && flocknode sim figures vcdfl --out docs/results
      flocknode bench peers --out docs/results/peers
      flocknode sim figures all --out docs/results --collect
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from sim.figures.plots import FigureError
    from sim.figures.results import default_document, read_all, write_results
    from sim.figures.told import ToldError

    try:
        if not collect:
            none: tuple[str, ...] = ()
            context.invoke(
                flock,
                out=out,
                quick=quick,
                tasks=none,
                images=None,
                labels=None,
                engine="local",
                ray_address=None,
                jobs=jobs,
            )
            context.invoke(vcdfl, out=out, quick=quick)
            _compare(context, out, quick)
        told = read_all(out)
        if told.empty:
            raise click.ClickException(f"{out}: nothing is finished there; leave out --collect to make it")
        target = document or default_document(out)
        write_results(told, out, target)
    except (FigureError, ToldError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command goes on from here") from None
    for name, chapter in told.chapters.items():
        if chapter is None:
            click.echo(f"{name}: not made yet", err=True)
    holding = sum(claim.holds for claim in told.claims)
    click.echo(f"{holding} of {len(told.claims)} claims hold here: {target}")


def _compare(context: click.Context, out: Path, quick: bool) -> None:
    """The comparison with peers, unless one is finished that need not be made larger."""
    from sim.bench.peers.systems import FLOWER, Interpreters
    from sim.figures.results import QUICK
    from sim.figures.told import PEERS, read_comparison

    finished = read_comparison(out)
    if finished is not None and (quick or QUICK not in finished.command.split()):
        click.echo(f"peers: taken from {out / PEERS}", err=True)
        return
    if (why := Interpreters().missing(FLOWER)) is not None:
        click.echo(f"peers: left out. {why}", err=True)
        return
    default = {option.name: option.default for option in peers.params if isinstance(option, click.Option)}
    context.invoke(
        peers,
        out=out / PEERS,
        only=(),
        seeds=default["seeds"],
        rounds=default["rounds"],
        p2pfl_env=None,
        quick=quick,
    )
