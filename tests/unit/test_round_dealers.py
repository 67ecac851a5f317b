"""Rounds with a dishonest dealer or advertiser: who is left out, who pays, what the others lose."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from protocol.duties.share import keep_pinned_packages
from protocol.ledger.block import BlockKind, Reason
from protocol.ledger.state import Phase
from protocol.messages import Complaint, Kind
from protocol.sharing import ShareKind
from sim.adversaries.coalition import Coalition
from sim.adversaries.dealers import (
    BoxReplayer,
    BoxSpoiler,
    Eavesdropper,
    GarbageDealer,
    KeyCopier,
    ZSpoiler,
)
from sim.adversaries.proposers import WeightInflater
from sim.adversaries.voters import Withholder
from sim.filters import Filter
from sim.scenes import Scene

COMPLAINTS, Z_REQUESTS = frozenset({Kind.COMPLAINT}), frozenset({Kind.Z_REQUEST})

both_profiles = pytest.mark.parametrize("profile", ["hardened", "vcdfl"])


def test_a_dealer_answers_a_complaint_in_public_and_stays() -> None:
    scene = Scene(lambda s: {s.proposers[0]: BoxSpoiler(s.peer(s.proposers[1]))}).end_round()
    dealer, holder = scene.proposers[:2]
    complaints = scene.statements(Kind.COMPLAINT)
    assert {(s.sender, s.body) for _, s in complaints} == {
        (scene.peer(holder), Complaint(scene.peer(dealer)))
    }
    openings = scene.statements(Kind.SHARE_OPENING)
    assert {(s.sender, s.body.holder) for _, s in openings} == {(scene.peer(dealer), scene.peer(holder))}
    assert len(scene.body(BlockKind.SETUP).bundles) == len(scene.proposers)
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


def test_a_dealer_that_lets_a_complaint_stand_stays_while_enough_hold_good_shares() -> None:
    """T = 3 of 4 holders are content: the fourth is its own loss, and the round is whole without it."""
    scene = Scene(
        lambda s: {s.proposers[0]: BoxSpoiler(s.peer(s.proposers[1]), deaf_to=COMPLAINTS)}
    ).end_round()
    assert scene.statements(Kind.COMPLAINT)
    assert not scene.statements(Kind.SHARE_OPENING)
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


def test_a_dealer_whom_too_many_holders_distrust_is_left_out_of_u1() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        identity = scene.founding.identities[scene.proposers[0]]
        kinds = frozenset({Kind.SEALED_SHARES, Kind.SHARE_OPENING})
        return {scene.proposers[0]: Withholder(identity, scene.founding.genesis.network, kinds)}

    scene = Scene(cast).end_round()
    assert len(scene.body(BlockKind.SETUP).bundles) == len(scene.proposers) - 1
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers[1:]))
    assert scene.change(scene.proposers[0]) == 0


def test_a_garbage_dealer_is_proven_guilty_and_the_round_abandoned() -> None:
    scene = Scene(lambda s: {s.proposers[0]: GarbageDealer(ShareKind.SELF)}).end_round()
    assert scene.kinds()[-2:] == [BlockKind.ABANDON, BlockKind.ABORT]
    assert scene.body(BlockKind.ABORT).reason is Reason.DEALER_FAULT
    assert {s.body.dealer for _, s in scene.statements(Kind.DEALER_EVIDENCE)} == {
        scene.peer(scene.proposers[0])
    }
    changes = {node.index: scene.change(node.index) for node in scene.world.nodes}
    assert changes.pop(scene.proposers[0]) == -scene.params.fault_penalty_units
    assert set(changes.values()) == {0}
    assert np.array_equal(scene.model(), scene.initial_model())
    assert (scene.state.round, scene.state.learning.phase) == (2, Phase.SHARE)


@both_profiles
def test_garbage_shares_of_a_mask_key_are_found_when_their_dealer_drops_out(profile: str) -> None:
    scene = Scene(lambda s: {s.proposers[0]: GarbageDealer(ShareKind.MASK)}, profile=profile)
    scene.run_until(scene.proposers[0], Phase.CONTRIBUTE)
    scene.world.crash(scene.proposers[0])
    scene.end_round()
    assert scene.body(BlockKind.ABORT).reason is Reason.DEALER_FAULT
    assert scene.change(scene.proposers[0]) == -scene.params.fault_penalty_units


def test_garbage_shares_of_a_check_seed_are_found_when_it_is_withheld() -> None:
    scene = Scene(lambda s: {s.proposers[0]: GarbageDealer(ShareKind.CHECK)})
    scene.run_until(scene.proposers[0], Phase.AGGREGATE)
    scene.world.crash(scene.proposers[0])
    scene.end_round()
    assert scene.body(BlockKind.ABORT).reason is Reason.DEALER_FAULT
    assert scene.change(scene.proposers[0]) == -scene.params.fault_penalty_units
    assert np.array_equal(scene.model(), scene.initial_model())


def test_a_wrong_z_is_made_good_by_another_proposer() -> None:
    scene = Scene(lambda s: {s.proposers[0]: ZSpoiler(s.peers(s.proposers[1:2]))}).end_round()
    dealer = scene.peer(scene.proposers[0])
    asked = {scene.peer(index) for index, s in scene.statements(Kind.Z_REQUEST) if s.body.dealer == dealer}
    assert asked == {scene.peer(scene.proposers[1])}
    assert scene.statements(Kind.Z_REPLY)
    assert sorted(scene.contributors()) == sorted(scene.proposers)
    assert scene.verdicts() == ["TRUSTED"]


def test_a_dealer_that_keeps_its_z_to_itself_is_left_out_of_u1() -> None:
    """Else nobody could place the hidden points, and it would stop every round at no cost."""
    scene = Scene(
        lambda s: {s.proposers[0]: ZSpoiler(s.peers(s.proposers[1:]), deaf_to=Z_REQUESTS)}
    ).end_round()
    assert sorted(scene.contributors()) == sorted(scene.proposers[1:])
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers[1:]))


def test_a_dealer_that_claims_too_great_a_weight_is_left_out_of_u1() -> None:
    """Else it would divide everyone's updates by as much as it likes."""

    def cast(scene: Scene) -> dict[int, Filter]:
        identity, network = scene.founding.identities[scene.proposers[0]], scene.founding.genesis.network
        return {scene.proposers[0]: WeightInflater(identity, network, weight=2)}

    scene = Scene(cast).end_round()
    assert scene.params.max_weight == 1
    assert sorted(scene.contributors()) == sorted(scene.proposers[1:])
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers[1:]))


