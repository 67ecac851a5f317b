"""`flocknode demo`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from flocknode.cli.stake_options import contract_option, gamma_option

TASKS = ("mnist", "lending-club", "digits")
PROFILES = ("hardened", "vcdfl")
PIPE_WIDTH = 140
"""Columns, where there is no terminal to ask."""


@click.command(short_help="Train on real data with seven nodes on this machine.")
@click.option("--nodes", default=7, show_default=True, help="Node processes, at least 4.")
@click.option("--rounds", default=5, show_default=True, help="Learning rounds.")
@click.option("--task", type=click.Choice(TASKS), default="mnist", show_default=True, help="What to learn.")
@click.option("--proposers", type=int, help="Proposers a round.  [default: by the number of nodes]")
@click.option("--voters", type=int, help="Voters a round.  [default: by the number of nodes]")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="hardened",
    show_default=True,
    help="The aggregation protocol: our hardened one, or VCD-FL as published.",
)
@contract_option
@gamma_option
@click.option(
    "--poison",
    default=0,
    metavar="K",
    help="K nodes flip labels and scale their updates, and vote against their own judgement.",
)
@click.option(
    "--drop",
    default=0,
    metavar="K",
    help="In every second round kill K proposers between sharing and uploading, then restart them.",
)
@click.option("--seed", default=0, show_default=True, help="Of keys, shards, initial model and training.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the nodes' directories here; it must be new or empty.  [default: a temporary one]",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what the ledgers say as JSON to this file.",
)
@click.option("--quiet", is_flag=True, help="No live view and no tables: for scripts and CI.")
def demo(
    nodes: int,
    rounds: int,
    task: str,
    proposers: int | None,
    voters: int | None,
    profile: str,
    contract: str,
    gamma: str,
    poison: int,
    drop: int,
    seed: int,
    directory: Path | None,
    report: Path | None,
    quiet: bool,
) -> None:
    """Launch seven node processes on 127.0.0.1, train for five rounds on real MNIST digits, and report.

    Each node is a process of its own with its own Ed25519 identity, data shard, SQLite ledger and libp2p
    host (Noise and Yamux over TCP). At the end the ledgers are compared and replayed from genesis: the exit
    code is 0 only if all are identical and verify.

    \b
    Examples:
      flocknode demo
      flocknode demo --poison 2 --drop 1 --rounds 8
      flocknode demo --nodes 13 --poison 3 --gamma adaptive
      flocknode demo --task lending-club --report report.json --quiet
      flocknode demo --dir /tmp/net && flocknode ledger verify /tmp/net/node-0
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from rich.console import Console

    from flocknode.demo.options import DemoError, DemoOptions, check

    options = DemoOptions(
        nodes=nodes,
        rounds=rounds,
        task=task,
        proposers=proposers,
        voters=voters,
        profile=profile,
        contract=contract,
        gamma=gamma,
        poison=poison,
        drop=drop,
        seed=seed,
        directory=directory,
        report=report,
        quiet=quiet,
    )
    # SIGINT as well: a shell starts what it runs in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        check(options)
        from flocknode.demo.run import run_demo

        code = run_demo(options, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH))
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopped; no node is left running", err=True)
        code = 130
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
