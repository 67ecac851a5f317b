"""What the Readys of a block pin, and what must fit what was pinned (docs/PROTOCOL.md section 3).

Pure predicates and selections: `protocol.round` demands them of a block, `protocol.compose` makes blocks
by them, and a node's duties look at the world through them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from attrs import field, frozen

from protocol import keys
from protocol.certificates import more_than_third
from protocol.codec import DecodeError, decode
from protocol.context import RoundContext
from protocol.envelope import Statement
from protocol.ledger.judgement import Opinion
from protocol.ledger.settlement import least_sharers
from protocol.ledger.state import (
    LedgerState,
)
from protocol.messages import (
    STATEMENT_KINDS,
    AggregateClaim,
    Contribution,
    DealerEvidence,
    KeyAdvert,
    Kind,
    Receipt,
    ShareRelease,
    VoteOpening,
    Witness,
    vote_hash,
)
from protocol.params import Masking, ProtocolParams, Setup
from protocol.secagg.masking import graph_degree, surviving_neighbours_ok
from protocol.secagg.scheme import UploadError, check_commitment, commitment_digest
from protocol.secrets import joint_z_root, possession_message, secret_hash, z_root_hash
from protocol.sharing import DealerFault, HeldShare, ShareKind, fault_holds, share_holds, share_root
from protocol.tally import Tally

ZERO_SEED = bytes(32)


@frozen
class Rules:
    """The network's rules: parameters and network id."""

    params: ProtocolParams
    network: bytes


# -- what Readys pin ------------------------------------------------------------------------------


