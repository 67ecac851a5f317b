"""How far a phase has come at one node: what it holds, when that is enough, and its Ready (section 3).

A node sends Ready once it holds everything expected, or at the soft deadline (1.5 x the time that 80 %
of it took, plus one second, so that one dead node does not cost every hard deadline), or at the hard one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import cached_property

from protocol.compose import vouchers_for
from protocol.duties.aggregate import current_claim
from protocol.duties.desk import Desk
from protocol.duties.share import opening_holds
from protocol.following import Following
from protocol.ledger.state import Phase
from protocol.messages import AggregateClaim, Complaint, Kind, Ready
from protocol.pacing import waits_for_transactions
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


def most(expected: int) -> int:
    """How many are most of what is expected."""
    return max(1, expected * SOFT_SHARE_PERCENT // 100)


def is_most(have: int, expected: int) -> bool:
    """80 % of what is expected, rounded down, and at least one."""
    return expected > 0 and have >= most(expected)


COUNTED = {
    Phase.ADVERT: frozenset({Kind.KEY_ADVERT, Kind.TRANSACTION}),
    Phase.SHARE: frozenset({Kind.SHARE_BUNDLE, Kind.SEALED_SHARES, Kind.COMPLAINT, Kind.SHARE_OPENING}),
    Phase.CONTRIBUTE: frozenset({Kind.CONTRIBUTION, Kind.RECEIPT, Kind.WITNESS}),
    Phase.AGGREGATE: frozenset({Kind.AGGREGATE_CLAIM}),
    Phase.BALLOT: frozenset({Kind.SEALED_VOTE, Kind.REVEAL}),
    Phase.DISPUTE: frozenset[Kind](),
    Phase.VOTE: frozenset({Kind.VOTE_OPENING}),
    Phase.RECOVER: frozenset({Kind.REVEAL}),
}
"""The messages that a phase waits for. What else it waits for, duties find out."""

ONE_MORE = frozenset(
    {
        Kind.KEY_ADVERT,
        Kind.SHARE_BUNDLE,
        Kind.SEALED_SHARES,
        Kind.CONTRIBUTION,
        Kind.RECEIPT,
        Kind.REVEAL,
        Kind.SEALED_VOTE,
        Kind.VOTE_OPENING,
    }
)
"""Those of them of which each adds at most one to whatever is counted, and changes nothing else, as long as
nobody has complained: an answer to a complaint counts once its dealer's bundle is here."""


