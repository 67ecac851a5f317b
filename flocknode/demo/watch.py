"""Waiting for a fleet to finish its rounds, and noticing when it will not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from flocknode.demo.fleet import Fleet
from flocknode.demo.options import DemoError
from flocknode.observe.follow import Follower

POLL_S = 0.01
STALL_S = 240.0
"""Without a block for this long, the network counts as stuck."""
SETTLE_S = 30.0
"""How long all nodes may take to reach the end of the last round, and to evaluate its model."""


def watch(
    fleet: Fleet,
    follower: Follower,
    rounds: int,
    each: Callable[[], None] = lambda: None,
    absent: Callable[[], Collection[int]] = tuple,
) -> None:
    """Until `rounds` rounds have ended at every node, or training rests; `each` is called after every look.

    `absent`: the nodes that need not run now. Raises `DemoError` where another one ended, no block comes, or
    a ledger does not verify.
    """
    height, moved_s = 0, time.monotonic()
    while len(follower.rounds) < rounds and not follower.state.rests:
        follower.poll()
        each()
        if follower.fault is not None:
            raise DemoError(f"a ledger does not verify: {follower.fault}")
        _require_running(fleet, absent())
        if follower.state.height > height:
            height, moved_s = follower.state.height, time.monotonic()
        if time.monotonic() - moved_s > STALL_S:
            raise DemoError(f"stuck: no block after {height} for {STALL_S:.0f} s")
        time.sleep(POLL_S)
    rounds = min(rounds, len(follower.rounds))
    deadline = time.monotonic() + SETTLE_S
    while not _settled(follower, rounds) and time.monotonic() < deadline:
        follower.poll()
        each()
        time.sleep(POLL_S)


def _settled(follower: Follower, rounds: int) -> bool:
    """Every node has the last block of the last round, and has tested the model, where that is a new one."""
    last = follower.rounds[rounds - 1]
    return all(
        log.height >= last.last_height
        and (not last.accepted or max(log.evaluations, default=0) >= last.round)
        for log in follower.logs
    )


def _require_running(fleet: Fleet, absent: Collection[int]) -> None:
    for index in range(len(fleet.directories)):
        if index in absent or fleet.is_running(index):
            continue
        why = fleet.last_words(index)
        raise DemoError(f"node {index} ended with exit code {fleet.exit_code(index)}: {why}")
