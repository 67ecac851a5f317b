"""Attacks on the sum, run through whole rounds: what every honest node reads, rules and adopts.

docs/PROTOCOL.md section 5: each line of the table of verdicts, by a real manipulation of real engines.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from protocol.ledger.block import BlockKind
from protocol.messages import Kind
from protocol.params import CommitmentScheme
from protocol.secagg.commitment import SingularCommitment
from protocol.secagg.scheme import Scheme
from sim.adversaries.aggregators import (
    BlindForger,
    CheckForger,
    CollusiveForger,
    InformedForger,
    MalformedSum,
    OmittingAggregator,
    TargetForger,
    first_coordinate,
    kernel_of,
    kernel_of_own_u,
)
from sim.adversaries.coalition import Coalition
from sim.adversaries.proposers import (
    Accomplice,
    CheckBreaker,
    Inconsistent,
    RogueCommitter,
    off_by_one,
    out_of_bounds,
    unchanged,
)
from sim.filters import Filter
from sim.scenes import Cast, Scene

both_profiles = pytest.mark.parametrize("profile", ["hardened", "vcdfl"])


def with_accomplice(forger: Callable[..., InformedForger], *arguments: object) -> Cast:
    """The aggregator forges with what one proposer tells it; everyone else is honest."""

    def cast(scene: Scene) -> dict[int, Filter]:
        coalition = Coalition()
        return {
            scene.aggregator: forger(coalition, *arguments),
            scene.proposers[0]: Accomplice(coalition),
        }

    return cast


def assert_repaired(scene: Scene) -> None:
    """The aggregator alone pays the penalty for a forgery, and the true sum is voted on and adopted."""
    dispute = scene.body(BlockKind.DISPUTE)
    assert not dispute.sum_matches
    assert dispute.guilty_checks == ()
    assert scene.kinds()[-4:] == [BlockKind.BALLOT, BlockKind.DISPUTE, BlockKind.BALLOT, BlockKind.OUTCOME]
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))
    assert scene.change(scene.aggregator) == -scene.params.fault_penalty_units
    assert all(scene.change(index) > 0 for index in (*scene.proposers, *scene.voters))


def assert_void(scene: Scene, guilty: dict[int, int]) -> None:
    """Nothing is adopted; the guilty pay what is given for them, and without one U2 pays the fee."""
    assert scene.body(BlockKind.DISPUTE).sum_matches
    assert scene.kinds()[-3:] == [BlockKind.BALLOT, BlockKind.DISPUTE, BlockKind.OUTCOME]
    assert np.array_equal(scene.model(), scene.initial_model())
    fee = 0 if guilty else scene.params.void_fee_units
    for node in scene.world.nodes:
        fallback = -fee if node.index in scene.proposers else 0
        assert scene.change(node.index) == guilty.get(node.index, fallback)
        assert scene.suspicion(node.index) == (node.index in scene.proposers and not guilty)


# -- aggregators -------------------------------------------------------------------------------------


@both_profiles
def test_a_lazy_aggregator_that_leaves_out_a_contribution(profile: str) -> None:
    scene = Scene(lambda scene: {scene.aggregator: OmittingAggregator()}, profile=profile).end_round()
    assert scene.verdicts() == ["LAZY_AGGREGATOR"]
    assert_repaired(scene)


@both_profiles
def test_an_aggregator_that_touches_the_sum_without_the_keys_reads_as_lazy(profile: str) -> None:
    scene = Scene(lambda scene: {scene.aggregator: BlindForger()}, profile=profile).end_round()
    assert scene.verdicts() == ["LAZY_AGGREGATOR"]
    assert_repaired(scene)


@both_profiles
def test_a_sum_that_is_no_sum_at_all_is_forged_too(profile: str) -> None:
    scene = Scene(lambda scene: {scene.aggregator: MalformedSum()}, profile=profile).end_round()
    assert scene.verdicts() == ["LAZY_AGGREGATOR"]
    assert_repaired(scene)


@both_profiles
def test_a_colluding_aggregator_that_adds_a_delta(profile: str) -> None:
    scene = Scene(with_accomplice(CollusiveForger, first_coordinate(-700)), profile=profile).end_round()
    assert scene.verdicts() == ["COLLUDING_AGGREGATOR"]
    assert_repaired(scene)


@both_profiles
def test_an_aggregator_that_breaks_a_hidden_value_is_told_from_a_proposer(profile: str) -> None:
    scene = Scene(with_accomplice(CheckForger), profile=profile).end_round()
    assert scene.verdicts() == ["CHECK_FAULT"]
    assert_repaired(scene)


def test_a_forger_whose_round_has_a_faulty_proposer_too_pays_and_so_does_the_proposer() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        coalition = Coalition()
        return {
            scene.aggregator: CollusiveForger(coalition, first_coordinate(5)),
            scene.proposers[0]: Accomplice(coalition),
            scene.proposers[1]: CheckBreaker(),
        }

    scene = Scene(cast).end_round()
    assert scene.verdicts() == ["LAZY_AGGREGATOR"]
    dispute = scene.body(BlockKind.DISPUTE)
    assert not dispute.sum_matches
    assert dispute.guilty_checks == (scene.peer(scene.proposers[1]),)
    penalty = -scene.params.fault_penalty_units
    assert scene.change(scene.aggregator) == penalty
    assert scene.change(scene.proposers[1]) == penalty
    assert scene.change(scene.proposers[2]) == 0
    assert np.array_equal(scene.model(), scene.initial_model())


# -- proposers ---------------------------------------------------------------------------------------


@both_profiles
def test_a_proposer_that_breaks_its_own_check_is_found_in_the_dispute(profile: str) -> None:
    scene = Scene(lambda scene: {scene.proposers[0]: CheckBreaker()}, profile=profile).end_round()
    assert scene.verdicts() == ["CHECK_FAULT"]
    assert scene.body(BlockKind.DISPUTE).guilty_checks == (scene.peer(scene.proposers[0]),)
    assert_void(scene, {scene.proposers[0]: -scene.params.fault_penalty_units})


@both_profiles
def test_a_proposer_that_commits_to_another_update_voids_the_round(profile: str) -> None:
    """It frames the aggregator, who shows the uploads and goes free. Who did it cannot be told."""
    scene = Scene(
        lambda scene: {scene.proposers[0]: Inconsistent(unchanged, off_by_one)}, profile=profile
    ).end_round()
    assert scene.verdicts() == ["COLLUDING_AGGREGATOR"]
    assert_void(scene, {})


@both_profiles
def test_a_proposer_out_of_bounds_voids_the_round(profile: str) -> None:
    """It commits to what it sends, so that both linear equations hold."""
    scene = Scene(
        lambda scene: {scene.proposers[0]: Inconsistent(out_of_bounds, out_of_bounds)}, profile=profile
    ).end_round()
    assert scene.verdicts() == ["UNBOUNDED"]
    assert_void(scene, {})


def test_suspicion_is_worked_off_by_good_rounds() -> None:
    scene = Scene(lambda scene: {scene.proposers[0]: Inconsistent(unchanged, off_by_one)}).end_round()
    suspected = [node.index for node in scene.world.nodes if scene.suspicion(node.index)]
    assert suspected == sorted(scene.proposers)
    reformed = scene.filters[scene.proposers[0]]
    assert isinstance(reformed, Inconsistent)
    reformed.committed = unchanged
    scene.end_round(2)
    assert scene.kinds(2)[-1] is BlockKind.OUTCOME
    served = {s.sender for _, s in scene.statements(Kind.CONTRIBUTION, 2)}
    for index in suspected:
        assert scene.suspicion(index) == (scene.peer(index) not in served)


# -- the paper's commitment, and why the default is another ------------------------------------------


def test_the_kernel_of_u_forges_a_sum_that_the_papers_profile_adopts() -> None:
    """An aggregator with U and z of one client adds delta with U delta = 0: trusted, voted for, wrong."""
    scene = Scene(with_accomplice(CollusiveForger, kernel_of_own_u(500)), profile="vcdfl").end_round()
    assert scene.verdicts() == ["TRUSTED"]
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    adopted, true = scene.model(), scene.plain_model(scene.proposers)
    assert not np.array_equal(adopted, scene.initial_model())
    assert not np.array_equal(adopted, true)
    assert np.count_nonzero(adopted - true) > scene.params.singular_rank
    assert scene.change(scene.aggregator) == 0


def test_the_same_forgery_is_caught_under_the_lattice_commitment() -> None:
    matrices = SingularCommitment(bytes(32), 64, group_size=16, rank=4)
    scene = Scene(with_accomplice(CollusiveForger, kernel_of(matrices, 500))).end_round()
    assert scene.verdicts() == ["COLLUDING_AGGREGATOR"]
    assert_repaired(scene)


def test_of_all_the_choices_of_a_profile_it_is_the_commitment_that_decides() -> None:
    """Double masks, roots of unity and key agreement around a singular commitment: forged all the same."""
    scene = Scene(
        with_accomplice(CollusiveForger, kernel_of_own_u(500)), commitment=CommitmentScheme.SINGULAR
    ).end_round()
    assert scene.verdicts() == ["TRUSTED"]
    assert not np.array_equal(scene.model(), scene.plain_model(scene.proposers))


def constant_sum(scheme: Scheme) -> npt.NDArray[np.int64]:
    """What the rogue coalition wants the network to adopt, with an opening of its own."""
    opening = scheme.commitment.opening_randomness(bytes(range(32)))
    return np.concatenate([np.full(scheme.length, 12_345, dtype=np.int64), opening])


@pytest.mark.parametrize("profile", ["vcdfl", "hardened"])
def test_a_rogue_commitment_forges_any_sum_unless_commitments_are_blinded(profile: str) -> None:
    """The last proposer commits to the target minus the others; its aggregator claims the target."""

    def cast(scene: Scene) -> dict[int, Filter]:
        coalition = Coalition()
        rogue = RogueCommitter(coalition, constant_sum, others=len(scene.proposers) - 1)
        return {scene.aggregator: TargetForger(coalition, constant_sum), scene.proposers[0]: rogue}

    scene = Scene(cast, profile=profile).end_round()
    if profile == "vcdfl":
        assert scene.verdicts() == ["TRUSTED"]
        moved = scene.model() - scene.initial_model()
        assert len(set(moved.tolist())) == 1
        assert scene.change(scene.aggregator) == 0
    else:
        assert scene.verdicts() == ["COLLUDING_AGGREGATOR"]
        assert np.array_equal(scene.model(), scene.initial_model())
        assert scene.change(scene.aggregator) == -scene.params.fault_penalty_units
