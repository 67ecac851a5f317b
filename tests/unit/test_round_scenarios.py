"""Rounds that meet accidents, slow or silent aggregators, dishonest voters: what the ledger says."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.ledger.block import BlockKind, Reason
from protocol.ledger.settlement import least_sharers
from protocol.ledger.state import Phase
from protocol.messages import Kind, ReleaseStage
from protocol.params import Sparsify
from protocol.sharing import ShareKind
from sim.adversaries.aggregators import EquivocatingAggregator, RefusingAggregator, SilentAggregator
from sim.adversaries.proposers import FalseRevealer, Poisoner
from sim.adversaries.voters import Contrarian, Withholder
from sim.filters import Filter
from sim.scenes import Scene

both_profiles = pytest.mark.parametrize("profile", ["hardened", "vcdfl"])


# -- nobody is dishonest -----------------------------------------------------------------------------


@both_profiles
def test_an_honest_round_adopts_the_plain_sum(profile: str) -> None:
    scene = Scene(profile=profile).end_round()
    assert scene.verdicts() == ["TRUSTED"]
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))
    assert all(scene.change(index) > 0 for index in (*scene.proposers, *scene.voters))


@both_profiles
def test_a_proposer_that_drops_after_sharing_is_taken_out_of_the_masks(profile: str) -> None:
    scene = Scene(profile=profile)
    gone, *others = scene.proposers
    scene.run_until(gone, Phase.CONTRIBUTE)
    scene.world.crash(gone)
    scene.end_round()
    assert sorted(scene.contributors()) == sorted(others)
    masks = {scene.peer(gone)}
    assert {dealer for dealer, kind in scene.released(ReleaseStage.UNMASK) if kind is ShareKind.MASK} == masks
    assert np.array_equal(scene.model(), scene.plain_model(others))
    assert scene.change(gone) == 0


@both_profiles
def test_of_a_proposer_that_drops_after_uploading_the_check_seed_is_rebuilt(profile: str) -> None:
    scene = Scene(profile=profile)
    gone = scene.proposers[0]
    scene.run_until(gone, Phase.AGGREGATE)
    scene.world.crash(gone)
    scene.end_round()
    assert sorted(scene.contributors()) == sorted(scene.proposers)
    assert not [s for i, s in scene.statements(Kind.REVEAL) if i == gone]
    assert (scene.peer(gone), ShareKind.CHECK) in scene.released(ReleaseStage.CHECK)
    assert all(any(seed) for seed in scene.body(BlockKind.BALLOT).check_seeds)
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))
    assert scene.change(gone) > 0


@both_profiles
def test_below_the_threshold_the_round_aborts_and_nothing_is_revealed(profile: str) -> None:
    scene = Scene(profile=profile, nodes=7)
    for gone in scene.proposers[:2]:
        scene.run_until(gone, Phase.CONTRIBUTE)
        scene.world.crash(gone)
    scene.end_round()
    assert scene.kinds()[-2:] == [BlockKind.ABANDON, BlockKind.ABORT]
    assert scene.body(BlockKind.ABORT).reason is Reason.TOO_FEW_CONTRIBUTORS
    # No self-seed or mask key of anyone leaves its holders: nobody can take a mask off an update.
    assert scene.released(ReleaseStage.UNMASK) == set()
    assert {kind for _, kind in scene.released(ReleaseStage.CHECK)} <= {ShareKind.CHECK}
    assert not scene.statements(Kind.SHARE_OPENING)
    assert not scene.statements(Kind.AGGREGATE_CLAIM)
    assert np.array_equal(scene.model(), scene.initial_model())
    assert [scene.change(node.index) for node in scene.world.nodes] == [0] * len(scene.world.nodes)
    # Round 2 may still count on adverts that the dead sent before they died; five nodes make round 3.
    scene.end_round(3)
    assert scene.kinds(3)[-1] is BlockKind.OUTCOME


def test_with_too_few_sharers_the_round_ends_before_anything_is_contributed() -> None:
    scene = Scene(nodes=7)
    gone = scene.proposers[:2]
    scene.run_until(scene.observer, Phase.SHARE)
    for index in gone:
        scene.world.crash(index)
    scene.end_round()
    assert len(scene.proposers) - len(gone) < least_sharers(len(scene.proposers))
    assert scene.body(BlockKind.ABORT).reason is Reason.TOO_FEW_SHARERS
    assert not scene.statements(Kind.CONTRIBUTION)


@pytest.mark.parametrize("lie", [True, False], ids=["wrong", "withheld"])
@both_profiles
def test_a_proposer_that_does_not_reveal_its_check_seed_delays_and_changes_nothing(
    profile: str, lie: bool
) -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        identity, network = scene.founding.identities[scene.proposers[0]], scene.founding.genesis.network
        withholder = Withholder(identity, network, frozenset({Kind.REVEAL}))
        return {scene.proposers[0]: FalseRevealer(identity, network) if lie else withholder}

    honest, scene = Scene(profile=profile).end_round(), Scene(cast, profile=profile).end_round()
    assert (scene.peer(scene.proposers[0]), ShareKind.CHECK) in scene.released(ReleaseStage.CHECK)
    assert scene.body(BlockKind.BALLOT).check_seeds == honest.body(BlockKind.BALLOT).check_seeds
    assert (scene.state.beacon, scene.state.model_digest) == (honest.state.beacon, honest.state.model_digest)


# -- aggregators that hold things up -----------------------------------------------------------------


@both_profiles
def test_a_silent_aggregator_is_replaced(profile: str) -> None:
    scene = Scene(lambda scene: {scene.aggregator: SilentAggregator()}, profile=profile, nodes=7).end_round()
    assert BlockKind.TIMEOUT in scene.kinds()
    claims = scene.statements(Kind.AGGREGATE_CLAIM)
    assert {statement.sender for _, statement in claims} == {scene.peer(scene.aggregators[1])}
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))
    assert scene.change(scene.aggregator) == 0


def test_when_a_proposer_goes_with_the_aggregator_nobody_has_its_upload_and_the_round_aborts() -> None:
    scene = Scene(nodes=7)
    for gone in (scene.proposers[0], scene.aggregator):
        scene.run_until(gone, Phase.AGGREGATE)
        scene.world.crash(gone)
    scene.end_round()
    assert scene.body(BlockKind.ABORT).reason is Reason.NO_AGGREGATE
    assert np.array_equal(scene.model(), scene.initial_model())
    assert [scene.change(node.index) for node in scene.world.nodes] == [0] * len(scene.world.nodes)


def test_when_every_aggregator_is_silent_the_round_aborts_and_nobody_pays() -> None:
    scene = Scene(
        lambda scene: {index: SilentAggregator() for index in scene.aggregators}, max_attempts=2, nodes=7
    )
    scene.end_round()
    assert scene.kinds().count(BlockKind.TIMEOUT) == 1
    assert scene.body(BlockKind.ABORT).reason is Reason.NO_AGGREGATE
    assert np.array_equal(scene.model(), scene.initial_model())
    assert [scene.change(node.index) for node in scene.world.nodes] == [0] * len(scene.world.nodes)


@pytest.mark.parametrize("split", [2, 3])
def test_an_aggregator_that_signs_two_claims_gets_one_through_or_none_and_pays(split: int) -> None:
    """With `split` of the six others misled, the true claim gathers its quorum of five, or neither does."""

    def cast(scene: Scene) -> dict[int, Filter]:
        others = [i for i in range(7) if i != scene.aggregator]
        identity = scene.founding.identities[scene.aggregator]
        network = scene.founding.genesis.network
        misled, told = scene.peers(others[:split]), scene.peers(others[split:])
        return {scene.aggregator: EquivocatingAggregator(identity, network, misled, told)}

    scene = Scene(cast, nodes=7).end_round()
    claims = {
        s.id for _, s in scene.statements(Kind.AGGREGATE_CLAIM) if s.sender == scene.peer(scene.aggregator)
    }
    assert len(claims) == 2
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))
    assert scene.change(scene.aggregator) == -scene.params.fault_penalty_units


@both_profiles
def test_upload_witnesses_bring_in_a_proposer_that_the_aggregator_refuses(profile: str) -> None:
    scene = Scene(
        lambda scene: {scene.aggregator: RefusingAggregator(scene.peer(scene.proposers[0]))}, profile=profile
    ).end_round()
    victim = scene.peer(scene.proposers[0])
    assert victim not in {s.body.proposer for _, s in scene.statements(Kind.RECEIPT)}
    assert {s.body.proposer for _, s in scene.statements(Kind.WITNESS)} == {victim}
    assert sorted(scene.contributors()) == sorted(scene.proposers)
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


# -- votes -------------------------------------------------------------------------------------------


def test_a_sealed_vote_that_is_never_opened_costs_gamma() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        identity, network = scene.founding.identities[scene.voters[0]], scene.founding.genesis.network
        return {scene.voters[0]: Withholder(identity, network, frozenset({Kind.VOTE_OPENING}))}

    scene = Scene(cast, nodes=7).end_round()
    assert len(scene.body(BlockKind.BALLOT).sealed_votes) == 2
    assert len(scene.body(BlockKind.OUTCOME).openings) == 1
    assert scene.change(scene.voters[0]) == -scene.params.gamma_units
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


@both_profiles
def test_a_poisoned_sum_is_voted_down_and_its_proposers_pay(profile: str) -> None:
    scene = Scene(
        lambda scene: {index: Poisoner(scene.params.clip) for index in scene.proposers[:2]},
        profile=profile,
        sparsify=Sparsify.OFF,
        sparsify_permille=1000,
        nodes=7,
    ).end_round()
    assert scene.verdicts() == ["TRUSTED"]
    assert {s.body.vote for _, s in scene.statements(Kind.VOTE_OPENING)} == {-1}
    assert np.array_equal(scene.model(), scene.initial_model())
    gamma, pot = scene.params.gamma_units, len(scene.proposers) * scene.params.gamma_units
    assert {scene.change(index) for index in scene.proposers} == {-gamma}
    assert all(scene.change(index) >= pot // len(scene.voters) for index in scene.voters)


def test_one_voter_against_a_good_sum_loses_to_the_other() -> None:
    scene = Scene(lambda scene: {scene.voters[0]: Contrarian()}, nodes=7, tolerance_micro=1_000).end_round()
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))
    assert scene.change(scene.voters[0]) == -scene.params.gamma_units
    assert scene.change(scene.voters[1]) >= scene.params.gamma_units


def test_voters_that_take_their_time_are_waited_for() -> None:
    scene = Scene()
    scene.worker.evaluate_ms = 5_000
    scene.end_round()
    assert len(scene.body(BlockKind.OUTCOME).openings) == 2
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


def test_a_dead_voter_does_not_cost_the_hard_deadline() -> None:
    scene = Scene(nodes=7)
    scene.run_until(scene.voters[0], Phase.BALLOT)
    scene.world.crash(scene.voters[0])
    began = scene.world.now
    scene.end_round()
    assert len(scene.body(BlockKind.OUTCOME).openings) == 1
    assert scene.world.now - began < scene.params.train_deadline_ms
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


def test_witnesses_are_not_needed_by_those_who_are_receipted() -> None:
    scene = Scene().end_round()
    assert not scene.statements(Kind.WITNESS)
