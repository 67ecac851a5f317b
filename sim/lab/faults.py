"""Carrying out a scenario's faults on real processes, wires and disks, and undoing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from attrs import define, evolve, field, frozen

from flocknode import spool
from flocknode.demo.fleet import Fleet
from protocol.ledger.state import LedgerState
from protocol.params import MICRO
from sim.lab.damage import Disks, corrupt_store, start_over, truncate_store
from sim.lab.delay import DelayBoard
from sim.lab.links import Links, Shape, Trouble, partition
from sim.lab.machine import LabError
from sim.lab.plan import Network
from sim.lab.timeline import Strike, Timeline
from sim.lab.wires import Wires
from sim.scenario.manifest import Fault, FaultKind
from sim.scenario.selectors import Parts, parts_of_state, select


@define(kw_only=True)
class Blow:
    """A fault that struck. Times in seconds since all nodes were up; `lifted_s` None while it lasts.

    `who`: the nodes that it struck, `to`: the far ends of a cut, the sides of a partition in `groups`.
    """

    number: int
    do: FaultKind
    at_s: float
    round: int
    phase: str
    who: tuple[int, ...]
    to: tuple[int, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    lifted_s: float | None = None

    def __str__(self) -> str:
        if self.do is FaultKind.PARTITION:
            return f"partition {' | '.join(_numbers(group) for group in self.groups)}"
        return f"{self.do.value} {_numbers(self.who)}" + (f" to {_numbers(self.to)}" if self.to else "")


@frozen(kw_only=True)
class Tools:
    """What faults are carried out with."""

    fleet: Fleet
    wires: Wires
    disks: Disks
    delays: DelayBoard


@define(eq=False)
class Faults:
    """Strikes and lifts what the timeline has due. `state`: where the most advanced ledger is."""

    scenario_faults: Sequence[Fault]
    network: Network
    tools: Tools
    random: Random
    links: Links
    on_event: Callable[[str], None]
    timeline: Timeline = field(init=False)
    blows: list[Blow] = field(factory=list, init=False)
    tampered: set[int] = field(factory=set, init=False)
    """Nodes whose store was damaged: what their ledgers say does not count."""
    unnoticed: set[int] = field(factory=set, init=False)
    """Nodes that ran on a damaged store until it was thrown away."""
    killed: set[int] = field(factory=set, init=False)
    """Nodes that are down because the lab killed them."""
    starved: set[int] = field(factory=set, init=False)
    """Nodes that have no room on their disk, or had none when they ended."""
    _undo: dict[int, Callable[[], None]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.timeline = Timeline(self.scenario_faults)

    def step(self, state: LedgerState, phase: str, now_s: float) -> None:
        """Do what is due now. Raises `LabError`."""
        for what in self.timeline.due(now_s):
            if isinstance(what, Strike):
                self._strike(what.number, state, phase, now_s)
            else:
                self._lift(what.strike, now_s)

    def lift_all(self, now_s: float) -> None:
        """Undo whatever still lasts: nodes that were to come back do so now."""
        for strike in list(self._undo):
            self._lift(strike, now_s)

    def parts(self, state: LedgerState) -> Parts:
        """Who has which part now; nodes that stand still do not count as running."""
        fleet = self.tools.fleet
        return parts_of_state(state, self.network.numbers, set(fleet.running()) - fleet.paused)

    def _strike(self, number: int, state: LedgerState, phase: str, now_s: float) -> None:
        fault, parts = self.scenario_faults[number], self.parts(state)
        blow = Blow(
            number=number,
            do=fault.do,
            at_s=now_s,
            round=state.round,
            phase=phase,
            who=select(fault.who, parts, self.random),
            to=select(fault.to, parts, self.random),
            groups=tuple(select(group, parts, self.random) for group in fault.groups),
        )
        if fault.do is FaultKind.ORDER:
            self._order(fault, blow)
            undo = None
        else:
            undo = self._carry_out(fault, blow)
        strike = len(self.blows)
        self.blows.append(blow)
        self.on_event(f"{blow}, in round {state.round} / {phase}")
        if undo is not None and fault.for_s is not None:
            self._undo[strike] = undo
            self.timeline.lift_later(strike, now_s + fault.for_s)

    def _lift(self, strike: int, now_s: float) -> None:
        undo = self._undo.pop(strike, None)
        if undo is not None:
            undo()
            self.blows[strike].lifted_s = now_s
            self.on_event(f"over: {self.blows[strike]}")

    def _carry_out(self, fault: Fault, blow: Blow) -> Callable[[], None] | None:
        """Strike; the way to undo it, where there is one."""
        match fault.do:
            case FaultKind.KILL:
                self._kill(blow.who)
                return lambda: self._start(blow.who)
            case FaultKind.RESTART:
                self._kill(blow.who)
                self._start(blow.who)
                return None
            case FaultKind.PAUSE:
                return self._pause(blow.who)
            case FaultKind.CORRUPT | FaultKind.TRUNCATE:
                return self._damage(fault, blow.who)
            case FaultKind.WIPE:
                return self._wipe(fault, blow.who)
            case FaultKind.DISK_FULL:
                return self._fill_disks(blow.who)
            case _:
                return self._trouble(trouble_of(fault, blow, self.links.count))

    def _order(self, fault: Fault, blow: Blow) -> None:
        """Leave an order for each node."""
        peers = {number: peer for peer, number in self.network.numbers.items()}
        assert fault.order is not None
        for node in blow.who:
            recipient = peers[blow.to[0]] if blow.to else bytes(32)
            order = spool.new_order(fault.order, recipient, round(fault.tokens * MICRO), fault.replaces)
            spool.submit(self.network.paths[node], order)

    # -- processes -------------------------------------------------------------------------------

    def _kill(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            if self.tools.fleet.is_running(node):
                self.tools.fleet.kill(node)
                self.killed.add(node)

    def _start(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            if not self.tools.fleet.is_running(node):
                self.killed.discard(node)
                self.tools.fleet.start(node)

    def _pause(self, nodes: Sequence[int]) -> Callable[[], None]:
        fleet = self.tools.fleet
        running = [node for node in nodes if fleet.is_running(node) and node not in fleet.paused]
        for node in running:
            fleet.pause(node)

        def resume() -> None:
            for node in running:
                if node in fleet.paused:
                    fleet.resume(node)

        return resume

    # -- disks -----------------------------------------------------------------------------------

    def _damage(self, fault: Fault, nodes: Sequence[int]) -> Callable[[], None]:
        """Kill, damage, and start: the node must refuse. It starts over when the fault is lifted."""
        self._kill(nodes)
        for node in nodes:
            directory = self.network.paths[node]
            if fault.do is FaultKind.CORRUPT:
                corrupt_store(directory, self.random)
            else:
                truncate_store(directory)
            self.tampered.add(node)
        self._start(nodes)

        def replace() -> None:
            for node in nodes:
                if self.tools.fleet.is_running(node):
                    self.unnoticed.add(node)
            self._kill(nodes)
            for node in nodes:
                start_over(self.network.paths[node])
            self._start(nodes)

        return replace

    def _wipe(self, fault: Fault, nodes: Sequence[int]) -> Callable[[], None] | None:
        """Kill, and start with an empty ledger: at once, or when the fault is lifted."""
        self._kill(nodes)
        self.tampered.update(nodes)

        def replace() -> None:
            for node in nodes:
                start_over(self.network.paths[node])
            self._start(nodes)

        if fault.for_s is not None:
            return replace
        replace()
        return None

    def _fill_disks(self, nodes: Sequence[int]) -> Callable[[], None]:
        for node in nodes:
            self.starved.add(node)
            self.tools.disks.fill(self.network.paths[node])

        def free() -> None:
            for node in nodes:
                self.tools.disks.free(self.network.paths[node])
                if node not in self.killed:
                    self._start([node])
                self.starved.discard(node)

        return free

    # -- links -----------------------------------------------------------------------------------

    def _trouble(self, trouble: Trouble) -> Callable[[], None]:
        self._connect(evolve(self.links, troubles=(*self.links.troubles, trouble)))

        def mend() -> None:
            left = [other for other in self.links.troubles if other is not trouble]
            self._connect(evolve(self.links, troubles=tuple(left)))

        return mend

    def _connect(self, links: Links) -> None:
        self.links = links
        self.tools.wires.apply(links)
        if not self.tools.wires.has_netem:
            set_delays(self.tools.delays, links)


def set_delays(board: DelayBoard, links: Links) -> None:
    """Have the nodes themselves delay their messages."""
    for node in range(links.count):
        shape = links.shape(node)
        board.set(node, shape.delay_min_ms, shape.delay_max_ms)


def trouble_of(fault: Fault, blow: Blow, count: int) -> Trouble:
    """What a fault of the network does to links."""
    nodes: Mapping[int, None] = dict.fromkeys(blow.who)
    match fault.do:
        case FaultKind.DISCONNECT:
            return Trouble(down=frozenset(nodes))
        case FaultKind.PARTITION:
            return Trouble(cut=partition(count, blow.groups))
        case FaultKind.CUT:
            return Trouble(cut=frozenset((a, b) for a in blow.who for b in blow.to if a != b))
        case FaultKind.LOSS:
            return Trouble(loss=dict.fromkeys(nodes, fault.rate))
        case FaultKind.SLOW:
            shape = Shape(fault.bytes_per_s, fault.delay_ms, fault.delay_ms)
            return Trouble(shapes=dict.fromkeys(nodes, shape))
        case _:
            raise LabError(f"the lab cannot do {fault.do.value}")


def _numbers(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes)) or "nobody"
