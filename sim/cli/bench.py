"""`flocknode bench`: what the protocol costs here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from sim.cli.bench_peers import peers

PROFILES = ("hardened", "vcdfl")
PROFILE = click.option("--profile", type=click.Choice(PROFILES), default="hardened", show_default=True)


@click.group(short_help="Measure what the protocol costs.")
def bench() -> None:
    """Measure what the protocol costs on this machine, without any training; and beside peers."""


bench.add_command(peers)


@bench.command(short_help="The mathematics: client, aggregator, verifier.")
@click.option("-n", "--proposers", default=100, show_default=True, help="Proposers of the round.")
@click.option("-d", "--dimension", default=100_000, show_default=True, help="Weights of the model.")
@PROFILE
@click.option("--dropouts", default=0.0, show_default=True, help="Share of proposers that drop out.")
@click.option("--repeats", default=5, show_default=True, help="Of which medians are taken.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the figures to this file too.")
def protocol(
    proposers: int, dimension: int, profile: str, dropouts: float, repeats: int, target: Path | None
) -> None:
    """Time the steps of one round in this process, each as the median of several runs.

    Client (keys, shares, masks, encoding, commitment), aggregator (sum, unmasking) and verifier (both
    equations); bytes; and how these grow with the number of proposers and of weights.
    """
    from sim.bench.protocol import BenchError, bench_protocol, render

    try:
        result = bench_protocol(proposers, dimension, profile, dropouts, repeats)
        click.echo(render(result))
        if target is not None:
            target.write_text(json.dumps(result.to_json(), indent=2) + "\n")
    except OSError as error:
        raise click.ClickException(f"{target}: {error.strerror}") from error
    except BenchError as error:
        raise click.ClickException(str(error)) from error


@bench.command(name="round", short_help="A whole round between real processes.")
@click.option("--nodes", default=7, show_default=True, help="Node processes.")
@click.option("--dimension", default=50_000, show_default=True, help="Weights of the model.")
@click.option("--rounds", default=10, show_default=True, help="Rounds that count; one more goes first.")
@PROFILE
def whole_round(nodes: int, dimension: int, rounds: int, profile: str) -> None:
    """Run rounds between node processes over libp2p, with synthetic updates that need no training.

    Seconds and bytes of each phase are those that the nodes log.
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from flocknode.config import ConfigError
    from flocknode.demo.options import DemoError
    from sim.bench.round import bench_round, render

    try:
        with click.progressbar(length=rounds + 1, label=f"{nodes} nodes", file=sys.stderr) as bar:
            result = bench_round(
                nodes, dimension, rounds, profile, lambda ended: bar.update(min(ended, rounds + 1) - bar.pos)
            )
        click.echo(render(result))
    except (ConfigError, DemoError) as error:
        raise click.ClickException(str(error)) from error


@bench.command(short_help="How long a node takes to take up its ledger.")
@click.option(
    "--blocks", default=2_000, show_default=True, type=click.IntRange(min=10), help="In the ledger."
)
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(4, 50), help="Of the network.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1, 100), help="Of each way.")
def start(blocks: int, nodes: int, repeats: int) -> None:
    """Time how a node takes up its stored ledger: with its snapshot, without one, and with every check.

    The ledger is made in the simulator, and stands in a real store; opening the store counts.
    """
    from sim.bench.start import bench_start, render

    click.echo(render(bench_start(blocks, nodes, repeats)))


@bench.command(short_help="What an engine keeps in memory at great heights.")
@click.option(
    "--height",
    "heights",
    multiple=True,
    default=(100, 1_000, 10_000),
    show_default=True,
    type=click.IntRange(1),
    help="Look at this height; may be given again.",
)
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(4, 50), help="Of the network.")
def memory(heights: tuple[int, ...], nodes: int) -> None:
    """Run a simulated network of real engines, and count what one of them keeps when a round has begun.

    Objects and bytes are those that can be reached from the engine.
    """
    from sim.bench.memory import grow

    click.echo(f"{'height':>8} {'round':>7} {'objects':>9} {'bytes':>10}")
    for kept in grow(heights, nodes):
        click.echo(f"{kept.height:8} {kept.round:7} {kept.total.objects:9} {kept.total.bytes:10}")


