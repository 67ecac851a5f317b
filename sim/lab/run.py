"""A scenario with real node processes, from end to end: found, wire, launch, break, watch, stop, judge.

The lab itself stays in the machine's own namespace. It sees its nodes as anyone would who has their
directories: by ledgers and logs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen
from rich.console import Console

from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.screen import busy
from flocknode.node import StateMachine
from flocknode.observe.follow import Follower
from flocknode.observe.ledger import Step
from flocknode.observe.nodelog import time_of
from flocknode.observe.report import read_node
from flocknode.transport.base import Transport
from flocknode.wraps import Wraps
from protocol.ledger.state import Fault as LedgerFault
from protocol.ledger.state import LedgerState
from sim.adversaries.registry import HONEST
from sim.lab.cleanup import workplace
from sim.lab.damage import Disks
from sim.lab.delay import DelayBoard, DelayedTransport
from sim.lab.faults import Blow, Faults, Tools, set_delays
from sim.lab.filtered import FilteredEngine, FilteringTransport, serves_blobs_as_they_are
from sim.lab.links import Links, base_of
from sim.lab.machine import LabError, check_machine, die_with
from sim.lab.plan import Network, check, found_network, has_delays, notices
from sim.lab.screen import Moment, Screen
from sim.lab.wires import Wires
from sim.scenario.manifest import FaultKind, Scenario
from sim.scenario.outcome import Ending, NodeEnd, proven_faults
from sim.scenario.returns import Returns
from sim.scenario.selectors import select

POLL_S = 0.02
REFUSED = 1
"""The exit code of a node that cannot run and has said why."""
START_S = 60.0
"""How long all nodes may take to be up."""
SETTLE_S = 30.0
"""How long all nodes may take to reach the end of the last round when everything is mended."""


@frozen(kw_only=True)
class LabResult:
    """What came of a run. `failures`: what does not hold of what had to, empty where all is well.

    `notices`: what the lab did in another way than the manifest says.
    """

    seed: int
    ending: Ending
    blows: Sequence[Blow]
    exit_codes: Sequence[int | None]
    notices: Sequence[str]
    failures: Sequence[str]
    seconds: float


@define(eq=False)
class Lab:
    """One run of a scenario, on a network that stands."""

    scenario: Scenario
    seed: int
    network: Network
    tools: Tools
    console: Console
    quiet: bool
    screen: Screen = field(init=False)
    follower: Follower = field(init=False)
    faults: Faults = field(init=False)
    returns: Returns = field(init=False)
    failures: list[str] = field(factory=list, init=False)
    _up_s: float = field(factory=time.monotonic, init=False)
    _ended: set[int] = field(factory=set, init=False)
    """Processes whose end has been told."""
    _early: list[LedgerState] | None = field(factory=list, init=False)
    """Where the ledger has got to before all nodes were up: faults wait until then."""

    def __attrs_post_init__(self) -> None:
        self.returns = Returns(self.scenario.network.nodes)
        shape, loss = base_of(self.scenario.link)
        links = Links(count=self.scenario.network.nodes, base=shape, base_loss=loss)
        self.screen = Screen(self.console, self.moment, self.quiet)
        self.follower = Follower(self.network.directories[0].genesis, self.network.paths, self._on_step)
        self.faults = Faults(
            self.scenario.faults, self.network, self.tools, Random(self.seed), links, self._say
        )

    def run(self) -> None:
        """Until all rounds have ended and everybody has seen it, or patience is at an end."""
        with self.screen.open():
            self._run()

    def _run(self) -> None:
        self._start()
        deadline_s = self._up_s + self.scenario.network.patience_s
        while len(self.follower.rounds) < self.scenario.network.rounds and not self.failures:
            if time.monotonic() >= deadline_s:
                self._say(f"patience is at an end after {self.scenario.network.patience_s:g} s")
                break
            self._look()
            self.faults.step(self.follower.state, self.follower.phase, self.now_s)
        self.faults.lift_all(self.now_s)
        settled_s = time.monotonic() + SETTLE_S
        while not self._is_settled() and not self.failures and time.monotonic() < settled_s:
            self._look()

    @property
    def now_s(self) -> float:
        """Seconds since all nodes were up."""
        return time.monotonic() - self._up_s

    def moment(self) -> Moment:
        """For the screen."""
        fleet, nodes = self.tools.fleet, range(self.scenario.network.nodes)
        return Moment(
            title=f"{self.scenario.name}, seed {self.seed}",
            round=self.follower.state.round,
            rounds=self.scenario.network.rounds,
            phase=self.follower.phase,
            ended=self.follower.rounds[: self.scenario.network.rounds],
            states=[self._state(node, fleet) for node in nodes],
            behaviours=[self.network.behaviours.get(node, HONEST) for node in nodes],
            heights=[log.height for log in self.follower.logs],
            elapsed_s=self.now_s,
        )

    def _state(self, node: int, fleet: Fleet) -> str:
        if not fleet.is_running(node):
            return "down"
        if node in fleet.paused:
            return "paused"
        return "unplugged" if self.faults.links.is_down(node) else "up"

    def _say(self, what: str) -> None:
        self.screen.say(what)

    def _on_step(self, step: Step) -> None:
        self._reached(step.after)

    def _reached(self, state: LedgerState) -> None:
        if self._early is not None:
            self._early.append(state)
        else:
            self.faults.timeline.reached(state, self.now_s)

    def _start(self) -> None:
        """Start all nodes, on links as [link] has them, and wait until all are up."""
        self.tools.wires.apply(self.faults.links)
        set_delays(self.tools.delays, self.faults.links)
        self._reached(self.follower.state)
        self.tools.fleet.start_all()
        missing = set(range(self.scenario.network.nodes))
        deadline_s = time.monotonic() + START_S
        while missing and not self.failures:
            if time.monotonic() >= deadline_s:
                raise LabError(f"nodes {sorted(missing)} were not up within {START_S:g} s")
            missing -= self._look()
        self._up_s = time.monotonic()
        early, self._early = self._early or [], None
        self.faults.timeline.begin(0.0)
        for state in early:
            self.faults.timeline.reached(state, 0.0)
        self._say("all nodes are up")

    def _look(self) -> set[int]:
        """Take in what is new; the nodes that have just come up."""
        entries = self.follower.poll()
        for number, entry in entries:
            self._note_block(number, entry)
        if self.follower.fault is not None:
            self.failures.append(f"a ledger does not verify: {self.follower.fault}")
        self._note_ended()
        self.screen.show()
        time.sleep(POLL_S)
        return {number for number, entry in entries if entry.get("event") == "ready"}

    def _note_block(self, number: int, entry: Mapping[str, Any]) -> None:
        """How far a node is, by its log."""
        match entry.get("event"):
            case "started":
                self.returns.started(number, entry["height"], time_of(entry))
            case "block":
                self.returns.took_block(number, entry["height"], time_of(entry), entry["bytes_in"])
            case _:
                pass

    def _note_ended(self) -> None:
        """A node that ends by itself is news; where it has no reason to, it is a failure."""
        fleet, faults = self.tools.fleet, self.faults
        for node in range(self.scenario.network.nodes):
            pid = fleet.pids[node]
            if node in faults.killed or pid in self._ended or fleet.is_running(node):
                continue
            self._ended.add(pid)
            ended = (
                f"node {node} ended by itself, exit code {fleet.exit_code(node)}: {fleet.last_words(node)}"
            )
            self._say(ended)
            if node not in faults.tampered and node not in faults.starved:
                self.failures.append(ended)

    def _is_settled(self) -> bool:
        """Everybody that runs has the last block of the last round; whoever is to refuse has done so."""
        rounds = self.scenario.network.rounds
        if len(self.follower.rounds) < rounds:
            return True
        last, running = self.follower.rounds[rounds - 1].last_height, self.tools.fleet.running()
        down = select(self.scenario.expect.down, self.network.parts, Random(self.seed))
        return not set(down) & set(running) and all(
            self.follower.logs[node].height >= last for node in running if node not in self.network.filters
        )


def run_lab(scenario: Scenario, seed: int, console: Console, keep: Path | None, quiet: bool) -> LabResult:
    """Run a scenario and judge it. Whatever happens, nothing is left behind but what `keep` asks for.

    Raises `LabError`, `ScenarioError`, `ConfigError` for what cannot be run, `KeyboardInterrupt` as it comes.
    """
    check_machine()
    check(scenario)
    began_s = time.monotonic()
    with ExitStack() as stack:
        root = stack.enter_context(workplace(keep))
        disks = Disks()
        stack.callback(disks.take_back)
        if any(fault.do is FaultKind.DISK_FULL for fault in scenario.faults):
            for node in range(scenario.network.nodes):
                disks.give(root / f"node-{node}")
        network = found_network(scenario, seed, root)
        with busy(console, f"{scenario.network.nodes} nodes: importing and compiling", quiet):
            preload(network.directories[0])
        wires = Wires(scenario.network.nodes)
        stack.callback(wires.close)
        wires.open()
        noticed = list(notices(scenario, wires.has_netem))
        if not quiet:
            for notice in noticed:
                console.print(f"notice: {notice}", markup=False, highlight=False)
        delays = DelayBoard(scenario.network.nodes)
        delayed = has_delays(scenario) and not wires.has_netem
        enter = _entrance(network, wires, delays if delayed else None)
        fleet = stack.enter_context(Fleet(network.paths, enter, root))
        tools = Tools(fleet=fleet, wires=wires, disks=disks, delays=delays)
        lab = Lab(scenario, seed, network, tools, console, quiet)
        lab.run()
        running = set(fleet.running())
        fleet.stop()
        with busy(console, "all nodes have stopped: checking their ledgers", quiet):
            return _judge(lab, running, noticed, time.monotonic() - began_s)


def _entrance(network: Network, wires: Wires, delays: DelayBoard | None) -> Callable[[int], Wraps]:
    """What a new process does before it becomes a node of the lab."""
    launcher = os.getpid()

    def enter(node: int) -> Wraps:
        die_with(launcher)
        wires.enter(node)
        filter = network.filters.get(node)

        def transport(inner: Transport) -> Transport:
            if delays is not None:
                inner = DelayedTransport(inner, delays, node)
            if filter is not None and not serves_blobs_as_they_are(filter):
                inner = FilteringTransport(inner, filter)
            return inner

        def engine(inner: StateMachine) -> StateMachine:
            return inner if filter is None else FilteredEngine(inner, filter)

        return Wraps(engine, transport)

    return enter


def _judge(lab: Lab, running: set[int], noticed: Sequence[str], seconds: float) -> LabResult:
    """All nodes have stopped: what their ledgers say, and how they went."""
    network, faults, fleet = lab.network, lab.faults, lab.tools.fleet
    dishonest = network.filters.keys() | faults.tampered
    records = [read_node(path) for path in network.paths]
    ending = Ending(
        scenario=lab.scenario,
        nodes=[
            NodeEnd(
                number=number,
                up=number in running,
                honest=number not in dishonest,
                steps=record.steps,
                fault=record.fault,
            )
            for number, record in enumerate(records)
        ],
        numbers=network.numbers,
        parts=network.parts,
        returns=lab.returns,
    )
    return LabResult(
        seed=lab.seed,
        ending=ending,
        blows=faults.blows,
        exit_codes=[fleet.exit_code(node) for node in range(len(records))],
        notices=noticed,
        failures=[*lab.failures, *ending.failures(), *_framed(ending), *_left_by_nodes(lab, running)],
        seconds=seconds,
    )


def _framed(ending: Ending) -> Iterator[str]:
    """No honest node ever pays for what only a dishonest one does, however it was killed, starved or cut off.

    It may fail to open a vote: a sealed vote of a node that is down stays closed.
    """
    honest = {node.number for node in ending.nodes if node.honest}
    for proven in proven_faults(ending.longest.steps):
        number = ending.numbers.get(proven.peer)
        if number in honest and proven.fault is not LedgerFault.UNOPENED_VOTE:
            yield f"node {number} is honest and paid for {proven.fault.name} in round {proven.round}"


def _left_by_nodes(lab: Lab, running: set[int]) -> Iterator[str]:
    """How the nodes' processes ended: those that ran cleanly, those that had to refuse by refusing."""
    fleet = lab.tools.fleet
    for node in sorted(running):
        if fleet.exit_code(node) not in (0, -signal.SIGTERM):  # by the signal, where it had just been started
            yield f"node {node} ended with exit code {fleet.exit_code(node)} when it was asked to stop"
    for node in select(lab.scenario.expect.down, lab.network.parts, Random(lab.seed)):
        if node not in running and fleet.exit_code(node) != REFUSED:
            yield f"node {node} is down, but did not refuse to run: exit code {fleet.exit_code(node)}"
    for node in sorted(lab.faults.unnoticed):
        yield f"node {node} ran with a damaged store"
    for number in lab.faults.timeline.missed():
        yield f"faults[{number}] never struck"
