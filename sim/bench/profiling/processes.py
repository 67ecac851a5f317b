"""What the kernel knows of a process: its CPU time, and how often its threads were put to sleep (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@frozen
class Usage:
    """Of all threads of a process that live, since they began.

    `user_s` and `system_s` are CPU seconds; a `wakeup` ends a sleep that a thread itself began; `displaced`
    counts how often it had to make way for others.
    """

    user_s: float
    system_s: float
    wakeups: int
    displaced: int

    def since(self, earlier: Usage) -> Usage:
        return Usage(
            self.user_s - earlier.user_s,
            self.system_s - earlier.system_s,
            self.wakeups - earlier.wakeups,
            self.displaced - earlier.displaced,
        )


def usage_of(pid: int) -> Usage:
    """As of now. Raises OSError where there is no such process or no /proc."""
    process = Path("/proc") / str(pid)
    # Behind the name in parentheses: 11 and 12 of what is left are utime and stime (proc(5)).
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    wakeups = displaced = 0
    for thread in (process / "task").iterdir():
        status = dict(
            line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line
        )
        wakeups += int(status["voluntary_ctxt_switches"])
        displaced += int(status["nonvoluntary_ctxt_switches"])
    return Usage(int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S, wakeups, displaced)
