"""How a cost grows with a size: the exponent of the power law that fits it best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np


def median_seconds(step: Callable[[], object], repeats: int) -> float:
    """The median wall time of `step`, after one run that is not counted."""
    step()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def growth_exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The k of cost = c * size^k by least squares on logarithms: 1 is linear.

    ValueError for fewer than two different sizes, or a size or cost that is not positive.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError(f"{len(costs)} costs at sizes {list(sizes)}: no growth to fit")
    if min(sizes) <= 0 or min(costs) <= 0:
        raise ValueError("sizes and costs must be positive")
    slope, _ = np.polyfit(np.log(np.array(sizes, dtype=float)), np.log(np.array(costs, dtype=float)), 1)
    return float(slope)


def series(size: int, least: int) -> tuple[int, int, int]:
    """Three sizes an octave apart that end at `size`, or start there where they would begin below `least`."""
    if size // 4 < least:
        return (size, 2 * size, 4 * size)
    return (size // 4, size // 2, size)
