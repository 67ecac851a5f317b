"""What a node tells its shell of its own part: facts, in the round in which they happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from protocol.events import Notify, Received
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.keys import peer_name
from protocol.messages import Have, Kind
from protocol.params import MICRO
from sim.adversaries.voters import Withholder
from sim.filters import Filter
from sim.learner import SyntheticLearner
from sim.scenes import Scene
from sim.world import ReadBlob


def told(scene: Scene, node: int, kind: str) -> list[Mapping[str, Any]]:
    return [
        report.effect.fields
        for report in scene.world.reports
        if report.node == node and isinstance(report.effect, Notify) and report.effect.kind == kind
    ]


def parts(scene: Scene, node: int, round_: int = 1) -> dict[str, Any]:
    """By role, None where the node's part counted, else the step that it was stuck at."""
    return {
        part["role"]: None if part["counted"] else part["step"]
        for part in told(scene, node, "part")
        if part["round"] == round_
    }


def withholds(scene: Scene, node: int, *kinds: Kind) -> Mapping[int, Filter]:
    identity = scene.founding.identities[node]
    return {node: Withholder(identity, scene.founding.genesis.network, frozenset(kinds))}


def test_in_an_honest_round_all_parts_count() -> None:
    scene = Scene(nodes=7).end_round()
    for node in range(7):
        roles = {"sharer", "proposer"} if node in scene.proposers else set()
        roles |= {"voter", "opener"} if node in scene.voters else set()
        roles |= {"aggregator"} if node == scene.aggregator else set()
        assert parts(scene, node) == dict.fromkeys(roles)
        (validators,) = told(scene, node, "validators")
        assert (len(validators["peers"]), validators["quorum"]) == (7, 5)
        accounts = told(scene, node, "account")
        assert [account["validator"] for account in accounts] == [True] * len(accounts)
        assert [account["drawn"] for account in accounts[:2]] == [None, True]
        assert {account["least_units"] for account in accounts} == {8 * MICRO}
        (judged,) = told(scene, node, "judged") if node in scene.voters else [{"vote": 1, "why": ""}]
        assert (judged["vote"], judged["why"]) == (1, "")
        for kind in ("foreign", "native", "samples_cut"):
            assert told(scene, node, kind) == []
    for node in scene.proposers:
        (encoded,) = told(scene, node, "encoded")
        assert (encoded["clipped_coordinates"], encoded["coordinates"]) == (0, scene.params.dimension)
        assert encoded["weight"] == encoded["trained_weight"] == 1


def test_training_that_is_not_done_is_told_when_the_others_close_the_phase() -> None:
    scene = Scene(nodes=7)
    slow = scene.proposers[0]
    scene.worker.training_ms[slow] = 200_000
    scene.end_round()
    assert parts(scene, slow)["proposer"] == "training"
    (late,) = [part for part in told(scene, slow, "part") if part["role"] == "proposer"]
    assert 0 < late["elapsed_ms"] < late["deadline_ms"] == scene.params.train_deadline_ms
    assert not late["synced"]
    for node in scene.proposers[1:]:
        assert parts(scene, node)["proposer"] is None


def test_evaluation_that_is_not_done_is_told_when_the_ballot_is_closed() -> None:
    scene = Scene(nodes=7)
    scene.worker.evaluate_ms = 200_000
    scene.world.run(
        lambda _: all(parts(scene, node).get("voter", 0) != 0 for node in scene.voters),
        max_virtual_ms=300_000,
    )
    assert {parts(scene, node)["voter"] for node in scene.voters} == {"evaluation"}


@pytest.mark.parametrize(
    ("who", "kind", "role", "step"),
    [
        ("proposers", Kind.SHARE_BUNDLE, "sharer", "attestation"),
        ("proposers", Kind.CONTRIBUTION, "proposer", "receipt"),
        ("voters", Kind.SEALED_VOTE, "voter", "attestation"),
        ("voters", Kind.VOTE_OPENING, "opener", "opening"),
        ("aggregators", Kind.AGGREGATE_CLAIM, "aggregator", "aggregation"),
    ],
)
def test_what_others_do_not_get_does_not_count(who: str, kind: Kind, role: str, step: str) -> None:
    """The node itself has said it: what leaves it is lost."""
    scene = Scene(lambda scene: withholds(scene, getattr(scene, who)[0], kind), nodes=7).end_round()
    node = getattr(scene, who)[0]
    assert parts(scene, node)[role] == step
    others = [other for other in getattr(scene, who) if other != node]
    assert {parts(scene, other).get(role) for other in others} <= {None}


