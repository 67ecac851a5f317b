"""Agreement on one block at one height, by Jolteon's rules (arXiv 2106.10362; docs/PROTOCOL.md section 7).

Two phases (PREPARE, COMMIT), a leader a view, a view change by time-out certificates. This file holds
the safety argument and nothing else; what makes a block valid is its caller's business.

Theory of operation. A block is final once more than 2/3 signed COMMIT for it in one view. Whoever signs
COMMIT in view v has first made the PREPARE certificate of v its `high_qc`, and signs nothing of v once it
has signed Timeout(v). So of any 2/3 that time out of v, one honest node carries a `high_qc` of at least v;
a leader of a later view has to re-propose the block of the highest certificate among them; hence no other
block can gather 2/3 PREPARE votes, let alone COMMIT votes. All that this rests on (the highest prepared,
committed and timed-out view, `high_qc` with its block, own proposals) is durable before a message leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TypeAlias

from attrs import define, evolve, field, frozen

from protocol.certificates import certificate_holds, more_than_third, quorum
from protocol.codec import bounded_bytes, decode, digest, encode, int_range
from protocol.envelope import Statement, WireError
from protocol.ledger.block import BLOCK_BYTES, Block, decode_block
from protocol.messages import (
    MAX_HEIGHT,
    MAX_VIEW,
    Body,
    Certificate,
    CertificateNotice,
    Kind,
    Proposal,
    Timeout,
    Vote,
    VotePhase,
)


@frozen
class Safety:
    """What must survive a crash at this height. Views are 0 where nothing was signed yet."""

    height: int = field(validator=int_range(0, MAX_HEIGHT))
    view: int = 1
    prepared_view: int = 0
    prepared_hash: bytes = b""
    committed_view: int = 0
    committed_hash: bytes = b""
    timed_out_view: int = 0
    high_qc: Certificate | None = None
    high_block: bytes = field(default=b"", validator=bounded_bytes(BLOCK_BYTES))
    proposed_view: int = 0
    proposal_body: bytes = field(default=b"", validator=bounded_bytes(1 << 20), repr=False)
    proposal_block: bytes = field(default=b"", validator=bounded_bytes(BLOCK_BYTES), repr=False)

    @cached_property
    def encoded(self) -> bytes:
        """Its canonical bytes."""
        return encode(self)


# -- what the agreement asks for ---------------------------------------------------------------


@frozen
class Save:
    """Make this durable before anything that follows leaves the node."""

    safety: Safety


@frozen
class Emit:
    """Sign and send; `to` None: to everyone."""

    kind: Kind
    body: Body
    to: bytes | None = None
    payload: bytes = b""


@frozen
class Judge:
    """Is this block valid after the current state? Answer with `Agreement.judged`."""

    view: int
    block: Block


@frozen
class EnteredView:
    """The view began; its timer runs `timeout_ms` from now, or from when Ready is sent in view 1."""

    view: int
    timeout_ms: int


@frozen
class Decided:
    """The height has its block."""

    block: Block
    certificate: Certificate


@frozen
class WantBlock:
    """A certificate came for a block that this node never saw; `peer` has it."""

    peer: bytes


Action: TypeAlias = Save | Emit | Judge | EnteredView | Decided | WantBlock
StatementOpener: TypeAlias = Callable[[bytes], Statement]
CertificateCheck: TypeAlias = Callable[[Certificate, bytes, tuple[bytes, ...]], bool]


class ProposalError(ValueError):
    """A proposal's justification does not hold; only a faulty leader sends one."""


def leader_of(order: Sequence[bytes], height: int, view: int) -> bytes:
    """Leaders rotate by view over the pinned adverts, starting at another one for every height.

    Nobody leads, b"", where nobody has a vote.
    """
    if not order:
        return b""
    return order[(_leader_offset(height) + view - 1) % len(order)]


@lru_cache(maxsize=16)
def _leader_offset(height: int) -> int:
    return int.from_bytes(digest("leader", height.to_bytes(8, "big"))[:8], "big")


def view_timeout_ms(view: int, base_ms: int, cap_ms: int) -> int:
    """delta * 2^(v-1), capped."""
    return min(cap_ms, base_ms << min(view - 1, 32))


