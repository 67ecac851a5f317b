"""How far a phase has come at one node: what it holds, when that is enough, and its Ready (section 3).

A node sends Ready once it holds everything expected, or at the soft deadline (1.5 x the time that 80 %
of it took, plus one second, so that one dead node does not cost every hard deadline), or at the hard one.
"""

from __future__ import annotations

from collections.abc import Set

from protocol.compose import vouchers_for
from protocol.duties.aggregate import current_claim
from protocol.duties.desk import Desk
from protocol.duties.share import opening_holds
from protocol.following import Following
from protocol.ledger.state import Phase
from protocol.messages import AggregateClaim, Complaint, Kind, Ready
from protocol.params import ProtocolParams
from protocol.pinning import opening_matches
from protocol.secagg.verification import Verdict
from protocol.tally import held_of

SOFT_SHARE_PERCENT = 80
SOFT_FACTOR_PERCENT = 150
SOFT_GRACE_MS = 1_000
GIVE_UP_PHASES = 3
"""Phase deadlines between the hard deadline and the point of giving up."""


def hard_deadline_ms(phase: Phase, params: ProtocolParams) -> int:
    """Phases that wait for training or evaluation have the longer deadline."""
    return params.train_deadline_ms if phase in (Phase.CONTRIBUTE, Phase.BALLOT) else params.phase_deadline_ms


def give_up_ms(phase: Phase, params: ProtocolParams) -> int:
    """From the phase's begin to the last resort."""
    return hard_deadline_ms(phase, params) + GIVE_UP_PHASES * params.phase_deadline_ms


def soft_deadline_ms(elapsed_ms: int) -> int:
    """From the phase's begin, given that most of what is expected took `elapsed_ms`."""
    return elapsed_ms * SOFT_FACTOR_PERCENT // 100 + SOFT_GRACE_MS


