"""One learning round as a state machine: what each block must contain, and the state it leads to.

Everything that moves a round from one phase to the next stands in this file (docs/PROTOCOL.md
section 3). The rules look at the block's own content and the parent state alone; what a block says
about blobs (a verdict, the digest of a candidate model, a ruling) is checked by the validators that
hold them, before they vote, and is otherwise vouched for by the block's certificate.

    ADVERT --OPEN--> SHARE, or ADVERT of the same round (transactions only)
    SHARE --SETUP--> CONTRIBUTE --CONTRIBUTION--> AGGREGATE --AGGREGATE--> BALLOT
    BALLOT --BALLOT--> VOTE (trusted) or DISPUTE;  DISPUTE --DISPUTE--> BALLOT (repaired) or VOTE (void)
    VOTE --OUTCOME--> SHARE or ADVERT of the next round
    AGGREGATE --TIMEOUT--> AGGREGATE (next aggregator)
    CONTRIBUTE, AGGREGATE, BALLOT --ABANDON--> RECOVER --ABORT--> next round;  SHARE --ABORT--> next round
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import evolve

from protocol import keys
from protocol.codec import DecodeError, encode
from protocol.envelope import Statement, WireError
from protocol.ledger import block as blocks
from protocol.ledger.block import Block, Reason
from protocol.ledger.judgement import Opinion
from protocol.ledger.settlement import (
    Ballot,
    draw_now,
    end_round,
    reform,
    sortition_weights,
)
from protocol.ledger.state import (
    Fault,
    LedgerState,
    Phase,
    PinnedAdvert,
    PinnedBundle,
    PinnedClaim,
    PinnedContribution,
    PinnedFault,
    PinnedVote,
    RoundState,
)
from protocol.ledger.transactions import apply_transaction, apply_transactions
from protocol.messages import (
    AggregateClaim,
    Contribution,
    DealerEvidence,
    KeyAdvert,
    Kind,
    NamedSecret,
    Ready,
    Reveal,
    SealedVote,
    ShareBundle,
    Transaction,
    VoteOpening,
)
from protocol.params import Challenge
from protocol.pinning import (
    ZERO_SEED,
    Rules,
    aggregator_silent,
    attempts_left,
    check_seed_matches,
    claim_matches,
    contributors_pinned,
    enough_contributors,
    enough_sharers,
    equivocates,
    evidence_holds,
    is_receipted,
    is_witnessed,
    keys_are_sound,
    opening_matches,
    openings_pinned,
    round_context,
    sealed_votes_pinned,
    seeds_pinned,
    sharers_pinned,
    uploads_missing,
    z_root_from,
)
from protocol.secagg.verification import Verdict
from protocol.tally import GAVE_UP, Tally

Opener = Callable[[bytes], Statement]
"""Decodes and verifies an envelope that stands in a block; raises `WireError`."""


class BlockError(ValueError):
    """A block breaks a rule; the message says which, and where."""


# -- applying a block --------------------------------------------------------------------------


def apply_block(state: LedgerState, block: Block, parent: bytes, rules: Rules, opener: Opener) -> LedgerState:
    """The state that a valid block leads to; raises `BlockError` for an invalid one."""
    after = block_effect(state, block, parent, rules, opener)
    if after.root != block.state_root:
        raise BlockError(f"state_root of block {block.height} does not match its content")
    return after


def block_effect(
    state: LedgerState, block: Block, parent: bytes, rules: Rules, opener: Opener
) -> LedgerState:
    """As `apply_block`, without comparing the state root (a leader computes the root from it)."""
    if block.height != state.height + 1:
        raise BlockError(f"height {block.height} does not follow {state.height}")
    if block.parent != parent:
        raise BlockError(f"block {block.height} does not extend {parent.hex()[:16]}")
    if block.round != state.round:
        raise BlockError(f"block {block.height} is for round {block.round}, the ledger is in {state.round}")
    if block.leader not in state.validators:
        raise BlockError(f"block {block.height} comes from no validator")
    tally = block_tally(state, block, opener)
    try:
        body = blocks.decode_body(block)
        after = _effect_of(state, body, tally, rules, opener)
    except (DecodeError, WireError) as error:
        raise BlockError(f"block {block.height} ({block.kind.name}): {error}") from None
    return evolve(after, height=block.height)


def transactions_applied(
    before: LedgerState, after: LedgerState, block: Block, parent: bytes, rules: Rules, opener: Opener
) -> list[Statement]:
    """§6. Return the transactions of a valid block that applied, in their order."""
    body = blocks.decode_body(block)
    closing = getattr(body, "closing", None)
    if not isinstance(closing, blocks.Closing) or not closing.transactions:
        return []
    statements = _transactions(closing, opener)
    if len({statement.slot for statement in statements}) == len(statements):
        # Each is the only one that can have used its number, and numbers are used one after the other.
        return [s for s in statements if _was_used(before, after, s)]
    state = before  # An OPEN block moves nothing else.
    if not isinstance(body, blocks.OpenBody):
        ending: Any = body
        plain = evolve(ending, closing=evolve(closing, transactions=()))
        state = block_effect(before, evolve(block, body=encode(plain)), parent, rules, opener)
    applied = []
    for statement in statements:
        assert isinstance(statement.body, Transaction)
        moved = apply_transaction(state, rules.params, statement.sender, statement.body)
        if moved is not None:
            applied.append(statement)
            state = moved
    return applied


def _was_used(before: LedgerState, after: LedgerState, statement: Statement) -> bool:
    """Return whether the number of a transaction was used between two states."""
    old, new = before.account(statement.sender), after.account(statement.sender)
    assert isinstance(statement.body, Transaction)
    first = 0 if old is None else old.nonce
    return new is not None and first <= statement.body.nonce < new.nonce


def block_tally(state: LedgerState, block: Block, opener: Opener) -> Tally:
    """The block's Readys, checked: distinct validators in order, this height, more than 2/3."""
    readys: list[tuple[bytes, Ready]] = []
    for data in block.readys:
        try:
            statement = opener(data)
        except WireError as error:
            raise BlockError(f"block {block.height}: Ready: {error}") from None
        if not isinstance(statement.body, Ready) or statement.body.height != block.height:
            raise BlockError(f"block {block.height}: a Ready is for another height")
        readys.append((statement.sender, statement.body))
    senders = [sender for sender, _ in readys]
    if senders != sorted(set(senders)) or not set(senders) <= set(state.validators):
        raise BlockError(f"block {block.height}: Readys must be of distinct validators, in order")
    tally = Tally(state.validators, readys)
    if not tally.is_quorum:
        raise BlockError(f"block {block.height}: {len(readys)} Readys are no quorum")
    return tally


