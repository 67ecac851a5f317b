"""A node's monotonic clock: it starts anywhere, and may run fast or slow."""

from __future__ import annotations

import math

from attrs import define

from protocol.events import Millis


@define
class Clock:
    """Reads `local_ms` at the virtual time `origin_ms`, and from there on runs `rate` times as fast."""

    origin_ms: Millis = 0
    local_ms: Millis = 0
    rate: float = 1.0

    def read(self, now_ms: Millis) -> Millis:
        """What the clock shows at a virtual time."""
        passed = now_ms - self.origin_ms
        return self.local_ms + (passed if self.rate == 1.0 else int(passed * self.rate))

    def virtual(self, delay_ms: Millis) -> Millis:
        """How much virtual time passes while this clock counts `delay_ms`."""
        return delay_ms if self.rate == 1.0 else math.ceil(delay_ms / self.rate)

    def set_rate(self, now_ms: Millis, rate: float) -> None:
        """From now on run at another rate; what is shown does not jump."""
        self.local_ms, self.origin_ms, self.rate = self.read(now_ms), now_ms, rate
