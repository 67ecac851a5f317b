"""Shares that holders give back: what for, when, and what they prove (section 3, Shares)."""

from __future__ import annotations

from protocol.codec import encode
from protocol.duties.desk import Desk
from protocol.ledger.state import Phase
from protocol.messages import DealerEvidence, Kind, ReleasedShare, ReleaseStage, ShareRelease
from protocol.params import Masking
from protocol.pinning import pinned_value
from protocol.sharing import DealerFault, PinnedShares, ShareKind


def release_unmasking(desk: Desk) -> None:
    """Shares of b_i for U2 and of mask keys for U1 without U2, never both for one peer."""
    round_ = desk.state.round
    attempt = int(ReleaseStage.UNMASK) * 128
    if not desk.is_proposer or desk.pool.get(round_, Kind.SHARE_RELEASE, desk.me, attempt):
        return
    contributors = {contribution.peer for contribution in desk.learning.contributors}
    wanted = []
    for bundle in desk.learning.sharers:
        if bundle.peer not in contributors:
            wanted.append((bundle.peer, ShareKind.MASK))
        elif desk.rules.params.masking is Masking.DOUBLE:
            wanted.append((bundle.peer, ShareKind.SELF))
    release(desk, ReleaseStage.UNMASK, 0, wanted)


def release(desk: Desk, stage: ReleaseStage, attempt: int, wanted: list[tuple[bytes, ShareKind]]) -> None:
    holder = desk.index(desk.me)
    shares = []
    for dealer, kind in wanted:
        package = desk.memory.packages.get(dealer)
        if package is not None:
            held = package.held(holder, kind)
            shares.append(ReleasedShare(dealer, int(kind), held.share, held.proof))
    desk.outbox.publish(desk.state.round, Kind.SHARE_RELEASE, ShareRelease(stage, attempt, tuple(shares)))


def count_releases(desk: Desk) -> None:
    """Take the valid shares out of the releases that came in."""
    memory, learning = desk.memory, desk.learning
    if not learning.sharers:
        return
    for statement in desk.pool.of_kind(desk.state.round, Kind.SHARE_RELEASE):
        if statement.id in memory.counted_releases or statement.sender not in learning.proposers:
            continue
        memory.counted_releases.add(statement.id)
        released = desk.checks.shares_in(statement, desk.state, desk.context)
        for _ in range(released.bad):
            desk.outbox.penalise(statement.sender, "share")
        if released.held:
            memory.released.append(released.held)


def pinned_shares(desk: Desk, dealer: bytes, kind: ShareKind) -> PinnedShares | None:
    """At least T valid shares of a dealer's secret, if so many were released."""
    released = [of_one[kind, dealer] for of_one in desk.memory.released if (kind, dealer) in of_one]
    held = {share.holder: share for share in released}
    if len(held) < desk.learning.threshold:
        return None
    pinned = pinned_value(desk.state, dealer, kind)
    if pinned is None:
        return None
    shares = tuple(held[holder] for holder in sorted(held))
    return PinnedShares(desk.index(dealer), shares, *pinned)


def release_checks(desk: Desk) -> None:
    """Rebuild rho_i: at once of those who dropped out, at the soft deadline of all who are late."""
    if not desk.is_proposer or desk.learning.ballot:
        return
    if not (desk.clock.release or desk.clock.late or _someone_dropped(desk)):
        return
    contributors = {contribution.peer for contribution in desk.learning.contributors}
    seeds = desk.memory.findings.check_seeds
    missing = [bundle.peer for bundle in desk.learning.sharers if bundle.peer not in seeds]
    dropped = [peer for peer in missing if peer not in contributors]
    due = [(0, dropped)] if desk.learning.phase is Phase.BALLOT else []
    if desk.clock.release:
        due.append((1, missing))
    if desk.clock.late:
        due.append((2, missing))
    base = int(ReleaseStage.CHECK) * 128
    for attempt, dealers in due:
        if dealers and not desk.pool.get(desk.state.round, Kind.SHARE_RELEASE, desk.me, base + attempt):
            release(desk, ReleaseStage.CHECK, attempt, [(d, ShareKind.CHECK) for d in dealers])


def _someone_dropped(desk: Desk) -> bool:
    """Is U2 less than U1?"""
    return len(desk.learning.contributors) < len(desk.learning.sharers)


def accuse_dealer(desk: Desk, fault: DealerFault) -> None:
    dealer = desk.learning.proposers[fault.dealer]
    if desk.pool.get(desk.state.round, Kind.DEALER_EVIDENCE, desk.me, 0, dealer) is None:
        desk.outbox.publish(desk.state.round, Kind.DEALER_EVIDENCE, DealerEvidence(dealer, encode(fault)))