def test_a_node_that_loses_its_stake_hears_it() -> None:
    """All hold little more than a validator must; who does not open its vote pays more than that."""
    scene = Scene(
        lambda scene: withholds(scene, scene.voters[0], Kind.VOTE_OPENING), nodes=7,
        min_stake_units=60 * MICRO,
    ).end_round()  # fmt: skip
    accounts = told(scene, scene.voters[0], "account")
    assert [account["validator"] for account in accounts] == [True, True, False]
    assert accounts[-1]["stake_units"] < accounts[-1]["least_units"] == 60 * MICRO
    assert accounts[-1]["member"]
    assert len(told(scene, scene.aggregator, "validators")[-1]["peers"]) == 6


class Unlucky(SyntheticLearner):
    """Cannot evaluate, and learns too much at two places."""

    def train(self, node: int, job: TrainJob, read_blob: ReadBlob) -> TrainResult:
        update = np.zeros(self.params.dimension, dtype=np.float32)
        update[[3, 9]] = 3.0, -2.5
        return TrainResult(update, 1)

    def evaluate(self, node: int, job: EvaluateJob, read_blob: ReadBlob) -> EvaluateResult:
        return EvaluateResult(None, None, why="ValueError: nothing to validate on")


def test_clipping_and_abstaining_are_told_with_figures_and_reasons() -> None:
    params = Scene(nodes=7).params
    scene = Scene(nodes=7, learner=Unlucky(params, bytes(32))).end_round()
    for node in scene.proposers:
        (encoded,) = told(scene, node, "encoded")
        assert (encoded["clipped_coordinates"], encoded["clipped_at"]) == (2, [3, 9])
        assert (encoded["largest"], encoded["clip"]) == (3.0, params.clip)
    for node in scene.voters:
        (judged,) = told(scene, node, "judged")
        assert (judged["vote"], judged["why"]) == (0, "ValueError: nothing to validate on")


def test_a_height_counts_once_more_than_a_third_say_so() -> None:
    """One liar makes nobody behind."""
    scene = Scene(nodes=7).end_round()
    engine, height = scene.engine(0), scene.engine(0).height

    def hear(who: int, claimed: int) -> list[Notify]:
        have = scene.engine(who).outbox.signed(engine.state.round, Kind.HAVE, Have(claimed, (), b"", True))
        event = Received(scene.peer(who), have.to_bytes())
        effects = engine.handle(event, scene.world.nodes[0].clock.read(scene.world.now))
        return [e for e in effects if isinstance(e, Notify) and e.kind == "behind"]

    assert hear(1, 1 << 40) == []
    assert hear(2, height + 40) == []
    (notice,) = hear(3, height + 30)
    assert notice.fields == {"height": height, "network_height": height + 30}
    assert hear(3, height + 30) == []
    assert hear(4, height + 1) == []
    assert hear(3, height + 35)[0].fields["network_height"] == height + 35


def test_more_samples_than_a_weight_can_say_are_told_at_the_start() -> None:
    from protocol.engine import Engine
    from protocol.events import Start

    scene = Scene(nodes=4)
    engine = Engine(scene.founding.identities[0], scene.founding.genesis, lambda n: bytes(n), weight=5_000)
    effects = engine.handle(Start({}, frozenset()), 0)
    notices = {effect.kind: effect.fields for effect in effects if isinstance(effect, Notify)}
    assert notices["samples_cut"] == {"samples": 5_000, "max_weight": scene.params.max_weight}
    assert notices["phase"] == {"height": 0, "round": 1, "phase": "ADVERT"}
    assert peer_name(scene.peer(0)) in notices["validators"]["peers"]  # type: ignore[operator]
