"""Phase 4: reveals, rebuilt check seeds, and both equations over what is pinned (sections 3 and 5)."""

from __future__ import annotations

from protocol.duties.desk import Desk
from protocol.duties.release import accuse_dealer, count_releases, pinned_shares
from protocol.duties.zs import known_zs
from protocol.jobs import VerifyJob
from protocol.ledger.state import PinnedContribution
from protocol.messages import Kind, Reveal
from protocol.params import Challenge
from protocol.pinning import z_root_from
from protocol.secagg.verification import Verdict
from protocol.sharing import DealerFault, ShareKind, rebuild


def reveal(desk: Desk) -> None:
    """My check seed and the z of everyone, once B is pinned (or the round is given up)."""
    round_ = desk.state.round
    if desk.pool.get(round_, Kind.REVEAL, desk.me) is not None:
        return
    if desk.me not in [bundle.peer for bundle in desk.learning.sharers]:
        return
    secrets = desk.my_secrets()
    clear = desk.rules.params.challenge is Challenge.CLEAR
    desk.outbox.publish(
        round_,
        Kind.REVEAL,
        Reveal(
            secrets.check_seed,
            known_zs(desk) or (),
            secrets.challenge_seed if clear and desk.is_contributor else b"",
        ),
    )


def collect_seeds(desk: Desk) -> None:
    """Every rho_i of U1 that is revealed or can be rebuilt, and the z_i; looks at what is new only."""
    take_reveals(desk)
    releases = desk.pool.changes(desk.state.round, Kind.SHARE_RELEASE)
    height, reveals_seen, releases_seen = seeds_sought(desk)
    desk.memory.seeds_sought = (height, reveals_seen, len(releases))
    if len(releases) > releases_seen:
        rebuild_seeds(desk)


def take_reveals(desk: Desk) -> None:
    """Every rho_i that is revealed, and the z_i: of each reveal that is new its own seed and no other."""
    reveals = desk.pool.changes(desk.state.round, Kind.REVEAL)
    height, reveals_seen, releases_seen = seeds_sought(desk)
    desk.memory.seeds_sought = (height, len(reveals), releases_seen)
    for slot in reveals[reveals_seen:]:
        statement = desk.pool.get_slot(slot)
        if statement is not None and isinstance(statement.body, Reveal):
            take_reveal(desk, statement.sender, statement.body)


def seeds_sought(desk: Desk) -> tuple[int, int, int]:
    """The height, and how many of its reveals and releases were looked at: none yet at a new one."""
    sought = desk.memory.seeds_sought
    return sought if sought[0] == desk.state.height else (desk.state.height, 0, 0)


def lacks_seeds(desk: Desk) -> bool:
    """Does verifying wait for the check seed of a contributor?"""
    seeds = desk.memory.findings.check_seeds
    return any(contribution.peer not in seeds for contribution in desk.learning.contributors)


def take_reveal(desk: Desk, sender: bytes, body: Reveal) -> None:
    findings, state = desk.memory.findings, desk.state
    if sender not in findings.check_seeds and desk.checks.check_seed_matches(
        state, desk.context, sender, body.check_seed
    ):
        findings.check_seeds[sender] = body.check_seed
    if findings.zs is None and body.zs and z_root_from(state, desk.rules, body.zs) is not None:
        findings.zs = body.zs


def rebuild_seeds(desk: Desk) -> None:
    """Check seeds that are not known, of whose shares enough were released."""
    findings = desk.memory.findings
    missing = [b.peer for b in desk.learning.sharers if b.peer not in findings.check_seeds]
    if not missing:
        return
    count_releases(desk)
    for peer in missing:
        shares = pinned_shares(desk, peer, ShareKind.CHECK)
        if shares is None:
            continue
        secret = rebuild(
            desk.context, shares.dealer, ShareKind.CHECK, shares.shares, shares.root, shares.pinned
        )
        if isinstance(secret, DealerFault):
            if desk.is_contributor_peer(peer):
                accuse_dealer(desk, secret)
        else:
            findings.check_seeds[peer] = secret


def commitment_of(desk: Desk, contribution: PinnedContribution) -> bytes | None:
    """The payload of a pinned contribution, if this node has it."""
    statement = desk.pool.by_id(contribution.statement_id)
    if statement is None or not statement.envelope.payload:
        return None
    return statement.envelope.payload


def missing_contributions(desk: Desk) -> tuple[bytes, ...]:
    """Ids of pinned contributions whose commitment this node lacks."""
    return tuple(c.statement_id for c in desk.learning.contributors if commitment_of(desk, c) is None)


def verify(desk: Desk) -> None:
    if desk.has_run("verify"):
        return
    job = verify_job(desk)
    if job is not None:
        desk.run("verify", job)


def verify_job(desk: Desk) -> VerifyJob | None:
    """Both equations over what is pinned, once all of it is here."""
    state, learning, findings = desk.state, desk.learning, desk.memory.findings
    claim = learning.claim
    if claim is None or state.model_digest not in desk.blobs:
        return None
    contributors = [contribution.peer for contribution in learning.contributors]
    if lacks_seeds(desk):
        return None
    z_root = learning.z_root or z_root_from(state, desk.rules, findings.zs or ())
    commitments = [commitment_of(desk, contribution) for contribution in learning.contributors]
    if not z_root or None in commitments:
        return None
    if not desk.want_blob(claim.sum_digest, (claim.aggregator,), state.validators):
        return None
    weights = {bundle.peer: bundle.weight for bundle in learning.sharers}
    return VerifyJob(
        context=desk.context,
        contributors=tuple(desk.index(peer) for peer in contributors),
        sum_digest=claim.sum_digest,
        self_seeds=tuple((desk.index(e.peer), e.secret) for e in claim.self_seeds),
        mask_secrets=tuple((desk.index(e.peer), e.secret) for e in claim.mask_secrets),
        check_seeds=tuple(findings.check_seeds[peer] for peer in contributors),
        z_root=z_root,
        commitments=tuple(commitment for commitment in commitments if commitment is not None),
        challenge_seeds=challenge_seeds(desk),
        weights=tuple(weights[peer] for peer in contributors),
        model_digest=state.model_digest,
    )


def challenge_seeds(desk: Desk) -> tuple[bytes, ...]:
    """Seeds of R (clear challenge): those that are pinned, before that those that U2 broadcast."""
    if desk.learning.challenge_seeds:
        return tuple(entry.secret for entry in desk.learning.challenge_seeds)
    if desk.rules.params.challenge is not Challenge.CLEAR:
        return ()
    seeds = []
    for contribution in desk.learning.contributors:
        reveal = desk.pool.get(desk.state.round, Kind.REVEAL, contribution.peer)
        if reveal is not None and isinstance(reveal.body, Reveal) and reveal.body.challenge_seed:
            seeds.append(reveal.body.challenge_seed)
    return tuple(seeds)


def candidate(desk: Desk) -> bytes | None:
    """Digest of the model that is voted on, once this node has verified how it came about."""
    findings = desk.memory.findings
    if desk.learning.ballot:
        return desk.learning.candidate
    if findings.verified is None or findings.verified.verdict is not Verdict.TRUSTED:
        return None
    return findings.verified.model_digest


def collect_pinned_findings(desk: Desk) -> None:
    """What the ballot block pinned is known to everyone, whatever this node had collected."""
    learning, findings = desk.learning, desk.memory.findings
    for bundle, seed in zip(learning.sharers, learning.check_seeds, strict=False):
        if any(seed):
            findings.check_seeds.setdefault(bundle.peer, seed)
