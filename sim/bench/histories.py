"""How fast the simulator is: whole rounds of many engines in one process, and what takes the time.

Nothing fails and nobody lies. Agreement and supply are checked after every event; no trace is written, as in
fuzzing campaigns.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from protocol.engine import Engine
from protocol.events import Millis
from protocol.keys import Identity
from protocol.sortition import SortitionError
from sim.founding import Founding, build_world, found, small_params, supply_of, total_units
from sim.invariants.supply import Supply
from sim.learner import SyntheticLearner, sample_count
from sim.node import Node
from sim.worker import JobWorker
from sim.world import World

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

    For nodes that live once. It is wound around the methods of objects, and taken off them when enough is
    known: looking at the clock takes time as well.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = [DELIVERY]
        self._since = time.perf_counter()
        self._wound: list[tuple[dict[str, Any], str]] = []

    def start(self) -> None:
        self._since = time.perf_counter()

    def wind(self, thing: object, method: str, part: str) -> None:
        """From now on the method of this one object counts as this part."""
        run = getattr(thing, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            self._charge()
            self._inside.append(part)
            try:
                return run(*arguments, **options)
            finally:
                self._charge()
                self._inside.pop()

        own = vars(thing)
        own[method] = timed
        self._wound.append((own, method))

    def stop(self) -> None:
        """Count no more, and leave nothing behind."""
        self._charge()
        for own, method in self._wound:
            del own[method]
        self._wound.clear()

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
    worker = JobWorker(SyntheticLearner(params, founding.bytes32("learner")))
    watch.wind(worker, "run", JOBS)
    watch.wind(founding.checks, "verify", VERIFYING)
    world = build_world(
        nodes,
        seed,
        params=params,
        worker=worker,
        invariants=[Supply(supply_of, total_units(founding.genesis))],
        factory=lambda _, member, node: _timed_engine(founding, member, node, watch),
        keep_trace=0,
    )
    began, cpu_began = time.perf_counter(), time.process_time()
    watch.start()
    for ended in range(1, rounds + 1):
        world.run(rounds_ended(world, ended))
        if ended == min(rounds, TIMED_ROUNDS):
            watch.stop()
        progress(ended)
    cpu_seconds, seconds = time.process_time() - cpu_began, time.perf_counter() - began
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
    seen = (-1, -1)

    def reached(_: World) -> bool:
        nonlocal seen
        while behind:
            node = behind[-1]
            if node.height == seen[0] and node.life == seen[1]:
                return False
            if not isinstance(node.engine, Engine):
                return False
            if node.engine.state.round <= rounds:
                seen = node.height, node.life
                return False
            behind.pop()
            seen = (-1, -1)
        return True

    return reached


class _Signing(Identity):
    """An identity whose `sign` can be timed: as `Identity`, but with room for a method of its own."""

    __slots__ = ("__dict__",)


def _timed_engine(founding: Founding, member: int, node: Node, watch: Stopwatch) -> Engine:
    peer = founding.identities[member].peer
    identity = _Signing(founding.identities[member].private)
    engine = Engine(
        identity,
        founding.genesis,
        node.entropy.randbytes,
        founding.packages.get(peer),
        sample_count(founding.genesis.params, member),
        founding.checks,
    )
    watch.wind(identity, "sign", SIGNING)
    watch.wind(engine, "handle", ENGINES)
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
