"""A leader's block: the one that the Readys at hand call for, or none yet (docs/PROTOCOL.md section 3).

`compose` is the counterpart of `protocol.round.block_effect`: what it makes, that accepts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from attrs import define, field

from protocol.codec import digest
from protocol.envelope import Statement
from protocol.jobs import DisputeResult, VerifyResult
from protocol.ledger import block as blocks
from protocol.ledger.block import MAX_EVIDENCE, MAX_TRANSACTIONS, BlockBody, Closing, Reason
from protocol.ledger.settlement import draw_now
from protocol.ledger.state import LedgerState, Phase, PinnedAdvert
from protocol.ledger.transactions import Book
from protocol.messages import AggregateClaim, Contribution, KeyAdvert, Kind, NamedSecret, Reveal, Transaction
from protocol.params import Challenge
from protocol.pinning import (
    ZERO_SEED,
    Rules,
    aggregator_silent,
    attempts_left,
    claim_matches,
    contributors_pinned,
    enough_contributors,
    enough_sharers,
    equivocates,
    is_receipted,
    is_witnessed,
    opening_matches,
    openings_pinned,
    sealed_votes_pinned,
    seeds_pinned,
    sharers_pinned,
    uploads_missing,
)
from protocol.pool import Pool
from protocol.secagg.verification import Verdict
from protocol.tally import GAVE_UP, Tally

EVIDENCE_BYTES = 16 << 10
"""The most that one pair of contradicting statements may take of a block; larger ones go unpunished."""
SEED_BYTES = 32


@define(eq=False)
class Findings:
    """What a node has found out about the current round beyond the statements themselves."""

    check_seeds: dict[bytes, bytes] = field(factory=dict)
    zs: tuple[bytes, ...] | None = None
    verified: VerifyResult | None = None
    dispute: DisputeResult | None = None


def compose(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    """The body of the next block, or None while the Readys or this node's knowledge do not suffice."""
    if not tally.is_quorum:
        return None
    if tally.is_late(GAVE_UP):
        # What could have been proposed has had its time: a faulty node may be what keeps it from passing.
        body = _give_up(state, rules, tally, pool, findings)
        if body is not None:
            return body
    return _BY_PHASE[state.learning.phase](state, rules, tally, pool, findings)


def _abandon(
    state: LedgerState, tally: Tally, pool: Pool, reason: Reason, evidence: tuple[bytes, ...] = ()
) -> BlockBody | None:
    """Give the round up; adverts are pinned now, before the check seeds become known."""
    wanted = () if state.learning.next_pinned else tally.attested(Kind.KEY_ADVERT)
    adverts = _cite(pool, state.round + 1, Kind.KEY_ADVERT, wanted)
    return None if adverts is None else blocks.AbandonBody(reason, evidence, adverts)


def _cite(
    pool: Pool, round_: int, kind: Kind, peers: Sequence[bytes], attempt: int = 0
) -> tuple[bytes, ...] | None:
    """The peers' statements of one kind as they stand in a block; None if one is not held here."""
    statements = [pool.get(round_, kind, peer, attempt) for peer in peers]
    if any(statement is None for statement in statements):
        return None
    return tuple(statement.cited() for statement in statements if statement is not None)


def _closing(state: LedgerState, rules: Rules, tally: Tally, pool: Pool, round_: int) -> Closing | None:
    wanted = () if state.learning.next_pinned else tally.attested(Kind.KEY_ADVERT)
    adverts = _cite(pool, round_, Kind.KEY_ADVERT, wanted)
    if adverts is None:
        return None
    transactions = tuple(s.cited() for s in applicable_transactions(state, rules, pool))
    return Closing(adverts, transactions, equivocations_known(state, pool))


def equivocations_known(state: LedgerState, pool: Pool) -> tuple[tuple[bytes, bytes], ...]:
    """One pair for each validator that contradicted itself in this round, as far as a block has room."""
    pairs: dict[bytes, tuple[bytes, bytes]] = {}
    for slot in sorted(pool.conflicts):
        first, second = pool.conflicts[slot]
        pair = (first.cited(), second.cited())
        if equivocates(state, first, second) and sum(map(len, pair)) <= EVIDENCE_BYTES:
            pairs.setdefault(first.sender, pair)
    return tuple(pairs[sender] for sender in sorted(pairs))[:MAX_EVIDENCE]


def applicable_transactions(
    state: LedgerState, rules: Rules, pool: Pool, most: int = MAX_TRANSACTIONS
) -> list[Statement]:
    """Return transactions that apply one after the other, at most `most` of them: what a leader takes.

    Senders take turns, each with its own in the order of their numbers, from another one in each round and at
    each height: a crowd of accounts delays another's transaction, and cannot keep it out.
    """
    book, chosen = Book(state, rules.params), list[Statement]()
    queues: dict[bytes, list[Statement]] = defaultdict(list)
    for statement in pool.transactions():
        queues[statement.sender].append(statement)
    turn = digest("turn", state.beacon, state.height.to_bytes(8, "big"))
    senders = sorted(queues, key=lambda sender: (sender < turn, sender))
    for queue in queues.values():
        queue.sort(key=_number_of, reverse=True)
    while senders:
        waiting = []
        for sender in senders:
            if len(chosen) == most:
                return chosen
            statement = queues[sender].pop()
            assert isinstance(statement.body, Transaction)
            if book.apply(sender, statement.body):
                chosen.append(statement)
            if queues[sender]:
                waiting.append(sender)
        senders = waiting
    return chosen


