"""`flocknode bench memory`: what an engine keeps at great heights, part by part.

Real engines in the simulator, with a tiny model. What is kept is counted by walking from the engine to every
object that it can reach: objects and bytes, by the attribute through which they were reached first. What the
simulated machines have on their disks is not among them, nor are results that engines of one process share.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from attrs import field, frozen

from protocol.engine import Engine
from sim.founding import build_world, small_params

SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType)
"""What all engines of a process share; walking into it would find the whole program."""
FOREIGN = frozenset({"sim", "random"})
"""Packages whose objects are the simulator's."""
PATIENCE_MS = 10**9


@frozen
class Kept:
    """What was reached: how many objects, and what they weigh by themselves."""

    objects: int = 0
    bytes: int = 0


@frozen
class Snapshot:
    """What one engine keeps at a height, by part; `kinds` has the objects of each type."""

    height: int
    round: int
    parts: Mapping[str, Kept]
    kinds: Mapping[str, int] = field(repr=False)

    @property
    def total(self) -> Kept:
        return Kept(
            sum(kept.objects for kept in self.parts.values()), sum(kept.bytes for kept in self.parts.values())
        )


def kept_by(engine: Engine, height: int, round_: int) -> Snapshot:
    """Count what can be reached from an engine; parts are walked in the order of their names."""
    seen: set[int] = {id(engine), id(engine.genesis)}
    kinds: dict[str, int] = {}
    parts: dict[str, Kept] = {}
    gc.collect()
    for name, value in sorted(vars(engine).items()):
        found = list(_reachable(value, seen))
        parts[name] = Kept(len(found), sum(sys.getsizeof(at) for at in found))
        for at in found:
            kind = type(at).__qualname__
            kinds[kind] = kinds.get(kind, 0) + 1
    return Snapshot(height, round_, parts, kinds)


def _reachable(root: object, seen: set[int]) -> Iterator[object]:
    waiting = [root]
    while waiting:
        at = waiting.pop()
        if id(at) in seen or isinstance(at, SHARED) or type(at).__module__.split(".")[0] in FOREIGN:
            continue
        seen.add(id(at))
        yield at
        waiting += gc.get_referents(at)


def grow(
    heights: Iterable[int], nodes: int = 4, seed: int = 1, told: Callable[[Snapshot], None] = lambda _: None
) -> list[Snapshot]:
    """Run a network to each of these heights in turn; what its first engine keeps in the first phase there.

    Looks when a round has just begun, so that the same part of a round is compared.
    """

    world = build_world(nodes, seed, params=small_params(nodes), keep_trace=0)
    world.invariants.clear()
    snapshots = []
    node = world.nodes[0]
    for height in sorted(heights):
        world.run(lambda _, height=height: node.height >= height, PATIENCE_MS, 10**9)  # type: ignore[misc]
        engine = node.engine
        assert isinstance(engine, Engine)
        round_ = engine.state.round
        world.run(lambda _, engine=engine, round_=round_: engine.state.round > round_)  # type: ignore[misc]
        snapshots.append(kept_by(engine, engine.height, engine.state.round))
        world.reports.clear()
        told(snapshots[-1])
    return snapshots
