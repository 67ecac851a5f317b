"""A run without coverage: a seeded loop of mutations, the same every time."""

from __future__ import annotations

from random import Random

from sim.fuzzing.targets import Target
from sim.fuzzing.watching import Watch


def run_plain(watch: Watch, runs: int, seed: int) -> None:
    """`runs` executions. Raises what the target did wrong, or `MemoryGrowthError`."""
    target = watch.target
    seeds = target.seeds()
    for data in seeds[:runs]:
        watch(data)
    for number in range(len(seeds), runs):
        watch(drawn(target, seeds, Random(f"{seed}/{number}")))


def drawn(target: Target, seeds: list[bytes], draw: Random) -> bytes:
    """A seed with a few changes."""
    data = draw.choice(seeds)
    for _ in range(draw.choice([1, 1, 2, 4])):
        data = target.bent(data, draw)
    return data[: target.input_bytes]
