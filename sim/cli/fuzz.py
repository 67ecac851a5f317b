"""`flocknode sim fuzz`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click


@click.command(short_help="Run scenarios drawn at random; shrink and report what fails.")
@click.option("--histories", default=200, show_default=True, help="How many to run that count.")
@click.option("--seed", default=1, show_default=True, help="Of the whole campaign.")
@click.option("--jobs", type=click.IntRange(1, 64), help="Processes.  [default: one for each processor]")
@click.option(
    "--json", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write what came of it."
)
@click.option(
    "--failures",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("fuzz-failures"),
    show_default=True,
    help="Where shrunk scenarios of failing histories go.",
)
def fuzz(histories: int, seed: int, jobs: int | None, target: Path | None, failures: Path) -> None:
    """Draw networks, adversaries and faults at random, and run each history with every invariant on.

    A history counts if it had at least three rounds and something really struck. One that fails is shrunk
    while it still violates the same invariant, written as a scenario, and told with the command that replays
    it. Exit code 1 if any failed.

    \b
    Examples:
      flocknode sim fuzz --histories 1000 --seed 7
      flocknode sim fuzz --histories 5000 --seed 1 --json fuzz.json
    """
    from sim.fuzz.campaign import Campaign, run_campaign
    from sim.scenario.write import to_toml

    workers = jobs or os.cpu_count() or 1
    try:
        with click.progressbar(length=histories, label=f"seed {seed}", file=sys.stderr) as bar:

            def show(campaign: Campaign) -> None:
                bar.label = f"seed {seed}, {len(campaign.failures)} failed"
                bar.update(campaign.histories - bar.pos)

            campaign = run_campaign(seed, histories, workers, progress=show)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; nothing was written") from None
    files = {}
    for history in campaign.failures:
        failures.mkdir(parents=True, exist_ok=True)
        path = failures / f"{history.seed}.toml"
        path.write_text(to_toml(history.scenario))
        files[history.seed] = str(path)
        click.echo(f"violated: {history.invariant}\n{history.what}")
        click.echo(f"replay: flocknode sim run {path} --seed {history.seed}\n")
    if target is not None:
        target.write_text(json.dumps(campaign.to_json(files), indent=2) + "\n")
    click.echo(
        f"{campaign.histories} histories, {len(campaign.failures)} failed; {campaign.rounds} rounds, "
        f"{campaign.events} events; {campaign.idle} more had too few rounds or nothing that struck"
    )
    for name, count in sorted(campaign.coverage.items(), key=lambda entry: -entry[1]):
        click.echo(f"{count:>7}  {name}")
    sys.exit(1 if campaign.failures else 0)
