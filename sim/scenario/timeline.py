"""The faults of a scenario, struck when their moment comes and undone when their time is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from flocknode.observe.ledger import Step
from protocol.codec import encode
from protocol.engine import Engine
from protocol.events import Broadcast, Effect, Millis
from protocol.ledger.state import LedgerState
from protocol.order import Order
from protocol.params import MICRO
from sim.network import Impairment
from sim.reading import own_statements
from sim.scenario.manifest import Fault, FaultKind
from sim.scenario.selectors import Parts, Selector, parts_of_state, select

if TYPE_CHECKING:
    from protocol.envelope import Statement
    from sim.node import Node
    from sim.world import World

RESTART_MS = 1_000
"""How soon a machine that was tampered with is started again, where the scenario does not say."""
WRITES_LOST = 16
"""The most last writes that a store loses which goes back in time."""


@frozen
class Strike:
    """A fault that really struck: when, in which round, what, and whom."""

    at_ms: Millis
    round: int
    kind: FaultKind
    nodes: tuple[int, ...]


@define(eq=False)
class _Armed:
    """A fault that waits for one of its nodes to say something."""

    fault: Fault
    round: int
    nodes: set[int]


@define(eq=False)
class Timeline:
    """`state` is the ledger as the most advanced honest node has it. A `StepRule`: `at_step`.

    `open` counts what is still to come: strikes that are scheduled, and faults that are to be undone.
    """

    world: World
    faults: Sequence[Fault]
    numbers: Mapping[bytes, int]
    state: LedgerState
    random: Random
    strikes: list[Strike] = field(factory=list, init=False)
    open: int = field(default=0, init=False)
    quiet_since_ms: Millis = field(default=0, init=False)
    """When the last fault struck or was undone."""
    _waiting: list[Fault] = field(factory=list, init=False)
    _armed: list[_Armed] = field(factory=list, init=False)
    _orders: int = field(default=0, init=False)

    def begin(self) -> None:
        """At the start: what is due by the clock, and what is due in round 1 before any block."""
        self.world.watch = self._watch
        for fault in self.faults:
            if fault.place is None:
                assert fault.at_s is not None
                self._schedule(fault, _ms(fault.at_s) + _ms(fault.after_s))
            else:
                self._waiting.append(fault)
        self._reach(self.state)

    def at_step(self, step: Step) -> None:
        """A block was committed for the first time: some moments may have come."""
        self._reach(step.after)

    def disturbed(self, number: int, since_round: int) -> bool:
        """Whether any fault has struck this node, or what it talks to, since a round began."""
        return any(strike.round >= since_round and number in strike.nodes for strike in self.strikes)

    # -- moments -------------------------------------------------------------------------------------

    def _reach(self, state: LedgerState) -> None:
        self.state = state
        due = [f for f in self._waiting if f.place is not None and f.place.is_reached(state)]
        for fault in due:
            self._waiting.remove(fault)
            if fault.sends is not None:
                self._armed.append(_Armed(fault, state.round, set(self._who(fault.who))))
            else:
                self._schedule(fault, _ms(fault.after_s))
        self._armed = [armed for armed in self._armed if armed.round >= state.round]

    def _schedule(self, fault: Fault, delay_ms: Millis) -> None:
        self.open += 1
        self.world.at(self.world.now + delay_ms, lambda: self._due(fault))

    def _due(self, fault: Fault) -> None:
        self.open -= 1
        self._strike(fault, self._who(fault.who))
        if fault.every_s is not None and self.state.round < (fault.until_round or 0):
            self._schedule(fault, _ms(fault.every_s))

    def _watch(self, node: Node, effect: Effect) -> None:
        """Strike a node at the very statement that a fault waits for."""
        if not self._armed or not isinstance(effect, Broadcast):
            return
        for armed in list(self._armed):
            if node.index in armed.nodes and any(
                statement.kind is armed.fault.sends and statement.round == armed.round
                for statement in _said(node, effect.data)
            ):
                armed.nodes.discard(node.index)
                self._strike(armed.fault, (node.index,))

    def _who(self, selectors: Sequence[Selector]) -> tuple[int, ...]:
        return select(selectors, self.parts(), self.random)

    def parts(self) -> Parts:
        """Who has which part now; the leader is that of the view that an honest node is in."""
        running = [number for number in self.numbers.values() if self.world.nodes[number].alive]
        view = 1
        for number in running:
            node = self.world.nodes[number]
            if node.honest and isinstance(node.engine, Engine) and node.engine.height == self.state.height:
                view = max(view, node.engine.agreement.view)
        return parts_of_state(self.state, self.numbers, running, view)

    # -- strikes -------------------------------------------------------------------------------------

    def _strike(self, fault: Fault, who: tuple[int, ...]) -> None:
        struck = _STRIKES[fault.do](self, fault, who)
        if struck:
            self.quiet_since_ms = self.world.now
            self.strikes.append(
                Strike(self.world.now, self.state.round, fault.do, tuple(sorted(set(struck))))
            )

    def _later(self, fault: Fault, undo: Callable[[], object]) -> None:
        """Undo a fault when its time is over."""
        if fault.for_s is None:
            return
        self.open += 1

        def act() -> None:
            self.open -= 1
            self.quiet_since_ms = self.world.now
            undo()

        self.world.at(self.world.now + _ms(fault.for_s), act)

    def _start(self, number: int) -> None:
        if self.world.nodes[number].down:
            self.world.start(number)

    def _running(self, who: Sequence[int]) -> list[int]:
        return [number for number in who if self.world.nodes[number].alive]

    def _kill(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        struck = self._running(who)
        for number in struck:
            if fault.after_effects is None:
                self.world.crash(number)
            else:
                self.world.crash(number, fault.after_effects)
            self._later(fault, partial(self._start, number))
        return struck

    def _restart(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        for number in who:
            if self.world.nodes[number].alive:
                self.world.crash(number)
            self._start(number)
        return who

    def _pause(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        struck = self._running(who)
        for number in struck:
            self.world.pause(number)
            self._later(fault, partial(self.world.resume, number))
        return struck

    def _disconnect(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        for number in who:
            partition = self.world.partition([[number]])
            self._later(fault, partial(self.world.end_partition, partition))
        return who

    def _partition(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        sides: list[list[int]] = []
        for group in fault.groups:
            taken = {number for side in sides for number in side}
            sides.append([number for number in self._who(group) if number not in taken])
        partition = self.world.partition(sides)
        self._later(fault, partial(self.world.end_partition, partition))
        return range(len(self.numbers)) if any(sides) else ()

    def _cut(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        pairs = [(a, b) for a in who for b in self._who(fault.to) if a != b]
        for source, target in pairs:
            self.world.cut(source, target)
            self._later(fault, partial(self.world.mend, source, target))
        return [number for pair in pairs for number in pair]

    def _loss(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        return self._impair(fault, who, Impairment(loss=min(0.95, fault.rate)))

    def _slow(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        line = None if fault.bytes_per_s is None else max(1, fault.bytes_per_s // 1_000)
        return self._impair(fault, who, Impairment(delay_ms=fault.delay_ms, bytes_per_ms=line))

    def _impair(self, fault: Fault, who: Sequence[int], impairment: Impairment) -> Sequence[int]:
        number = self.world.network.impair(who, impairment)
        self._later(fault, partial(self.world.network.end_impairment, number))
        return who

    def _busy(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        for number in who:
            self.world.set_slowness(number, fault.factor)
            self._later(fault, partial(self.world.set_slowness, number, 1.0))
        return who

    def _clock(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        for number in who:
            self.world.set_clock_rate(number, fault.factor)
            self._later(fault, partial(self.world.set_clock_rate, number, 1.0))
        return who

    def _corrupt(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        """It refuses to start; where the fault has an end, it starts over then, with nothing."""
        struck = self._running(who)
        for number in struck:
            self.world.crash(number)
            self.world.corrupt(number)
            self._start(number)
            self._later(fault, partial(self._start_over, number))
        return struck

    def _start_over(self, number: int) -> None:
        if self.world.nodes[number].down:
            self.world.start_over(number)

    def _wipe(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        """Its ledger is gone; it starts over at once, or where the fault has an end, then."""
        for number in who:
            if self.world.nodes[number].alive:
                self.world.crash(number)
            if fault.for_s is None:
                self._start_over(number)
            else:
                self._later(fault, partial(self._start_over, number))
        return who

    def _truncate(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        struck = self._running(who)
        for number in struck:
            self.world.crash(number)
            self.world.truncate(number, self.random.randint(1, WRITES_LOST))
            self.open += 1
            delay_ms = RESTART_MS if fault.for_s is None else _ms(fault.for_s)
            self.world.at(self.world.now + delay_ms, partial(self._back, number))
        return struck

    def _back(self, number: int) -> None:
        self.open -= 1
        self.quiet_since_ms = self.world.now
        self._start(number)

    def _disk_full(self, fault: Fault, who: Sequence[int]) -> Sequence[int]:
        struck = self._running(who)
        for number in struck:
            self.world.set_disk_full(number, True)
            self._later(fault, partial(self.world.set_disk_full, number, False))
        return struck

    def _order(self, fault: Fault, who: tuple[int, ...]) -> Sequence[int]:
        """The operators ask for a transaction each."""
        struck, others = self._running(who), self._who(fault.to)
        assert fault.order is not None
        for number in struck:
            self._orders += 1
            recipient = self.world.nodes[others[0]].peer if others else bytes(32)
            units = round(fault.tokens * MICRO)
            name = self._orders.to_bytes(16, "big")
            order = Order(name, fault.order, recipient, units, fault.replaces)
            self.world.command(number, encode(order))
        return struck


_STRIKES: Mapping[FaultKind, Callable[[Timeline, Fault, tuple[int, ...]], Sequence[int]]] = {
    FaultKind.KILL: Timeline._kill,
    FaultKind.RESTART: Timeline._restart,
    FaultKind.PAUSE: Timeline._pause,
    FaultKind.DISCONNECT: Timeline._disconnect,
    FaultKind.PARTITION: Timeline._partition,
    FaultKind.CUT: Timeline._cut,
    FaultKind.LOSS: Timeline._loss,
    FaultKind.SLOW: Timeline._slow,
    FaultKind.BUSY: Timeline._busy,
    FaultKind.CLOCK: Timeline._clock,
    FaultKind.CORRUPT: Timeline._corrupt,
    FaultKind.TRUNCATE: Timeline._truncate,
    FaultKind.WIPE: Timeline._wipe,
    FaultKind.DISK_FULL: Timeline._disk_full,
    FaultKind.ORDER: Timeline._order,
}


def _said(node: Node, data: bytes) -> list[Statement]:
    """Own statements in a message; an adversary also says what is none."""
    try:
        return list(own_statements(data, node.peer))
    except ValueError:
        if node.honest:
            raise
        return []


def _ms(seconds: float) -> Millis:
    return round(seconds * 1_000)
