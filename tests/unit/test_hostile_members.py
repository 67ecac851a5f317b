"""Members that try to crash, stall, frame or cheat the others with what they sign, hide or time.

After each attack no engine has raised (the simulator stops a run in which one does), the round has ended
with a block, no honest node was reported by another, and who can be proven guilty has paid.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.compose import EVIDENCE_BYTES, equivocations_known
from protocol.consensus import leader_of
from protocol.envelope import make_statement, open_envelope
from protocol.events import Notify, Penalise, Received
from protocol.keys import Identity, possession_holds
from protocol.ledger import block as blocks
from protocol.ledger.block import BLOCK_BYTES, BlockBody, BlockKind
from protocol.ledger.state import Phase
from protocol.messages import (
    Body,
    Kind,
    ReleasedShare,
    ReleaseStage,
    ShareRelease,
    Statements,
    Transaction,
    TransactionKind,
    Witness,
)
from protocol.pool import Pool
from protocol.secrets import possession_message
from protocol.sharing import SHARE_BYTES
from sim.adversaries.coalition import Hoard
from sim.adversaries.dealers import BoxSpoiler
from sim.adversaries.hiding import Hider, HidingForger
from sim.adversaries.leaders import CitingLeader, copied_keys, heavy_bundle
from sim.adversaries.ledger_behaviours import no_challenge, other_hash_z, other_seeds, other_vote
from sim.adversaries.speakers import (
    LOW_ORDER_KEY,
    DeafTo,
    FatEquivocator,
    LateAdvertiser,
    LowOrderAdvertiser,
    ReadyPadder,
    StakeShifter,
    TwoFaced,
    TwoFacedDealer,
    low_order_proof,
)
from sim.filters import Filter
from sim.scenes import Cast, Scene

NODES = 7
"""Two of them may be faulty. Four proposers, of whom three are enough."""


def signer(scene: Scene, index: int) -> tuple[Identity, bytes]:
    """What an adversary needs to sign for its node."""
    return scene.founding.identities[index], scene.founding.genesis.network


def reported(scene: Scene) -> set[bytes]:
    """Peers that honest nodes reported to their transport."""
    return {
        report.effect.peer
        for report in scene.world.reports
        if isinstance(report.effect, Penalise) and scene.world.nodes[report.node].honest
    }


def assert_unharmed(scene: Scene) -> None:
    """Nobody honest was reported, none of them lost anything, and nothing in a ledger is in disorder."""
    honest = [node.index for node in scene.world.nodes if node.honest]
    assert not reported(scene) & set(scene.peers(honest))
    assert all(scene.change(index) >= 0 for index in honest)
    assert not scene.notes("fatal")


def pays(scene: Scene, *liars: int) -> None:
    assert {scene.change(index) for index in liars} == {-scene.params.fault_penalty_units}


# -- keys that agree with nobody ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["seal", "mask"])
def test_a_key_of_small_order_is_refused_and_its_owner_has_no_role(name: str) -> None:
    scene = Scene(
        lambda s: {s.proposers[0]: LowOrderAdvertiser(*signer(s, s.proposers[0]), name)}, nodes=NODES
    )
    owner = scene.proposers[0]
    scene.end_round()
    message = possession_message(scene.founding.genesis.network, 1, scene.peer(owner), name)
    assert possession_holds(LOW_ORDER_KEY, low_order_proof(message), message)
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert scene.peer(owner) not in {s.sender for _, s in scene.statements(Kind.SHARE_BUNDLE)}
    assert reported(scene) == {scene.peer(owner)}
    assert_unharmed(scene)


def citing(kind: BlockKind, change: Callable[[Identity, bytes], Callable[[BlockBody], BlockBody]]) -> Cast:
    """The leader of the first round's block of this kind cites what it chooses in view 1."""

    def cast(scene: Scene) -> dict[int, Filter]:
        height = {BlockKind.OPEN: 1, BlockKind.SETUP: 2, BlockKind.AGGREGATE: 4}[kind]
        peers = scene.peers(range(NODES))
        leader = next(i for i in range(NODES) if scene.peer(i) == leader_of(peers, height, 1))
        signs = signer(scene, leader)
        return {leader: CitingLeader(*signs, scene.founding.genesis, kind, change(*signs))}

    return cast


@pytest.mark.parametrize("kind", [BlockKind.OPEN, BlockKind.AGGREGATE])
def test_a_leader_cannot_pin_copied_keys_that_nobody_else_would_take(kind: BlockKind) -> None:
    """Nobody else would see its second advert, and the copy would keep the victim out of the round."""

    scene = Scene(citing(kind, copied_keys), nodes=NODES).end_round()
    (leader,) = scene.filters
    assert any("not its own" in str(note["what"]) for note in scene.notes("rejected"))
    assert reported(scene) == {scene.peer(leader)}
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert len(scene.state.learning.adverts) == NODES
    assert_unharmed(scene)


