"""Attacks on single updates: what a coalition works out, compared with what its victim really learned.

docs/PROTOCOL.md sections 4.1, 5.1, 5.2 and 11.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np

from protocol.algebra import field as fp
from protocol.codec import digest
from protocol.consensus import leader_of
from protocol.ledger.block import BlockKind
from protocol.ledger.state import Phase
from protocol.messages import AggregateClaim, Complaint, Contribution, Kind, ReleaseStage
from protocol.params import Masking
from protocol.secagg import commitment, masking
from protocol.secagg.commitment import SingularCommitment
from protocol.secagg.scheme import Scheme, scheme_of
from protocol.sharing import ShareKind
from sim.adversaries.aggregators import RefusingAggregator
from sim.adversaries.coalition import Coalition
from sim.adversaries.dealers import BoxReplayer, Eavesdropper, KeyCopier
from sim.adversaries.forgery import Int64Vec
from sim.adversaries.proposers import Accomplice
from sim.adversaries.reading import bare_update, late_update, recognised, sparse_update
from sim.adversaries.survivors import ContributionSilencer, SurvivorSplitter
from sim.adversaries.tampering import Both
from sim.attacks.attack import Attack, Outcome, Result
from sim.attacks.trial import NODES, Staging, run_trial
from sim.filters import Filter
from sim.founding import small_params
from sim.scenes import Scene

VICTIM = 1
"""Place among the proposers of round 1."""
GUESSES = 16
GRAPH_PROPOSERS = 300
"""Above 256 proposers each shares masks with some of the others only."""
SLOW_TRAINING_MS = 2_600
"""A victim that learns so slowly contributes after the others' soft deadline, and before a view is over."""


# -- a false dropout ---------------------------------------------------------------------------------


def _false_dropout(name: str, profile: str, seed: int) -> Result:
    """The aggregator alone hears the victim, whom everyone else's mask shares then declare dropped."""
    coalition = Coalition()

    def cast(scene: Scene) -> Mapping[int, Filter]:
        victim, aggregator = scene.peer(scene.proposers[VICTIM]), scene.aggregator
        network, identities = scene.founding.genesis.network, scene.founding.identities
        silencer = ContributionSilencer(identities[aggregator], network, victim)
        return {
            aggregator: Both(RefusingAggregator(victim), silencer),
            scene.proposers[0]: Accomplice(coalition),
        }

    def during(scene: Scene) -> None:
        victim = scene.proposers[VICTIM]
        scene.run_until(victim, Phase.CONTRIBUTE)
        for other in range(NODES):
            if other not in (victim, scene.aggregator):
                scene.world.cut(victim, other)

    staging = Staging(cast=cast, during=during, left_behind=lambda scene: [scene.proposers[VICTIM]])
    trial = run_trial(staging, profile, seed)
    scene = trial.scene
    victim = scene.proposers[VICTIM]
    read = _read_late(scene, coalition, victim)
    true = scene.extended_update(victim)
    reached = read is not None and np.array_equal(read, true)
    hits = 0 if read is None else int((read == true).sum())
    return trial.result(
        name,
        reached=reached,
        struck=read is not None,
        found=f"{hits} of {true.size} values of the late upload were read",
    )


def _read_late(scene: Scene, coalition: Coalition, victim: int) -> Int64Vec | None:
    """What the rebuilt mask key makes of the upload that the aggregator holds."""
    job, peer = coalition.job_of(1), scene.peer(victim)
    claims = [s.body for _, s in scene.statements(Kind.AGGREGATE_CLAIM)]
    sent = [s.body for i, s in scene.statements(Kind.CONTRIBUTION) if i == victim]
    if job is None or not claims or not sent:
        return None
    claim, contribution = claims[0], sent[0]
    assert isinstance(claim, AggregateClaim)
    assert isinstance(contribution, Contribution)
    secret = next((entry.secret for entry in claim.mask_secrets if entry.peer == peer), None)
    upload = scene.world.nodes[scene.aggregator].blobs.get(contribution.upload_digest)
    if secret is None or upload is None:
        return None
    return late_update(job.context, job.z_root, job.context.proposers.index(peer), secret, upload)


# -- two survivor sets -------------------------------------------------------------------------------


