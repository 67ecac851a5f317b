"""`flocknode sim figures flock`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sim.figures.flock.plan import Size
    from sim.figures.sweep import Engine

TASKS = ("lending-club", "mnist")
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="FLock: poisoning, votes and stakes, with real training.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory.")
@click.option("--quick", is_flag=True, help="Fewer etas, gammas and rounds: minutes, for a first look.")
@click.option(
    "--task",
    "tasks",
    type=click.Choice(TASKS),
    multiple=True,
    help="Only this data set; may be given again.  [default: both]",
)
@click.option("--images", type=FOLDER, help="Pictures of your own in the place of MNIST; needs --labels.")
@click.option("--labels", type=FILE, help="CSV of their findings, in the form of ChestX-ray14.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--ray-address", help="Cluster for --engine ray, as ray.init takes it.  [default: RAY_ADDRESS]")
@click.option("--jobs", type=click.IntRange(1, 256), help="Local processes.  [default: one a processor]")
def flock(
    out: Path,
    quick: bool,
    tasks: tuple[str, ...],
    images: Path | None,
    labels: Path | None,
    engine: str,
    ray_address: str | None,
    jobs: int | None,
) -> None:
    """Run FLock's experiments again and draw them: accuracy under poison, tokens, survival, who pays.

    Fifty clients train on Lending Club and on MNIST, a share eta of them malicious; the ledger's own contract
    settles the votes. Every finished run is kept under DIR/flock-runs, so a sweep that was stopped goes on
    where it was. Written are DIR/flock.md, a PNG, SVG and CSV for each figure, and what holds of the paper's
    claims.

    \b
    Examples:
      flocknode sim figures flock --out results --quick
      flocknode sim figures flock --out results --task lending-club --jobs 4
      flocknode sim figures flock --out results --images images/ --labels Data_Entry_2017.csv
      flocknode sim figures flock --out results --engine ray --ray-address auto
    """
    from flocknode.demo.threads import start_no_thread_pools

    if (images is None) != (labels is None):
        raise click.UsageError("--images and --labels go together")
    start_no_thread_pools()
    from flocknode.learning.datasets import DatasetError
    from flocknode.learning.partition import PartitionError
    from flocknode.learning.task import TaskError
    from sim.figures.claims import claim_lines
    from sim.figures.flock.chapter import RUNS, flock_chapter, run_all
    from sim.figures.flock.contract_figure import alone_runs, run_alone
    from sim.figures.flock.images import ImageError
    from sim.figures.plots import FigureError
    from sim.figures.report import write_chapter
    from sim.figures.sweep import SweepError

    size, chosen = _size(quick, tasks, images, labels), _engine(engine, ray_address, jobs)
    try:
        with click.progressbar(length=len(set(size.runs())), label="runs", file=sys.stderr) as bar:
            outcomes = run_all(size, out, chosen, bar.update)
        with click.progressbar(length=len(alone_runs(size)), label="contract", file=sys.stderr) as bar:
            alone = run_alone(size, out / RUNS, chosen, bar.update)
        chapter = flock_chapter(outcomes, alone, _command(out, quick, tasks, images, labels))
        write_chapter(chapter, out)
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command goes on from here") from None
    except (DatasetError, PartitionError, TaskError, ImageError, FigureError, SweepError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    click.echo(claim_lines(chapter.claims))
    click.echo(f"\n{out / 'flock.md'}")


def _size(quick: bool, tasks: tuple[str, ...], images: Path | None, labels: Path | None) -> Size:
    from sim.figures.flock.plan import FULL, QUICK, with_pictures, with_tasks

    size = with_tasks(QUICK if quick else FULL, tasks or TASKS)
    if images is None or labels is None:
        return size
    return with_pictures(size, str(images.resolve()), str(labels.resolve()))


def _engine(engine: str, ray_address: str | None, jobs: int | None) -> Engine:
    from sim.figures.local_engine import LocalEngine
    from sim.figures.ray_engine import RayEngine

    return RayEngine(ray_address) if engine == "ray" else LocalEngine(jobs or os.cpu_count() or 1)


def _command(out: Path, quick: bool, tasks: tuple[str, ...], images: Path | None, labels: Path | None) -> str:
    """What makes the same figures again; who computes the runs does not change them."""
    words = ["flocknode", "sim", "figures", "flock", "--out", str(out)]
    words += ["--quick"] if quick else []
    words += [word for task in tasks for word in ("--task", task)]
    words += ["--images", str(images), "--labels", str(labels)] if images is not None else []
    return shlex.join(words)
