"""Small steps between measured numbers and curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sim.bench.growth import growth_exponent
from sim.figures.plots import Curve, Series, line


def as_series(values: Iterable[float]) -> Series:
    """float64[x]."""
    return np.array(list(values), dtype=np.float64)


def fitted(sizes: Sequence[int], costs: Sequence[float], what: str, style: int) -> Curve:
    """The power law c * size^k that fits best on logarithms, with its exponent in the label."""
    exponent = growth_exponent(sizes, costs)
    x = as_series(sizes)
    scale = np.exp(np.mean(np.log(as_series(costs)) - exponent * np.log(x)))
    return Curve(f"{what}: fit, exponent {exponent:.2f}", x, line(scale * x**exponent), style, fit=True)
