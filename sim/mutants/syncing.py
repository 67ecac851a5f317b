"""Bugs in catching up: who asks too much, and who serves too much (docs/PROTOCOL.md section 7.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol import sync
from protocol.events import ReadBlocks
from protocol.repair import Repair
from protocol.sync import Serving, Sync
from sim.mutants.planting import Hunter, Mutant, Swap


def _asks_at_once(right: Callable[..., None]) -> Any:
    def ask(self: Sync, now: int) -> None:
        self._outstanding = None
        right(self, now)

    return ask


def _serves_always(right: Callable[..., bool]) -> Any:
    def allows(self: Serving, peer: bytes, first_height: int, now: int) -> bool:
        self._served.setdefault(peer, sync._Served(now))
        return True

    return allows


def _pushes_blocks(right: Callable[..., None]) -> Any:
    def on_have(self: Repair, peer: bytes, round_: int, have: Any, now: int) -> None:
        right(self, peer, round_, have, now)
        state = self.desk.state
        if have.height < state.height:
            self.outbox.add(ReadBlocks(peer, have.height + 1, state.height, sync.REPLY_BYTES))

    return on_have


def _never_times_out(right: Callable[..., None]) -> Any:
    def on_timer(self: Sync, now: int) -> None:
        return None

    return on_timer


SYNCING = (
    Mutant(
        name="asks-again-at-once",
        about="whatever shows a later height makes a node ask, although it has asked already",
        breaks='7.3: "One request is outstanding, at one peer"',
        caught_by="catchup",
        swaps=(Swap(Sync, "ask", _asks_at_once),),
        hunters=(Hunter(manifest="late-node"),),
    ),
    Mutant(
        name="serves-without-bound",
        about="every request is served, also for what was sent a moment ago",
        breaks='7.3: "no block again within half an interval after it was sent"',
        caught_by="catchup",
        swaps=(Swap(Serving, "_allows", _serves_always),),
        hunters=(Hunter(manifest="greedy-asker"),),
    ),
    Mutant(
        name="pushes-blocks",
        about="whoever hears of a peer that is behind sends it blocks, as all others do",
        breaks='7.3: "Blocks move only when they are asked for"',
        caught_by="catchup",
        swaps=(Swap(Repair, "on_have", _pushes_blocks),),
        hunters=(Hunter(manifest="late-node"),),
    ),
    Mutant(
        name="waits-for-a-silent-source",
        about="a request without a reply is never given up",
        breaks='7.3: "Time-out: one repair interval"',
        caught_by="expectation",
        swaps=(Swap(Sync, "on_timer", _never_times_out),),
        hunters=(Hunter(manifest="late-node-silent-source"),),
    ),
)
