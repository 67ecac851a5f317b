"""The pace of a network: the round interval, the end of training, and blocks that draw no roles."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import evolve, frozen

from protocol.codec import decode, encode
from protocol.envelope import Envelope
from protocol.events import Notify
from protocol.jobs import EvaluateJob, EvaluateResult
from protocol.ledger.block import BlockKind, OpenBody, decode_body, decode_stored_block
from protocol.ledger.judgement import Judgement
from protocol.ledger.pace import Pace, Rest, Training
from protocol.ledger.state import LedgerState, Phase, genesis_state
from protocol.messages import MESSAGE_BYTES, Kind, TransactionKind
from protocol.order import Order
from protocol.params import MICRO, ParamsError, ProtocolParams
from sim.founding import build_world, found, small_params
from sim.learner import SyntheticLearner
from sim.scenes import Scene
from sim.world import ReadBlob

PRICE = 10 * MICRO


def paced(**choices: int) -> dict[str, Pace]:
    return {"pace": Pace(**choices)}  # type: ignore[arg-type]


def order(scene: Scene, index: int, kind: TransactionKind, amount: int = 0, to: int | None = None) -> None:
    """The node's operator asks for a transaction."""
    scene.order(index, kind, bytes(32) if to is None else scene.peer(to), amount)


def heard(scene: Scene, height: int) -> None:
    """Until every node that is up has a block of this height."""
    nodes = [node for node in scene.world.nodes if node.alive]
    scene.world.run(lambda _: all(node.height >= height for node in nodes), max_virtual_ms=60_000)


def told(scene: Scene, topic: str) -> list[Notify]:
    return [r.effect for r in scene.world.reports if isinstance(r.effect, Notify) and r.effect.kind == topic]


# -- the rule ----------------------------------------------------------------------------------------------


def after(training: Training, pace: Pace, ended: int, **vote: bool) -> Training:
    return training.after_round(pace, ended=ended, **{"judged": True, "better": True, "done": False, **vote})


def test_training_rests_after_the_last_round_and_not_before() -> None:
    pace = Pace(rounds=3)
    assert [after(pace.begin(), pace, ended).rest for ended in (1, 2, 3)] == [
        Rest.NONE,
        Rest.NONE,
        Rest.ROUNDS,
    ]
    assert after(Pace().begin(), Pace(), 1 << 20).rest is Rest.NONE


def test_patience_counts_judged_rounds_in_a_row_without_a_better_model() -> None:
    pace = Pace(patience=2)
    state, rests = pace.begin(), []
    for judged, better in [(True, False), (False, False), (True, True), (True, False), (True, False)]:
        state = after(state, pace, 1, judged=judged, better=better)
        rests.append(state.rest)
    assert rests == [Rest.NONE] * 4 + [Rest.PATIENCE]


def test_voters_end_training_only_where_the_network_heeds_them() -> None:
    assert after(Pace(heeds_done=True).begin(), Pace(heeds_done=True), 1, done=True).rest is Rest.DONE
    assert after(Pace().begin(), Pace(), 1, done=True).rest is Rest.NONE


def test_what_is_funded_adds_up_and_pays_for_rounds_that_nothing_else_ends() -> None:
    pace = Pace(rounds=3, patience=1, heeds_done=True, resume_units=PRICE)
    asleep = after(pace.begin(), pace, 3)
    some = asleep.after_funding(pace, round_=4, units=PRICE - 1)
    assert (some.rest, some.funded_units) == (Rest.ROUNDS, PRICE - 1)
    awake = some.after_funding(pace, round_=4, units=PRICE + 1)
    assert (awake.rest, awake.last_round, awake.funded_units) == (Rest.NONE, 5, 0)
    assert after(awake, pace, 4, better=False, done=True).rest is Rest.NONE
    assert after(awake, pace, 5).rest is Rest.ROUNDS
    free = evolve(pace, resume_units=0)
    assert asleep.after_funding(free, round_=4, units=1 << 40).rest is Rest.ROUNDS


