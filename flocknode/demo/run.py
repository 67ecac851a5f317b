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

from flocknode.config import ConfigError, NodeDirectory, load_node_dir
from flocknode.demo.baseline import Baseline, plain_fedavg
from flocknode.demo.faults import Dropper
from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.options import POISON_SCALE, DemoError, DemoOptions, check
from flocknode.demo.plan import DROP_EVERY, plan_of, seeded_draw, training_seed
from flocknode.demo.screen import busy, open_screen
from flocknode.demo.summary import print_summary
from flocknode.demo.watch import watch
from flocknode.founding import found
from flocknode.gamma import describe_gamma
from flocknode.observe.follow import Follower
from flocknode.observe.live import View
from flocknode.observe.report import (
    Background,
    Json,
    NodeRecord,
    ended_rounds,
    make_report,
    read_node,
)


@define(eq=False)
class Demo:
    """One run. `directories` stand in the order of nodes."""

    options: DemoOptions
    directories: Sequence[NodeDirectory]
    fleet: Fleet
    follower: Follower = field(init=False)
    dropper: Dropper = field(init=False)
    began_s: float = field(factory=time.monotonic, init=False)

    def __attrs_post_init__(self) -> None:
        self.follower = Follower(self.directories[0].genesis, [d.path for d in self.directories])
        members = {directory.peer: index for index, directory in enumerate(self.directories)}
        self.dropper = Dropper(self.fleet, members, self.options.drop, DROP_EVERY)

    def watch(self, console: Console) -> None:
        """Until the last round has ended at every node. Raises `DemoError` if that does not come about."""
        self.fleet.start_all()
        with open_screen(console, self.view, self.options.quiet) as show:

            def each() -> None:
                self.dropper.step(self.follower.state)
                show()

            watch(self.fleet, self.follower, self.options.rounds, each, lambda: self.dropper.down)

    def view(self) -> View:
        """The moment, for a live view."""
        genesis = self.directories[0].genesis
        gamma = describe_gamma(genesis.params)
        return View(
            title=f"{genesis.task}, {genesis.params.profile}, gamma {gamma}, "
            f"network {genesis.network.hex()[:12]}",
            rounds=self.options.rounds,
            follower=self.follower,
            members=[directory.peer for directory in self.directories],
            kinds=[directory.config.behaviour.kind for directory in self.directories],
            running=[self.fleet.is_running(index) for index in range(self.options.nodes)],
            elapsed_s=time.monotonic() - self.began_s,
        )

    def background(self, nodes: Sequence[NodeRecord]) -> Background:
        """What the ledgers do not know; plain FedAvg is computed here, over whom the ledgers name."""
        scores = plain_fedavg(self._baseline(nodes))
        return Background(
            seed=self.options.seed,
            rounds=self.options.rounds,
            roles=self._roles(),
            initial=scores[0],
            plain=scores[1:],
        )

    def _roles(self) -> dict[bytes, str]:
        """honest, poison, or drop for a node that was killed at least once and does not poison."""
        dropped = {index for _, index in self.dropper.killed}
        roles: dict[bytes, str] = {}
        for index, directory in enumerate(self.directories):
            kind = directory.config.behaviour.kind
            roles[directory.peer] = "drop" if kind == "honest" and index in dropped else kind
        return roles

    def _baseline(self, nodes: Sequence[NodeRecord]) -> Baseline:
        options = self.options
        index = {node.peer: number for number, node in enumerate(nodes)}
        return Baseline(
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
                for number, directory in enumerate(self.directories)
                if directory.config.behaviour.kind == "poison"
            },
        )


def run_demo(options: DemoOptions, console: Console) -> int:
    """Run it; the exit code: 0 if all ledgers are identical and verify, otherwise 1. Raises `DemoError`."""
    check(options)
    with _workplace(options) as root:
        with busy(console, f"{options.nodes} nodes in {root}: importing and compiling", options.quiet):
            directories = _found(options, root)
            preload(directories[0])
        with Fleet([directory.path for directory in directories]) as fleet:
            demo = Demo(options, directories, fleet)
            demo.watch(console)
        with busy(console, "all nodes have stopped: checking their ledgers", options.quiet):
            nodes = [read_node(directory.path) for directory in directories]
            background = demo.background(nodes)
        if options.report is not None:
            _write_report(options.report, make_report(nodes, background))
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


def _write_report(path: Path, report: Json) -> None:
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise DemoError(f"--report {path}: {error.strerror}") from error
