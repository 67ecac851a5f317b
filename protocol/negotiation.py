"""The agreement on the next height and its traffic: in, out, and kept for later (section 7)."""

from __future__ import annotations

from collections.abc import Callable

from protocol import durable
from protocol.checks import Checks
from protocol.cited import Cited
from protocol.codec import DecodeError
from protocol.consensus import (
    Action,
    Agreement,
    Decided,
    Emit,
    EnteredView,
    Judge,
    ProposalError,
    Safety,
    Save,
    WantBlock,
    leader_of,
)
from protocol.duties.desk import Desk
from protocol.early import EARLY_BOXES, EarlyMessages
from protocol.envelope import Statement
from protocol.events import Millis, SetTimer
from protocol.judging import Judging
from protocol.ledger.block import StoredBlock
from protocol.ledger.state import Phase
from protocol.messages import (
    CertificateNotice,
    Kind,
    Proposal,
    Ready,
    Timeout,
    Vote,
)
from protocol.readiness import Readiness
from protocol.repair import Repair
from protocol.round import BlockError
from protocol.sync import Sync

Reject = Callable[[bytes, str, str], None]
"""Called with peer, reason and what was wrong."""


class Negotiation:
    """One node's. `decide` is called with each final block, `reject` with what no honest peer sends.

    `want` is called with who has shown the certificate of a final block that this node lacks.
    """

    def __init__(
        self,
        desk: Desk,
        cited: Cited,
        judging: Judging,
        repair: Repair,
        sync: Sync,
        *,
        decide: Callable[[StoredBlock], None],
        reject: Reject,
        want: Callable[[bytes], None],
        checks: Checks,
    ) -> None:
        self.desk = desk
        self.cited = cited
        self.checks = checks
        self.judging = judging
        self.repair = repair
        self.sync = sync
        self.readiness = Readiness(desk, judging.chain, cited, lambda: self.agreement)
        self.agreement = self._new_agreement(Safety(1))
        self.moved = True
        """Something changed that duties or proposals may be waiting for."""
        self._decide = decide
        self._reject = reject
        self._want = want
        self._early = EarlyMessages()
        self._early_boxes = EarlyMessages(EARLY_BOXES)
        self._helped_ms: dict[bytes, Millis] = {}

    # -- heights -------------------------------------------------------------------------------

    def begin(self, safety: Safety) -> None:
        """Agree on the next height, from what was durable of it."""
        self.agreement = self._new_agreement(safety)
        self.readiness.clear()
        self.judging.clear()

    def take_early(self) -> list[tuple[bytes, Statement]]:
        """Return what came before its height, now that it is reached; each message is looked at once."""
        state = self.desk.state
        taken = self._early.take(self.agreement.height)
        if state.learning.phase is not Phase.ADVERT:
            taken += self._early_boxes.take(state.round)
        return taken

    def early_messages(self) -> dict[bytes, int]:
        """How many messages of later heights are kept of each peer."""
        return self._early.counts()

    def early_boxes(self) -> dict[bytes, int]:
        """How many sealed boxes of a phase to come are kept of each peer."""
        return self._early_boxes.counts()

    def early_bytes(self) -> dict[bytes, int]:
        """What the messages of later heights weigh, by peer."""
        return self._early.weights()

    def _new_agreement(self, safety: Safety) -> Agreement:
        state, params = self.desk.state, self.desk.rules.params
        return Agreement(
            me=self.desk.me,
            network=self.desk.rules.network,
            round=state.round,
            validators=state.validators,
            order=state.leaders,
            base_ms=params.view_timeout_ms,
            cap_ms=params.max_view_timeout_ms,
            opener=self.cited.open,
            safety=safety,
            certificate_holds=self.checks.certificate_holds,
        )

    # -- what is due ---------------------------------------------------------------------------

    def advance(self, now: Millis) -> None:
        """Vote for what this node can vouch for, say Ready, and propose, as far as that is due."""
        if self.agreement.conflicts:
            for first, second in self.agreement.conflicts:
                self.desk.pool.note_conflict(first, second)
            self.agreement.conflicts.clear()
        if self.judging.is_waiting:
            for view, block_hash in self.judging.vouched(self.agreement.view, self._on_invalid_block):
                self._perform(self.agreement.judged(view, block_hash))
        self.readiness.track(now)
        self.moved |= self.judging.learned
        self.judging.learned = False
        block = self.readiness.next_block()
        if block is not None:
            self._perform(self.agreement.propose(block))

    def is_concerned(self, kind: Kind, round_: int) -> bool:
        """May a statement of this kind and round, which has come in, change what `advance` does?"""
        return (
            self.readiness.is_concerned(kind, round_)
            or self.judging.is_waiting
            or self.agreement.is_leader
            or bool(self.agreement.conflicts)
        )

    def on_view_timer(self) -> None:
        self._perform(self.agreement.on_view_timer(self.agreement.view))

    def resend(self) -> None:
        """What others may have missed."""
        self._perform(self.agreement.resend())
        self.readiness.resend()

    def _on_invalid_block(self, view: int, error: BlockError) -> None:
        """The leader of the view signed for it, whoever the block names."""
        leader = leader_of(self.agreement.order, self.agreement.height, view)
        self._reject(leader, "block", str(error))

    # -- messages ------------------------------------------------------------------------------

    def on_ready(self, peer: bytes, statement: Statement, now: Millis) -> None:
        body = statement.body
        assert isinstance(body, Ready)
        if self._is_current(peer, statement, body.height, now) and statement.round == self.desk.state.round:
            new = self.readiness.take(statement)
            self.moved |= new and (self.readiness.has_quorum or self.judging.is_waiting)

    def on_proposal(self, peer: bytes, statement: Statement, now: Millis) -> None:
        assert isinstance(statement.body, Proposal)
        if self._is_current(peer, statement, statement.body.height, now):
            self._guarded(peer, lambda: self.agreement.on_proposal(statement))

    def on_vote(self, peer: bytes, statement: Statement, now: Millis) -> None:
        assert isinstance(statement.body, Vote)
        if self._is_current(peer, statement, statement.body.height, now):
            self._guarded(peer, lambda: self.agreement.on_vote(statement))

    def on_certificate(self, peer: bytes, statement: Statement, now: Millis) -> None:
        body = statement.body
        assert isinstance(body, CertificateNotice)
        if self._is_current(peer, statement, body.certificate.vote.height, now):
            self._guarded(peer, lambda: self.agreement.on_certificate(body.certificate, peer))

    def on_timeout(self, peer: bytes, statement: Statement, now: Millis) -> None:
        assert isinstance(statement.body, Timeout)
        if self._is_current(peer, statement, statement.body.height, now):
            self._guarded(peer, lambda: self.agreement.on_timeout(statement))
            stale = statement.body.view
            if stale < self.agreement.view and self._may_help(peer, now):
                self._perform(self.agreement.help_straggler(stale, peer))

    def _may_help(self, peer: bytes, now: Millis) -> bool:
        """One answer to a straggler each half repair interval: helping each other must come to an end."""
        last = self._helped_ms.get(peer)
        if last is not None and now - last < self.desk.rules.params.repair_interval_ms // 2:
            return False
        self._helped_ms[peer] = now
        return True

    def keep_box(self, peer: bytes, statement: Statement) -> None:
        """Keep a validator's sealed box of this round or the next until its phase, up to a bound."""
        if peer in self.desk.state.validators:
            self._early_boxes.keep(peer, statement.round, statement)

    def _is_current(self, peer: bytes, statement: Statement, height: int, now: Millis) -> bool:
        """Is it of the height that is agreed on? Later ones are kept a while, and show who is further.

        Whoever speaks of a height has the block before it. One height apart is no reason to ask:
        the certificate may be on its way.
        """
        ours = self.agreement.height
        if height == ours:
            return True
        if height > ours:
            if peer in self.desk.state.validators:
                self._early.keep(peer, height, statement)
            if height > ours + 1:
                self.sync.heard(peer, height - 1, now)
            else:
                self.sync.note(peer, height - 1)
        elif statement.kind is Kind.TIMEOUT:
            self.repair.tell_late(peer, now)
        return False

    def _guarded(self, peer: bytes, step: Callable[[], list[Action]]) -> None:
        try:
            actions = step()
        except (ProposalError, DecodeError) as error:
            self._reject(peer, "agreement", str(error))
            return
        self._perform(actions)

    # -- actions -------------------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        """Turn what the agreement asks for into effects; its own messages come back to it at once."""
        outbox, agreement = self.desk.outbox, self.agreement
        for action in actions:
            if self.agreement is not agreement:
                return  # one of its own messages decided the height
            match action:
                case Save():
                    # As it is by now: an own message that came back may have moved it on.
                    outbox.persist(durable.SAFETY, durable.SAFETY_KEY, agreement.safety.encoded)
                case Emit():
                    self._emit(action)
                case Judge():
                    self.judging.add(action.view, action.block)
                    self.moved = True
                case EnteredView():
                    outbox.notify("view", height=self.agreement.height, view=action.view)
                    self.readiness.send()
                    outbox.add(SetTimer("view", action.timeout_ms))
                    self.moved = True
                case Decided():
                    self._decide(StoredBlock(action.block, action.certificate))
                    return
                case WantBlock():
                    self._want(action.peer)

    def _emit(self, action: Emit) -> None:
        """Send what the agreement says; a node without a vote stays silent."""
        if not self.readiness.is_validator:
            return
        outbox, round_ = self.desk.outbox, self.agreement.round
        if action.to is not None and action.to != self.desk.me:
            outbox.send(action.to, round_, action.kind, action.body, action.payload)
            return
        if action.to is None:
            statement = outbox.announce(round_, action.kind, action.body, action.payload)
        else:
            statement = outbox.signed(round_, action.kind, action.body)
        match action.body:
            case Proposal():
                self._perform(self.agreement.on_proposal(statement))
            case Vote():
                self._perform(self.agreement.on_vote(statement))
            case Timeout():
                self._perform(self.agreement.on_timeout(statement))
            case _:
                pass
