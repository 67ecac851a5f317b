"""Every invariant can fail: each is shown the very thing that it is there to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attrs import evolve

from protocol import durable
from protocol.checkpoint import decode_checkpoint
from protocol.codec import decode, encode
from protocol.engine import Engine
from protocol.envelope import make_statement
from protocol.events import Persist, Send
from protocol.jobs import ContributeJob
from protocol.ledger.block import BlockKind, decode_stored_block
from protocol.ledger.state import Fault, PinnedFault
from protocol.messages import Kind, ReleasedShare, ReleaseStage, ShareRelease
from protocol.sharing import ShareKind, SharePackage
from sim.invariants.base import InvariantError
from sim.invariants.ledger import Ledger
from sim.invariants.liveness import round_bound_ms
from sim.invariants.memory import kept_by, most_kept
from sim.invariants.sums import meant, uploaded
from sim.scenario.manifest import Scenario, parse_scenario
from sim.scenario.run import Run, run_scenario
from sim.scenario.stage import Stage, build_stage

QUIET = """
name = "quiet"
about = "Nothing happens."
[network]
nodes = 7
rounds = 2
"""


@pytest.fixture(scope="module")
def quiet() -> Run:
    run = run_scenario(parse_scenario(QUIET, "quiet.toml"), 1)
    assert run.passed
    return run


def step_of(run: Run, kind: BlockKind, round_: int = 1) -> Any:
    steps = run.stage.ledger.steps
    return next(s for s in steps if s.stored.block.kind is kind and s.stored.block.round == round_)


def scenario(**changes: Any) -> Scenario:
    return evolve(parse_scenario(QUIET, "quiet.toml"), **changes)


def stage_at(kind: BlockKind, round_: int = 1, seed: int = 1) -> Stage:
    """A stage whose ledger has just got its first block of a kind."""
    stage = build_stage(scenario(), seed)
    stage.timeline.begin()
    stage.world.start_all()
    stage.world.run(
        lambda _: any(
            s.stored.block.kind is kind and s.stored.block.round == round_ for s in stage.ledger.steps
        ),
        max_virtual_ms=100_000,
    )
    return stage


def test_a_quiet_run_checks_every_model_and_watches_every_release(quiet: Run) -> None:
    assert quiet.stage.integrity.checked == 2
    assert quiet.stage.privacy.watched > 0
    assert quiet.stage.memory.peak["statements"] > 0


# -- integrity -------------------------------------------------------------------------------------


def test_integrity_finds_a_model_that_is_off_by_one(quiet: Run) -> None:
    step, stage = step_of(quiet, BlockKind.OUTCOME, 2), quiet.stage
    stage.integrity(step)
    holders = [node for node in stage.world.nodes if step.after.model_digest in node.blobs]
    true = holders[0].blobs[step.after.model_digest]
    forged = np.frombuffer(true, dtype="<i8").copy()
    forged[3] += 1
    for node in holders:
        node.blobs[step.after.model_digest] = forged.tobytes()
    try:
        with pytest.raises(InvariantError, match="weight 3 is"):
            stage.integrity(step)
    finally:
        for node in holders:
            node.blobs[step.after.model_digest] = true


def test_an_upload_under_its_senders_masks_is_what_the_sender_meant(quiet: Run) -> None:
    step, stage = step_of(quiet, BlockKind.OUTCOME, 2), quiet.stage
    current = decode_checkpoint(stage.founding.genesis.params, _blob(stage, step.before.model_digest))
    for contribution in step.before.learning.contributors:
        job = _job(stage, 2, contribution.peer)
        assert np.array_equal(uploaded(job, _blob(stage, contribution.upload_digest)), meant(job, current))


def _job(stage: Stage, round_: int, peer: bytes) -> ContributeJob:
    job = stage.privacy._notes.of_peer(round_, peer)
    assert job is not None
    return job


def _blob(stage: Stage, digest: bytes) -> bytes:
    return next(node.blobs[digest] for node in stage.world.nodes if digest in node.blobs)


# -- privacy ---------------------------------------------------------------------------------------


def test_privacy_finds_shares_of_both_secrets_and_reads_the_upload() -> None:
    """One honest holder lets go of one share too many; T - 1 corrupt holders do the rest."""
    stage = stage_at(BlockKind.AGGREGATE)
    learning = stage.ledger.steps[-1].after.learning
    victim = learning.contributors[0].peer
    holder = next(
        node for node in stage.world.nodes if node.peer in learning.proposers and node.peer != victim
    )
    data = holder.records[durable.SHARE][durable.round_key(1, victim)]
    held = decode(SharePackage, data, 4096).held(0, ShareKind.MASK)
    share = ReleasedShare(victim, int(ShareKind.MASK), held.share, held.proof)
    message = make_statement(
        stage.founding.identities[holder.index],
        stage.founding.genesis.network,
        1,
        Kind.SHARE_RELEASE,
        ShareRelease(ReleaseStage.UNMASK, 0, (share,)),
    )
    with pytest.raises(InvariantError, match="its upload is read"):
        stage.privacy(holder, [Send(victim, message.to_bytes())])


def test_privacy_finds_a_mask_key_that_serves_twice() -> None:
    """The same public key in two rounds, published in one of them, unmasks the other."""
    stage = stage_at(BlockKind.BALLOT)
    learning = stage.ledger.steps[-1].after.learning
    victim = learning.contributors[0].peer
    advert = learning.advert_of(victim)
    assert advert is not None
    secret = _job(stage, 1, victim).secrets.mask_secret
    stage.privacy._known.mask_secrets[advert.mask_public] = secret
    with pytest.raises(InvariantError, match="both secrets"):
        stage.privacy._check_all()


# -- blame -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.FORGED_AGGREGATE, Fault.BROKEN_CHECK, Fault.BAD_DEALING])
def test_blame_finds_an_honest_node_that_pays(quiet: Run, fault: Fault) -> None:
    step = step_of(quiet, BlockKind.OUTCOME)
    learning = step.before.learning
    guilty = PinnedFault(learning.proposers[0], fault)
    blamed = evolve(step, before=evolve(step.before, learning=evolve(learning, faults=(guilty,))))
    with pytest.raises(InvariantError, match=f"is honest, and pays for {fault.name}"):
        quiet.stage.blame(blamed)


def test_an_unopened_vote_blames_nobody(quiet: Run) -> None:
    step = step_of(quiet, BlockKind.OUTCOME)
    quiet.stage.blame(step)


# -- the ledger ------------------------------------------------------------------------------------


def test_the_ledger_finds_a_block_that_does_not_verify_and_a_node_in_another_state(quiet: Run) -> None:
    node, genesis = quiet.stage.world.nodes[0], quiet.stage.founding.genesis
    rows = sorted(node.records[durable.BLOCK].items())
    fresh = Ledger(genesis)
    stored = decode_stored_block(rows[0][1])
    other = encode(evolve(stored, block=evolve(stored.block, state_root=bytes(32))))
    with pytest.raises(InvariantError, match="does not verify"):
        fresh(node, [Persist(durable.BLOCK, rows[0][0], other)])
    with pytest.raises(InvariantError, match="after 0"):
        fresh(node, [Persist(durable.BLOCK, rows[1][0], rows[1][1])])
    assert isinstance(node.engine, Engine)
    kept = Ledger(genesis)
    for key, value in rows:
        kept(node, [Persist(durable.BLOCK, key, value)])
    kept.steps[-1] = evolve(kept.steps[-1], after=evolve(kept.steps[-1].after, treasury_units=1))
    with pytest.raises(InvariantError, match="another state"):
        kept(node, [Persist(durable.BLOCK, rows[-1][0], rows[-1][1])])


# -- memory and time -------------------------------------------------------------------------------


def test_memory_counts_what_is_kept_of_each_peer(quiet: Run) -> None:
    engine = quiet.stage.world.nodes[0].engine
    assert isinstance(engine, Engine)
    kept, most = kept_by(engine), most_kept(quiet.stage.founding.genesis.params, 7)
    assert set(kept) == set(most)
    assert 0 < max(kept["statements"].values()) < most["statements"]
    assert 0 < max(kept["statement_bytes"].values()) < most["statement_bytes"]
    few = most_kept(evolve(quiet.stage.founding.genesis.params, max_attempts=1), 7)
    assert few["statements"] < most["statements"]


def test_the_bound_on_a_round_grows_with_its_deadlines_and_with_views_that_may_be_lost() -> None:
    params = scenario().params
    assert round_bound_ms(params, 10) > round_bound_ms(params, 7)
    assert round_bound_ms(evolve(params, phase_deadline_ms=5_000), 7) > round_bound_ms(params, 7)