def test_a_leader_cannot_pin_a_weight_that_nobody_may_have() -> None:
    """Its own bundle, signed a second time: the sum would be divided by as much as it likes."""

    def heavy(identity: Identity, network: bytes) -> Callable[[BlockBody], BlockBody]:
        return heavy_bundle(identity, network, 1 << 16)

    scene = Scene(citing(BlockKind.SETUP, heavy), nodes=NODES, seed=SEED_OF_LEADING_PROPOSER).end_round()
    (leader,) = scene.filters
    assert leader in scene.proposers
    assert any("weight" in str(note["what"]) for note in scene.notes("rejected"))
    assert reported(scene) == {scene.peer(leader)}
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert_unharmed(scene)


SEED_OF_LEADING_PROPOSER = 3
"""A founding in which the leader of block 2 is a proposer."""


# -- two statements for one slot ---------------------------------------------------------------------


def two_faced(kind: Kind, who: str, misled: int, lie: Callable[[Body], Body]) -> Cast:
    """The first proposer, voter or aggregator shows the last `misled` of the others its second statement."""

    def cast(scene: Scene) -> dict[int, Filter]:
        liar = getattr(scene, who)[0]
        rest = [i for i in range(NODES) if i != liar]
        shown, told = scene.peers(rest[NODES - 1 - misled :]), scene.peers(rest[: NODES - 1 - misled])
        return {liar: TwoFaced(*signer(scene, liar), kind, shown, told, lie)}

    return cast


@pytest.mark.parametrize("misled", [2, 4])
def test_an_opening_that_does_not_fit_its_sealed_vote_does_not_stop_a_leader(misled: int) -> None:
    scene = Scene(two_faced(Kind.VOTE_OPENING, "voters", misled, other_vote), nodes=NODES).end_round()
    (liar,) = scene.filters
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    if misled == 4:
        # Its vote is settled like any; the contradiction costs what it costs on top.
        assert scene.change(liar) < -scene.params.fault_penalty_units + scene.params.gamma_units
    assert_unharmed(scene)


@pytest.mark.parametrize("misled", [1, 3, 6])
def test_a_claim_with_wrong_secrets_does_not_stop_a_leader(misled: int) -> None:
    scene = Scene(two_faced(Kind.AGGREGATE_CLAIM, "aggregators", misled, other_seeds), nodes=NODES)
    (liar,) = scene.filters
    scene.end_round()
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    if misled < NODES - 1:
        pays(scene, liar)
    assert_unharmed(scene)


def test_a_reveal_without_its_challenge_does_not_stop_a_leader() -> None:
    cast = two_faced(Kind.REVEAL, "proposers", NODES - 1, no_challenge)
    scene = Scene(cast, nodes=NODES, profile="vcdfl").end_round()
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert_unharmed(scene)


@pytest.mark.parametrize("misled", [2, 3, 4])
def test_two_contributions_do_not_keep_the_others_from_theirs(misled: int) -> None:
    scene = Scene(two_faced(Kind.CONTRIBUTION, "proposers", misled, other_hash_z), nodes=NODES).end_round()
    (liar,) = scene.filters
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    # Who holds the other one can vote for a block that cites this one: no view has to pass.
    assert all(block.view == 1 for block in scene.blocks())
    pays(scene, liar)
    assert_unharmed(scene)


@pytest.mark.parametrize("misled", [1, 2])
def test_two_dealings_cost_their_dealer_and_at_most_one_round(misled: int) -> None:
    """Shares of the dealing that was not pinned are nobody's, so that they spoil no sum."""

    def cast(scene: Scene) -> dict[int, Filter]:
        dealer, *holders = scene.proposers
        shown = [*holders[:misled], scene.aggregator]
        told = [i for i in range(NODES) if i not in (dealer, *shown)]
        return {dealer: TwoFacedDealer(*signer(scene, dealer), scene.peers(shown), scene.peers(told))}

    scene = Scene(cast, nodes=NODES).end_round()
    (liar,) = scene.filters
    pays(scene, liar)
    scene.end_round(2)
    assert BlockKind.OUTCOME in (scene.kinds()[-1], scene.kinds(2)[-1])
    assert not scene.statements(Kind.DEALER_EVIDENCE)
    assert_unharmed(scene)