def _two_survivor_sets(name: str, profile: str, seed: int) -> Result:
    """The leader of the CONTRIBUTION block signs two, with and without a victim that was late."""

    def leader(scene: Scene) -> int:
        peers = scene.peers(range(NODES))
        return next(i for i in range(NODES) if scene.peer(i) == leader_of(peers, 3, 1))

    def late(scene: Scene) -> int:
        return next(index for index in scene.proposers if index != leader(scene))

    def cast(scene: Scene) -> Mapping[int, Filter]:
        splitter = leader(scene)
        rest = [i for i in range(NODES) if i != splitter]
        return {
            splitter: SurvivorSplitter(
                scene.founding.identities[splitter],
                scene.founding.genesis.network,
                scene.founding.genesis,
                scene.peers(rest[:3]),
                scene.peers(rest[3:]),
            )
        }

    def during(scene: Scene) -> None:
        scene.worker.training_ms[late(scene)] = SLOW_TRAINING_MS

    trial = run_trial(Staging(cast=cast, during=during), profile, seed)
    scene = trial.scene
    splitter = scene.filters[leader(scene)]
    assert isinstance(splitter, SurvivorSplitter)
    released = scene.released(ReleaseStage.UNMASK)
    torn = [d for d, kind in released if kind is ShareKind.SELF and (d, ShareKind.MASK) in released]
    views = max(block.view for block in scene.blocks() if block.kind is BlockKind.CONTRIBUTION)
    return trial.result(
        name,
        reached=bool(torn),
        struck=len(splitter.proposals) == 2,
        found=f"shares of both secrets of {len(torn)} proposers left their holders; U2 final in view {views}",
    )


# -- keys and boxes ----------------------------------------------------------------------------------


def _copied_key(name: str, profile: str, seed: int) -> Result:
    """Whether the copy is pinned, or keeps its victim out of the round."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        copier, victim = scene.proposers[0], scene.proposers[VICTIM]
        identity = scene.founding.identities[copier]
        return {copier: KeyCopier(identity, scene.founding.genesis.network, scene.peer(victim))}

    trial = run_trial(Staging(cast=cast), profile, seed)
    scene = trial.scene
    copier, victim = (scene.peer(i) for i in (scene.proposers[0], scene.proposers[VICTIM]))
    before = next(step for step in trial.steps if step.after.learning.roles is not None)
    owners = {advert.peer for advert in before.after.learning.adverts}
    found = f"the copier {'has' if copier in owners else 'has no'} key on the ledger, "
    found += f"its victim {'has one' if victim in owners else 'has none'}"
    return trial.result(name, reached=copier in owners or victim not in owners, found=found)


def _replayed_boxes(name: str, profile: str, seed: int) -> Result:
    """Whether a holder takes a victim's shares as the replayer's, and would give them away as such."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        replayer, victim = scene.proposers[0], scene.proposers[VICTIM]
        coalition, identity = Coalition(), scene.founding.identities[replayer]
        return {
            replayer: BoxReplayer(identity, scene.founding.genesis.network, coalition, scene.peer(victim)),
            victim: Eavesdropper(coalition),
        }

    trial = run_trial(Staging(cast=cast), profile, seed)
    scene = trial.scene
    holders = set(scene.peers(scene.proposers[2:]))
    replayer = scene.peer(scene.proposers[0])
    complained = {s.sender for _, s in scene.statements(Kind.COMPLAINT) if s.body == Complaint(replayer)}
    return trial.result(
        name,
        reached=not holders <= complained,
        found=f"{len(holders & complained)} of {len(holders)} holders refused the replayed box",
    )


# -- commitments -------------------------------------------------------------------------------------


def _published(scene: Scene, victim: int) -> fp.FieldVec:
    """A client's commitment as the round published it, and unblinded where its check seed is out."""
    job = scene.worker.contributions[1, victim]
    scheme, peer = scheme_of(job.context), scene.peer(victim)
    payload = next(s.envelope.payload for i, s in scene.statements(Kind.CONTRIBUTION) if i == victim)
    published = scheme.read_commitment(payload, "commitment")
    if not scene.params.blinded:
        return published
    sharers = [job.context.proposers[place] for place in job.context.sharers]
    seeds = scene.body(BlockKind.BALLOT).check_seeds
    return commitment.unblind(published, seeds[sharers.index(peer)], job.context.network, 1, peer)


def _scheme(scene: Scene, index: int) -> Scheme:
    return scheme_of(scene.worker.contributions[1, index].context)


def _curious(scene: Scene) -> Mapping[int, Filter]:
    """One client that does nothing but read: it knows U where there is one."""
    return {scene.proposers[0]: Accomplice(Coalition())}


def _by_linear_algebra(name: str, profile: str, seed: int) -> Result:
    """Where few coordinates of a group are not zero, its equations give them away."""
    trial = run_trial(Staging(cast=_curious), profile, seed)
    scene, victim = trial.scene, trial.scene.proposers[VICTIM]
    scheme, published = _scheme(scene, victim), _published(scene, victim)
    true = scene.extended_update(victim)[: scheme.length]
    read: Int64Vec | None
    if isinstance(scheme.commitment, SingularCommitment):
        read = sparse_update(scheme.commitment, published, 1 << (scheme.fixed.bits - 1))
    else:
        read = bare_update(scheme.commitment, published)
    hits = 0 if read is None else int((read == true).sum())
    return trial.result(
        name,
        reached=hits == true.size,
        found=f"{published.size} equations; {hits} of {true.size} weights were read",
    )