def sharers_pinned(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
    """U1: bundle held by more than 1/3 of all, valid shares by T holders, no complaint left unanswered."""
    learning = state.learning
    proposers = learning.proposer_set
    accused = set(tally.attested(Kind.COMPLAINT))
    return tuple(
        peer
        for peer in tally.attested(Kind.SHARE_BUNDLE)
        if peer in proposers
        and peer not in accused
        and tally.count(Kind.SEALED_SHARES, peer, among=proposers) >= learning.threshold
    )


def contributors_pinned(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
    """U2: in U1, the contribution held by more than 1/3 of all, and so its receipt or its witnesses."""
    sharers = {bundle.peer for bundle in state.learning.sharers}
    vouched = {*tally.attested(Kind.RECEIPT), *tally.attested(Kind.WITNESS)}
    return tuple(peer for peer in tally.attested(Kind.CONTRIBUTION) if peer in sharers and peer in vouched)


def enough_sharers(state: LedgerState, sharers: Sequence[bytes]) -> bool:
    return len(sharers) >= least_sharers(len(state.learning.proposers))


def enough_contributors(state: LedgerState, contributors: Sequence[bytes]) -> bool:
    """|U2| >= T, at least three; above 256 sharers each keeps more than 2k/3 of its mask neighbours."""
    learning = state.learning
    if len(contributors) < least_sharers(len(learning.proposers)):
        return False
    sharers = [bundle.peer for bundle in learning.sharers]
    degree = graph_degree(len(sharers))
    if degree is None:
        return True
    survivors = {sharers.index(peer) for peer in contributors}
    return surviving_neighbours_ok(len(sharers), state.beacon, degree, survivors)


def aggregator_silent(tally: Tally) -> bool:
    """A late quorum, and no sum that so many hold that the rest could still fetch it."""
    return tally.is_late() and tally.no_blob_gathers


def attempts_left(state: LedgerState, params: ProtocolParams) -> bool:
    roles = state.learning.roles
    assert roles is not None
    return state.learning.attempt + 1 < min(params.max_attempts, len(roles.aggregators))


def uploads_missing(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
    """Members of U2 whose upload is held by no more than 1/3 of all."""
    held = set(tally.attested(Kind.CONTRIBUTION))
    return tuple(c.peer for c in state.learning.contributors if c.peer not in held)


def sealed_votes_pinned(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
    """Voters whose sealed vote more than 1/3 of all hold."""
    return tuple(peer for peer in tally.attested(Kind.SEALED_VOTE) if peer in state.learning.voters)


def openings_pinned(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
    """Those who sealed a vote and whose opening more than 1/3 of all hold."""
    sealed = {vote.peer for vote in state.learning.sealed_votes}
    return tuple(peer for peer in tally.attested(Kind.VOTE_OPENING) if peer in sealed)


def seeds_pinned(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
    """Members of U1 whose check seed more than 1/3 of all know, where none are pinned yet."""
    if state.learning.check_seeds:
        return ()
    sharers = {bundle.peer for bundle in state.learning.sharers}
    return tuple(peer for peer in tally.attested(Kind.REVEAL) if peer in sharers)


# -- what must fit --------------------------------------------------------------------------------


def keys_are_sound(network: bytes, statement: Statement) -> bool:
    """Keys that the sender holds itself, and that do not agree with everyone on the same secret.

    A copied key would disqualify its owner too; a low-order one is no honest node's. Asked of every advert
    that a node takes in, and of every one that a block pins: a leader may cite one that nobody else saw.
    """
    body = statement.body
    return isinstance(body, KeyAdvert) and _keys_hold(network, statement.round, statement.sender, body)


@lru_cache(maxsize=1024)
def _keys_hold(network: bytes, round_: int, peer: bytes, advert: KeyAdvert) -> bool:
    for name, public, proof in (
        ("mask", advert.mask_public, advert.mask_proof),
        ("seal", advert.seal_public, advert.seal_proof),
    ):
        if not keys.possession_holds(public, proof, possession_message(network, round_, peer, name)):
            return False
        if keys.has_low_order(public):
            return False
    return True


def pinned_value(state: LedgerState, dealer: bytes, kind: ShareKind) -> tuple[bytes, bytes] | None:
    """(Merkle root, pinned hash or public key) of a dealer's secret of this kind; None outside U1."""
    bundle = next((b for b in state.learning.sharers if b.peer == dealer), None)
    advert = state.learning.advert_of(dealer)
    if bundle is None or advert is None:
        return None
    pinned = {
        ShareKind.MASK: advert.mask_public,
        ShareKind.SELF: bundle.hash_self,
        ShareKind.CHECK: bundle.hash_check,
    }[kind]
    return bundle.share_roots[kind], pinned


def commitment_fits(contribution: Statement, params: ProtocolParams) -> bool:
    """Is the payload the commitment that the contribution signs for, and of the form that is due?"""
    body, payload = contribution.body, contribution.envelope.payload
    if not isinstance(body, Contribution) or commitment_digest(payload) != body.commitment_digest:
        return False
    try:
        check_commitment(params, payload)
    except UploadError:
        return False
    return True


@frozen
class ReleasedShares:
    """What one holder gave back: by kind and dealer; `bad` counts those that are not the dealer's."""

    held: Mapping[tuple[ShareKind, bytes], HeldShare] = field(factory=dict)
    bad: int = 0


def shares_in(release: Statement, state: LedgerState, context: RoundContext) -> ReleasedShares:
    """What a proposer released, each share checked against its dealer's root.

    Shares of what nothing is pinned about are left out.
    """
    if not isinstance(release.body, ShareRelease) or release.sender not in context.proposers:
        return ReleasedShares()
    holder = context.proposers.index(release.sender)
    shares: dict[tuple[ShareKind, bytes], HeldShare] = {}
    bad = 0
    for released in release.body.shares:
        kind = ShareKind(released.share_kind)
        pinned = pinned_value(state, released.dealer, kind)
        if pinned is None:
            continue
        held = HeldShare(holder, released.share, released.proof)
        if share_holds(context, context.proposers.index(released.dealer), kind, held, pinned[0]):
            shares[kind, released.dealer] = held
        else:
            bad += 1
    return ReleasedShares(shares, bad)


def check_seed_matches(state: LedgerState, context: RoundContext, peer: bytes, seed: bytes) -> bool:
    """Does rho_i fit its pinned hash, and would dealing it give the pinned root?

    Without the second condition a dealer of garbage could choose, after the others have spoken, whether its
    seed counts: reveal it, or withhold it and let the rebuilding fail.
    """
    learning = state.learning
    bundle = next((b for b in learning.sharers if b.peer == peer), None)
    if bundle is None or bundle.hash_check != secret_hash("check", context.network, state.round, peer, seed):
        return False
    root = _check_root(context, learning.proposers.index(peer), seed)
    return root == bundle.share_roots[ShareKind.CHECK]


@lru_cache(maxsize=512)
def _check_root(context: RoundContext, dealer: int, seed: bytes) -> bytes:
    """The root of an honest dealing of a check seed; asked again for every copy of a reveal."""
    return share_root(context, dealer, ShareKind.CHECK, seed)


def z_root_from(state: LedgerState, rules: Rules, zs: Sequence[bytes]) -> bytes | None:
    """H(z_1..z_n) if every z_i fits its pinned hash (dealer: if most of U2 pinned this z root), else None."""
    learning = state.learning
    if rules.params.setup is Setup.DEALER:
        if len(zs) != 1:
            return None
        pinned = z_root_hash(rules.network, state.round, zs[0])
        agreeing = sum(contribution.hash_z == pinned for contribution in learning.contributors)
        return zs[0] if 2 * agreeing > len(learning.contributors) else None
    if len(zs) != len(learning.sharers):
        return None
    pinned_hashes = tuple((bundle.peer, bundle.hash_z) for bundle in learning.sharers)
    return _z_root_of(rules.network, state.round, pinned_hashes, tuple(zs))


@lru_cache(maxsize=16)
def _z_root_of(
    network: bytes, round_: int, pinned: tuple[tuple[bytes, bytes], ...], zs: tuple[bytes, ...]
) -> bytes | None:
    """The joint root if each z_i fits the hash that its peer pinned; asked again for every reveal."""
    for (peer, hash_z), z in zip(pinned, zs, strict=True):
        if secret_hash("z", network, round_, peer, z) != hash_z:
            return None
    return joint_z_root(network, round_, zs)


def claim_matches(state: LedgerState, rules: Rules, statement: Statement) -> bool:
    """Is it the active aggregator's, with one fitting secret for each member of U2, and of U1 without U2?"""
    body, learning = statement.body, state.learning
    if not isinstance(body, AggregateClaim) or statement.sender != learning.aggregator:
        return False
    if body.attempt != learning.attempt or statement.round != state.round:
        return False
    contributors = tuple(contribution.peer for contribution in learning.contributors)
    dropped = tuple(b.peer for b in learning.sharers if b.peer not in contributors)
    double = rules.params.masking is Masking.DOUBLE
    if tuple(entry.peer for entry in body.self_seeds) != (contributors if double else ()):
        return False
    if tuple(entry.peer for entry in body.mask_secrets) != dropped:
        return False
    bundles = {bundle.peer: bundle for bundle in learning.sharers}
    adverts = {advert.peer: advert for advert in learning.adverts}
    return all(
        secret_hash("self", rules.network, state.round, entry.peer, entry.secret)
        == bundles[entry.peer].hash_self
        for entry in body.self_seeds
    ) and all(
        keys.agreement_public(entry.secret) == adverts[entry.peer].mask_public for entry in body.mask_secrets
    )


def evidence_holds(state: LedgerState, rules: Rules, statement: Statement) -> bool:
    """Do these shares prove that the dealer's pinned dealing was garbage?"""
    body = statement.body
    if not isinstance(body, DealerEvidence) or statement.round != state.round:
        return False
    try:
        fault = decode(DealerFault, body.fault, 1 << 20)
    except DecodeError:
        return False
    proposers = state.learning.proposers
    if not 0 <= fault.dealer < len(proposers) or proposers[fault.dealer] != body.dealer:
        return False
    pinned = pinned_value(state, body.dealer, ShareKind(fault.kind))
    return pinned is not None and fault_holds(round_context(state, rules), fault, *pinned)


def opening_is_sound(params: ProtocolParams, opening: VoteOpening) -> bool:
    """Return whether an opening carries what this network's contract asks for, no more (section 6)."""
    if params.judgement is None:
        return opening.opinion == Opinion()
    return opening.loss_micro == 0 and params.judgement.is_sound(opening.vote, opening.opinion)


def opening_matches(state: LedgerState, rules: Rules, statement: Statement) -> bool:
    """Does it open the vote that its sender sealed in this ballot?"""
    opening, learning = statement.body, state.learning
    sealed = {vote.peer: vote.digest for vote in learning.sealed_votes}
    return (
        isinstance(opening, VoteOpening)
        and opening.ballot == learning.ballot
        and opening_is_sound(rules.params, opening)
        and vote_hash(rules.network, state.round, statement.sender, opening) == sealed.get(statement.sender)
    )


EQUIVOCABLE = (STATEMENT_KINDS - {Kind.TRANSACTION}) | {Kind.VOTE, Kind.PROPOSAL}
"""Kinds of which an honest node never signs two different ones for one slot."""


def equivocates(state: LedgerState, first: Statement, second: Statement) -> bool:
    """Do these two prove that their sender contradicted itself in this round?"""
    return (
        first.kind in EQUIVOCABLE
        and first.slot == second.slot
        and first.id != second.id
        and first.round == state.round
        and first.sender in state.validators
    )


def is_receipted(
    state: LedgerState, proposer: bytes, upload_digest: bytes, vouchers: Iterable[Statement]
) -> bool:
    """Did the active aggregator sign for this upload?"""
    signed = (state.learning.attempt, proposer, upload_digest)
    return any(
        isinstance(body := voucher.body, Receipt)
        and voucher.sender == state.learning.aggregator
        and voucher.round == state.round
        and (body.attempt, body.proposer, body.upload_digest) == signed
        for voucher in vouchers
    )


def least_witnesses(voters: int) -> int:
    """More than 1/3 of the voters, and two where there are two: one alone can lie."""
    return min(voters, max(2, more_than_third(voters)))


def is_witnessed(
    state: LedgerState, proposer: bytes, upload_digest: bytes, vouchers: Iterable[Statement]
) -> bool:
    """Did enough voters sign for this upload?"""
    witnesses = {
        voucher.sender
        for voucher in vouchers
        if isinstance(voucher.body, Witness)
        and voucher.round == state.round
        and voucher.body == Witness(proposer, upload_digest)
    }
    voters = set(state.learning.voters)
    return len(witnesses & voters) >= least_witnesses(len(voters))


# -- contexts -------------------------------------------------------------------------------------


def round_context(state: LedgerState, rules: Rules) -> RoundContext:
    """What the round's jobs share, with U1 as pinned so far."""
    learning = state.learning
    adverts = {advert.peer: advert for advert in learning.adverts}
    proposers = learning.proposers
    index = {peer: i for i, peer in enumerate(proposers)}
    return RoundContext(
        params=rules.params,
        network=rules.network,
        round=state.round,
        beacon=state.beacon,
        proposers=proposers,
        mask_publics=tuple(adverts[peer].mask_public for peer in proposers),
        seal_publics=tuple(adverts[peer].seal_public for peer in proposers),
        threshold=learning.threshold,
        sharers=tuple(index[bundle.peer] for bundle in learning.sharers),
    )
