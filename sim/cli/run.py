"""`flocknode sim run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command(short_help="Run a scenario in virtual time.")
@click.argument("scenario", metavar="SCENARIO.toml", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", default=1, show_default=True, help="Of keys, delays, losses and everything drawn.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the outcome as JSON.")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write all that happened.")
@click.option("--quiet", is_flag=True, help="No progress and no tables.")
def run(scenario: Path, seed: int, report: Path | None, trace: Path | None, quiet: bool) -> None:
    """Run SCENARIO.toml with real engines in virtual time, and check what it expects.

    Every invariant of `sim/invariants/` is checked: agreement, quorums, chain validity, what blocks pin,
    phases, roles, beacon, contract and supply, verdicts, integrity, privacy, blame, conduct, durability,
    memory. The same scenario and seed give the same history, byte for byte; the digest that is printed is
    over all of it. Exit code 0 only if nothing was violated and all expectations hold.

    \b
    Examples:
      flocknode sim run sim/scenarios/drop-after-share.toml
      flocknode sim run sim/scenarios/forging-aggregator.toml --seed 7 --trace trace.txt
    """
    from sim.scenario.manifest import ScenarioError, load_scenario
    from sim.scenario.run import make_report, run_scenario
    from sim.scenario.show import print_run

    keep = 50_000_000 if trace is not None else 20_000
    try:
        loaded = load_scenario(scenario)
        with click.progressbar(
            length=loaded.network.rounds, label=loaded.name, file=sys.stderr, hidden=quiet
        ) as bar:
            result = run_scenario(
                loaded, seed, progress=lambda ended: bar.update(ended - bar.pos), keep_trace=keep
            )
        if trace is not None:
            trace.write_text("\n".join(result.stage.world.trace.lines) + "\n")
        if report is not None:
            report.write_text(json.dumps(make_report(result), indent=2) + "\n")
    except ScenarioError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    if not quiet:
        print_run(result)
    elif not result.passed:
        for failure in result.failures or [result.violation.what if result.violation else ""]:
            click.echo(failure, err=True)
    sys.exit(0 if result.passed else 1)
