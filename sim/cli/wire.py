"""`flocknode sim wire`: does anything that a member may send break a node?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

TARGETS = ("decoding", "engine", "node")


@click.command(short_help="Fuzz what a node reads and what its engine hears.")
@click.option("--target", type=click.Choice(TARGETS), help="What is fuzzed.")
@click.option("--runs", default=10_000, show_default=True, type=click.IntRange(1), help="Executions.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the mutations.")
@click.option(
    "--max-rss-mb",
    default=2048,
    show_default=True,
    type=click.IntRange(64),
    help="Fail when the process needs more memory than this.",
)
@click.option("--plain", is_flag=True, help="Mutate without coverage: needs no atheris, and is repeatable.")
@click.option(
    "--crashes",
    default=Path("fuzz-failures"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the input of a crash is written.",
)
@click.option(
    "--corpus",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep here what reaches something new, and begin with it next time.",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run this crash again and nothing else.",
)
def wire(
    target: str | None,
    runs: int,
    seed: int,
    max_rss_mb: int,
    plain: bool,
    crashes: Path,
    corpus: Path | None,
    replay: Path | None,
) -> None:
    """Feed a node what no honest member sends, and check that it bears it.

    "decoding" reads bent bytes with everything that reads: messages, blocks, records, blobs, files. Only the
    errors that are documented may come out, and whatever is accepted must have one encoding. "engine" lets
    members tell a node in the middle of a round whatever they can sign, while timers fire and jobs end in any
    order. It must not raise, its effects must be sound, and what it holds must stay bounded. "node" says the
    same to a whole node with its queue, store and threads, over a wire in memory: it must live on, and
    nothing in it may fail.

    Mutations are guided by coverage, with atheris: pip install 'flocknode[fuzz]'.
    """
    if replay is not None:
        _replay(replay)
        return
    if target is None:
        raise click.UsageError(f"name a --target: one of {', '.join(TARGETS)}")
    if plain:
        _plain(target, runs, seed, max_rss_mb, crashes)
    else:
        _guided(target, runs, seed, max_rss_mb, crashes, corpus)


def _guided(target: str, runs: int, seed: int, max_rss_mb: int, crashes: Path, corpus: Path | None) -> None:
    from sim.fuzzing.guided import Settings, is_available, run_guided

    if not is_available():
        raise click.ClickException(
            "atheris is not installed: pip install 'flocknode[fuzz]', or choose --plain"
        )
    settings = Settings(target, runs, seed, max_rss_mb, str(crashes), None if corpus is None else str(corpus))
    with click.progressbar(length=runs, label=target, file=sys.stderr) as bar:
        result = run_guided(settings, lambda executions: bar.update(min(executions, runs) - bar.pos))
    _report(target, result.executions, result.peak_rss_mb, result.growth_mb)
    click.echo(f"coverage      {result.edges} branches, {result.features} features, {result.inputs} inputs")
    if result.crash is not None or result.executions < runs:
        click.echo("\n".join(result.errors), err=True)
        _failed(result.crash)


def _plain(target: str, runs: int, seed: int, max_rss_mb: int, crashes: Path) -> None:
    from sim.fuzzing.plain import run_plain
    from sim.fuzzing.targets import make_target
    from sim.fuzzing.watching import Watch, peak_rss_mb

    with click.progressbar(length=runs, label=target, file=sys.stderr) as bar:
        watch = Watch(
            target,
            make_target(target),
            max_rss_mb,
            crashes,
            lambda executions: bar.update(executions - bar.pos),
        )
        try:
            run_plain(watch, runs, seed)
        except Exception:
            import traceback

            click.echo(traceback.format_exc(), err=True)
            _failed(str(watch.save()))
        bar.update(runs - bar.pos)
    _report(target, watch.executions, peak_rss_mb(), watch.growth_mb)


def _report(target: str, executions: int, peak_rss_mb: int, growth_mb: int) -> None:
    click.echo(f"target        {target}\nexecutions    {executions}")
    click.echo(
        f"memory        {peak_rss_mb} MB at most; {growth_mb} MB of it after the first 10,000 executions"
    )


def _failed(crash: str | None) -> None:
    if crash is None:
        raise click.ClickException("the run ended early; what it said last is above")
    raise click.ClickException(f"it failed; replay with: flocknode sim wire --replay {crash}")


def _replay(path: Path) -> None:
    from sim.fuzzing.targets import Crash, CrashFileError

    try:
        crash = Crash.read(path)
    except CrashFileError as error:
        raise click.ClickException(str(error)) from error
    try:
        crash.replay()
    except Exception as error:
        import traceback

        click.echo(traceback.format_exc(), err=True)
        raise click.ClickException(f"{path}: still fails: {type(error).__name__}") from error
    click.echo(f"{path}: {len(crash.inputs)} inputs of {crash.target}, and nothing fails")
