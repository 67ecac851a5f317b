"""What a scenario can do to simulated machines and to the network between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

from protocol.events import Event, Millis
from sim.connections import Connections
from sim.errors import WorldError
from sim.network import Network
from sim.node import CrashPlan, Node
from sim.schedule import Schedule


class Injection(ABC):
    """Faults of a world. Each is marked in the trace."""

    nodes: list[Node]
    network: Network
    schedule: Schedule
    _connections: Connections

    @abstractmethod
    def start(self, index: int) -> None:
        """Begin a node's first or next life."""

    @abstractmethod
    def _crash(self, node: Node, restart_ms: Millis | None) -> None:
        """The process is gone."""

    @abstractmethod
    def _to_life(self, node: Node, life: int, event: Event) -> None:
        """Deliver what was meant for one life of a node."""

    @abstractmethod
    def _mark(self, text: str) -> None:
        """Write into the trace."""

    def crash(self, index: int, after_effects: int | None = None, restart_ms: Millis | None = None) -> None:
        """Crash now, or after the first `after_effects` effects of the next event; restart later."""
        node = self.nodes[index]
        if node.down:
            raise WorldError(f"node {index} is not running")
        if after_effects is None:
            self._crash(node, restart_ms)
        else:
            node.crash_next = CrashPlan(after_effects, restart_ms)

    def crash_at_effect(self, index: int, ordinal: int, restart_ms: Millis | None = None) -> None:
        """Crash once the node has performed `ordinal` effects over all its lives, before the next one."""
        self.nodes[index].crash_at = CrashPlan(ordinal, restart_ms)

    def partition(self, groups: Iterable[Iterable[int]]) -> int:
        """Part the network; connections across are noticed as lost a little later, on each side by itself.

        Returns the partition's number, for `end_partition`.
        """
        sides = [list(group) for group in groups]
        number = self.network.partition(sides)
        self._mark(f"partition {sides}")
        self._connections.break_separated()
        return number

    def end_partition(self, number: int) -> None:
        """End one partition; nodes connect again by themselves."""
        self.network.end_partition(number)
        self._mark(f"end partition {number}")
        self._reconnect()

    def heal(self) -> None:
        """End every partition and mend every cut link; nodes connect again by themselves."""
        self.network.heal()
        self._mark("heal")
        self._reconnect()

    def _reconnect(self) -> None:
        for node in self.nodes:
            for other in self.nodes[: node.index]:
                self._connections.connect_soon(node, other)

    def pause(self, index: int) -> None:
        """Let a running node neither hear nor act until `resume`; its connections stay up."""
        self.nodes[index].paused = self.nodes[index].alive
        self._mark(f"pause {index}")

    def resume(self, index: int) -> None:
        """What has come in the meantime is handled at once, in its order."""
        node = self.nodes[index]
        if not node.paused:
            return
        node.paused = False
        self._mark(f"resume {index}")
        waiting, node.waiting = node.waiting, deque()
        for event in waiting:
            self.schedule.push(0, self._to_life, node, node.life, event)

    def set_clock_rate(self, index: int, rate: float) -> None:
        """Let a node's clock run fast or slow; timers that run already end when they would have."""
        node = self.nodes[index]
        node.clock_rate = rate
        node.clock.set_rate(self.schedule.now, rate)
        self._mark(f"clock {index} x {rate}")

    def set_slowness(self, index: int, factor: float) -> None:
        """Let a node's jobs take `factor` times as long, and each event `factor` - 1 ms."""
        self.nodes[index].slowness = factor
        self._mark(f"slowness {index} x {factor}")

    def set_disk_full(self, index: int, full: bool) -> None:
        """While a disk is full its node ends at the first write, and is started again and again."""
        self.nodes[index].disk_full = full
        self._mark(f"disk {index} {'full' if full else 'free'}")

    def corrupt(self, index: int) -> None:
        """Damage the store of a node that is down: it refuses to start until it starts over."""
        self._require_down(index).damaged = True
        self._mark(f"corrupt {index}")

    def truncate(self, index: int, writes: int) -> None:
        """Take the last writes of a node that is down back; it counts as faulty from here on."""
        self._require_down(index).lose_last_writes(writes)
        self._mark(f"truncate {index} by {writes}")

    def start_over(self, index: int) -> None:
        """Start a node that is down with an empty store; it counts as faulty from here on."""
        self._require_down(index).lose_store()
        self._mark(f"start over {index}")
        self.start(index)

    def _require_down(self, index: int) -> Node:
        node = self.nodes[index]
        if not node.down:
            raise WorldError(f"node {index} is running")
        return node

    def cut(self, source: int, target: int) -> None:
        """Swallow everything from source to target, unnoticed."""
        self.network.cut(source, target)
        self._mark(f"cut {source}>{target}")

    def mend(self, source: int, target: int) -> None:
        self.network.mend(source, target)
        self._mark(f"mend {source}>{target}")
        self._connections.connect_soon(self.nodes[source], self.nodes[target])