@bench.command(name="profile", short_help="What the nodes do in a round, and how often.")
@click.option("--nodes", default=8, show_default=True, help="Node processes.")
@click.option("--dimension", default=50_000, show_default=True, help="Weights of the model.")
@click.option("--rounds", default=20, show_default=True, help="Rounds that are watched; one more goes first.")
@PROFILE
@click.option("--sample", default=2, show_default=True, help="Nodes whose stacks are sampled.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Directory for profile.json and profile.md.",
)
def profile_command(nodes: int, dimension: int, rounds: int, profile: str, sample: int, out: Path) -> None:
    """Watch the nodes of `flocknode bench round`: CPU time by part, the top functions, and what they count.

    Needs py-spy (the extra [profile]), Linux, and the right to look into one's own processes. Messages,
    bytes, transactions, signatures and wakeups are counted at every node; stacks are sampled at a few.

    `flocknode sim figures all --out DIR` sets two of them side by side: DIR/profile/profile-before.json and
    DIR/profile/profile-after.json, each a profile.json that was renamed. The two want the same options, the
    same machine, and the same hour. Since watching slows a round, DIR/profile/rounds.json may tell of rounds
    that nobody watched, `flocknode bench round` before and after in turn (sim/figures/profile/read.py has its
    form).

    \b
    Examples:
      flocknode bench profile --nodes 8 --rounds 20 --out profile
    Before a change, after it, and the section about both:
      flocknode bench profile --out /tmp/before
      flocknode bench profile --out /tmp/after
      mkdir -p docs/results/profile
      cp /tmp/before/profile.json docs/results/profile/profile-before.json
      cp /tmp/after/profile.json docs/results/profile/profile-after.json
      flocknode sim figures all --out docs/results --collect
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from flocknode.config import ConfigError
    from flocknode.demo.options import DemoError
    from sim.bench.profiling.profile import profile_rounds, render, write
    from sim.bench.profiling.sampling import ProfileError

    try:
        with click.progressbar(length=rounds + 1, label=f"{nodes} nodes", file=sys.stderr) as bar:
            result = profile_rounds(
                nodes,
                dimension,
                rounds,
                profile,
                range(min(max(sample, 1), nodes)),
                lambda ended: bar.update(min(ended, rounds + 1) - bar.pos),
            )
        write(result, out)
        click.echo(render(result))
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    except (ConfigError, DemoError, ProfileError) as error:
        raise click.ClickException(str(error)) from error


@bench.command(name="sim", short_help="Whole rounds in the simulator.")
@click.option("--nodes", default=50, show_default=True, help="Engines in one process.")
@click.option("--rounds", default=100, show_default=True, help="Rounds that every node ends.")
@click.option("--dimension", default=1_000, show_default=True, help="Weights of the model.")
@PROFILE
@click.option("--seed", default=1, show_default=True)
def simulator(nodes: int, rounds: int, dimension: int, profile: str, seed: int) -> None:
    """Simulate rounds of many engines under virtual time, and say what takes the time.

    Updates are synthetic; agreement and supply are checked after every event. The run uses one core.
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from sim.bench.histories import BenchError, bench_simulator, render
    from sim.garbage import collect_seldom

    collect_seldom()
    try:
        with click.progressbar(length=rounds, label=f"{nodes} nodes", file=sys.stderr) as bar:
            result = bench_simulator(
                nodes, rounds, dimension, profile, seed, lambda ended: bar.update(ended - bar.pos)
            )
        click.echo(render(result))
    except BenchError as error:
        raise click.ClickException(str(error)) from error