def is_most(have: int, expected: int) -> bool:
    """80 % of what is expected, rounded down, and at least one."""
    return expected > 0 and have >= max(1, expected * SOFT_SHARE_PERCENT // 100)


class Progress:
    """Reads a node's desk; decides nothing that others must agree on."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        pool = desk.pool
        contributed = (Kind.CONTRIBUTION, Kind.RECEIPT, Kind.WITNESS)
        self._adverts = Following(pool, (Kind.KEY_ADVERT,), self._has_advert)
        self._bundles = Following(pool, (Kind.SHARE_BUNDLE,), self._has_bundle)
        self._contributions = Following(pool, (Kind.CONTRIBUTION,), self._has_contribution)
        self._receipted = Following(pool, contributed, self._has_receipt)
        self._witnessed = Following(pool, contributed, self._has_witnesses)
        self._votes = Following(pool, (Kind.SEALED_VOTE,), self._has_vote)
        self._openings = Following(pool, (Kind.VOTE_OPENING,), self._has_opening)

    def held(self) -> tuple[dict[int, Set[bytes]], tuple[bytes, ...]]:
        """What a Ready says now: statements held by kind and subject, and blobs."""
        d = self.desk
        height, round_ = d.state.height, d.state.round
        held: dict[int, Set[bytes]] = {Kind.KEY_ADVERT: self._adverts.peers(height, d.advert_round)}
        blobs: tuple[bytes, ...] = ()
        match d.learning.phase:
            case Phase.SHARE:
                held[Kind.SHARE_BUNDLE] = self._bundles.peers(height, round_)
                # Without its z_i a dealer's shares are of no use: nobody could place the hidden points.
                held[Kind.SEALED_SHARES] = d.memory.packages.keys() & d.memory.zs.keys()
                held[Kind.COMPLAINT] = self._unanswered()
            case Phase.CONTRIBUTE:
                held |= self._held_contributions()
            case Phase.AGGREGATE:
                blobs = self._held_sum()
            case Phase.BALLOT:
                held[Kind.REVEAL] = self._known_seeds()
                held[Kind.SEALED_VOTE] = self._votes.peers(height, round_)
            case Phase.DISPUTE:
                held[Kind.CONTRIBUTION] = {
                    c.peer for c in d.learning.contributors if c.upload_digest in d.blobs
                }
            case Phase.VOTE:
                held[Kind.VOTE_OPENING] = self._openings.peers(height, round_)
            case Phase.RECOVER:
                held[Kind.REVEAL] = self._known_seeds()
            case Phase.ADVERT:
                pass
        return held, blobs

    def count(self) -> tuple[int, int]:
        """(have, expected) of what this phase waits for."""
        d, learning = self.desk, self.desk.learning
        held, blobs = self.held()
        match learning.phase:
            case Phase.ADVERT:
                return len(held[Kind.KEY_ADVERT]), len(d.state.validators)
            case Phase.SHARE:
                have, expected = len(held[Kind.SHARE_BUNDLE]), len(learning.proposers)
                expected += len(held[Kind.COMPLAINT])
                if d.is_proposer:
                    have, expected = have + len(held[Kind.SEALED_SHARES]), 2 * expected
                return have, expected
            case Phase.CONTRIBUTE:
                vouched = held[Kind.RECEIPT] | held[Kind.WITNESS]
                return len(held[Kind.CONTRIBUTION] & vouched), len(learning.sharers)
            case Phase.AGGREGATE:
                return len(blobs), 1
            case Phase.BALLOT:
                return self._count_ballot(held)
            case Phase.DISPUTE:
                return len(held[Kind.CONTRIBUTION]), len(learning.contributors)
            case Phase.VOTE:
                return len(held[Kind.VOTE_OPENING]), len(learning.sealed_votes)
            case Phase.RECOVER:
                return len(held[Kind.REVEAL]), len(learning.sharers)

    def _count_ballot(self, held: dict[int, Set[bytes]]) -> tuple[int, int]:
        learning, verified = self.desk.learning, self.desk.memory.findings.verified
        have, expected = (0, 0) if learning.ballot else (len(held[Kind.REVEAL]), len(learning.sharers))
        if learning.ballot == 0 and verified is not None and verified.verdict is not Verdict.TRUSTED:
            return have, expected
        return have + len(held[Kind.SEALED_VOTE]), expected + len(learning.voters)

    def most_of(self) -> tuple[int, int]:
        """(have, expected) that the soft deadline goes by: of a ballot its votes, which take time."""
        d, verified = self.desk, self.desk.memory.findings.verified
        disputed = verified is not None and verified.verdict is not Verdict.TRUSTED
        if d.learning.phase is not Phase.BALLOT or (disputed and not d.learning.ballot):
            return self.count()
        return len(self._votes.peers(d.state.height, d.state.round)), len(d.learning.voters)

    def contributions(self) -> tuple[int, int]:
        """(have, expected) contributions, acknowledged or not; (0, 0) outside phase 2."""
        d = self.desk
        if d.learning.phase is not Phase.CONTRIBUTE:
            return 0, 0
        return len(self._contributions.peers(d.state.height, d.state.round)), len(d.learning.sharers)

    def reveals(self) -> tuple[int, int]:
        """(have, expected) check seeds; (0, 0) where none are waited for."""
        learning = self.desk.learning
        if learning.phase not in (Phase.BALLOT, Phase.RECOVER) or learning.ballot:
            return 0, 0
        return len(self._known_seeds()), len(learning.sharers)

    def make_ready(self, height: int, late: int) -> Ready:
        held, blobs = self.held()
        return Ready(height, late, held_of(self.desk.state.validators, held), blobs)

    # Rules for one peer; who contradicts itself is not attested.

    def _has_one(self, round_: int, kind: Kind, peer: bytes, attempt: int = 0) -> bool:
        pool = self.desk.pool
        held = pool.get(round_, kind, peer, attempt) is not None
        return held and not pool.is_contradicted(round_, kind, peer, attempt)

    def _has_advert(self, peer: bytes) -> bool:
        d = self.desk
        return peer in d.state.validators and self._has_one(d.advert_round, Kind.KEY_ADVERT, peer)

    def _has_bundle(self, peer: bytes) -> bool:
        d = self.desk
        attestable = peer in d.learning.proposers and peer in d.state.validators
        return attestable and self._has_one(d.state.round, Kind.SHARE_BUNDLE, peer)

    def _has_contribution(self, peer: bytes) -> bool:
        d = self.desk
        attestable = peer in self._sharers() and peer in d.state.validators
        return attestable and self._has_one(d.state.round, Kind.CONTRIBUTION, peer)

    def _has_receipt(self, peer: bytes) -> bool:
        return self._vouched_by(peer) is Kind.RECEIPT

    def _has_witnesses(self, peer: bytes) -> bool:
        return self._vouched_by(peer) is Kind.WITNESS

    def _vouched_by(self, peer: bytes) -> Kind | None:
        """What speaks for the upload of a contribution that is attested."""
        vouchers = vouchers_for(self.desk.state, self.desk.pool, peer) if self._has_contribution(peer) else []
        return vouchers[0].kind if vouchers else None

    def _has_vote(self, peer: bytes) -> bool:
        d = self.desk
        ballot = d.learning.ballot
        return peer in d.learning.voters and self._has_one(d.state.round, Kind.SEALED_VOTE, peer, ballot)

    def _has_opening(self, peer: bytes) -> bool:
        d = self.desk
        versions = d.pool.versions(d.state.round, Kind.VOTE_OPENING, peer, d.learning.ballot)
        return peer in d.learning.voters and any(
            opening_matches(d.state, d.rules, statement) for statement in versions
        )

    # -- what is held of a phase -----------------------------------------------------------------

    def _held_contributions(self) -> dict[int, Set[bytes]]:
        height, round_ = self.desk.state.height, self.desk.state.round
        return {
            Kind.CONTRIBUTION: self._contributions.peers(height, round_),
            Kind.RECEIPT: self._receipted.peers(height, round_),
            Kind.WITNESS: self._witnessed.peers(height, round_),
        }

    def _held_sum(self) -> tuple[bytes, ...]:
        claim = current_claim(self.desk)
        if claim is None or not isinstance(claim.body, AggregateClaim):
            return ()
        digest = claim.body.sum_digest
        return (digest,) if digest in self.desk.blobs else ()

    def _known_seeds(self) -> set[bytes]:
        return self.desk.memory.findings.check_seeds.keys() & self._sharers()

    def _sharers(self) -> set[bytes]:
        """U1."""
        return {bundle.peer for bundle in self.desk.learning.sharers}

    def _unanswered(self) -> set[bytes]:
        """Dealers about whose shares a proposer complained, and who have not opened them in public."""
        d = self.desk
        return {
            statement.body.dealer
            for statement in d.pool.of_kind(d.state.round, Kind.COMPLAINT)
            if isinstance(statement.body, Complaint)
            and statement.sender in d.learning.proposers
            and statement.body.dealer in d.learning.proposers
            and not opening_holds(d, statement.body.dealer, statement.sender)
        }