def _by_guess(name: str, profile: str, seed: int) -> Result:
    """The attacker knows that the update is one of sixteen, as where only the label of a client is secret."""
    trial = run_trial(Staging(cast=_curious), profile, seed)
    scene, victim = trial.scene, trial.scene.proposers[VICTIM]
    scheme, published = _scheme(scene, victim), _published(scene, victim)
    true = scene.extended_update(victim)[: scheme.length]
    shuffled = Random(seed)
    guesses = []
    for _ in range(GUESSES):
        order = list(range(true.size))
        shuffled.shuffle(order)
        guesses.append(true[order])
    secret = shuffled.randrange(GUESSES)
    guesses[secret] = true
    picked = recognised(scheme.commitment, published, guesses)
    found = "none stands out" if picked is None else f"guess {picked} stands out, it was {secret}"
    return trial.result(name, reached=picked == secret, found=f"{GUESSES} guesses: {found}")


# -- the graph ---------------------------------------------------------------------------------------


def _isolation(name: str, profile: str, seed: int) -> Result:
    """By the masks and the rule of blocks alone: 300 proposers, of whom a third less one collude.

    The coalition declares honest neighbours of its victim dropped, as many as a valid block may, and takes
    from the victim's upload every mask that it knows or that is rebuilt for it. Its own self mask, where
    there is one, is public with U2.
    """
    count, random = GRAPH_PROPOSERS, Random(seed)
    beacon = digest("isolation", seed.to_bytes(8, "big"))
    degree = masking.graph_degree(count)
    victim = random.randrange(count)
    near = masking.neighbours(victim, count, beacon, degree)
    corrupt = set(random.sample([i for i in range(count) if i != victim], (count - 1) // 3))
    dropped: set[int] = set()
    for peer in (i for i in near if i not in corrupt):
        survivors = set(range(count)) - dropped - {peer}
        if masking.surviving_neighbours_ok(count, beacon, degree, survivors):
            dropped.add(peer)
    update = np.array([random.randrange(-(2**19), 2**19) for _ in range(32)], dtype=np.int64)
    double = small_params(NODES, profile).masking is Masking.DOUBLE
    own = digest("isolation", b"self") if double else None
    seeds = {other: digest("isolation", bytes([other // 256, other % 256])) for other in near}
    upload = masking.mask(fp.from_signed(update), victim, seeds, own)

    def read(gone: set[int]) -> Int64Vec:
        known = [(victim, i, seed_) for i, seed_ in seeds.items() if i in gone or i in corrupt]
        return fp.to_signed(masking.unmask(upload, [own] if own else [], known))

    everyone = set(near) - corrupt
    refused = not masking.surviving_neighbours_ok(count, beacon, degree, set(range(count)) - everyone)
    isolated = np.array_equal(read(everyone), update)
    reached = np.array_equal(read(dropped), update) or (isolated and not refused)
    left = len(everyone - dropped)
    return Result(
        attack=name,
        profile=profile,
        outcome=Outcome.SUCCEEDS if reached else Outcome.HARMLESS,
        blamed=(),
        cost_units=0,
        rounds_lost=0,
        seed=seed,
        found=f"{len(dropped)} of {len(near)} neighbours may be dropped; {left} honest masks stay unknown",
    )


_READ = "the coalition's vector equals the victim's true update"

PRIVACY = (
    Attack(
        "false-dropout",
        "only the aggregator gets the victim's upload; its mask key is rebuilt as that of a dropout",
        _READ,
        _false_dropout,
    ),
    Attack(
        "isolated-victim",
        "of 300 proposers, the coalition declares all honest neighbours of one in the mask graph dropped",
        _READ,
        _isolation,
    ),
    Attack(
        "two-survivor-sets",
        "a leader shows one half a U2 with a late victim, the other half one without",
        "shares of both secrets of one proposer leave their holders",
        _two_survivor_sets,
    ),
    Attack(
        "copied-mask-key",
        "a proposer advertises a victim's mask key as its own",
        "the copy is pinned, or keeps its victim out of the round",
        _copied_key,
    ),
    Attack(
        "replayed-shares",
        "a dealer passes a victim's sealed boxes off as its own, to have them opened in its name",
        "a holder takes one",
        _replayed_boxes,
    ),
    Attack(
        "update-by-linear-algebra",
        "a client solves another's published commitment for the update",
        _READ,
        _by_linear_algebra,
    ),
    Attack(
        "update-by-guess",
        f"a client compares another's commitment with {GUESSES} possible updates",
        "it recognises the true one",
        _by_guess,
    ),
)