# -- copied keys and replayed boxes ------------------------------------------------------------------


def test_a_copied_mask_key_is_refused_and_its_owner_stays() -> None:
    """Its copier cannot prove that it holds the key, so no honest node attests its advert."""

    def cast(scene: Scene) -> dict[int, Filter]:
        copier, victim = scene.proposers[1:3]
        identity, network = scene.founding.identities[copier], scene.founding.genesis.network
        return {copier: KeyCopier(identity, network, scene.peer(victim))}

    scene = Scene(cast, nodes=7)
    scene.run_until(scene.observer, Phase.SHARE)
    copier = scene.proposers[1]
    roles = scene.state.learning.roles
    assert roles is not None
    chosen = {*roles.proposers, *roles.aggregators}
    assert chosen == set(scene.peers([i for i in range(7) if i != copier]))
    assert scene.end_round().kinds()[-1] is BlockKind.OUTCOME


def test_a_replayed_box_does_not_open_and_its_sender_answers_for_it() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        replayer, victim = scene.proposers[:2]
        coalition, network = Coalition(), scene.founding.genesis.network
        identity = scene.founding.identities[replayer]
        return {
            replayer: BoxReplayer(identity, network, coalition, scene.peer(victim)),
            victim: Eavesdropper(coalition),
        }

    scene = Scene(cast).end_round()
    replayer, _victim, *holders = scene.proposers
    assert {(s.sender, s.body.dealer) for _, s in scene.statements(Kind.COMPLAINT)} == {
        (scene.peer(holder), scene.peer(replayer)) for holder in holders
    }
    assert all("is not from this sender" in str(note["why"]) for note in scene.notes("bad_share"))
    assert np.array_equal(scene.model(), scene.plain_model(scene.proposers))


def test_a_z_counts_only_under_the_bundle_that_is_pinned() -> None:
    """Found by a review: a dealer that signs two bundles with the same roots calls two z right."""
    scene = Scene(nodes=7)
    scene.run_until(scene.proposers[0], Phase.CONTRIBUTE)
    desk = scene.engine(scene.proposers[0]).desk
    dealer = scene.peer(scene.proposers[1])
    package, right = desk.memory.packages[dealer], desk.memory.zs[dealer]
    other = bytes(32)
    desk.memory.zs[dealer] = other
    desk.memory.proven[dealer] = evolve(desk.memory.proven[dealer], hash_z=other)
    keep_pinned_packages(desk)
    assert desk.memory.zs[dealer] == right
    desk.memory.packages[dealer] = evolve(package, z=other)
    desk.memory.zs[dealer] = other
    keep_pinned_packages(desk)
    assert dealer not in desk.memory.zs
