"""Phase 3: the aggregator's sum and its claim, and everyone's copy of it (section 3)."""

from __future__ import annotations

from protocol.duties.desk import Desk
from protocol.duties.release import accuse_dealer, count_releases, pinned_shares
from protocol.duties.uploads import want_upload
from protocol.envelope import Statement
from protocol.jobs import AggregateJob, AggregateResult
from protocol.messages import AggregateClaim, Kind, NamedSecret
from protocol.params import Masking
from protocol.pinning import claim_matches
from protocol.sharing import ShareKind


def aggregate(desk: Desk) -> None:
    learning, memory = desk.learning, desk.memory
    if desk.me != learning.aggregator:
        return
    if desk.pool.get(desk.state.round, Kind.AGGREGATE_CLAIM, desk.me, learning.attempt):
        return
    if memory.aggregated is not None:
        claim(desk, memory.aggregated)
        return
    count_releases(desk)
    name = f"aggregate/{learning.attempt}"
    if desk.has_run(name):
        return
    contributors = learning.contributors
    held = [want_upload(desk, c.peer, c.upload_digest) for c in contributors]
    members = {contribution.peer for contribution in contributors}
    double = desk.rules.params.masking is Masking.DOUBLE
    self_shares = [pinned_shares(desk, c.peer, ShareKind.SELF) for c in contributors] if double else []
    mask_shares = [
        pinned_shares(desk, bundle.peer, ShareKind.MASK)
        for bundle in learning.sharers
        if bundle.peer not in members
    ]
    if not all(held) or None in self_shares or None in mask_shares:
        return
    desk.run(
        name,
        AggregateJob(
            context=desk.context,
            contributors=tuple(desk.index(c.peer) for c in contributors),
            upload_digests=tuple(c.upload_digest for c in contributors),
            self_shares=tuple(entry for entry in self_shares if entry is not None),
            mask_shares=tuple(entry for entry in mask_shares if entry is not None),
        ),
    )


def claim(desk: Desk, result: AggregateResult) -> None:
    if result.faults:
        for fault in result.faults:
            accuse_dealer(desk, fault)
        return
    proposers = desk.learning.proposers
    desk.put_blob(result.sum_digest, result.sum)
    desk.outbox.publish(
        desk.state.round,
        Kind.AGGREGATE_CLAIM,
        AggregateClaim(
            desk.learning.attempt,
            result.sum_digest,
            tuple(NamedSecret(proposers[i], seed) for i, seed in result.self_seeds),
            tuple(NamedSecret(proposers[i], secret) for i, secret in result.mask_secrets),
        ),
    )


def current_claim(desk: Desk) -> Statement | None:
    """The active aggregator's claim, if it is well-formed."""
    state, aggregator = desk.state, desk.learning.aggregator
    if aggregator is None:
        return None
    changes = desk.pool.changes(state.round, Kind.AGGREGATE_CLAIM)

    def find() -> Statement | None:
        claims = desk.pool.versions(state.round, Kind.AGGREGATE_CLAIM, aggregator, state.learning.attempt)
        return next((claim for claim in claims if claim_matches(state, desk.rules, claim)), None)

    return desk.worked_out("claim", (state.height, len(changes)), find) if changes else None


def take_sum(desk: Desk) -> None:
    claim = current_claim(desk)
    if claim is not None and isinstance(claim.body, AggregateClaim):
        desk.want_blob(claim.body.sum_digest, (claim.sender,), desk.state.validators)