def test_a_network_without_a_pace_has_the_bytes_it_had() -> None:
    params = small_params(5)
    plain = found(5, 1, params).genesis
    state = genesis_state(plain)
    assert state.training is None
    paced_params = evolve(params, pace=Pace())
    assert decode(ProtocolParams, encode(paced_params), 1 << 12) == paced_params
    assert decode(LedgerState, encode(state), 1 << 16) == state
    assert found(5, 1, paced_params).genesis.network != plain.network


# -- rest --------------------------------------------------------------------------------------------------


def test_at_rest_nothing_is_made_until_somebody_asks_and_every_node_says_so_once() -> None:
    scene = Scene(nodes=5, **paced(rounds=1)).end_round()
    height = scene.state.height
    sent = len(scene.sent)
    scene.world.run_for(120_000)
    assert scene.state.height == height
    assert scene.state.rests
    kinds = {decode(Envelope, data, MESSAGE_BYTES).kind for _, data in scene.sent[sent:]}
    assert kinds <= {int(Kind.HAVE), int(Kind.STATEMENTS)}
    assert [dict(notice.fields) for notice in told(scene, "resting")] == [{"round": 1, "why": "rounds"}] * 5


def test_a_transfer_is_heard_at_rest_and_opens_nothing() -> None:
    scene = Scene(nodes=5, **paced(rounds=1)).end_round()
    height, before = scene.state.height, scene.state.stakes
    order(scene, 0, TransactionKind.TRANSFER, MICRO, to=1)
    heard(scene, height + 1)
    assert scene.kinds(scene.state.round)[-1] is BlockKind.OPEN
    assert scene.state.stakes[scene.peer(1)] == before[scene.peer(1)] + MICRO
    assert (scene.state.rests, scene.state.round, scene.state.learning.phase) == (True, 2, Phase.ADVERT)


def test_a_gift_below_the_price_of_a_round_wakes_nobody_and_counts_with_the_next_one() -> None:
    scene = Scene(nodes=5, **paced(rounds=1)).end_round()
    pinned = {advert.peer for advert in scene.state.learning.next_adverts}
    height = scene.state.height
    order(scene, 0, TransactionKind.FUND, PRICE - 1)
    heard(scene, height + 1)
    assert scene.state.rests
    order(scene, 1, TransactionKind.FUND, PRICE + 1)
    heard(scene, height + 2)
    assert not scene.state.rests
    assert set(scene.state.learning.roles.proposers) < pinned  # type: ignore[union-attr]
    scene.end_round(3)
    assert (scene.state.rests, scene.state.round) == (True, 4)


def test_a_member_that_joins_at_rest_votes_at_once_and_is_drawn_a_round_later() -> None:
    scene = Scene(nodes=6, **paced(rounds=1))
    order(scene, 5, TransactionKind.LEAVE)
    scene.end_round()
    assert not scene.state.is_validator(scene.peer(5))
    order(scene, 5, TransactionKind.JOIN)
    heard(scene, scene.state.height + 1)
    assert scene.state.is_validator(scene.peer(5))


@frozen
class ContentLearner(SyntheticLearner):
    """A task that is done with its third model, at the nodes that are `content`."""

    content: frozenset[int] = frozenset()

    def evaluate(self, node: int, job: EvaluateJob, read_blob: ReadBlob) -> EvaluateResult:
        result = super().evaluate(node, job, read_blob)
        return evolve(result, done=job.round >= 3 and node in self.content)


def done_scene(content: frozenset[int]) -> Scene:
    params = evolve(small_params(5), max_weight=1)
    learner = ContentLearner(params, bytes(32), content)
    return Scene(
        nodes=5, learner=learner, judgement=Judgement(), pace=Pace(heeds_done=True, resume_units=PRICE)
    )


def test_training_rests_once_most_voters_say_that_the_task_is_done() -> None:
    scene = done_scene(frozenset(range(5))).end_round(3)
    assert scene.state.training is not None
    assert (scene.state.rests, scene.state.training.rest) == (True, Rest.DONE)
    assert scene.state.best is not None
    assert {n.fields["best_round"] for n in told(scene, "resting")} == {scene.state.best.round}
    order(scene, 0, TransactionKind.FUND, PRICE)
    scene.end_round(4)
    assert scene.state.rests


