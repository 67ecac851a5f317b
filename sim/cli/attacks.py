"""`flocknode sim attacks`: every attack, run for real in both profiles."""

from __future__ import annotations

import sys
from pathlib import Path

import click

PROFILES = ("hardened", "vcdfl")
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Run every attack and say what becomes of it.")
@click.option("--profile", type=click.Choice(PROFILES), help="Only this profile.  [default: both]")
@click.option("--only", multiple=True, metavar="NAME", help="Only this attack; may be given again.")
@click.option("--seed", default=1, show_default=True, help="The same seed, the same runs.")
@click.option("--json", "json_file", type=FILE, help="Write the results to this file too.")
@click.option("--markdown", "markdown_file", type=FILE, help="Write all of docs/ATTACKS.md to this file.")
@click.option("--list", "listed", is_flag=True, help="Name the attacks, and run none.")
def attacks(
    profile: str | None,
    only: tuple[str, ...],
    seed: int,
    json_file: Path | None,
    markdown_file: Path | None,
    listed: bool,
) -> None:
    """Run the attacks on whole rounds of real engines; print who succeeds, who is blamed and what it costs.

    Whether an attack succeeds is measured: it adopted another sum, read an update, gained stake, lost the
    network a round. Costs are against an honest run with the same seed. Fails where an honest node is blamed.
    """
    from flocknode.demo.threads import start_no_thread_pools

    start_no_thread_pools()
    from sim.attacks.attack import PROFILES as BOTH
    from sim.attacks.attack import AttackError, Result
    from sim.attacks.gallery import FAMILIES, GALLERY, NAMES, wronged
    from sim.attacks.table import to_json, to_markdown, to_text

    if unknown := [name for name in only if name not in NAMES]:
        raise click.BadParameter(f"{unknown[0]!r}: --list names them all", param_hint="--only")
    if markdown_file is not None and (only or profile):
        raise click.UsageError("--markdown is of all attacks in both profiles: not with --only or --profile")
    chosen = [attack for attack in GALLERY if not only or attack.name in only]
    if listed:
        width = max(len(name) for name in NAMES)
        for attack in chosen:
            click.echo(f"{attack.name.ljust(width)}  {attack.about}")
        return
    profiles = (profile,) if profile else BOTH
    results: list[Result] = []
    missed: list[str] = []
    pairs = [(attack, each) for attack in chosen for each in profiles]
    with click.progressbar(pairs, label="attacks", file=sys.stderr) as bar:
        for attack, each in bar:
            try:
                results.append(attack.run(each, seed))
            except AttackError as error:
                missed.append(str(error))
    if results:
        click.echo(to_text(chosen, results))
    try:
        if json_file is not None:
            json_file.write_text(to_json(results))
        if markdown_file is not None and not missed:
            markdown_file.write_text(to_markdown(FAMILIES, results))
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    for result in wronged(results):
        blamed = ", ".join(result.wrongly_blamed)
        missed.append(f"{result.attack} ({result.profile}): blamed though honest: {blamed}")
    if missed:
        raise click.ClickException("\n".join(missed))
