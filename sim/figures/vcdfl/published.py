"""Figures of others, measured on machines that are not ours: shapes to compare with, not times to subtract.

From a third party's re-implementation of VCD-FL (Gao, Luo, Zhu, Dong, Shi, IEEE TIFS 2023) beside EIFL,
VeriFL, VERSA and VOSA: 100 clients, or 100,000 weights.
"""

from __future__ import annotations

from attrs import field, frozen

from sim.figures.plots import Curve, Series, line
from sim.figures.vcdfl.series import as_series

ELSEWHERE = "published, other machines"
CLIENTS = 100
DIMENSION = 100_000


@frozen
class Published:
    """One curve of one system: `at` are dimensions or clients, `values` seconds or MB."""

    system: str
    at: tuple[int, ...]
    values: tuple[float, ...] = field()

    def curve(self, style: int) -> Curve:
        """As it is drawn beside ours."""
        x: Series = as_series(self.at)
        return Curve(f"{self.system} ({ELSEWHERE})", x, line(as_series(self.values)), style, foreign=True)


_D = (20_000, 40_000, 60_000, 80_000, 100_000)

VERIFY_BY_DIMENSION = (
    Published("VCD-FL", _D, (0.33, 0.68, 1.05, 1.47, 2.04)),
    Published("EIFL", _D, (0.20, 0.22, 0.25, 0.27, 0.30)),
    Published("VeriFL", _D, (2, 4, 6, 8, 10)),
    Published("VERSA", _D, (0.95, 1.80, 2.68, 3.55, 4.43)),
    Published("VOSA", _D, (0.79, 1.57, 2.36, 3.15, 3.93)),
)
"""Seconds at 100 clients."""

CLIENT_BY_DIMENSION = (
    Published("VCD-FL", _D, (6.1, 12.2, 18.3, 24.5, 33.1)),
    Published("EIFL", _D, (3.1, 5.2, 7.3, 9.3, 11.3)),
)
"""Seconds at 100 clients."""

TRAFFIC_BY_DIMENSION = (
    Published("VCD-FL", _D, (22.8, 45.5, 68.3, 91.1, 113.9)),
    Published("EIFL", _D, (0.46, 0.57, 0.69, 0.80, 0.92)),
)
"""MB of one client at 100 clients."""

VERIFY_BY_CLIENTS = (Published("VCD-FL", (20, 40, 60, 80, 100), (0.94, 1.20, 1.45, 1.73, 2.04)),)
"""Seconds at 100,000 weights."""