def test_a_dealer_deaf_to_complaints_that_withholds_its_shares_too_stalls_nothing() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        dealer, holder, *_ = scene.proposers
        deaf = frozenset({Kind.COMPLAINT, Kind.CONTRIBUTION})
        return {dealer: BoxSpoiler(scene.peer(holder), deaf_to=deaf)}

    scene = Scene(cast, nodes=NODES).end_round()
    (dealer,) = scene.filters
    assert scene.statements(Kind.COMPLAINT)
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert len(scene.body(BlockKind.SETUP).bundles) == len(scene.proposers) - 1
    assert scene.change(dealer) == 0
    assert_unharmed(scene)


# -- statements too large for a block ----------------------------------------------------------------


def test_statements_with_more_shares_than_there_are_dealers_are_refused() -> None:
    scene = Scene(lambda s: {s.voters[0]: FatEquivocator(*signer(s, s.voters[0]), 1, 600)}, nodes=NODES)
    scene.end_round()
    fat = scene.statements(Kind.SHARE_RELEASE)
    assert sum(len(s.cited()) for i, s in fat if i == scene.voters[0]) > BLOCK_BYTES
    assert {note["reason"] for note in scene.notes("rejected")} == {"size"}
    assert reported(scene) == {scene.peer(scene.voters[0])}
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert_unharmed(scene)


def test_contradictions_too_large_for_a_block_are_left_out_of_it() -> None:
    scene = Scene(nodes=NODES)
    engine = scene.engine(0)
    pool, network = Pool(), scene.founding.genesis.network
    for shares in (2, 60):
        for tag in (1, 2):
            release = ShareRelease(ReleaseStage.CHECK, 0, (fat_share(tag),) * shares)
            pool.add(
                make_statement(
                    scene.founding.identities[shares % NODES], network, 1, Kind.SHARE_RELEASE, release
                )
            )
    assert len(pool.conflicts) == 2
    ((first, second),) = equivocations_known(engine.state, pool)
    assert len(first) + len(second) <= EVIDENCE_BYTES
    assert open_envelope(first, network).sender == scene.peer(2)


def fat_share(tag: int) -> ReleasedShare:
    proof = tuple(bytes([level]) * 32 for level in range(12))
    return ReleasedShare(bytes([tag]) * 32, 0, bytes(SHARE_BYTES), proof)


@pytest.mark.parametrize("padding_bytes", [3_000, 31_000])
def test_padded_readys_stand_in_no_block(padding_bytes: int) -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        # Not the leaders of the first two blocks: what counts is what the others make of it.
        order = scene.peers(range(NODES))
        spared = {leader_of(order, height, 1) for height in range(1, 7)}
        padders = [i for i in range(NODES) if scene.peer(i) not in spared][:2]
        return {i: ReadyPadder(*signer(scene, i), padding_bytes) for i in padders}

    scene = Scene(cast, nodes=NODES).end_round()
    padders = set(scene.peers(list(scene.filters)))
    assert padders
    senders = {
        scene.engine(scene.observer).cited.open(data).sender
        for block in scene.blocks()
        if block.leader not in padders
        for data in block.readys
    }
    assert not senders & padders
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert_unharmed(scene)


# -- hidden uploads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("accomplices", [1, 2])
def test_a_sum_with_an_upload_that_nobody_can_show_costs_its_aggregator(accomplices: int) -> None:
    """One lying voter cannot bring the upload in; two can, and their aggregator's forgery is not free."""

    def cast(scene: Scene) -> dict[int, Filter]:
        voters = scene.voters[:accomplices]
        proposer = scene.proposers[0]
        hoard = Hoard(scene.peers([scene.aggregator, proposer, *voters]))
        return {
            scene.aggregator: HidingForger(scene.peer(proposer), hoard),
            **{i: Hider(hoard) for i in (proposer, *voters)},
        }

    scene = Scene(cast, nodes=13)
    assert len(scene.filters) == accomplices + 2
    scene.end_round()
    hidden = scene.peer(scene.proposers[0])
    witnesses = {s.sender for _, s in scene.statements(Kind.WITNESS) if _about(s.body, hidden)}
    assert witnesses == set(scene.peers(scene.voters[:accomplices]))
    dispute = scene.body(BlockKind.DISPUTE)
    assert dispute.missing == ((hidden,) if accomplices == 2 else ())
    pays(scene, scene.aggregator)
    assert_unharmed(scene)


def _about(body: Body, proposer: bytes) -> bool:
    return isinstance(body, Witness) and body.proposer == proposer


def test_a_contribution_known_from_a_block_alone_is_not_passed_on_without_its_commitment() -> None:
    """Nobody here is dishonest, so nobody may be reported."""

    def cast(scene: Scene) -> dict[int, Filter]:
        sender = scene.peer(scene.proposers[0])
        return {index: DeafTo(Kind.CONTRIBUTION, sender) for index in scene.voters}

    scene = Scene(cast, nodes=NODES).end_round()
    assert scene.kinds()[-1] is BlockKind.OUTCOME
    assert not [report for report in scene.world.reports if isinstance(report.effect, Penalise)]
    commitment_lost = [
        s for i, s in scene.statements(Kind.CONTRIBUTION) if not s.envelope.payload and i in scene.voters
    ]
    assert not commitment_lost