def _number_of(statement: Statement) -> int:
    assert isinstance(statement.body, Transaction)
    return statement.body.nonce


def _open(state: LedgerState, rules: Rules, tally: Tally, pool: Pool, _: Findings) -> BlockBody | None:
    transactions = tuple(s.cited() for s in applicable_transactions(state, rules, pool))
    if state.rests:
        return blocks.OpenBody(Closing((), transactions)) if transactions else None
    adverts = _cite(pool, state.round, Kind.KEY_ADVERT, tally.attested(Kind.KEY_ADVERT))
    if adverts is None:
        return None
    pinned = []
    for peer in tally.attested(Kind.KEY_ADVERT):
        statement = pool.get(state.round, Kind.KEY_ADVERT, peer)
        assert statement is not None
        assert isinstance(statement.body, KeyAdvert)
        pinned.append(PinnedAdvert(peer, statement.body.mask_public, statement.body.seal_public))
    if draw_now(state, rules.params, pinned).learning.phase is not Phase.SHARE and not transactions:
        return None
    return blocks.OpenBody(Closing(adverts, transactions))


def _setup(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    sharers = sharers_pinned(state, tally)
    if enough_sharers(state, sharers):
        bundles = _cite(pool, state.round, Kind.SHARE_BUNDLE, sharers)
        return None if bundles is None else blocks.SetupBody(bundles)
    if tally.is_late():
        return _abort(state, rules, tally, pool, findings, Reason.TOO_FEW_SHARERS)
    return None


def _contribution(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    contributors = contributors_pinned(state, tally)
    if not enough_contributors(state, contributors):
        return _abandon(state, tally, pool, Reason.TOO_FEW_CONTRIBUTORS) if tally.is_late() else None
    contributions = _cite(pool, state.round, Kind.CONTRIBUTION, contributors)
    if contributions is None:
        return None
    receipts: list[bytes] = []
    for peer in contributors:
        vouchers = vouchers_for(state, pool, peer)
        if not vouchers:
            return None
        receipts.extend(voucher.cited() for voucher in vouchers)
    return blocks.ContributionBody(contributions, tuple(receipts))


def vouchers_for(state: LedgerState, pool: Pool, proposer: bytes) -> list[Statement]:
    """The aggregator's receipt for this upload, or else enough witnesses; empty if neither is held."""
    contribution = pool.get(state.round, Kind.CONTRIBUTION, proposer)
    aggregator = state.learning.aggregator
    if contribution is None or aggregator is None or not isinstance(contribution.body, Contribution):
        return []
    digest = contribution.body.upload_digest
    receipt = pool.get(state.round, Kind.RECEIPT, aggregator, state.learning.attempt, proposer)
    if receipt is not None and is_receipted(state, proposer, digest, [receipt]):
        return [receipt]
    if not pool.changes(state.round, Kind.WITNESS):
        return []
    witnesses = [
        witness
        for voter in state.learning.voters
        if (witness := pool.get(state.round, Kind.WITNESS, voter, 0, proposer)) is not None
    ]
    return witnesses if is_witnessed(state, proposer, digest, witnesses) else []


def _aggregate(state: LedgerState, rules: Rules, tally: Tally, pool: Pool, _: Findings) -> BlockBody | None:
    evidence = dealer_evidence(state, pool)
    if evidence:
        return _abandon(state, tally, pool, Reason.DEALER_FAULT, evidence)
    aggregator = state.learning.aggregator
    assert aggregator is not None
    adverts = _cite(pool, state.round + 1, Kind.KEY_ADVERT, tally.attested(Kind.KEY_ADVERT))
    for claim in pool.versions(state.round, Kind.AGGREGATE_CLAIM, aggregator, state.learning.attempt):
        held = isinstance(claim.body, AggregateClaim) and tally.held_by_quorum(claim.body.sum_digest)
        if adverts is not None and held and claim_matches(state, rules, claim):
            return blocks.AggregateBody(claim.cited(), adverts)
    if aggregator_silent(tally):
        if attempts_left(state, rules.params):
            return blocks.TimeoutBody(state.learning.attempt)
        return _abandon(state, tally, pool, Reason.NO_AGGREGATE)
    return None


def dealer_evidence(state: LedgerState, pool: Pool) -> tuple[bytes, ...]:
    """One proof for each dealer whose garbage was proven (the pool holds checked evidence only)."""
    by_dealer = {s.envelope.body: s for s in pool.of_kind(state.round, Kind.DEALER_EVIDENCE)}
    first: dict[bytes, Statement] = {}
    for statement in by_dealer.values():
        first.setdefault(getattr(statement.body, "dealer", b""), statement)
    return tuple(first[dealer].cited() for dealer in sorted(first))


def _ballot(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    learning = state.learning
    evidence = dealer_evidence(state, pool)
    if evidence and not learning.ballot:
        return _abandon(state, tally, pool, Reason.DEALER_FAULT, evidence)
    if learning.ballot:
        votes = _cite(pool, state.round, Kind.SEALED_VOTE, sealed_votes_pinned(state, tally), learning.ballot)
        if votes is None:
            return None
        return blocks.BallotBody(learning.check_seeds, (), (), learning.verdict, learning.candidate, votes)
    attested = set(tally.attested(Kind.REVEAL))
    contributors = [contribution.peer for contribution in learning.contributors]
    if not attested >= set(contributors):
        return None
    verified, zs = findings.verified, findings.zs
    if verified is None or zs is None:
        return None
    needed = attested | set(contributors)
    if any(bundle.peer in needed and bundle.peer not in findings.check_seeds for bundle in learning.sharers):
        return None
    seeds = tuple(findings.check_seeds.get(bundle.peer, ZERO_SEED) for bundle in learning.sharers)
    reveals: tuple[bytes, ...] = ()
    if rules.params.challenge is Challenge.CLEAR:
        reveals = tuple(
            statement.cited()
            for peer in contributors
            if (statement := pool.get(state.round, Kind.REVEAL, peer)) is not None
            and isinstance(statement.body, Reveal)
            and len(statement.body.challenge_seed) == SEED_BYTES
        )
    trusted = verified.verdict is Verdict.TRUSTED
    votes = _cite(pool, state.round, Kind.SEALED_VOTE, sealed_votes_pinned(state, tally) if trusted else ())
    if votes is None:
        return None
    return blocks.BallotBody(seeds, zs, reveals, int(verified.verdict), verified.model_digest, votes)


def _dispute(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    missing = uploads_missing(state, tally)
    if missing:
        return blocks.DisputeBody(missing, False, b"", (), 0, b"") if tally.is_late() else None
    return None if findings.dispute is None else dispute_body(state, findings.dispute)


def dispute_body(state: LedgerState, result: DisputeResult) -> blocks.DisputeBody:
    """The ruling that follows from a finished dispute job."""
    proposers = state.learning.proposers
    return blocks.DisputeBody(
        missing=(),
        sum_matches=result.sum_matches,
        sum_digest=result.sum_digest,
        guilty_checks=tuple(proposers[index] for index in sorted(result.guilty_checks)),
        verdict=int(result.repaired.verdict),
        candidate=result.repaired.model_digest,
    )


def _outcome(state: LedgerState, rules: Rules, tally: Tally, pool: Pool, _: Findings) -> BlockBody | None:
    openings = []
    for peer in openings_pinned(state, tally):
        versions = pool.versions(state.round, Kind.VOTE_OPENING, peer, state.learning.ballot)
        opening = next((s for s in versions if opening_matches(state, rules, s)), None)
        if opening is None:
            return None
        openings.append(opening.cited())
    closing = _closing(state, rules, tally, pool, state.round + 1)
    return None if closing is None else blocks.OutcomeBody(tuple(openings), closing)


def _recover(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    return _abort(state, rules, tally, pool, findings, Reason(state.learning.reason))


def _abort(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings, reason: Reason
) -> BlockBody | None:
    attested = seeds_pinned(state, tally)
    closing = _closing(state, rules, tally, pool, state.round + 1)
    if closing is None or any(peer not in findings.check_seeds for peer in attested):
        return None
    seeds = tuple(NamedSecret(peer, findings.check_seeds[peer]) for peer in attested)
    return blocks.AbortBody(reason, seeds, closing)


def _give_up(
    state: LedgerState, rules: Rules, tally: Tally, pool: Pool, findings: Findings
) -> BlockBody | None:
    """The last resort. Where check seeds are still to come they are collected first, for the beacon."""
    learning = state.learning
    if learning.phase in (Phase.ADVERT, Phase.RECOVER):
        return None
    if learning.phase in (Phase.CONTRIBUTE, Phase.AGGREGATE):
        return _abandon(state, tally, pool, Reason.NO_PROGRESS)
    reason = Reason.CHECK_SEED_LOST if _seed_lost(state, tally) else Reason.NO_PROGRESS
    return _abort(state, rules, tally, pool, findings, reason)


def _seed_lost(state: LedgerState, tally: Tally) -> bool:
    known = set(tally.attested(Kind.REVEAL))
    learning = state.learning
    return (
        learning.phase is Phase.BALLOT
        and learning.ballot == 0
        and any(contribution.peer not in known for contribution in learning.contributors)
    )


_BY_PHASE = {
    Phase.ADVERT: _open,
    Phase.SHARE: _setup,
    Phase.CONTRIBUTE: _contribution,
    Phase.AGGREGATE: _aggregate,
    Phase.BALLOT: _ballot,
    Phase.DISPUTE: _dispute,
    Phase.VOTE: _outcome,
    Phase.RECOVER: _recover,
}