class Progress:
    """Reads a node's desk; decides nothing that others must agree on.

    It is asked after every event, so it follows the pool instead of going through it. `Look` is what it
    makes of one height.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._look = Look(desk)
        self._made: tuple[Mapping[int, Set[bytes]], Ready] | None = None

    @property
    def look(self) -> Look:
        """Of the height that is due."""
        if self._look.height != self.desk.state.height:
            self._look = Look(self.desk)
        return self._look

    def make_ready(self, height: int, late: int) -> Ready:
        """What a Ready says now: the last one made, where nothing has changed."""
        held, blobs = self.look.held()
        if self._made is not None and self._made[0] == held:
            ready = self._made[1]
            if (ready.height, ready.late, ready.blobs) == (height, late, blobs):
                return ready
        ready = Ready(height, late, held_of(self.desk.state.validators, held), blobs)
        self._made = {kind: frozenset(peers) for kind, peers in held.items()}, ready
        return ready


class Look:
    """What a node holds of the phase that it is in."""

    def __init__(self, desk: Desk) -> None:
        state, learning = desk.state, desk.learning
        self.desk = desk
        self.state = state
        self.height = state.height
        self.phase = learning.phase
        self.validators = state.validator_set
        self.proposers = learning.proposer_set
        self.sharers = learning.sharer_set
        self.voters = learning.voter_set
        self._is_proposer = desk.me in self.proposers
        self._complaints = desk.pool.changes(state.round, Kind.COMPLAINT)
        self._adverts = _adverts_followed(desk)

    @cached_property
    def _bundles(self) -> Following[Kind]:
        return self._following(self._bundle_of, Kind.SHARE_BUNDLE)

    @cached_property
    def _contributions(self) -> Following[Kind]:
        return self._following(self._contribution_of, Kind.CONTRIBUTION)

    @cached_property
    def _vouchers(self) -> Following[Kind]:
        return self._following(self._voucher_of, Kind.CONTRIBUTION, Kind.RECEIPT, Kind.WITNESS)

    @cached_property
    def _votes(self) -> Following[Kind]:
        return self._following(self._vote_of, Kind.SEALED_VOTE)

    @cached_property
    def _openings(self) -> Following[Kind]:
        return self._following(self._opening_of, Kind.VOTE_OPENING)

    def _following(self, judge: Callable[[bytes], Kind | None], *kinds: Kind) -> Following[Kind]:
        changes = self.desk.pool.changes
        return Following([changes(self.state.round, kind) for kind in kinds], judge)

    def held(self) -> tuple[dict[int, Set[bytes]], tuple[bytes, ...]]:
        """What a Ready says now: statements held by kind and subject, and blobs."""
        held: dict[int, Set[bytes]] = {Kind.KEY_ADVERT: self._adverts.values().keys()}
        blobs: tuple[bytes, ...] = ()
        match self.phase:
            case Phase.SHARE:
                held[Kind.SHARE_BUNDLE] = self._bundles.values().keys()
                held[Kind.SEALED_SHARES] = self._usable_shares()
                held[Kind.COMPLAINT] = self._unanswered()
            case Phase.CONTRIBUTE:
                vouchers = self._vouchers.values()
                held[Kind.CONTRIBUTION] = self._contributions.values().keys()
                for kind in (Kind.RECEIPT, Kind.WITNESS):
                    held[kind] = {peer for peer, voucher in vouchers.items() if voucher is kind}
            case Phase.AGGREGATE:
                blobs = self._held_sum()
            case Phase.BALLOT:
                held[Kind.REVEAL] = self._known_seeds()
                held[Kind.SEALED_VOTE] = self._votes.values().keys()
            case Phase.DISPUTE:
                held[Kind.CONTRIBUTION] = self._held_uploads()
            case Phase.VOTE:
                held[Kind.VOTE_OPENING] = self._openings.values().keys()
            case Phase.RECOVER:
                held[Kind.REVEAL] = self._known_seeds()
            case Phase.ADVERT:
                pass
        return held, blobs

    @property
    def has_complaints(self) -> bool:
        """Has a proposer complained about a dealer in this round?"""
        return bool(self._complaints)

    def count(self) -> tuple[int, int]:
        """(have, expected) of what this phase waits for."""
        return _COUNT[self.phase](self)

    def _count_adverts(self) -> tuple[int, int]:
        if waits_for_transactions(self.state):
            return 1, 1  # `Pacing.has_to_say` has found one, and there is nothing else to wait for
        return len(self._adverts.values()), len(self.validators)

    def _count_shares(self) -> tuple[int, int]:
        have, expected = len(self._bundles.values()), len(self.proposers) + len(self._unanswered())
        if self._is_proposer:
            have, expected = have + len(self._usable_shares()), 2 * expected
        return have, expected

    def _count_contributions(self) -> tuple[int, int]:
        return len(self._vouchers.values()), len(self.sharers)

    def _count_sums(self) -> tuple[int, int]:
        return len(self._held_sum()), 1

    def _count_ballot(self) -> tuple[int, int]:
        have, expected = self.reveals()
        if self._is_disputed():
            return have, expected
        return have + len(self._votes.values()), expected + len(self.voters)

    def _count_uploads(self) -> tuple[int, int]:
        return len(self._held_uploads()), len(self.state.learning.contributors)

    def _count_openings(self) -> tuple[int, int]:
        return len(self._openings.values()), len(self.state.learning.sealed_votes)

    def _count_seeds(self) -> tuple[int, int]:
        return len(self._known_seeds()), len(self.sharers)

    def _is_disputed(self) -> bool:
        """Has this node found the sum wanting, so that no vote is due in the first ballot?"""
        verified = self.desk.memory.findings.verified
        wanting = verified is not None and verified.verdict is not Verdict.TRUSTED
        return wanting and not self.state.learning.ballot

    def most_of(self, counted: tuple[int, int]) -> tuple[int, int]:
        """(have, expected) that the soft deadline goes by: what was counted, of a ballot its votes only.

        They take time.
        """
        if self.phase is not Phase.BALLOT or self._is_disputed():
            return counted
        return len(self._votes.values()), len(self.voters)

    def contributions(self) -> tuple[int, int]:
        """(have, expected) contributions, acknowledged or not; (0, 0) outside phase 2."""
        if self.phase is not Phase.CONTRIBUTE:
            return 0, 0
        return len(self._contributions.values()), len(self.sharers)

    def reveals(self) -> tuple[int, int]:
        """(have, expected) check seeds; (0, 0) where none are waited for."""
        if self.phase not in (Phase.BALLOT, Phase.RECOVER) or self.state.learning.ballot:
            return 0, 0
        return len(self._known_seeds()), len(self.sharers)

    # -- of one peer; who contradicts itself is not attested ---------------------------------------

    def _only(self, kind: Kind, peer: bytes, attempt: int = 0) -> Kind | None:
        """The kind, if one statement of it is held of this peer and none that contradicts it."""
        return kind if self.desk.pool.has_one(self.state.round, kind, peer, attempt) else None

    def _bundle_of(self, peer: bytes) -> Kind | None:
        if peer not in self.proposers or peer not in self.validators:
            return None
        return self._only(Kind.SHARE_BUNDLE, peer)

    def _contribution_of(self, peer: bytes) -> Kind | None:
        if peer not in self.sharers or peer not in self.validators:
            return None
        return self._only(Kind.CONTRIBUTION, peer)

    def _voucher_of(self, peer: bytes) -> Kind | None:
        """What speaks for the upload of a contribution that is attested."""
        if self._contribution_of(peer) is None:
            return None
        vouchers = vouchers_for(self.state, self.desk.pool, peer)
        return vouchers[0].kind if vouchers else None

    def _vote_of(self, peer: bytes) -> Kind | None:
        if peer not in self.voters:
            return None
        return self._only(Kind.SEALED_VOTE, peer, self.state.learning.ballot)

    def _opening_of(self, peer: bytes) -> Kind | None:
        if peer not in self.voters:
            return None
        state, kind = self.state, Kind.VOTE_OPENING
        versions = self.desk.pool.versions(state.round, kind, peer, state.learning.ballot)
        return kind if any(opening_matches(state, self.desk.rules, s) for s in versions) else None

    # -- of all ------------------------------------------------------------------------------------

    def _usable_shares(self) -> Set[bytes]:
        """Without its z_i a dealer's shares are of no use: nobody could place the hidden points."""
        return self.desk.memory.packages.keys() & self.desk.memory.zs.keys()

    def _held_sum(self) -> tuple[bytes, ...]:
        claim = current_claim(self.desk)
        if claim is None or not isinstance(claim.body, AggregateClaim):
            return ()
        digest = claim.body.sum_digest
        return (digest,) if digest in self.desk.blobs else ()

    def _held_uploads(self) -> Set[bytes]:
        return {c.peer for c in self.state.learning.contributors if c.upload_digest in self.desk.blobs}

    def _known_seeds(self) -> Set[bytes]:
        return self.desk.memory.findings.check_seeds.keys() & self.sharers

    def _unanswered(self) -> set[bytes]:
        """Dealers about whose shares a proposer complained, and who have not opened them in public."""
        if not self.has_complaints:
            return set()
        return {
            statement.body.dealer
            for statement in self.desk.pool.of_kind(self.state.round, Kind.COMPLAINT)
            if isinstance(statement.body, Complaint)
            and statement.sender in self.proposers
            and statement.body.dealer in self.proposers
            and not opening_holds(self.desk, statement.body.dealer, statement.sender)
        }


_COUNT = {
    Phase.ADVERT: Look._count_adverts,
    Phase.SHARE: Look._count_shares,
    Phase.CONTRIBUTE: Look._count_contributions,
    Phase.AGGREGATE: Look._count_sums,
    Phase.BALLOT: Look._count_ballot,
    Phase.DISPUTE: Look._count_uploads,
    Phase.VOTE: Look._count_openings,
    Phase.RECOVER: Look._count_seeds,
}


def _adverts_followed(desk: Desk) -> Following[Kind]:
    """Of whom the advert that is collected now is held: the same for all heights of a round."""
    pool, round_, validators = desk.pool, desk.advert_round, desk.state.validators
    kind, voting = Kind.KEY_ADVERT, desk.state.validator_set

    def judge(peer: bytes) -> Kind | None:
        return kind if peer in voting and pool.has_one(round_, kind, peer) else None

    return desk.worked_out(
        "adverts", (round_, validators), lambda: Following([pool.changes(round_, kind)], judge)
    )
