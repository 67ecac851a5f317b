"""The demo from end to end: found, launch, watch, stop, and report what the ledgers say."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from rich.console import Console
from rich.live import Live

from flocknode.config import ConfigError, NodeDirectory, load_node_dir
from flocknode.demo.baseline import Baseline, plain_fedavg
from flocknode.demo.faults import Dropper
from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.options import POISON_SCALE, DemoError, DemoOptions, check
from flocknode.demo.plan import DROP_EVERY, plan_of, seeded_draw, training_seed
from flocknode.demo.summary import print_summary
from flocknode.demo.watch import watch
from flocknode.founding import found
from flocknode.observe.follow import Follower
from flocknode.observe.live import View, live_view
from flocknode.observe.report import (
    Background,
    Json,
    NodeRecord,
    ended_rounds,
    make_report,
    read_node,
)

DRAW_EVERY_S = 0.125


@define(eq=False)
class Demo:
    """One run. `directories` stand in the order of nodes."""

    options: DemoOptions
    console: Console
    directories: Sequence[NodeDirectory]
    fleet: Fleet
    follower: Follower = field(init=False)
    dropper: Dropper = field(init=False)
    began_s: float = field(factory=time.monotonic, init=False)

    def __attrs_post_init__(self) -> None:
        peers = [directory.peer for directory in self.directories]
        self.follower = Follower(self.directories[0].genesis, [d.path for d in self.directories])
        members = {peer: index for index, peer in enumerate(peers)}
        self.dropper = Dropper(self.fleet, members, self.options.drop, DROP_EVERY)

    def watch(self) -> None:
        """Until the last round has ended at every node. Raises `DemoError` if that does not come about."""
        self.fleet.start_all()
        drawn_s = 0.0

        with self._screen() as screen:

            def each() -> None:
                nonlocal drawn_s
                self.dropper.step(self.follower.state)
                if time.monotonic() - drawn_s >= DRAW_EVERY_S:
                    screen.show()
                    drawn_s = time.monotonic()

            watch(self.fleet, self.follower, self.options.rounds, each, lambda: self.dropper.down)
            screen.show()

    # -- what is shown -----------------------------------------------------------------------------

    @contextmanager
    def _screen(self) -> Iterator[_Screen]:
        if self.options.quiet:
            yield _Screen()
        elif self.console.is_terminal:
            # No refresh thread: the launcher forks when it starts a node again.
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                yield _LiveScreen(self, live)
        else:
            yield _Lines(self)

    def view(self) -> View:
        """The moment, for a live view."""
        genesis = self.directories[0].genesis
        return View(
            title=f"{genesis.task}, {genesis.params.profile}, network {genesis.network.hex()[:12]}",
            rounds=self.options.rounds,
            follower=self.follower,
            members=[directory.peer for directory in self.directories],
            kinds=[directory.config.behaviour.kind for directory in self.directories],
            running=[self.fleet.is_running(index) for index in range(self.options.nodes)],
            elapsed_s=time.monotonic() - self.began_s,
        )

    # -- the report --------------------------------------------------------------------------------

    def roles(self) -> dict[bytes, str]:
        """honest, poison, or drop for a node that was killed at least once and does not poison."""
        dropped = {index for _, index in self.dropper.killed}
        roles: dict[bytes, str] = {}
        for index, directory in enumerate(self.directories):
            kind = directory.config.behaviour.kind
            roles[directory.peer] = "drop" if kind == "honest" and index in dropped else kind
        return roles


class _Screen:
    """Shows nothing."""

    def show(self) -> None:
        pass


@define(eq=False)
class _LiveScreen(_Screen):
    demo: Demo
    live: Live

    def show(self) -> None:
        self.live.update(live_view(self.demo.view(), *self.live.console.size), refresh=True)


@define(eq=False)
class _Lines(_Screen):
    """Where there is no terminal: one line a round."""

    demo: Demo
    printed: int = 0

    def show(self) -> None:
        for record in self.demo.follower.rounds[self.printed : self.demo.options.rounds]:
            kept = "accepted" if record.accepted else "not accepted"
            self.demo.console.print(
                f"round {record.round}: {record.verdict}, {kept}, "
                f"{len(record.contributors)} of {len(record.proposers)} contributed"
            )
            self.printed += 1


def run_demo(options: DemoOptions, console: Console) -> int:
    """Run it; the exit code: 0 if all ledgers are identical and verify, otherwise 1. Raises `DemoError`."""
    check(options)
    with _workplace(options) as root:
        if not options.quiet:
            console.print(f"{options.nodes} nodes in {root}; importing and compiling what they share ...")
        directories = _found(options, root)
        preload(directories[0])
        with Fleet([directory.path for directory in directories]) as fleet:
            demo = Demo(options, console, directories, fleet)
            demo.watch()
        if not options.quiet:
            console.print("all nodes stopped; reading their ledgers ...")
        nodes = [read_node(directory.path) for directory in directories]
        background = _background(demo, nodes)
        report = make_report(nodes, background)
        if options.report is not None:
            _write_report(options.report, report)
        passed = print_summary(console, options, nodes, background)
    return 0 if passed else 1


@contextmanager
def _workplace(options: DemoOptions) -> Iterator[Path]:
    """Where the nodes live: the directory that was asked for, or a temporary one, kept if something fails."""
    if options.directory is not None:
        yield options.directory.absolute()
        return
    root = Path(tempfile.mkdtemp(prefix="flocknode-demo-"))
    try:
        yield root
    except DemoError as error:
        raise DemoError(f"{error} (the nodes' directories are left in {root})") from error
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    shutil.rmtree(root, ignore_errors=True)


def _found(options: DemoOptions, root: Path) -> list[NodeDirectory]:
    try:
        return [load_node_dir(path) for path in found(root, plan_of(options), seeded_draw(options.seed))]
    except ConfigError as error:
        raise DemoError(str(error)) from error


def _background(demo: Demo, nodes: Sequence[NodeRecord]) -> Background:
    options = demo.options
    index = {node.peer: number for number, node in enumerate(nodes)}
    scores = plain_fedavg(
        Baseline(
            task=options.task,
            shards=options.nodes,
            seed=options.seed,
            training_seeds=tuple(training_seed(options.seed, number) for number in range(options.nodes)),
            rounds=tuple(
                (record.round, tuple(index[p] for p in record.contributors) if record.accepted else ())
                for record in ended_rounds(nodes, options.rounds)
            ),
            poisoned={
                number: POISON_SCALE
                for number, directory in enumerate(demo.directories)
                if directory.config.behaviour.kind == "poison"
            },
        )
    )
    return Background(
        seed=options.seed,
        rounds=options.rounds,
        roles=demo.roles(),
        initial=scores[0],
        plain=scores[1:],
    )


def _write_report(path: Path, report: Json) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise DemoError(f"--report {path}: {error.strerror}") from error