# -- the next round's roles --------------------------------------------------------------------------


def roles_of(scene: Scene) -> object:
    roles = scene.state.learning.roles
    assert roles is not None
    return scene.state.round, scene.state.beacon, roles


@pytest.mark.parametrize("amount_units", [1, 30_000_000])
def test_stake_moved_after_the_check_seeds_are_known_does_not_move_the_next_roles(amount_units: int) -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        shifter = scene.proposers[0]
        fund = Transaction(TransactionKind.FUND, 0, scene.peer(shifter), amount_units)
        send = Transaction(TransactionKind.TRANSFER, 1, scene.peer(scene.proposers[1]), 1_000_000)
        return {shifter: StakeShifter(*signer(scene, shifter), (fund, send))}

    honest, scene = Scene(nodes=NODES).end_round(), Scene(cast, nodes=NODES).end_round()
    assert scene.body(BlockKind.OUTCOME).closing.transactions
    assert scene.change(scene.proposers[0]) < -amount_units
    assert roles_of(scene) == roles_of(honest)


def test_an_advert_held_back_until_the_beacon_is_known_comes_too_late() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        return {scene.proposers[0]: LateAdvertiser(*signer(scene, scene.proposers[0]))}

    scene = Scene(cast, nodes=NODES).end_round()
    late = scene.peer(scene.proposers[0])
    sent = [s for i, s in scene.statements(Kind.KEY_ADVERT, 2) if i == scene.proposers[0]]
    assert late in {s.sender for s in sent}
    learning = scene.state.learning
    assert len(learning.adverts) == NODES - 1
    assert learning.advert_of(late) is None
    assert_unharmed(scene)


def test_an_honest_node_that_passes_on_the_advert_of_one_who_left_is_not_reported() -> None:
    """What it sends was admissible a block ago."""
    scene = Scene(nodes=NODES)
    gone, relay, other = 0, 1, 2
    scene.order(gone, TransactionKind.LEAVE)
    scene.end_round(2)
    assert scene.peer(gone) not in scene.state.validators
    identity, network = signer(scene, gone)
    round_ = scene.state.round
    body = next(s.body for index, s in scene.statements(Kind.KEY_ADVERT, 2) if index == gone)
    late = make_statement(identity, network, round_, Kind.KEY_ADVERT, body)
    batch = make_statement(
        scene.founding.identities[relay], network, round_, Kind.STATEMENTS, Statements((late.to_bytes(),))
    )
    engine = scene.engine(other)
    stale = engine.rejects["stale"]
    effects = engine.handle(Received(scene.peer(relay), batch.to_bytes()), scene.world.now)
    assert not [effect for effect in effects if isinstance(effect, Penalise)]
    assert engine.rejects["stale"] == stale + 1
    assert_unharmed(scene)


# -- the last resort ---------------------------------------------------------------------------------


def test_a_phase_that_nothing_can_close_is_abandoned_and_its_check_seeds_still_make_the_beacon() -> None:
    scene = Scene(nodes=NODES)
    scene.run_until(scene.aggregator, Phase.AGGREGATE)
    scene.world.partition([[0, 1, 2]])
    scene.world.run_for(5 * scene.params.phase_deadline_ms)
    scene.world.heal()
    scene.end_round()
    assert scene.kinds()[-2:] == [BlockKind.ABANDON, BlockKind.ABORT]
    abandon, abort = scene.body(BlockKind.ABANDON), scene.body(BlockKind.ABORT)
    assert abandon.reason is abort.reason is blocks.Reason.NO_PROGRESS
    assert abandon.adverts
    assert not abort.closing.adverts
    assert {entry.peer for entry in abort.check_seeds} == set(scene.peers(scene.proposers))
    assert all(scene.change(index) == 0 for index in range(NODES))
    assert_unharmed(scene)
    assert not [r for r in scene.world.reports if isinstance(r.effect, Notify) and r.effect.kind == "fatal"]


def test_a_network_that_everybody_has_left_stops_and_no_node_with_it() -> None:
    scene = Scene(nodes=NODES)
    for index in range(NODES):
        scene.order(index, TransactionKind.LEAVE)
    scene.end_round()
    assert scene.state.validators == ()
    height = scene.state.height
    scene.world.run_for(60_000)  # repair, deadlines and views of nobody
    assert scene.state.height == height
