"""Reports say what the ledgers and logs say: rounds, dropouts, verdicts, votes, stakes, seconds and bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from ledger_dirs import blocks_of, write_ledger
from rich.console import Console

from flocknode.observe.follow import Follower
from flocknode.observe.ledger import Step, walk
from flocknode.observe.live import View, live_view, phases_table, rounds_table
from flocknode.observe.log import LOG_FILE
from flocknode.observe.nodelog import Evaluation, NodeLog
from flocknode.observe.report import (
    Background,
    NodeRecord,
    is_consistent,
    is_supply_conserved,
    make_report,
    phase_bytes,
    phase_seconds,
    pooled,
    scores_by_round,
    upload_bytes,
)
from flocknode.observe.rounds import ABORTED, RoundRecord, rounds_of
from protocol.keys import peer_name
from protocol.ledger.state import Phase
from protocol.params import MICRO
from sim.adversaries.aggregators import OmittingAggregator, SilentAggregator
from sim.adversaries.voters import Contrarian
from sim.scenes import Scene


def steps_of(scene: Scene, directory: Path) -> tuple[Step, ...]:
    """The ledger of a node that is up, written to a directory and replayed from there."""
    blocks = blocks_of(scene.world.nodes[scene.observer])
    return tuple(walk(write_ledger(directory, scene.founding.genesis, blocks)))


@cache
def honest(rounds: int = 1) -> Scene:
    """A network whose nodes have all ended so many rounds; not to be run any further."""
    return Scene().end_round(rounds)


def first_round(scene: Scene, directory: Path) -> RoundRecord:
    return next(rounds_of(steps_of(scene, directory)))


# -- rounds, from ledgers --------------------------------------------------------------------------


def test_an_honest_round(tmp_path: Path) -> None:
    scene = honest(2)
    records = list(rounds_of(steps_of(scene, tmp_path)))
    assert [record.round for record in records] == [1, 2]
    record = records[0]
    assert (record.accepted, record.verdict, record.attempts) == (True, "TRUSTED", 1)
    assert record.proposers == record.sharers == record.contributors == scene.peers(scene.proposers)
    assert record.dropped == ()
    assert record.aggregator == scene.peer(scene.aggregator)
    assert record.votes == dict.fromkeys(scene.peers(scene.voters), 1)
    assert [end.phase for end in record.phases] == [
        "advert", "share", "contribute", "aggregate", "challenge", "vote",
    ]  # fmt: skip
    assert [end.height for end in record.phases] == [1, 2, 3, 4, 5, 6]
    assert [end.phase for end in records[1].phases] == [end.phase for end in record.phases][1:]
    assert {peer: scene.change(i) for i, peer in enumerate(map(scene.peer, range(5)))} == {
        scene.peer(i): sum(r.stake_changes.get(scene.peer(i), 0) for r in records) for i in range(5)
    }


def test_who_drops_out_after_sharing_is_named(tmp_path: Path) -> None:
    scene = Scene()
    gone = scene.proposers[0]
    scene.run_until(gone, Phase.CONTRIBUTE)
    scene.world.crash(gone)
    record = first_round(scene.end_round(), tmp_path)
    assert scene.peer(gone) in record.sharers
    assert record.dropped == (scene.peer(gone),)
    assert record.accepted


def test_a_round_that_aborts_is_there_too(tmp_path: Path) -> None:
    scene = Scene(nodes=7)
    for gone in scene.proposers[:2]:
        scene.run_until(gone, Phase.CONTRIBUTE)
        scene.world.crash(gone)
    record = first_round(scene.end_round(), tmp_path)
    assert (record.accepted, record.verdict) == (False, ABORTED)
    assert (record.contributors, record.votes) == ((), dict.fromkeys(scene.peers(scene.voters), 0))
    assert record.stake_changes == {}


def test_a_repaired_aggregate_keeps_its_first_reading(tmp_path: Path) -> None:
    """The dispute replaces the sum and the vote is held on the true one; the report says what was found."""
    scene = Scene(lambda scene: {scene.aggregator: OmittingAggregator()}).end_round()
    record = first_round(scene, tmp_path)
    assert (record.accepted, record.verdict) == (True, "LAZY_AGGREGATOR")
    assert record.stake_changes[scene.peer(scene.aggregator)] == -scene.params.fault_penalty_units
    assert "dispute" in [end.phase for end in record.phases]


def test_a_silent_aggregator_costs_an_attempt(tmp_path: Path) -> None:
    scene = Scene(lambda scene: {scene.aggregator: SilentAggregator()}, nodes=7).end_round()
    record = first_round(scene, tmp_path)
    assert record.attempts == 2
    assert record.aggregator == scene.peer(scene.aggregators[1])
    assert record.accepted


def test_votes_against_are_counted_and_may_reject(tmp_path: Path) -> None:
    scene = Scene(lambda scene: {voter: Contrarian() for voter in scene.voters}, tolerance_micro=0)
    scene.end_round()
    record = first_round(scene, tmp_path)
    assert (record.accepted, record.verdict) == (False, "TRUSTED")
    assert record.votes == dict.fromkeys(scene.peers(scene.voters), -1)
    losers = [peer for peer, change in record.stake_changes.items() if change < 0]
    assert set(losers) <= set(record.proposers)
    assert min(record.stake_changes.values()) == -scene.params.gamma_units


# -- logs ------------------------------------------------------------------------------------------


def entry(event: str, second: float, **fields: Any) -> str:
    time = datetime.fromtimestamp(1_000_000 + second, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": event, "time": time, **fields}) + "\n"


def block(height: int, second: float, sent: int, received: int = 0) -> str:
    return entry("block", second, height=height, bytes_out=sent, bytes_in=received)


def log_of(directory: Path, *lines: str) -> NodeLog:
    directory.mkdir(exist_ok=True)
    (directory / LOG_FILE).write_text("".join(lines))
    log = NodeLog(directory)
    log.read()
    return log


def test_spans_lie_between_blocks_of_one_life(tmp_path: Path) -> None:
    log = log_of(
        tmp_path,
        entry("started", 0, height=0),
        block(1, 1.5, 100),
        block(2, 2.0, 350, 20),
        entry("started", 60, height=2),
        block(3, 61, 40),
    )
    assert {height: (span.seconds, span.bytes_out) for height, span in log.spans.items()} == {
        1: (1.5, 100),
        2: (0.5, 250),
        3: (1.0, 40),  # from the restart on, with counters that began anew
    }
    assert log.spans[2].bytes_in == 20
    assert (log.height, log.bytes_out) == (3, 40)


def test_a_log_is_read_as_it_grows_and_torn_lines_are_no_entries(tmp_path: Path) -> None:
    log = log_of(tmp_path, entry("started", 0, height=0), block(1, 1, 5)[:20])
    assert log.spans == {}
    path = tmp_path / LOG_FILE
    path.write_text(path.read_text() + "\n[1]\n" + block(1, 2, 5) + entry("view", 2, view=1))
    assert [line["event"] for line in log.read()] == ["block", "view"]
    assert log.read() == []
    assert log.spans[1].seconds == 2.0


def test_a_node_without_a_log_has_said_nothing(tmp_path: Path) -> None:
    log = NodeLog(tmp_path / "nowhere")
    assert log.read() == []
    assert (log.height, log.spans, log.evaluations) == (0, {}, {})


def test_scores_are_weighed_by_samples() -> None:
    scores = pooled([Evaluation(10, {"loss": 1.0, "auroc": 0.5}), Evaluation(30, {"loss": 2.0})])
    assert scores == {"auroc": 0.5, "loss": pytest.approx(1.75)}
    assert pooled([]) == {}


def make_record(**changes: Any) -> RoundRecord:
    peers = (bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)
    record = RoundRecord(
        round=1,
        accepted=True,
        verdict="TRUSTED",
        attempts=1,
        proposers=peers,
        voters=(),
        aggregator=None,
        sharers=peers,
        contributors=peers,
        votes={},
        phases=(),
        stake_changes={},
        model_digest=bytes(32),
    )
    return evolve(record, **changes)


def test_a_rejected_round_leaves_the_scores_as_they_were(tmp_path: Path) -> None:
    log = log_of(
        tmp_path,
        entry("evaluation", 1, round=2, num_examples=4, loss=0.5, accuracy=0.75),
        entry("evaluation", 1, round=3, num_examples=4, loss=9.0, accuracy=0.1),
    )
    records = [make_record(round=n, accepted=n == 2) for n in (1, 2, 3)]
    before, after = {"loss": 7.0}, {"loss": 0.5, "accuracy": 0.75}
    assert scores_by_round(records, [log], before) == [before, after, after]


def test_seconds_are_medians_and_bytes_are_sums_over_the_nodes(tmp_path: Path) -> None:
    scene = honest()
    record = first_round(scene, tmp_path / "ledger")
    logs = [
        log_of(
            tmp_path / str(number),
            entry("started", 0, height=0),
            block(1, 1, 10),
            block(2, 1 + pace, 30),
            block(3, 1 + 2 * pace, 130),
        )
        for number, pace in enumerate((1.0, 2.0, 9.0))
    ]
    assert phase_seconds(record, logs) == {"advert": 1.0, "share": 2.0, "contribute": 2.0}
    assert phase_bytes(record, logs)["contribute"] == 300
    peer, stranger = record.contributors[0], bytes(32)
    assert upload_bytes(record, {peer: logs[0], stranger: logs[1]}) == {peer: 100}


# -- the report ------------------------------------------------------------------------------------


def nodes_of(scene: Scene, root: Path) -> list[NodeRecord]:
    nodes = []
    for node in scene.world.nodes:
        directory = root / f"node-{node.index}"
        write_ledger(directory, scene.founding.genesis, blocks_of(node))
        nodes.append(
            NodeRecord(node.peer, scene.founding.genesis, tuple(walk(directory)), NodeLog(directory))
        )
    return nodes


def test_the_report_has_exactly_its_keys_and_names_peers_as_libp2p_does(tmp_path: Path) -> None:
    scene = honest()
    nodes = nodes_of(scene, tmp_path)
    roles = {nodes[1].peer: "poison", nodes[2].peer: "drop"}
    plain = [{"loss": 0.25, "accuracy": 0.5, "auroc": 0.1}]
    report: Mapping[str, Any] = json.loads(
        json.dumps(make_report(nodes, Background(seed=3, rounds=1, roles=roles, initial={}, plain=plain)))
    )
    assert set(report) == {
        "network", "task", "profile", "contract", "gamma", "seed", "rounds", "plain_fedavg", "best_model",
        "nodes", "consistent", "supply_conserved",
    }  # fmt: skip
    assert report["network"] == scene.founding.genesis.network.hex()
    assert (report["profile"], report["gamma"], report["seed"]) == ("hardened", "8.00", 3)
    assert report["plain_fedavg"] == [{"loss": 0.25, "accuracy": 0.5}]
    (first,) = report["rounds"]
    assert set(first) == {
        "round", "accepted", "verdict", "attempts", "proposers", "voters", "aggregator", "contributed",
        "dropped", "votes", "loss", "accuracy", "auroc", "upload_bytes", "seconds", "slashed", "rewarded",
    }  # fmt: skip
    assert first["contributed"] == [peer_name(peer) for peer in scene.peers(scene.proposers)]
    assert first["votes"] == {peer_name(peer): 1 for peer in scene.peers(scene.voters)}
    assert first["slashed"] == {}
    assert sum(first["rewarded"].values()) == sum(scene.change(i) for i in range(5))
    assert [node["role"] for node in report["nodes"]] == ["honest", "poison", "drop", "honest", "honest"]
    for node, written in zip(nodes, report["nodes"], strict=True):
        assert set(written) == {"peer", "role", "head", "height", "stake", "active"}
        assert written["peer"] == peer_name(node.peer)
        assert written["head"] == node.steps[-1].stored.block.hash.hex()
        assert written["height"] == len(node.steps)
        assert written["active"] is True
    assert (report["consistent"], report["supply_conserved"]) == (True, True)


def test_ledgers_of_different_length_are_consistent_as_far_as_they_go(tmp_path: Path) -> None:
    nodes = nodes_of(honest(), tmp_path)
    assert is_consistent([nodes[0], evolve(nodes[1], steps=nodes[1].steps[:3])])
    assert is_consistent([nodes[0], evolve(nodes[1], steps=())])


def test_ledgers_that_differ_or_do_not_verify_are_not_consistent(tmp_path: Path) -> None:
    nodes = nodes_of(honest(), tmp_path / "a")
    others = nodes_of(Scene(seed=2).end_round(), tmp_path / "b")
    assert not is_consistent([nodes[0], others[1]])
    step = nodes[1].steps[2]
    forked = evolve(step, stored=evolve(step.stored, block=evolve(step.stored.block, view=9)))
    assert not is_consistent([nodes[0], evolve(nodes[1], steps=(*nodes[1].steps[:2], forked))])
    assert not is_consistent([nodes[0], evolve(nodes[1], fault="block 7: wrong")])


def test_a_unit_too_many_anywhere_is_seen(tmp_path: Path) -> None:
    nodes = nodes_of(honest(), tmp_path)
    assert is_supply_conserved(nodes)
    step = nodes[0].steps[1]
    minted = evolve(step, after=evolve(step.after, treasury_units=step.after.treasury_units + 1))
    assert not is_supply_conserved([evolve(nodes[0], steps=(nodes[0].steps[0], minted)), *nodes[1:]])


# -- what people see -------------------------------------------------------------------------------


def text_of(renderable: Any, width: int = 120) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_live_view_shows_roles_verdicts_votes_and_stakes(tmp_path: Path) -> None:
    scene = Scene(lambda scene: {scene.aggregator: OmittingAggregator()}).end_round(2)
    directories = []
    for node in scene.world.nodes:
        directories.append(write_ledger(tmp_path / str(node.index), scene.founding.genesis, blocks_of(node)))
        log_of(directories[-1], entry("started", 0, height=0), block(len(blocks_of(node)), 9, 2_000_000))
    follower = Follower(scene.founding.genesis, directories)
    follower.poll()
    assert follower.fault is None
    assert [record.round for record in follower.rounds] == [1, 2]
    view = View(
        title="digits",
        rounds=5,
        follower=follower,
        members=[node.peer for node in scene.world.nodes],
        kinds=["honest", "poison", "honest", "honest", "honest"],
        running=[True, True, False, True, True],
        elapsed_s=3.0,
    )
    text = text_of(live_view(view))
    for word in ("round 3 of 5", "LAZY_AGGREGATOR", "fails", "+1 +1", "poison", "killed",
                 "aggregator", "voter", "proposer", "4/4", "2.0", "MB"):  # fmt: skip
        assert word in text, word
    assert f"{(64 * MICRO + scene.change(scene.aggregator)) / MICRO:.2f}" in text


@pytest.mark.parametrize("height", [10, 24, 50])
def test_the_live_view_keeps_the_newest_rounds_on_a_small_screen(tmp_path: Path, height: int) -> None:
    scene = honest(2)
    directory = write_ledger(tmp_path, scene.founding.genesis, blocks_of(scene.world.nodes[0]))
    log_of(directory, entry("started", 0, height=0), block(len(blocks_of(scene.world.nodes[0])), 9, 10))
    follower = Follower(scene.founding.genesis, [directory])
    follower.poll()
    view = View(
        title="t", rounds=2, follower=follower, members=[scene.peer(0)], kinds=["honest"], running=[True],
        elapsed_s=1.0,
    )  # fmt: skip
    lines = text_of(live_view(view, 120, height)).splitlines()
    assert any(line.split()[:2] == ["2", "TRUSTED"] for line in lines)
    assert height < 24 or len(lines) <= height


def test_tables_stand_next_to_plain_fedavg(tmp_path: Path) -> None:
    record = first_round(honest(), tmp_path)
    scores = [{"loss": 0.5, "accuracy": 0.875, "auroc": 0.75, "balanced_accuracy": 0.625}]
    text = text_of(rounds_table([record], scores, [{"accuracy": 0.8765}]))
    for word in ("0.875", "0.876", "AUROC", "0.750", "balanced", "0.625", "FedAvg"):
        assert word in text
    assert "share" in text_of(phases_table([record], {}))


def test_a_follower_says_what_is_wrong_with_a_ledger(tmp_path: Path) -> None:
    scene = honest()
    blocks = blocks_of(scene.world.nodes[0])
    forged: Sequence[Any] = [*blocks[:3], evolve(blocks[3], block=evolve(blocks[3].block, view=7))]
    directory = write_ledger(tmp_path, scene.founding.genesis, forged)
    log_of(directory, entry("started", 0, height=0), block(4, 1, 1))
    follower = Follower(scene.founding.genesis, [directory])
    follower.poll()
    assert follower.fault is not None
    assert "block 4" in follower.fault
    assert follower.state.height == 3
