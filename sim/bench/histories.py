"""How fast the simulator is: whole rounds of many engines in one process, and what takes the time.

Nothing fails and nobody lies. Agreement and supply are checked after every event; no trace is written, as in
fuzzing campaigns.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from protocol.engine import Engine
from protocol.events import Effect, Event, Millis
from protocol.keys import Identity
from protocol.sortition import SortitionError
from sim.checks import SharedChecks
from sim.founding import Founding, build_world, found, small_params, supply_of, total_units
from sim.invariants.supply import Supply
from sim.learner import SyntheticLearner, sample_count
from sim.node import Node
from sim.worker import JobWorker, Learner
from sim.world import ReadBlob, World

if TYPE_CHECKING:
    from protocol.jobs import Job, JobResult

ENGINES = "engines"
SIGNING = "signing"
VERIFYING = "verifying signatures"
JOBS = "jobs"
DELIVERY = "delivery"
TIMED_ROUNDS = 10
PARTS = (ENGINES, SIGNING, VERIFYING, JOBS, DELIVERY)


class BenchError(ValueError):
    """A network or a number of rounds that cannot be."""


class Stopwatch:
    """Wall time by part, each without the parts inside it; `DELIVERY` is what no other part covers.

    Turned on and off between events: looking at the clock takes time as well.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = [DELIVERY]
        self._since = time.perf_counter()

    def turn(self, on: bool) -> None:
        if self.is_on:
            self._charge()
        self.is_on, self._since = on, time.perf_counter()

    def enter(self, part: str) -> None:
        if self.is_on:
            self._charge()
            self._inside.append(part)

    def leave(self) -> None:
        if self.is_on:
            self._charge()
            self._inside.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now


@frozen
class SimBench:
    """`cpu_seconds`: processor time of the whole run on one core; `shares`: of the first rounds, by part."""

    nodes: int
    rounds: int
    dimension: int
    profile: str
    cpu_seconds: float
    seconds: float
    events: int
    virtual_ms: Millis
    shares: Mapping[str, float]


def bench_simulator(
    nodes: int,
    rounds: int,
    dimension: int,
    profile: str,
    seed: int = 1,
    progress: Callable[[int], None] = lambda ended: None,
) -> SimBench:
    """Simulate until every node has ended `rounds` rounds; `progress` hears how many each time one ends.

    One small round goes first, so that what is compiled once does not count. Raises `BenchError`.
    """
    if rounds < 1 or dimension < 1:
        raise BenchError(f"at least one round and one weight are needed, not {rounds} and {dimension}")
    try:
        params = small_params(nodes, profile, dimension=dimension)
    except SortitionError as error:
        raise BenchError(str(error)) from error
    warm = build_world(4, seed, profile=profile, keep_trace=0)
    warm.run(rounds_ended(warm, 1))

    watch = Stopwatch()
    founding = found(nodes, seed, params)
    worker = _TimedWorker(watch, SyntheticLearner(params, founding.bytes32("learner")))
    checks = _TimedChecks(watch)

    def make_timed(founding: Founding, member: int, node: Node) -> Engine:
        return _timed_engine(evolve(founding, checks=checks), member, node, watch)

    world = build_world(
        nodes,
        seed,
        params=params,
        worker=worker,
        invariants=[Supply(supply_of, total_units(founding.genesis))],
        factory=make_timed,
        keep_trace=0,
    )
    began, cpu_began = time.perf_counter(), time.process_time()
    for ended in range(1, rounds + 1):
        watch.turn(on=ended <= TIMED_ROUNDS)
        world.run(rounds_ended(world, ended))
        progress(ended)
    cpu_seconds, seconds = time.process_time() - cpu_began, time.perf_counter() - began
    watch.turn(on=False)
    total = sum(watch.seconds.values())
    return SimBench(
        nodes=nodes,
        rounds=rounds,
        dimension=dimension,
        profile=profile,
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        events=world.schedule.happened,
        virtual_ms=world.now,
        shares={part: watch.seconds[part] / total for part in PARTS},
    )


def rounds_ended(world: World, rounds: int) -> Callable[[World], bool]:
    """A goal for `World.run`: every node has ended so many rounds. It looks at one node after each event."""
    behind = list(world.nodes)

    def reached(_: World) -> bool:
        while behind and isinstance(engine := behind[-1].engine, Engine) and engine.state.round > rounds:
            behind.pop()
        return not behind

    return reached


@frozen
class _TimedIdentity(Identity):
    watch: Stopwatch = field(kw_only=True, eq=False, repr=False)

    def sign(self, message: bytes) -> bytes:
        self.watch.enter(SIGNING)
        try:
            return super().sign(message)
        finally:
            self.watch.leave()


class _TimedChecks(SharedChecks):
    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self._watch = watch

    def verify(self, peer: bytes, message: bytes, signature: bytes) -> bool:
        self._watch.enter(VERIFYING)
        try:
            return super().verify(peer, message, signature)
        finally:
            self._watch.leave()


class _TimedWorker(JobWorker):
    def __init__(self, watch: Stopwatch, learner: Learner) -> None:
        super().__init__(learner)
        self._watch = watch

    def run(self, node: int, job: Job, read_blob: ReadBlob) -> JobResult:
        self._watch.enter(JOBS)
        try:
            return super().run(node, job, read_blob)
        finally:
            self._watch.leave()


class _TimedEngine(Engine):
    watch: Stopwatch

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        self.watch.enter(ENGINES)
        try:
            return super().handle(event, now)
        finally:
            self.watch.leave()


def _timed_engine(founding: Founding, member: int, node: Node, watch: Stopwatch) -> Engine:
    identity = founding.identities[member]
    engine = _TimedEngine(
        _TimedIdentity(identity.private, watch=watch),
        founding.genesis,
        node.entropy.randbytes,
        founding.packages.get(identity.peer),
        sample_count(founding.genesis.params, member),
        founding.checks,
    )
    engine.watch = watch
    return engine


def render(bench: SimBench) -> str:
    """As text."""
    lines = [
        f"{bench.nodes} nodes, {bench.rounds} rounds, {bench.dimension} weights, profile {bench.profile}",
        "",
        f"processor time  {bench.cpu_seconds:10.1f} s  ({bench.seconds:.1f} s passed)",
        f"virtual time    {bench.virtual_ms / 1e3:10.1f} s",
        f"events          {bench.events:10d}    {bench.events / bench.cpu_seconds:,.0f} a second, "
        f"{bench.cpu_seconds / bench.events * 1e6:.0f} us each",
        f"rounds          {bench.rounds:10d}    {bench.rounds / bench.cpu_seconds:.2f} a second, "
        f"{bench.cpu_seconds / bench.rounds * 1e3:.0f} ms each",
        "",
        f"where it goes, in the first {min(TIMED_ROUNDS, bench.rounds)} rounds",
    ]
    lines += [f"  {part:<22}{bench.shares[part]:6.1%}" for part in PARTS]
    return "\n".join(lines)
