"""`flocknode sim honest`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

TASKS = ("mnist", "digits", "lending-club")


@click.command(short_help="Long runs of honest nodes: does anybody pay for honesty?")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory.")
@click.option(
    "--task",
    "tasks",
    type=click.Choice(TASKS),
    multiple=True,
    help="Only this task; may be given again.  [default: all]",
)
@click.option(
    "--nodes",
    "sizes",
    type=click.IntRange(4, 64),
    multiple=True,
    help="Size of a network; may be given again.  [default: 5 and 7]",
)
@click.option("--rounds", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="Of a run.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each cell.")
@click.option("--first-seed", type=click.IntRange(0, 1 << 20), default=7, show_default=True, help="Of them.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes.  [default: one a processor]")
def honest(
    out: Path,
    tasks: tuple[str, ...],
    sizes: tuple[int, ...],
    rounds: int,
    seeds: int,
    first_seed: int,
    jobs: int | None,
) -> None:
    """Run honest networks for a thousand rounds and see that nobody pays for honesty; and what poison pays.

    Each built-in task, IID and Dirichlet(0.5), by the ledger's own contract and with real training, but
    without masks; beside it FLock's contract, and networks with poisoners. Nothing stops when a task is done.
    Finished runs are kept under DIR/honest-runs, so that what was stopped goes on where it was. Written are
    DIR/honest.md and DIR/honest.csv. Exit code 1 where an honest node fell below three quarters of its stake,
    or poison that turns models around paid less than half of what FLock's contract takes.

    \b
    Examples:
      flocknode sim honest --out docs/results
      flocknode sim honest --out /tmp/honest --task digits --nodes 5 --rounds 100 --seeds 1
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from flocknode.learning.datasets import DatasetError
    from flocknode.learning.partition import PartitionError
    from sim.figures.local_engine import LocalEngine
    from sim.figures.sweep import SweepError
    from sim.honest.report import Plan, run_all, write_report

    plan = Plan(
        tasks=tasks or TASKS,
        sizes=sizes or (5, 7),
        seeds=tuple(range(first_seed, first_seed + seeds)),
        rounds=rounds,
    )
    words = ["flocknode", "sim", "honest", *sys.argv[3:]] if sys.argv[1:3] == ["sim", "honest"] else []
    try:
        with click.progressbar(length=len(plan.runs()), label="runs", file=sys.stderr) as bar:
            findings = run_all(plan, out, LocalEngine(jobs or os.cpu_count() or 1), bar.update)
        text = write_report(findings, out, shlex.join(words or ["flocknode", "sim", "honest"]))
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command goes on from here") from None
    except (DatasetError, PartitionError, SweepError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    failures = findings.failures()
    for failure in failures:
        click.echo(failure, err=True)
    click.echo(text)
    sys.exit(1 if failures else 0)
