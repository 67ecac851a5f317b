"""A node that looks at everything after every event does just what one does that looks where it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import engine
from protocol.duties.advance import makes_due
from protocol.duties.desk import Desk
from protocol.engine import Engine
from protocol.envelope import Statement
from protocol.ledger.state import Phase
from protocol.messages import STATEMENT_KINDS, Kind
from protocol.negotiation import Negotiation
from protocol.readiness import Readiness
from sim.fuzz.draw import draw_scenario, history_seed
from sim.scenario.manifest import Scenario, load_scenario
from sim.scenario.run import run_scenario
from sim.scenes import Scene

SCENARIOS = Path(__file__).parents[2] / "sim" / "scenarios"
SHIPPED = (
    "no-fault",
    "drop-before-reveal",
    "two-faced-dealer",
    "unanswered-complaint",
    "drop-most-that-may",
    "garbage-check-shares",
    "store-back-in-time",
)
CAMPAIGN = 77


def digest_of(scenario: Scenario, seed: int) -> str:
    return run_scenario(scenario, seed, keep_trace=200).stage.world.trace_digest()


def look_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement, box and Ready makes a node look at all duties and at the agreement."""
    on_sealed_shares, advance = Engine._on_sealed_shares, Negotiation.advance

    def always(_: Readiness, kind: Kind, round_: int) -> bool:
        return True

    def due(desk: Desk, statement: Statement) -> bool:
        return True

    def everything(desk: Desk) -> frozenset[Kind]:
        return STATEMENT_KINDS

    def look_at_boxes(self: Engine, peer: bytes, statement: Statement) -> None:
        self._look = self._due = True  # so that duties open it, and not the box itself
        on_sealed_shares(self, peer, statement)

    def look_again_after_a_ready(self: Negotiation, now: int) -> None:
        before = self.desk.clock.ready
        advance(self, now)
        self.moved |= self.desk.clock.ready is not before

    monkeypatch.setattr(Readiness, "is_concerned", always)
    monkeypatch.setattr(Readiness, "has_quorum", True)
    monkeypatch.setattr(engine, "makes_due", due)
    monkeypatch.setattr(engine, "looked_at", everything)
    monkeypatch.setattr(Engine, "_on_sealed_shares", look_at_boxes)
    monkeypatch.setattr(Negotiation, "advance", look_again_after_a_ready)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load_scenario(SCENARIOS / f"{name}.toml")
    lazy = digest_of(scenario, 1)
    look_at_everything(monkeypatch)
    assert digest_of(scenario, 1) == lazy


@pytest.mark.parametrize("number", range(8))
def test_drawn_histories(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = history_seed(CAMPAIGN, number)
    scenario = draw_scenario(seed)
    lazy = digest_of(scenario, seed)
    look_at_everything(monkeypatch)
    assert digest_of(scenario, seed) == lazy, f"seed {seed}"


def test_a_ready_below_a_quorum_makes_a_node_judge_again_what_waits() -> None:
    """Found by a review: what the block cites, and the node lacks, is asked for once more."""
    seed = history_seed(905, 108)
    scenario = draw_scenario(seed)
    lazy = digest_of(scenario, seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        look_at_everything(monkeypatch)
        assert digest_of(scenario, seed) == lazy, f"seed {seed}"


def test_a_reveal_gives_its_own_seed_and_leaves_rebuilding_to_the_duty() -> None:
    """One statement that is looked at may add one to what is counted: so many are awaited before a look."""
    scene = Scene(nodes=7)
    scene.run_until(scene.observer, Phase.VOTE)
    desk = scene.engine(scene.observer).desk
    reveals = desk.pool.of_kind(desk.state.round, Kind.REVEAL)
    releases = desk.pool.of_kind(desk.state.round, Kind.SHARE_RELEASE)
    assert len(reveals) > 1
    assert releases
    desk.memory.findings.check_seeds.clear()
    desk.memory.seeds_sought = (desk.state.height, len(reveals) - 1, 0)
    assert not makes_due(desk, reveals[-1])
    changes = desk.pool.changes(desk.state.round, Kind.REVEAL)
    assert set(desk.memory.findings.check_seeds) == {changes[-1].sender}