def test_a_single_voter_does_not_end_training() -> None:
    scene = done_scene(frozenset({0})).end_round(5)
    assert not scene.state.rests


def test_voters_of_flocks_contract_cannot_end_training() -> None:
    with pytest.raises(ParamsError, match="heeds_done"):
        evolve(small_params(5), pace=Pace(heeds_done=True))


# -- too few members ---------------------------------------------------------------------------------------


def below_four(left: int) -> Scene:
    """A network of five of which so many are left after a round: the first block carries two that leave."""
    scene = Scene(nodes=5)
    for index in range(max(left, 3), 5):
        order(scene, index, TransactionKind.LEAVE)
    scene.end_round()
    for index in range(left, 3):
        order(scene, index, TransactionKind.LEAVE)
        heard(scene, scene.state.height + 1)
    assert len(scene.state.validators) == left
    return scene


@pytest.mark.parametrize("left", [3, 2, 1])
def test_a_network_below_four_hears_orders_and_trains_again_once_it_is_four(left: int) -> None:
    scene = below_four(left)
    scene.world.run_for(100_000)
    height = scene.state.height
    assert scene.engine(scene.observer).agreement.view == 1  # nothing is due, so no view is burnt
    order(scene, 0, TransactionKind.FUND, MICRO)
    heard(scene, height + 1)
    assert scene.kinds(scene.state.round)[-1] is BlockKind.OPEN
    for index in range(left, 5):
        order(scene, index, TransactionKind.JOIN)
    scene.end_round(3)
    assert scene.state.round == 4
    assert not told(scene, "rejected")


def test_a_network_without_validators_says_that_it_is_at_its_end() -> None:
    scene = below_four(1)
    order(scene, 0, TransactionKind.LEAVE)
    heard(scene, scene.state.height + 1)
    assert scene.state.validators == ()
    assert told(scene, "too_few_validators")[-1].fields["validators"] == 0
    height = scene.state.height
    order(scene, 0, TransactionKind.JOIN)
    scene.world.run_for(60_000)
    assert scene.state.height == height


def test_in_a_reformed_round_every_weight_is_one() -> None:
    scene = below_four(3)
    order(scene, 3, TransactionKind.JOIN)
    order(scene, 4, TransactionKind.JOIN)
    heard(scene, scene.state.height + 1)
    assert scene.state.learning.reformed
    scene.end_round(3)


def test_orders_one_by_one_bring_a_block_a_second_at_most() -> None:
    scene = below_four(3)
    began_ms, height = scene.world.now, scene.state.height
    for _ in range(4):
        order(scene, 0, TransactionKind.TRANSFER, MICRO // 10, to=1)
        heard(scene, scene.state.height + 1)
    assert scene.state.height == height + 4
    assert scene.world.now - began_ms >= 3_000


def test_the_first_block_carries_transactions_after_its_draw() -> None:
    world = build_world(5, 1, params=evolve(small_params(5), max_weight=1), start=False)
    world.start_all()
    world.command(0, encode(Order(bytes(16), TransactionKind.FUND, bytes(32), MICRO)))
    world.run(lambda w: all(node.height >= 1 for node in w.nodes), max_virtual_ms=60_000)
    block = decode_stored_block(next(iter(world.nodes[0].records["block"].values()))).block
    body = decode_body(block)
    assert isinstance(body, OpenBody)
    assert len(body.closing.adverts) == 5


# -- the interval ------------------------------------------------------------------------------------------


def test_rounds_begin_an_interval_apart_and_no_view_is_burnt_in_between() -> None:
    scene = Scene(nodes=5, **paced(interval_ms=30_000))
    begins = []
    for round_ in (1, 2, 3):
        scene.end_round(round_)
        begins.append(scene.world.now)
    gaps = [later - sooner for sooner, later in pairwise(begins)]
    assert all(29_000 <= gap <= 32_000 for gap in gaps), gaps
    assert not told(scene, "view")


def test_a_round_that_takes_longer_than_the_interval_is_followed_at_once() -> None:
    fast, slow = Scene(nodes=5).end_round(2), Scene(nodes=5, **paced(interval_ms=500)).end_round(2)
    assert slow.world.now <= fast.world.now + 1_000
