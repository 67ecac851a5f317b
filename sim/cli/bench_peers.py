"""`flocknode bench peers`: beside Flower and p2pfl."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

PEERS = ("flocknode", "flower", "p2pfl")
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Beside Flower and p2pfl, in the same run.")
@click.option(
    "--out",
    type=DIRECTORY,
    required=True,
    help="Directory for results.json, results.md and charts; runs stored there are not made again.",
)
@click.option(
    "--only", "only", multiple=True, type=click.Choice(PEERS), help="Only this; may be given again."
)
@click.option(
    "--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of each system."
)
@click.option(
    "--rounds", default=10, show_default=True, type=click.IntRange(min=2), help="Rounds of a whole run."
)
@click.option(
    "--p2pfl-env",
    type=DIRECTORY,
    help="p2pfl's virtual environment; it is made with pip if it is not there.  [default: OUT/p2pfl-env]",
)
@click.option("--quick", is_flag=True, help="Small sizes, two rounds, one seed: nothing to quote.")
def peers(
    out: Path, only: tuple[str, ...], seeds: int, rounds: int, p2pfl_env: Path | None, quick: bool
) -> None:
    """Measure flocknode, Flower and p2pfl on this machine: same model, same data, runs in turn.

    First one client's cryptography, ours against Flower's SecAgg+; then whole rounds of 8 nodes on MNIST.
    Each run is a process with a time limit, killed with all it started, without telemetry. Every run is
    listed with its seed; one that is lost, with its last words. Flower comes with the extra `bench`; p2pfl's
    pins contradict everybody's, so it gets a virtual environment of its own. A peer that is missing is named,
    with how to install it, and the rest goes on. About half an hour; leave the machine alone meanwhile.

    \b
    Examples:
      pip install 'flocknode[bench]' && flocknode bench peers --out peers
      flocknode bench peers --out peers --only flocknode --only flower
      flocknode bench peers --out /tmp/look --quick
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from attrs import evolve

    from sim.bench.peers.compare import compare, prepare_interpreters, write_comparison
    from sim.bench.peers.plan import FULL, QUICK, RunPlan
    from sim.bench.peers.render import client_table, round_table
    from sim.bench.peers.runs import DONE, Run
    from sim.figures.claims import claim_lines
    from sim.figures.plots import FigureError

    plan = QUICK
    if not quick:
        case = evolve(FULL.round_case, rounds=rounds)
        plan = evolve(FULL, round_case=case, seeds=tuple(range(1, seeds + 1)))
    wanted = only or PEERS
    options = "".join(f" --only {name}" for name in only) + (" --quick" if quick else f" --seeds {seeds}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        interpreters = prepare_interpreters(wanted, p2pfl_env or out / "p2pfl-env", out / "p2pfl-pip.log")
        for name in wanted:
            if (why := interpreters.missing(name)) is not None:
                click.echo(f"{name}: not run. {why}", err=True)
        with click.progressbar(length=len(plan.runs(wanted)), label="runs", file=sys.stderr) as bar:

            def progress(run: RunPlan, done: Run) -> None:
                bar.update(1)
                if done.outcome != DONE:
                    click.echo(f"\n{run.name}: {done.outcome}: {done.reason}", err=True)

            comparison = compare(plan, wanted, interpreters, out, progress)
        write_comparison(comparison, out, f"flocknode bench peers --out {shlex.quote(str(out))}{options}")
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    except FigureError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException(
            "stopped, no process is left; the same command goes on from here"
        ) from None
    click.echo(client_table(comparison.clients))
    click.echo()
    click.echo(round_table(comparison.rounds))
    click.echo()
    click.echo(claim_lines(comparison.goals))
    click.echo(f"every run, table and charts in {out}")