def _effect_of(
    state: LedgerState, body: blocks.BlockBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    match body:
        case blocks.OpenBody():
            return _open(state, body, tally, rules, opener)
        case blocks.SetupBody():
            return _setup(state, body, tally, rules, opener)
        case blocks.ContributionBody():
            return _contribution(state, body, tally, opener)
        case blocks.AggregateBody():
            return _aggregate(state, body, tally, rules, opener)
        case blocks.TimeoutBody():
            return _timeout(state, body, tally, rules)
        case blocks.BallotBody():
            return _ballot(state, body, tally, rules, opener)
        case blocks.DisputeBody():
            return _dispute(state, body, tally)
        case blocks.OutcomeBody():
            return _outcome(state, body, tally, rules, opener)
        case blocks.AbandonBody():
            return _abandon(state, body, tally, rules, opener)
        case blocks.AbortBody():
            return _abort(state, body, tally, rules, opener)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise BlockError(what)


def _in_phase(state: LedgerState, *phases: Phase) -> None:
    _require(state.learning.phase in phases, f"not a block for phase {state.learning.phase.name}")


def _entries(data: Iterable[bytes], kind: Kind, round_: int, opener: Opener) -> list[Statement]:
    """Open embedded statements; each must be of this kind and round."""
    statements = [opener(entry) for entry in data]
    for statement in statements:
        _require(
            statement.kind is kind and statement.round == round_,
            f"expected a {kind.name} of round {round_}, got {statement.kind.name} of {statement.round}",
        )
    return statements


def _exactly(statements: Sequence[Statement], peers: Sequence[bytes], what: str) -> None:
    _require(
        [statement.sender for statement in statements] == list(peers),
        f"{what}: the entries are not those that the Readys attest",
    )


def _pin_next(
    state: LedgerState, entries: Sequence[bytes], tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    """Adverts and stakes of the next round, fixed before any beacon to choose them by is known."""
    if state.learning.next_pinned:
        _require(not entries, "the next round's adverts are pinned already")
        return state
    adverts = _adverts(state, entries, tally, rules, opener, round_=state.round + 1)
    return _evolve_round(
        state, next_pinned=True, next_adverts=adverts, next_weights=sortition_weights(state, adverts)
    )


def _adverts(
    state: LedgerState, entries: Sequence[bytes], tally: Tally, rules: Rules, opener: Opener, *, round_: int
) -> tuple[PinnedAdvert, ...]:
    statements = _entries(entries, Kind.KEY_ADVERT, round_, opener)
    _exactly(statements, tally.attested(Kind.KEY_ADVERT), "adverts")
    adverts = []
    for statement in statements:
        assert isinstance(statement.body, KeyAdvert)
        _require(
            keys_are_sound(rules.network, statement),
            f"the keys of {keys.short_name(statement.sender)} are not its own, or agree with nobody",
        )
        adverts.append(PinnedAdvert(statement.sender, statement.body.mask_public, statement.body.seal_public))
    return tuple(adverts)


def _transactions(closing: blocks.Closing, opener: Opener) -> list[Statement]:
    statements = [opener(entry) for entry in closing.transactions]
    _require(
        all(statement.kind is Kind.TRANSACTION for statement in statements),
        "transactions: a statement of another kind",
    )
    _require(all(statement.round == 0 for statement in statements), "transactions: signed with a round")
    return statements


def _equivocators(state: LedgerState, closing: blocks.Closing, opener: Opener) -> tuple[PinnedFault, ...]:
    pairs = [(opener(first), opener(second)) for first, second in closing.equivocations]
    _require(all(equivocates(state, *pair) for pair in pairs), "equivocations: a pair that proves nothing")
    senders = [first.sender for first, _ in pairs]
    _require(senders == sorted(set(senders)), "equivocations: one pair a sender, in order")
    return tuple(PinnedFault(sender, Fault.EQUIVOCATION) for sender in senders)


def _open(
    state: LedgerState, body: blocks.OpenBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.ADVERT)
    _require(not body.closing.equivocations, "evidence stands in the block that ends the round")
    transactions = _transactions(body.closing, opener)
    if state.rests:
        _require(not body.closing.adverts, "the adverts of this round are pinned already")
    else:
        adverts = _adverts(state, body.closing.adverts, tally, rules, opener, round_=state.round)
        drawn = draw_now(state, rules.params, adverts)
        if drawn.learning.phase is Phase.SHARE:
            # After the draw: they show in validators and weights one round later.
            return apply_transactions(drawn, rules.params, transactions)
    after = reform(state, rules.params, transactions)
    _require(after is not None, "no roles can be assigned, and no transaction applies")
    return after or state


def _setup(
    state: LedgerState, body: blocks.SetupBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.SHARE)
    statements = _entries(body.bundles, Kind.SHARE_BUNDLE, state.round, opener)
    _exactly(statements, sharers_pinned(state, tally), "setup")
    _require(enough_sharers(state, [s.sender for s in statements]), "too few sharers")
    sharers = []
    for statement in statements:
        bundle = statement.body
        assert isinstance(bundle, ShareBundle)
        _require(bundle.weight <= rules.params.max_weight, f"weight {bundle.weight} is above the maximum")
        sharers.append(
            PinnedBundle(
                statement.sender,
                bundle.share_roots,
                bundle.hash_self,
                bundle.hash_check,
                bundle.hash_z,
                bundle.weight,
            )
        )
    return _evolve_round(state, phase=Phase.CONTRIBUTE, sharers=tuple(sharers))


def _contribution(
    state: LedgerState, body: blocks.ContributionBody, tally: Tally, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.CONTRIBUTE)
    statements = _entries(body.contributions, Kind.CONTRIBUTION, state.round, opener)
    _exactly(statements, contributors_pinned(state, tally), "contribution")
    _require(enough_contributors(state, [s.sender for s in statements]), "too few contributors")
    vouchers = [opener(entry) for entry in body.receipts]
    _require(
        all(v.kind in (Kind.RECEIPT, Kind.WITNESS) and v.round == state.round for v in vouchers),
        "receipts: a statement of another kind or round",
    )
    contributors = []
    for statement in statements:
        contribution = statement.body
        assert isinstance(contribution, Contribution)
        receipted = is_receipted(state, statement.sender, contribution.upload_digest, vouchers)
        witnessed = is_witnessed(state, statement.sender, contribution.upload_digest, vouchers)
        _require(receipted or witnessed, "contribution without a receipt or witnesses")
        contributors.append(
            PinnedContribution(
                statement.sender,
                statement.id,
                contribution.commitment_digest,
                contribution.upload_digest,
                contribution.hash_z,
                receipted,
            )
        )
    return _evolve_round(state, phase=Phase.AGGREGATE, contributors=tuple(contributors))


def _aggregate(
    state: LedgerState, body: blocks.AggregateBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.AGGREGATE)
    statement = opener(body.claim)
    _require(claim_matches(state, rules, statement), "the claim does not fit the round")
    claim = statement.body
    assert isinstance(claim, AggregateClaim)
    _require(tally.held_by_quorum(claim.sum_digest), "the sum is not held by a quorum")
    pinned = PinnedClaim(statement.sender, claim.sum_digest, claim.self_seeds, claim.mask_secrets)
    state = _pin_next(state, body.adverts, tally, rules, opener)
    return _evolve_round(state, phase=Phase.BALLOT, claim=pinned)


def _timeout(state: LedgerState, body: blocks.TimeoutBody, tally: Tally, rules: Rules) -> LedgerState:
    _in_phase(state, Phase.AGGREGATE)
    _require(body.attempt == state.learning.attempt, "time-out of another attempt")
    _require(aggregator_silent(tally), "the aggregator was not silent")
    _require(attempts_left(state, rules.params), "no aggregator is left")
    return _evolve_round(state, attempt=state.learning.attempt + 1)


def _ballot(
    state: LedgerState, body: blocks.BallotBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.BALLOT)
    learning = state.learning
    if learning.ballot:
        _require(
            body.check_seeds == learning.check_seeds and not body.zs and not body.reveals,
            "a second ballot opens nothing anew",
        )
        _require(
            (body.verdict, body.candidate) == (learning.verdict, learning.candidate), "the ruling changed"
        )
        z_root = learning.z_root
        challenges = learning.challenge_seeds
    else:
        _check_seeds_fit(state, body, tally, rules)
        found = z_root_from(state, rules, body.zs)
        _require(found is not None, "zs do not fit what was pinned")
        z_root = found or b""
        challenges = _challenges(state, body, tally, rules, opener)
    statements = _entries(body.sealed_votes, Kind.SEALED_VOTE, state.round, opener)
    verdict = Verdict(body.verdict)
    expected = sealed_votes_pinned(state, tally) if verdict is Verdict.TRUSTED else ()
    _exactly(statements, expected, "sealed votes")
    votes = []
    for statement in statements:
        assert isinstance(statement.body, SealedVote)
        _require(statement.body.ballot == learning.ballot, "a vote of another ballot")
        votes.append(PinnedVote(statement.sender, statement.body.digest))
    return _evolve_round(
        state,
        phase=Phase.VOTE if verdict is Verdict.TRUSTED else Phase.DISPUTE,
        check_seeds=body.check_seeds,
        z_root=z_root,
        challenge_seeds=challenges,
        verdict=int(verdict),
        candidate=body.candidate,
        sealed_votes=tuple(votes),
    )


def _check_seeds_fit(state: LedgerState, body: blocks.BallotBody, tally: Tally, rules: Rules) -> None:
    learning = state.learning
    _require(len(body.check_seeds) == len(learning.sharers), "one check seed for each of U1")
    contributors = {contribution.peer for contribution in learning.contributors}
    attested = set(tally.attested(Kind.REVEAL))
    context = round_context(state, rules)
    for bundle, seed in zip(learning.sharers, body.check_seeds, strict=True):
        name = keys.short_name(bundle.peer)
        if seed == ZERO_SEED:
            _require(bundle.peer not in contributors, f"the check seed of {name} is needed")
            _require(bundle.peer not in attested, f"the check seed of {name} is known")
        else:
            _require(check_seed_matches(state, context, bundle.peer, seed), f"wrong check seed of {name}")


def _challenges(
    state: LedgerState, body: blocks.BallotBody, tally: Tally, rules: Rules, opener: Opener
) -> tuple[NamedSecret, ...]:
    """Challenge seeds that proposers broadcast (clear networks): those of U2 that are attested."""
    if rules.params.challenge is not Challenge.CLEAR:
        _require(not body.reveals, "reveals stand only in blocks of a clear challenge")
        return ()
    statements = _entries(body.reveals, Kind.REVEAL, state.round, opener)
    contributors = {contribution.peer for contribution in state.learning.contributors}
    senders = [statement.sender for statement in statements]
    _require(senders == sorted(set(senders) & contributors), "reveals: of U2, in order")
    _require(len(senders) > 0, "no challenge was broadcast")
    challenges = []
    for statement in statements:
        assert isinstance(statement.body, Reveal)
        _require(len(statement.body.challenge_seed) == 32, "a reveal without a challenge")
        challenges.append(NamedSecret(statement.sender, statement.body.challenge_seed))
    return tuple(challenges)


def _dispute(state: LedgerState, body: blocks.DisputeBody, tally: Tally) -> LedgerState:
    _in_phase(state, Phase.DISPUTE)
    learning = state.learning
    assert learning.claim is not None
    missing = uploads_missing(state, tally)
    _require(body.missing == missing, "missing: not the uploads that the Readys lack")
    if missing:
        _require(tally.is_late(), "uploads are missing before the deadline")
        # Whoever made the sum had every upload of it, whether it had signed for it before or not.
        return _void(state, (PinnedFault(learning.claim.aggregator, Fault.FORGED_AGGREGATE),))
    contributors = {contribution.peer for contribution in learning.contributors}
    _require(set(body.guilty_checks) <= contributors, "guilty_checks: not of U2")
    broken = tuple(PinnedFault(peer, Fault.BROKEN_CHECK) for peer in body.guilty_checks)
    if body.sum_matches:
        return _void(state, broken)
    forged = (PinnedFault(learning.claim.aggregator, Fault.FORGED_AGGREGATE),)
    _require(len(body.sum_digest) == 32 and len(body.candidate) == 32, "a repaired sum needs its digests")
    if Verdict(body.verdict) is not Verdict.TRUSTED:
        return _void(state, forged + broken)
    return _evolve_round(
        state,
        phase=Phase.BALLOT,
        ballot=1,
        claim=evolve(learning.claim, sum_digest=body.sum_digest),
        verdict=body.verdict,
        candidate=body.candidate,
        faults=(*learning.faults, *forged),
    )


def _void(state: LedgerState, faults: tuple[PinnedFault, ...]) -> LedgerState:
    learning = state.learning
    return _evolve_round(
        state, phase=Phase.VOTE, void=True, sealed_votes=(), faults=(*learning.faults, *faults)
    )


def _outcome(
    state: LedgerState, body: blocks.OutcomeBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.VOTE)
    learning = state.learning
    statements = _entries(body.openings, Kind.VOTE_OPENING, state.round, opener)
    _exactly(statements, openings_pinned(state, tally), "openings")
    sealed = {vote.peer: vote.digest for vote in learning.sealed_votes}
    votes: dict[bytes, int] = {}
    opinions: dict[bytes, Opinion] = {}
    for statement in statements:
        opening = statement.body
        assert isinstance(opening, VoteOpening)
        _require(
            opening_matches(state, rules, statement),
            f"the opening of {keys.short_name(statement.sender)} does not fit its sealed vote",
        )
        votes[statement.sender] = opening.vote
        opinions[statement.sender] = opening.opinion
    unopened = tuple(PinnedFault(peer, Fault.UNOPENED_VOTE) for peer in sorted(sealed) if peer not in votes)
    state = _pin_next(state, body.closing.adverts, tally, rules, opener)
    return end_round(
        state,
        rules.params,
        ballot=None if learning.void else Ballot(votes, learning.candidate, opinions),
        faults=(*learning.faults, *unopened, *_equivocators(state, body.closing, opener)),
        check_seeds=_known_seeds(learning),
        adverts=state.learning.next_adverts,
        weights=state.learning.next_weights,
        transactions=_transactions(body.closing, opener),
    )


def _known_seeds(learning: RoundState) -> Mapping[bytes, bytes]:
    return {bundle.peer: seed for bundle, seed in zip(learning.sharers, learning.check_seeds, strict=False)}


def _abandon(
    state: LedgerState, body: blocks.AbandonBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    _in_phase(state, Phase.CONTRIBUTE, Phase.AGGREGATE, Phase.BALLOT)
    learning = state.learning
    faults: tuple[PinnedFault, ...] = ()
    match body.reason:
        case Reason.TOO_FEW_CONTRIBUTORS:
            _in_phase(state, Phase.CONTRIBUTE)
            _require(tally.is_late(), "abandoned before the deadline")
            _require(
                not enough_contributors(state, contributors_pinned(state, tally)), "there are contributors"
            )
        case Reason.NO_AGGREGATE:
            _in_phase(state, Phase.AGGREGATE)
            _require(aggregator_silent(tally), "the aggregator was not silent")
            _require(not attempts_left(state, rules.params), "another aggregator is left")
        case Reason.DEALER_FAULT:
            statements = _entries(body.evidence, Kind.DEALER_EVIDENCE, state.round, opener)
            _require(len(statements) > 0, "a dealer fault needs evidence")
            guilty = set()
            for statement in statements:
                _require(evidence_holds(state, rules, statement), "the evidence proves nothing")
                assert isinstance(statement.body, DealerEvidence)
                guilty.add(statement.body.dealer)
            faults = tuple(PinnedFault(peer, Fault.BAD_DEALING) for peer in sorted(guilty))
        case Reason.NO_PROGRESS:
            _require(tally.is_late(GAVE_UP), "not given up")
        case _:
            raise BlockError(f"{body.reason.name} does not abandon a round")
    state = _pin_next(state, body.adverts, tally, rules, opener)
    return _evolve_round(
        state, phase=Phase.RECOVER, reason=int(body.reason), faults=(*learning.faults, *faults)
    )


def _abort(
    state: LedgerState, body: blocks.AbortBody, tally: Tally, rules: Rules, opener: Opener
) -> LedgerState:
    learning = state.learning
    match body.reason:
        case Reason.TOO_FEW_SHARERS:
            _in_phase(state, Phase.SHARE)
            _require(tally.is_late(), "aborted before the deadline")
            _require(not enough_sharers(state, sharers_pinned(state, tally)), "there are sharers")
        case Reason.CHECK_SEED_LOST:
            _in_phase(state, Phase.BALLOT)
            _require(tally.is_late(GAVE_UP) and learning.ballot == 0, "no check seed is lost yet")
            known = set(tally.attested(Kind.REVEAL))
            _require(
                any(contribution.peer not in known for contribution in learning.contributors),
                "every check seed of U2 is known",
            )
        case Reason.NO_PROGRESS if learning.phase is not Phase.RECOVER:
            _in_phase(state, Phase.SHARE, Phase.BALLOT, Phase.DISPUTE, Phase.VOTE)
            _require(tally.is_late(GAVE_UP), "not given up")
        case _:
            _in_phase(state, Phase.RECOVER)
            _require(int(body.reason) == learning.reason, "another reason than the one it was abandoned for")
    expected = seeds_pinned(state, tally)
    _require([entry.peer for entry in body.check_seeds] == list(expected), "check seeds: not those attested")
    context = round_context(state, rules)
    for entry in body.check_seeds:
        _require(check_seed_matches(state, context, entry.peer, entry.secret), "wrong check seed")
    state = _pin_next(state, body.closing.adverts, tally, rules, opener)
    seeds = {**_known_seeds(learning), **{entry.peer: entry.secret for entry in body.check_seeds}}
    return end_round(
        state,
        rules.params,
        ballot=None,
        faults=(*learning.faults, *_equivocators(state, body.closing, opener)),
        check_seeds=seeds,
        adverts=state.learning.next_adverts,
        weights=state.learning.next_weights,
        transactions=_transactions(body.closing, opener),
    )


def _evolve_round(state: LedgerState, **changes: Any) -> LedgerState:
    return evolve(state, learning=evolve(state.learning, **changes))
