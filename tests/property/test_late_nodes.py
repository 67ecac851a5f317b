"""The bar for late nodes sees what it is for: without the rules of section 7.3 it does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol import sync
from protocol.sync import Serving, Sync
from sim.invariants.catch_up import CatchUp
from sim.scenario.manifest import load_scenario
from sim.scenario.run import run_scenario

SCENARIO = Path(__file__).parents[2] / "sim" / "scenarios" / "late-node-kept.toml"


def test_a_node_that_asks_at_every_message_and_is_served_always_does_not_reach_the_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it was: no request was ever outstanding, and nothing bounded replies."""
    ask = Sync.ask

    def ask_whatever_is_outstanding(self: Sync, now: int) -> None:
        self._outstanding = None
        for provider in self._providers.values():
            provider.asked_ms.clear()
        ask(self, now)

    def allow(self: Serving, peer: bytes, first_height: int, now: int) -> bool:
        self._served.setdefault(peer, sync._Served(now))
        return True

    def look_away(self: CatchUp, node: Any, performed: Any) -> None:
        return None

    monkeypatch.setattr(Sync, "ask", ask_whatever_is_outstanding)
    monkeypatch.setattr(Serving, "_allows", allow)
    monkeypatch.setattr(CatchUp, "__call__", look_away)
    result = run_scenario(load_scenario(SCENARIO), 1, keep_trace=50)
    assert result.violation is None
    assert any("received" in failure for failure in result.failures), result.failures
