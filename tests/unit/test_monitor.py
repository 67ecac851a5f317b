"""What an operator is told: each condition with its figures, once when it begins and once when it ends."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, evolve, field

from flocknode.observe.log import Bridge, make_logger
from flocknode.observe.monitor import QUIET, Monitor
from flocknode.observe.rules import RULES
from flocknode.transport.base import Dial, Member, TransportStats
from flocknode.transport.standing import Level, Standing
from protocol.events import Notify
from protocol.keys import Identity, peer_name
from protocol.params import MICRO, hardened

PEERS = [Identity.from_seed(bytes([number + 1]) * 32).peer for number in range(9)]
NAMES = [peer_name(peer) for peer in PEERS]
PARAMS = evolve(
    hardened(dimension=100, n_proposers=4, n_voters=2), train_deadline_ms=5_000, phase_deadline_ms=3_000
)


@define
class Times:
    """What the learner does, as the test has it."""

    running: tuple[str, float] | None = None
    ended: dict[str, float] = field(factory=dict)

    def took_s(self, key: str) -> float | None:
        return self.ended.get(key)


class Watched:
    """A monitor of node 0 of five, with a clock of its own, and what it has written."""

    def __init__(self, nodes: int = 5) -> None:
        self.now_s = 1_000.0
        self.times = Times()
        self.sink = io.StringIO()
        self.nodes = nodes
        self.up = set(range(1, nodes))
        self.dials: dict[bytes, Dial] = {}
        self.standings: dict[bytes, Standing] = {}
        self.monitor = Monitor(
            me=PEERS[0],
            members=[Member(peer, f"/ip4/10.0.0.{i}/tcp/4001") for i, peer in enumerate(PEERS[:nodes])],
            params=PARAMS,
            log=make_logger([self.sink], "n0", "info"),
            times=self.times,
            clock=lambda: self.now_s,
        )
        self.tell("phase", height=0, round=1, phase="ADVERT")
        self.tell("validators", round=1, peers=NAMES[:nodes], quorum=2 * nodes // 3 + 1)

    def tell(self, topic: str, **fields: object) -> None:
        self.monitor.notice(Notify(topic, fields))

    def run(self, seconds: float, step_s: float = 1.0) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += step_s
            stats = TransportStats({}, {}, 0, self.standings, self.dials)
            self.monitor.look([PEERS[i] for i in self.up], stats)

    def lines(self, name: str | None = None) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self.sink.getvalue().splitlines()]
        assert all(line["level"] == ("warning" if line["state"] == "begun" else "info") for line in told)
        return [line for line in told if name in (None, line["event"])]

    def states(self, name: str) -> list[str]:
        return [line["state"] for line in self.lines(name)]

    def present(self) -> list[str]:
        return [condition.name for condition in self.monitor.present()]

    def block(self, phase: str, round_: int, height: int = 1) -> None:
        self.tell("block", height=height, round=round_, kind="SETUP", phase=phase)

    def part(self, role: str, round_: int, step: str | None, elapsed_ms: int = 2_000, **more: Any) -> None:
        fields = {
            "round": round_,
            "phase": "CONTRIBUTE",
            "role": role,
            "counted": step is None,
            "synced": False,
        }
        times = {"elapsed_ms": elapsed_ms, "deadline_ms": 5_000}
        self.tell("part", **fields, **times, **({} if step is None else {"step": step}), **more)

    def encoded(self, round_: int, clipped_at: Iterable[int] = (), clipped: int | None = None) -> None:
        places = list(clipped_at)
        self.tell(
            "encoded", round=round_, coordinates=100, clip=1.0, largest=9.5, clipped_at=places, weight=40,
            clipped_coordinates=len(places) if clipped is None else clipped, trained_weight=40,
        )  # fmt: skip

    def account(self, round_: int, stake: int = 64, **more: Any) -> None:
        fields = {
            "member": True, "validator": True, "stake_units": stake * MICRO, "least_units": 8 * MICRO,
            "gamma_units": 8 * MICRO, "drawn": True, "eligible": True, "undrawn_ppm": 200_000, "seats": 8,
            "eligible_nodes": 10, "synced": False,
        }  # fmt: skip
        self.tell("account", round=round_, **{**fields, **more})


# -- the network -------------------------------------------------------------------------------------


def test_a_healthy_node_says_nothing() -> None:
    watched = Watched()
    for round_ in range(1, 50):
        watched.account(round_)
        for phase in ("SHARE", "CONTRIBUTE", "AGGREGATE", "BALLOT", "VOTE"):
            watched.block(phase, round_, height=round_ * 5)
            watched.run(1)
        for role in ("sharer", "proposer", "voter", "opener", "aggregator"):
            watched.part(role, round_, None)
        watched.encoded(round_)
        watched.tell("judged", round=round_, ballot=0, vote=1, why="")
        watched.monitor.tested(round_)
    assert watched.lines() == []
    assert watched.present() == []


def test_below_quorum_counts_the_validators_of_today() -> None:
    watched = Watched()
    watched.up = {1, 2}
    watched.run(12)
    (line,) = watched.lines("below_quorum")
    assert (line["connected"], line["validators"], line["needed"]) == (3, 5, 4)
    assert line["what"] == (
        "3 of 5 validators are connected, this one counted, 4 are needed: nothing is decided; "
        f"waiting since {line['since']}"
    )
    assert line["since"].endswith("Z")
    watched.tell("validators", round=2, peers=NAMES[:4], quorum=3)
    watched.run(6)
    assert watched.states("below_quorum") == ["begun", "ended"]
    assert watched.lines("below_quorum")[1]["lasted_s"] > 0
    watched.tell("validators", round=3, peers=NAMES[1:5], quorum=3)  # this node is none any more
    watched.run(6)
    assert watched.lines("below_quorum")[-1]["connected"] == 2


def test_nobody_is_connected() -> None:
    watched = Watched()
    watched.up = set()
    watched.dials = {PEERS[1]: Dial(4, False), PEERS[2]: Dial(2, False)}
    watched.run(30)
    (line,) = watched.lines("no_peer")
    assert "/ip4/10.0.0.1/tcp/4001 (not reached)" in line["what"]
    assert len(line["tried"]) == line["members"] == 4
    assert watched.lines("peer_away") == []
    watched.up = {1, 2, 3, 4}
    watched.run(10)
    assert watched.states("no_peer") == watched.states("below_quorum") == ["begun", "ended"]


def test_a_node_that_starts_gives_its_peers_time() -> None:
    watched = Watched()
    watched.up = set()
    watched.run(9)
    watched.up = {1, 2, 3, 4}
    watched.run(30)
    assert watched.lines() == []


def test_a_peer_that_leaves_and_returns_is_two_lines_and_many_share_them() -> None:
    watched = Watched(9)
    watched.up -= {3}
    watched.run(60)
    watched.up |= {3}
    watched.run(60)
    left, back = watched.lines("peer_away")
    assert (left["state"], left["subject"], left["what"]) == (
        "begun", NAMES[3], f"peer {NAMES[3]} is not connected",
    )  # fmt: skip
    assert (back["state"], back["times"]) == ("ended", 1)
    watched.up -= {5, 6}
    watched.run(60)
    (both,) = watched.lines("peer_away")[2:]
    assert both["count"] == 2
    assert set(both["peers"]) == {NAMES[5], NAMES[6]}


@pytest.mark.parametrize("period_s", [4, 20, 60, 240])
def test_peers_that_flap_are_no_flood(period_s: int) -> None:
    """All eight, each at its own beat, for three hours: below quorum and back, alone and back."""
    watched = Watched(9)
    for second in range(3 * 3_600):
        watched.up = {i for i in range(1, 9) if (second + 3 * i) // (period_s // 2) % 2}
        watched.run(1)
    for name in ("no_peer", "below_quorum"):
        assert len(watched.lines(name)) <= 14
        assert watched.states(name) == (["begun", "ended"] * 7)[: len(watched.lines(name))]
    by_peer: dict[str, int] = {}
    for line in watched.lines("peer_away"):
        for peer in line.get("peers", [line.get("subject")]):
            by_peer[peer] = by_peer.get(peer, 0) + 1
    assert by_peer
    assert max(by_peer.values()) <= 14
    quick = [
        line for line in watched.lines("no_peer") if line.get("times", 1) > 1 and line["state"] == "begun"
    ]
    assert all("it has come and gone 5 times since" in line["what"] for line in quick)


def test_another_genesis_names_both_networks_and_does_not_count_for_the_quorum() -> None:
    watched = Watched()
    for number in (1, 2, 3, 4):
        watched.tell("foreign", peer=NAMES[number], reason="network", theirs="ab" * 32, network="cd" * 32)
    watched.run(12)
    (line,) = watched.lines("genesis_differs")
    assert line["what"] == (
        "4 of 4 connected peers are on another network: theirs is abababababab, this node's is cdcdcdcdcdcd: "
        "compare genesis.bin"
    )
    (quorum,) = watched.lines("below_quorum")
    assert quorum["connected"] == 1
    for number in (1, 2, 3, 4):
        watched.tell("native", peer=NAMES[number])
    watched.run(12)
    assert watched.states("genesis_differs") == watched.states("below_quorum") == ["begun", "ended"]
    assert watched.lines("version_differs") == []


def test_another_version_is_told_apart() -> None:
    watched = Watched()
    watched.tell("foreign", peer=NAMES[2], reason="version", theirs="2", network="cd" * 32)
    watched.run(3)
    (line,) = watched.lines("version_differs")
    assert line["what"] == "1 of 4 connected peers speak what this node does not know (version 2)"
    assert line["peers"] == [NAMES[2]]


def test_nobody_admits_this_node() -> None:
    watched = Watched()
    watched.up = set()
    watched.dials = {peer: Dial(3, True) for peer in PEERS[1:5]}
    watched.run(12)
    (line,) = watched.lines("not_admitted")
    assert "4 of 4 peers can be reached" in line["what"]
    assert NAMES[0] in line["what"]
    watched.up, watched.dials = {1, 2, 3}, {PEERS[4]: Dial(3, True)}  # one that refuses is its own affair
    watched.run(30)
    assert watched.states("not_admitted") == ["begun", "ended"]


def test_a_node_that_is_behind_says_how_far() -> None:
    watched = Watched()
    watched.block("SHARE", 1, height=10)
    watched.tell("behind", height=10, network_height=310)
    watched.run(8)
    (line,) = watched.lines("behind")
    assert (line["height"], line["network_height"], line["blocks"]) == (10, 310, 300)
    watched.block("SHARE", 60, height=310)
    watched.run(8)
    assert watched.states("behind") == ["begun", "ended"]


def test_dropped_messages_of_a_peer_are_one_line() -> None:
    watched = Watched()
    for _ in range(500):
        watched.monitor.dropped(PEERS[1], 100)
    watched.run(60)
    assert watched.states("message_dropped") == ["begun", "ended"]
    assert watched.lines("message_dropped")[1]["messages"] == 500


def test_a_peer_at_the_edge_of_its_standing_is_no_flood() -> None:
    """Each message above an allowance takes it below the edge, and a quarter of a second brings it back."""
    watched = Watched()
    for step in range(4_000):
        watched.now_s += 0.3
        level = Level.GOOD if step % 2 else Level.THROTTLED
        watched.monitor.standing_changed(PEERS[1], Standing(-15.0, level, step, 0, 1.0))
    assert watched.states("throttled") == ["begun"]
    watched.standings = {PEERS[1]: Standing(0.0, Level.GOOD, 4_000, 0, 1.0)}
    watched.run(3_600)
    assert watched.states("throttled") == ["begun", "ended"]
    assert watched.lines("throttled")[1]["times"] == 2_000


def test_a_peer_that_is_refused_is_told_with_its_score() -> None:
    watched = Watched()
    watched.monitor.standing_changed(PEERS[2], Standing(-51.0, Level.REFUSED, 7, 1, 0.5))
    watched.run(5)
    watched.monitor.standing_changed(PEERS[2], Standing(-15.0, Level.THROTTLED, 7, 1, 0.5))
    watched.monitor.standing_changed(PEERS[2], Standing(-1.0, Level.GOOD, 7, 1, 0.5))
    watched.run(60)
    assert watched.states("refused") == watched.states("throttled") == ["begun", "ended"]
    assert (watched.lines("refused")[0]["peer"], watched.lines("refused")[0]["score"]) == (NAMES[2], -51.0)


# -- rounds ------------------------------------------------------------------------------------------


def test_training_past_the_deadline_is_told_while_it_runs_and_once() -> None:
    watched = Watched()
    watched.account(3)
    watched.times.running = ("3/train", watched.now_s)
    watched.block("CONTRIBUTE", 3)
    watched.run(4)
    assert watched.lines() == []
    watched.run(2)
    (line,) = watched.lines("deadline_missed")
    assert line["what"].startswith(
        "round 3: training has taken 5.0 s and still runs; the phase's deadline of 5 s"
    )
    assert (line["deadline_s"], line["still_runs"], line["round"]) == (5, True, 3)
    watched.part("proposer", 3, "training", elapsed_ms=14_000)
    watched.account(4)
    watched.run(30)
    (busy,) = watched.lines("learner_busy")
    assert "'train' of round 3 has run for" in busy["what"]
    assert len(watched.lines("deadline_missed")) == 1
    watched.times.running = None
    for round_ in (4, 5):
        watched.part("proposer", round_, None)
    watched.run(40)
    assert watched.states("deadline_missed") == watched.states("learner_busy") == ["begun", "ended"]


def test_an_update_after_the_soft_deadline_says_both_times() -> None:
    watched = Watched()
    watched.block("CONTRIBUTE", 4)
    watched.times.running = ("4/train", watched.now_s - 1.0)
    watched.now_s += 2.9
    watched.part("proposer", 4, "training", elapsed_ms=2_900)
    (line,) = watched.lines()
    assert line["what"] == (
        "round 4: training has taken 3.9 s and still runs; the phase closed after 2.9 s, before its deadline "
        "of 5 s, as most others were done: this node's update does not count"
    )
    watched.times.running = None
    watched.times.ended["5/evaluate/0"] = 7.25
    watched.part("voter", 5, "evaluation", elapsed_ms=6_000)
    assert watched.lines()[1]["what"] == (
        "round 5: evaluation took 7.2 s; the phase closed after 6.0 s (deadline 5 s): "
        "this node's vote does not count"
    )
    assert watched.lines()[1]["subject"] == "evaluation"


def test_evaluation_that_waits_behind_training_is_told_as_such() -> None:
    watched = Watched()
    watched.times.running = ("4/train", watched.now_s - 20.0)
    watched.part("voter", 5, "evaluation", elapsed_ms=6_000)
    (line,) = watched.lines("deadline_missed")
    assert "evaluation has not begun: the learner is busy with earlier work" in line["what"]
    assert line["seconds"] is None


@pytest.mark.parametrize(
    ("role", "step", "words"),
    [
        ("sharer", "dealing", "had not dealt its shares"),
        ("proposer", "receipt", "nobody vouched for it"),
        ("proposer", "attestation", "too few nodes had heard of it"),
        ("proposer", "encoding", "not masked and sent"),
        ("voter", "verification", "had not verified the sum"),
        ("voter", "attestation", "sealed vote was sent"),
        ("aggregator", "aggregation", "had not given the sum"),
        ("opener", "opening", "costs it gamma"),
        ("sharer", "attestation", "too few nodes held the shares"),
    ],
)
def test_a_part_that_did_not_count_says_why(role: str, step: str, words: str) -> None:
    watched = Watched()
    watched.part(role, 7, step, elapsed_ms=3_100)
    (line,) = watched.lines("not_counted")
    assert words in line["what"]
    assert "closed after 3.1 s (deadline 5 s)" in line["what"]
    for round_ in (8, 9):
        watched.part(role, round_, None)
    assert watched.states("not_counted") == ["begun", "ended"]


def test_what_a_node_missed_while_it_was_away_is_not_held_against_it() -> None:
    watched = Watched()
    for role, step in (("proposer", "training"), ("proposer", "receipt"), ("voter", "evaluation")):
        watched.tell("part", round=2, phase="CONTRIBUTE", role=role, counted=False, step=step, synced=True,
                     elapsed_ms=1, deadline_ms=5_000)  # fmt: skip
    for role, step in (("proposer", "training"), ("voter", "attestation")):
        watched.part(role, 3, step, elapsed_ms=400)  # started again in the middle of the phase
    assert watched.lines() == []


def test_a_job_that_fails_says_the_tasks_own_words_once() -> None:
    watched = Watched()
    for round_ in range(3, 9):
        watched.account(round_)
        watched.tell("job_failed", job=f"{round_}/train", why="RuntimeError: no GPU memory left")
        watched.part("proposer", round_, "training")
    (line,) = watched.lines()
    assert (line["event"], line["subject"]) == ("job_failed", "train")
    assert "this node's update does not count. It says: RuntimeError: no GPU memory left" in line["what"]
    watched.encoded(9)
    watched.encoded(10)
    watched.run(1)
    assert watched.states("job_failed") == ["begun", "ended"]
    watched.tell("job_failed", job="11/verify", why="JobError: x")
    for round_ in (11, 12, 13, 14, 15):
        watched.account(round_)
    assert [line["subject"] for line in watched.lines("job_failed")[2:]] == ["verify"]


def test_a_voter_that_abstains_says_why() -> None:
    watched = Watched()
    for round_ in (1, 2, 3):
        watched.tell("judged", round=round_, ballot=0, vote=0, why="ValueError: empty split")
    (line,) = watched.lines("abstained")
    assert line["what"] == (
        "round 1: this node abstained from the vote, because evaluation failed: ValueError: empty split"
    )
    for round_ in (4, 5):
        watched.tell("judged", round=round_, ballot=0, vote=-1, why="")
    assert watched.states("abstained") == ["begun", "ended"]


def test_the_test_split_is_told_of_once() -> None:
    watched = Watched()
    for round_ in range(5):
        watched.monitor.tested(round_, "ZeroDivisionError: division by zero")
    for round_ in (6, 7):
        watched.monitor.tested(round_)
    assert watched.states("evaluation_failed") == ["begun", "ended"]


# -- the update --------------------------------------------------------------------------------------


def test_clipping_is_told_with_its_figures_and_where_it_is_always_the_same() -> None:
    watched = Watched()
    watched.encoded(1, clipped_at=[7, 8, 20])
    (line,) = watched.lines("update_clipped")
    assert line["what"] == (
        "round 1: 3 of 100 coordinates of this node's update were beyond the clipping bound of 1, and were "
        "cut to it; the largest was 9.5"
    )
    assert (line["clipped_coordinates"], line["coordinates"], line["clip"], line["largest"]) == (
        3,
        100,
        1.0,
        9.5,
    )
    watched.encoded(2, clipped_at=[7, 8])
    assert watched.lines("same_coordinates_clipped") == []
    watched.encoded(3, clipped_at=[1, 7, 8])
    (same,) = watched.lines("same_coordinates_clipped")
    assert same["clipped_at"] == [7, 8]
    assert "(7, 8) were clipped in each of the last 3" in same["what"]
    for round_ in (4, 5):
        watched.encoded(round_)
    for name in ("update_clipped", "same_coordinates_clipped"):
        assert watched.states(name) == ["begun", "ended"]


def test_an_update_that_is_too_large_everywhere_is_no_running_statistic() -> None:
    watched = Watched()
    for round_ in range(1, 6):
        watched.encoded(round_, clipped_at=range(16), clipped=90)
    assert [line["event"] for line in watched.lines()] == ["update_clipped"]


def test_sample_counts_that_are_cut_or_differ_are_told() -> None:
    watched = Watched()
    watched.tell("samples_cut", samples=200_000, max_weight=65_536)
    assert watched.lines("samples_cut")[0]["max_weight_samples"] == 65_536
    for round_ in (1, 2):
        watched.tell("encoded", round=round_, coordinates=9, clip=1.0, largest=0.1, clipped_at=[], weight=40,
                     clipped_coordinates=0, trained_weight=10)  # fmt: skip
    (line,) = watched.lines("samples_differ")
    assert (line["trained_samples"], line["weight_samples"]) == (10, 40)


# -- the node's place --------------------------------------------------------------------------------


def test_stake_that_runs_out_is_told_before_and_when() -> None:
    watched = Watched()
    watched.account(1, stake=64)
    watched.account(2, stake=20)
    (near,) = watched.lines("short_of_stake")
    assert "stake of 20.00 tokens is close to the least of 8.00" in near["what"]
    watched.account(3, stake=4, validator=False)
    (out,) = watched.lines("not_validator")
    assert "its stake of 4.00 tokens is below the least of 8.00; it has no vote" in out["what"]
    watched.account(4, stake=90, validator=False)  # it counts from the next round on
    watched.account(5, stake=90)
    assert watched.states("not_validator") == watched.states("short_of_stake") == ["begun", "ended"]
    watched.account(6, stake=90, validator=False, member=False)
    assert "it is not a member (stake 90.00 tokens)" in watched.lines("not_validator")[2]["what"]


def test_a_streak_of_bad_luck_is_no_warning_and_a_longer_one_is() -> None:
    """At one chance in five a round to be left out, six rounds in six are one in 2,604."""
    watched = Watched()
    for round_ in range(-4, 1):
        watched.account(round_, drawn=False)
    assert watched.lines() == []
    watched.account(1, drawn=False)
    (line,) = watched.lines("never_drawn")
    assert (line["rounds"], line["expected_share"]) == (6, 0.8)
    assert line["chance"] == pytest.approx(0.2**6)
    watched.account(6)
    assert watched.states("never_drawn") == ["begun", "ended"]
    for round_ in range(7, 10):  # in vain, but it could not be drawn: another reason
        watched.account(round_, drawn=False, eligible=False)
    (missed,) = watched.lines("advert_missed")
    assert missed["rounds"] == 3
    assert watched.states("never_drawn") == ["begun", "ended"]
    watched.account(10, eligible=True)
    for round_ in range(11, 40):  # it was away, and hears of them all at once
        watched.account(round_, drawn=False, eligible=False, synced=True)
    assert watched.states("advert_missed") == ["begun", "ended"]
    watched.account(40, drawn=None)  # a round that waits for adverts has no roles


def test_what_a_library_repeats_is_written_once_in_ten_seconds() -> None:
    sink = io.StringIO()
    bridge = Bridge(make_logger([sink], "n0", "info"))
    for tenth in range(250):
        record = logging.LogRecord("accept", logging.WARNING, "", 0, "accept failed: %s", (tenth,), None)
        record.created = 1_000.0 + tenth / 10
        bridge.emit(record)
    lines = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [line.get("repeated", 0) for line in lines] == [0, 99, 99]
    assert lines[1]["message"] == "accept failed: 100"


def test_an_honest_draw_is_never_complained_of() -> None:
    """30,000 rounds of ten nodes; streaks of five and six are in there."""
    random, watched, streak, longest = Random(5), Watched(), 0, 0
    for round_ in range(30_000):
        is_drawn = random.random() >= 0.2
        streak = 0 if is_drawn else streak + 1
        longest = max(longest, streak)
        watched.account(round_, drawn=is_drawn)
    assert longest >= 6
    assert watched.lines() == []


# -- of all ------------------------------------------------------------------------------------------


def test_a_fact_that_the_monitor_cannot_read_costs_a_line_and_not_the_node() -> None:
    watched = Watched()
    watched.monitor.notice(Notify("part", {"role": "proposer"}))
    (line,) = [json.loads(line) for line in watched.sink.getvalue().splitlines()]
    assert (line["event"], line["level"]) == ("monitor_failed", "error")


ROOT = Path(__file__).parents[2]


def manual() -> dict[str, list[str]]:
    """The rows of the tables of docs/OPERATING.md by event."""
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "docs" / "OPERATING.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    return {
        event: [cell.strip() for cell in cells]
        for name, *cells in rows
        for event in re.findall("`(.*?)`", name)
    }


def logged_events() -> set[str]:
    """Every event that the node's code names where it logs a line, or tells its shell something to log."""
    found = set()
    for path in [*ROOT.glob("protocol/**/*.py"), *ROOT.glob("flocknode/**/*.py")]:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            owner = ast.unparse(call.func.value)
            logs = owner.endswith("log") and "_log" not in MODULE_LOGS.get(path.name, ())
            tells = call.func.attr in ("notify", "_complain")
            if tells or (logs and call.func.attr in ("info", "warning", "error", "exception")):
                event = call.args[0]
                if isinstance(event, ast.Constant) and isinstance(event.value, str):
                    found.add(event.value)
    return found


MODULE_LOGS = {
    path.name: ("_log",)
    for path in ROOT.glob("flocknode/**/*.py")
    if "_log = logging.getLogger" in path.read_text()
}
"""Modules that speak through the standard library's logging: their lines are of event `library`."""


def test_operators_are_told_of_every_condition_in_the_manual() -> None:
    told = manual()
    for rule in RULES:
        assert told[rule.name] == [rule.meaning, rule.advice]
    assert QUIET.isdisjoint({"block", "settled", "verified", "validators"})


def test_operators_are_told_of_every_event_in_the_manual() -> None:
    events = logged_events()
    assert events >= {"block", "job_raised", "resting", "ready", "engine_fault"}
    assert events - QUIET - manual().keys() == set()
    named = "".join(path.read_text() for path in ROOT.glob("flocknode/**/*.py"))
    named += "".join(path.read_text() for path in ROOT.glob("protocol/**/*.py"))
    assert {event for event in manual() if f'"{event}"' not in named} == set()
