"""The benches of starting and of memory measure what they say; no figure of theirs is asserted but counts."""

from __future__ import annotations

from click.testing import CliRunner

from sim.bench.memory import Snapshot, grow, kept_by
from sim.bench.start import bench_start, render
from sim.cli.bench import bench
from sim.scenes import Scene


def test_an_engine_keeps_no_more_at_a_great_height() -> None:
    """Forty rounds on, a round that has just begun finds an engine with as many objects as before."""
    told: list[Snapshot] = []
    early, late = grow((60, 260), told=told.append)
    assert told == [early, late]
    assert late.height >= 260
    assert late.round > early.round + 30
    assert early.total.objects > 300
    # A few come and go with what happens to be under way; one more a round would be thirty.
    assert abs(late.total.objects - early.total.objects) < 30
    grown = {kind: late.kinds[kind] - early.kinds.get(kind, 0) for kind in late.kinds}
    assert max(grown.values()) < 15


def test_what_an_engine_keeps_for_ever_is_seen() -> None:
    engine = Scene(nodes=4, seed=1).engine(0)
    before = kept_by(engine, 1, 1)
    engine.leak = [bytes([count]) * 100 for count in range(50)]  # type: ignore[attr-defined]
    after = kept_by(engine, 1, 1)
    assert after.parts["leak"].objects == 51
    assert after.total.bytes >= before.total.bytes + 50 * 100


def test_a_start_is_timed_three_ways_over_one_ledger() -> None:
    result = bench_start(30, repeats=1)
    assert result.blocks >= 30
    assert sorted(result.ms_a_block) == ["every check", "with its snapshot", "without a snapshot"]
    assert all(ms > 0 for ms in result.ms_a_block.values())
    assert result.peak_bytes > 0
    assert f"{result.blocks} blocks" in render(result)


def test_the_commands_print_their_figures() -> None:
    shown = CliRunner().invoke(bench, ["memory", "--height", "5", "--height", "12"])
    assert shown.exit_code == 0, shown.output
    assert len(shown.output.splitlines()) == 3
    shown = CliRunner().invoke(bench, ["start", "--blocks", "10", "--repeats", "1"])
    assert shown.exit_code == 0, shown.output
    assert "ms a block" in shown.output