@define(eq=False)
class Agreement:
    """One height at one node. Every method returns the actions to perform, in order."""

    me: bytes
    network: bytes
    round: int
    validators: tuple[bytes, ...]
    order: tuple[bytes, ...]
    base_ms: int
    cap_ms: int
    opener: StatementOpener
    safety: Safety
    certificate_holds: CertificateCheck = certificate_holds
    _blocks: dict[bytes, Block] = field(factory=dict, init=False)
    _proposals: dict[int, tuple[Statement, Block]] = field(factory=dict, init=False)
    _votes: dict[Vote, dict[bytes, bytes]] = field(factory=dict, init=False)
    _voted: dict[tuple[VotePhase, int, bytes], Statement] = field(factory=dict, init=False)
    conflicts: list[tuple[Statement, Statement]] = field(factory=list, init=False)
    _timeouts: dict[int, dict[bytes, Statement]] = field(factory=dict, init=False)
    _judged: set[bytes] = field(factory=set, init=False)
    _certified: set[tuple[VotePhase, int]] = field(factory=set, init=False)
    _decided: bool = field(default=False, init=False)
    _leaders: dict[int, bytes] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        for encoded in (self.safety.high_block, self.safety.proposal_block):
            if encoded:
                block = decode_block(encoded)
                self._blocks[block.hash] = block

    # -- views ---------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        return self.safety.height

    @property
    def view(self) -> int:
        return self.safety.view

    @property
    def leader(self) -> bytes:
        view = self.safety.view
        return self._leaders.get(view) or self._leaders.setdefault(
            view, leader_of(self.order, self.height, view)
        )

    @property
    def is_leader(self) -> bool:
        return (self._leaders.get(self.safety.view) or self.leader) == self.me

    @property
    def may_propose_anew(self) -> bool:
        """Am I to put a block of my own making before the others?"""
        return (
            self.is_leader
            and self.safety.proposed_view < self.view
            and self.safety.timed_out_view < self.view
            and self._justified_block() is None
            and not self._decided
        )

    def timeout_ms(self) -> int:
        return view_timeout_ms(self.view, self.base_ms, self.cap_ms)

    def _justified_block(self) -> bytes | None:
        """The block that a certificate forces upon this view's leader; None if it may choose."""
        if self.view == 1:
            return None
        highest = self._highest_qc()
        return highest.vote.block_hash if highest else None

    def _highest_qc(self) -> Certificate | None:
        """The highest PREPARE certificate in the time-out certificate of view - 1, and my own."""
        candidates = [self.safety.high_qc] if self.safety.high_qc else []
        for statement in self._timeouts.get(self.view - 1, {}).values():
            assert isinstance(statement.body, Timeout)
            if statement.body.high_qc is not None:
                candidates.append(statement.body.high_qc)
        return max(candidates, key=lambda qc: qc.vote.view, default=None)

    def _enter(self, view: int) -> list[Action]:
        self.safety = evolve(self.safety, view=view)
        self._forget_left_views()
        actions: list[Action] = [
            Save(self.safety),
            EnteredView(view, view_timeout_ms(view, self.base_ms, self.cap_ms)),
        ]
        return actions + self._propose_forced()

    def timeouts_kept(self) -> dict[bytes, int]:
        """How many time-outs of this view and later ones are kept of each validator."""
        ahead = [gathered for view, gathered in self._timeouts.items() if view >= self.view]
        return dict(Counter(sender for gathered in ahead for sender in gathered))

    def _forget_left_views(self) -> None:
        """Only the time-outs of the view before still justify something."""
        for left in [view for view in self._timeouts if view < self.view - 1]:
            del self._timeouts[left]
        for left in [view for view in self._proposals if view < self.view]:
            del self._proposals[left]

    # -- proposing -----------------------------------------------------------------------------

    def propose(self, block: Block) -> list[Action]:
        """Put a new block before the others; only where `may_propose_anew`."""
        return self._propose(block, None)

    def _propose_forced(self) -> list[Action]:
        forced = self._justified_block()
        if forced is None or not self.is_leader or self.safety.proposed_view >= self.view:
            return []
        block, highest = self._blocks.get(forced), self._highest_qc()
        if block is None or highest is None or highest.vote.view >= self.view:
            # A certificate of this view or a later one: others are ahead, and nobody waits for this leader.
            return []

        return self._propose(block, highest)

    def _propose(self, block: Block, qc: Certificate | None) -> list[Action]:

        timeouts: tuple[bytes, ...] = ()
        if self.view > 1 and not (qc is not None and qc.vote.view == self.view - 1):
            gathered = self._timeouts.get(self.view - 1, {})
            if len(gathered) < quorum(len(self.validators)):
                return []
            timeouts = tuple(gathered[peer].cited() for peer in sorted(gathered))
        body = Proposal(self.height, self.view, block.hash, qc, timeouts)
        self.safety = evolve(
            self.safety, proposed_view=self.view, proposal_body=encode(body), proposal_block=block.encoded
        )
        self._blocks[block.hash] = block
        return [Save(self.safety), Emit(Kind.PROPOSAL, body, payload=block.encoded)]

    # -- messages ------------------------------------------------------------------------------

    def on_proposal(self, statement: Statement) -> list[Action]:
        """A leader's proposal. Raises `ProposalError`, `DecodeError` where no honest leader would send it."""
        body = statement.body
        assert isinstance(body, Proposal)
        if self._decided or body.view < self.view:
            return []
        if body.view in self._proposals:
            known, _ = self._proposals[body.view]
            if known.id != statement.id and known.sender == statement.sender:
                self.conflicts.append((known, statement))
            return []
        if statement.sender != leader_of(self.order, self.height, body.view):
            raise ProposalError(f"not the leader of view {body.view}")
        block = decode_block(statement.envelope.payload)
        if block.hash != body.block_hash:
            raise ProposalError("the block is not the one that was signed for")
        self._check_justification(body)
        self._proposals[body.view] = (statement, block)
        self._blocks[block.hash] = block
        actions: list[Action] = []
        if body.view > self.view:
            actions += self._enter(body.view)
        if block.hash in self._judged:
            return actions + self._prepare(body.view, block.hash)
        return [*actions, Judge(body.view, block)]

    def judged(self, view: int, block_hash: bytes) -> list[Action]:
        """The block is valid: vote for it if the view still allows."""
        self._judged.add(block_hash)
        return self._prepare(view, block_hash)

    def on_vote(self, statement: Statement) -> list[Action]:
        """A vote for the view that this node leads (or led)."""
        vote = statement.body
        assert isinstance(vote, Vote)
        if self._decided or statement.sender not in self.validators or statement.round != self.round:
            return []
        if vote.view > self.view + 1 or leader_of(self.order, self.height, vote.view) != self.me:
            return []
        first = self._voted.setdefault((vote.phase, vote.view, statement.sender), statement)
        if first.id != statement.id:
            self.conflicts.append((first, statement))
            return []
        return self._count(vote, statement.sender, statement.envelope.signature)

    def on_certificate(self, certificate: Certificate, sender: bytes) -> list[Action]:
        """A leader's certificate, or one that somebody passes on."""
        vote = certificate.vote
        if self._decided or vote.height != self.height or certificate.round != self.round:
            return []
        if vote.phase is VotePhase.PREPARE and (vote.phase, vote.view) in self._certified:
            return []
        if not self.certificate_holds(certificate, self.network, self.validators):
            raise ProposalError("a certificate that does not hold")
        return self._on_sound_certificate(certificate, sender)

    def on_timeout(self, statement: Statement) -> list[Action]:
        """Somebody gave up on a view."""
        body = statement.body
        assert isinstance(body, Timeout)
        if self._decided or statement.sender not in self.validators or statement.round != self.round:
            return []
        if body.view < self.view:
            return []
        if statement.sender in self._timeouts.get(body.view, {}):
            return []
        if body.high_qc is not None:
            self._check_prepare_certificate(body.high_qc)
            if statement.envelope.payload:
                block = decode_block(statement.envelope.payload)
                if block.hash == body.high_qc.vote.block_hash:
                    self._blocks[block.hash] = block
        if body.view > self.view:
            # Of views to come only the highest of each sender: a faulty one could fill the memory.
            ahead = [view for view in self._timeouts if view > self.view]
            for later in [view for view in ahead if statement.sender in self._timeouts[view]]:
                if later > body.view:
                    return []
                del self._timeouts[later][statement.sender]
                if not self._timeouts[later]:
                    del self._timeouts[later]
        # The block that came along is kept apart, if it is of any use.
        self._timeouts.setdefault(body.view, {})[statement.sender] = statement.bare
        actions: list[Action] = []
        if body.high_qc is not None:
            actions += self._raise_high_qc(body.high_qc)
        return actions + self._on_timeouts(body.view)

    def help_straggler(self, view: int, peer: bytes) -> list[Action]:
        """Somebody is stuck in a view that this node has left and never votes in again: give it up too."""
        if self._decided or view >= self.view or peer not in self.validators:
            return []
        body = Timeout(self.height, view, self.safety.high_qc)
        return [Emit(Kind.TIMEOUT, body, to=peer, payload=self.safety.high_block)]

    def on_view_timer(self, view: int) -> list[Action]:
        """The view took too long."""
        if self._decided or view != self.view or self.safety.timed_out_view >= view:
            return []
        return self._give_up(view)

    def resend(self) -> list[Action]:
        """What the others may have missed: my time-out, else my votes and, if I lead, my proposal."""

        safety = self.safety
        if self._decided:
            return []
        if safety.timed_out_view == self.view:
            return [self._timeout_message()]
        actions: list[Action] = []
        if safety.proposed_view == self.view:
            body = decode(Proposal, safety.proposal_body, 1 << 20)
            actions.append(Emit(Kind.PROPOSAL, body, payload=safety.proposal_block))
        for phase, voted_view, voted_hash in (
            (VotePhase.PREPARE, safety.prepared_view, safety.prepared_hash),
            (VotePhase.COMMIT, safety.committed_view, safety.committed_hash),
        ):
            if voted_view == self.view:
                actions.append(
                    Emit(Kind.VOTE, Vote(phase, self.height, self.view, voted_hash), to=self.leader)
                )
        return actions

    # -- rules ---------------------------------------------------------------------------------

    def _check_justification(self, body: Proposal) -> None:
        """v = 1, or qc of v - 1, or time-outs of v - 1 that name no higher qc; a qc forces its block."""
        if body.qc is not None:
            self._check_prepare_certificate(body.qc)
            if body.qc.vote.block_hash != body.block_hash:
                raise ProposalError("a certificate forces another block")
            if body.qc.vote.view >= body.view:
                raise ProposalError("a certificate of a view to come")
        if body.view == 1:
            if body.qc is not None:
                raise ProposalError("no certificate can precede view 1")
            return
        if body.qc is not None and body.qc.vote.view == body.view - 1:
            return
        highest = self._check_timeouts(body)
        if highest > (body.qc.vote.view if body.qc else 0):
            raise ProposalError("the time-outs name a higher certificate")

    def _check_timeouts(self, body: Proposal) -> int:
        """The view of the highest certificate among the proposal's time-outs, 0 for none."""
        senders = set()
        highest = 0
        for data in body.timeouts:
            try:
                statement = self.opener(data)
            except WireError as error:
                raise ProposalError(f"time-out certificate: {error}") from None
            timeout = statement.body
            if not isinstance(timeout, Timeout) or (timeout.height, timeout.view, statement.round) != (
                self.height,
                body.view - 1,
                self.round,
            ):
                raise ProposalError("time-out certificate: an entry of another view")
            senders.add(statement.sender)
            if timeout.high_qc is not None:
                self._check_prepare_certificate(timeout.high_qc)
                highest = max(highest, timeout.high_qc.vote.view)
        if len(senders & set(self.validators)) < quorum(len(self.validators)):
            raise ProposalError("time-out certificate: no quorum")
        return highest

    def _check_prepare_certificate(self, certificate: Certificate) -> None:
        vote = certificate.vote
        if vote.phase is not VotePhase.PREPARE or (vote.height, certificate.round) != (
            self.height,
            self.round,
        ):
            raise ProposalError("a certificate of another height or phase")
        if certificate != self.safety.high_qc and not self.certificate_holds(
            certificate, self.network, self.validators
        ):
            raise ProposalError("a certificate that does not hold")

    def _prepare(self, view: int, block_hash: bytes) -> list[Action]:
        """PREPARE only in the current view, above the last voted and the last timed-out one."""
        safety = self.safety
        if self._decided or view != self.view or view not in self._proposals:
            return []
        if self._proposals[view][1].hash != block_hash:
            return []
        if view <= safety.prepared_view or view <= safety.timed_out_view:
            return []
        self.safety = evolve(safety, prepared_view=view, prepared_hash=block_hash)
        return self._vote(Vote(VotePhase.PREPARE, self.height, view, block_hash))

    def _commit(self, view: int, block_hash: bytes) -> list[Action]:
        """COMMIT in v once, never after Timeout(v); `high_qc` is set before."""
        safety = self.safety
        if view != self.view or view <= safety.timed_out_view or view <= safety.committed_view:
            return []
        self.safety = evolve(safety, committed_view=view, committed_hash=block_hash)
        return self._vote(Vote(VotePhase.COMMIT, self.height, view, block_hash))

    def _vote(self, vote: Vote) -> list[Action]:
        leader = leader_of(self.order, self.height, vote.view)
        return [Save(self.safety), Emit(Kind.VOTE, vote, to=leader)]

    def _count(self, vote: Vote, voter: bytes, signature: bytes) -> list[Action]:
        votes = self._votes.setdefault(vote, {})
        votes[voter] = signature
        if len(votes) < quorum(len(self.validators)) or (vote.phase, vote.view) in self._certified:
            return []
        certificate = Certificate(self.round, vote, tuple(sorted(votes.items())))
        actions: list[Action] = [Emit(Kind.CERTIFICATE, CertificateNotice(certificate))]
        return actions + self._on_sound_certificate(certificate, self.me)

    def _on_sound_certificate(self, certificate: Certificate, sender: bytes) -> list[Action]:
        vote = certificate.vote
        block = self._blocks.get(vote.block_hash)
        if block is None:
            # Whoever shows a PREPARE certificate has no final block to give.
            is_final = vote.phase is VotePhase.COMMIT
            return [WantBlock(sender)] if is_final and sender != self.me else []
        self._certified.add((vote.phase, vote.view))
        if vote.phase is VotePhase.COMMIT:
            self._decided = True
            return [Decided(block, certificate)]
        actions = self._raise_high_qc(certificate)
        if vote.view > self.view:
            actions += self._enter(vote.view)
        return actions + self._commit(vote.view, vote.block_hash)

    def _raise_high_qc(self, certificate: Certificate) -> list[Action]:

        current = self.safety.high_qc
        block = self._blocks.get(certificate.vote.block_hash)
        if block is None or (current is not None and current.vote.view >= certificate.vote.view):
            return []
        self.safety = evolve(self.safety, high_qc=certificate, high_block=block.encoded)
        return [Save(self.safety)]

    def _on_timeouts(self, view: int) -> list[Action]:
        gathered = self._timeouts.get(view, {})
        if len(gathered) >= quorum(len(self.validators)) and view >= self.view:
            joined = self._give_up(view) if self.safety.timed_out_view < view else []
            return joined + self._enter(view + 1) if self.view <= view < MAX_VIEW else joined
        reached = self._view_of_a_third()
        return self._give_up(reached) if reached >= self.view and reached > self.safety.timed_out_view else []

    def _view_of_a_third(self) -> int:
        """The highest view that more than 1/3 of all have given up, each that view or a later one."""
        highest: dict[bytes, int] = {}
        for view, senders in self._timeouts.items():
            for peer in senders:
                highest[peer] = max(view, highest.get(peer, 0))
        least = more_than_third(len(self.validators))
        views = sorted(highest.values(), reverse=True)
        return views[least - 1] if len(views) >= least else 0

    def _give_up(self, view: int) -> list[Action]:
        self.safety = evolve(self.safety, timed_out_view=view, view=max(view, self.view))
        self._forget_left_views()
        return [Save(self.safety), self._timeout_message()]

    def _timeout_message(self) -> Emit:
        body = Timeout(self.height, self.safety.timed_out_view, self.safety.high_qc)
        return Emit(Kind.TIMEOUT, body, payload=self.safety.high_block)
