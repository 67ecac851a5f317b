"""`flocknode lab run` and `flocknode lab clean`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

import click

CANNOT_RUN = 2
INTERRUPTED = 130
PIPE_WIDTH = 110
"""Columns, where there is no terminal to ask."""


@click.command(short_help="Run a scenario with real node processes.")
@click.argument("scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seed", default=1, show_default=True, help="Of keys, roles, data and random faults.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what happened as JSON to this file: rounds, faults with their times, failures.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the nodes' directories here; it must be new or empty.  [default: a temporary one]",
)
@click.option("--quiet", is_flag=True, help="One line at the end: for scripts and CI.")
def run(scenario: Path, seed: int, report: Path | None, keep: Path | None, quiet: bool) -> None:
    """Run SCENARIO, a TOML file as for `flocknode sim run`, with real node processes and a real network.

    Each node is a process in a Linux network namespace of its own, with its own address on a bridge that has
    no way out. Faults are signals, unplugged wires, dropped packets, slow queues, damaged files and full
    disks; docs/SCENARIOS.md says what each of them is here, and what the lab cannot do. Needs root and nft.

    The exit code is 0 if all that [expect] asks for holds, 1 if not, 2 if the scenario cannot be run here.
    Nothing is left behind: no namespace, bridge, process or mount, however the run ends.

    \b
    Examples:
      flocknode lab run sim/scenarios/lab/kill-nine.toml
      flocknode lab run sim/scenarios/lab/split-brain.toml --seed 7 --report report.json
      flocknode lab run my.toml --keep /tmp/net && flocknode ledger verify /tmp/net/node-0
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from sim.lab.machine import LabError, check_machine

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        check_machine()
        if report is not None and not report.absolute().parent.is_dir():
            raise LabError(f"--report {report}: there is no such directory")
        sys.exit(_run(scenario, seed, report, keep, quiet))
    except LabError as error:
        _refuse(error)
    except KeyboardInterrupt:
        click.echo("stopped; nothing is left behind", err=True)
        sys.exit(INTERRUPTED)


def _run(path: Path, seed: int, report: Path | None, keep: Path | None, quiet: bool) -> int:
    from rich.console import Console

    from flocknode.config import ConfigError
    from sim.lab.cleanup import remove_leftovers
    from sim.lab.report import make_report, print_summary, verdict
    from sim.lab.run import run_lab
    from sim.scenario.manifest import ScenarioError, load_scenario

    console = Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH)
    try:
        scenario = load_scenario(path)
        remove_leftovers()
        result = run_lab(scenario, seed, console, keep, quiet)
    except (ConfigError, ScenarioError) as error:
        _refuse(error)
    if report is not None:
        report.write_text(json.dumps(make_report(result), indent=2) + "\n")
    if not quiet:
        print_summary(console, result)
    click.echo(verdict(result))
    if quiet:
        for failure in result.failures:
            click.echo(f"  {failure}", err=True)
    return 1 if result.failures else 0


@click.command(short_help="Remove what a killed lab has left behind.")
def clean() -> None:
    """Remove the directories of labs that were killed before they could do so themselves.

    There is nothing else to remove: namespaces, bridges, packet filters and mounts of a lab have no names
    and end with its processes, and the kernel ends its nodes with it. `lab run` cleans up first as well.
    """
    from sim.lab.cleanup import remove_leftovers

    removed = remove_leftovers()
    for path in removed:
        click.echo(f"removed {path}")
    if not removed:
        click.echo("nothing was left behind")


def _refuse(error: Exception) -> None:
    click.echo(f"Error: {error}", err=True)
    sys.exit(CANNOT_RUN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
