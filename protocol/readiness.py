"""When a node says Ready, and what a leader makes of the Readys (docs/PROTOCOL.md section 3)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from protocol.certificates import quorum
from protocol.cited import Cited
from protocol.codec import encode
from protocol.compose import compose
from protocol.consensus import Agreement
from protocol.duties.desk import Desk
from protocol.envelope import Statement
from protocol.events import Millis, SetTimer
from protocol.ledger import block as blocks
from protocol.ledger.block import BLOCK_BYTES, Block
from protocol.ledger.chain import Chain
from protocol.ledger.state import Phase
from protocol.messages import Kind, Ready
from protocol.pacing import Pacing
from protocol.progress import (
    COUNTED,
    ONE_MORE,
    Look,
    Progress,
    give_up_ms,
    is_most,
    most,
    soft_deadline_ms,
)
from protocol.round import BlockError, block_effect
from protocol.tally import GAVE_UP, LATE, Tally

PHASES_IN_PARTS = (Phase.CONTRIBUTE, Phase.BALLOT, Phase.RECOVER)
"""Phases in which others wait for a part of what is expected."""


class Readiness:
    """Of one node, for the height that is being agreed on."""

    def __init__(self, desk: Desk, chain: Chain, cited: Cited, agreement: Callable[[], Agreement]) -> None:
        self.desk = desk
        self.chain = chain
        self.cited = cited
        self.progress = Progress(desk)
        self.pacing = Pacing(desk)
        self._agreement = agreement
        self._readys: dict[bytes, Statement] = {}
        self._tally: Tally | None = None
        self._complete = False
        self._counted: frozenset[Kind] = frozenset()
        self._steps = 0

    @property
    def is_validator(self) -> bool:
        return self.desk.state.is_validator(self.desk.me)

    def clear(self) -> None:
        """A new height begins."""
        self._readys, self._tally = {}, None

    # -- saying it -----------------------------------------------------------------------------

    def track(self, now: Millis) -> None:
        """Send Ready when everything expected is here; start the soft deadline when most of it is."""
        clock, look = self.desk.clock, self.progress.look
        if not self.pacing.has_to_say():
            self._complete, self._counted, self._steps = False, COUNTED[look.phase], 0
            return
        have, expected = look.count()
        self._complete, self._counted = have >= expected, COUNTED[look.phase]
        if look.phase in PHASES_IN_PARTS:
            self._track_parts(look, now)
        if self._complete:
            if self.changed():
                self.send()
            return
        if clock.most_since_ms is None and is_most(*look.most_of((have, expected))):
            clock.most_since_ms = now
            elapsed = now - clock.began_ms
            self.desk.outbox.add(SetTimer("soft", soft_deadline_ms(elapsed) - elapsed))
        self._steps = self._steps_left(look, (have, expected))

    def _steps_left(self, look: Look, counted: tuple[int, int]) -> int:
        """How many messages of `ONE_MORE` must come in before `track` could do anything."""
        clock = self.desk.clock
        have, expected = counted
        if look.phase is Phase.SHARE and look.has_complaints:
            return 0
        steps = expected - have
        marks = [] if clock.most_since_ms is not None else [look.most_of(counted)]
        if not clock.witness_set:
            marks.append(look.contributions())
        if not clock.release_set:
            marks.append(look.reveals())
        for held, whole in marks:
            if whole:
                steps = min(steps, most(whole) - held)
        return steps

    def is_concerned(self, kind: Kind, round_: int) -> bool:
        """May a statement of this kind and round, which has come in, change what this node says or does?

        Once it holds what it waits for, any that a Ready speaks of may; before that, only the one that is
        enough.
        """
        if kind not in self._counted:
            return self._complete and kind is Kind.KEY_ADVERT and round_ == self.desk.advert_round
        if self._complete:
            return True
        self._steps -= kind in ONE_MORE
        return self._steps <= 0 or kind not in ONE_MORE

    def _track_parts(self, look: Look, now: Millis) -> None:
        """Soft deadlines inside a phase: for the aggregator's receipts, and for proposers' reveals."""
        clock = self.desk.clock
        elapsed = now - clock.began_ms
        if not clock.witness_set and is_most(*look.contributions()):
            clock.witness_set = True
            self.desk.outbox.add(SetTimer("witness", soft_deadline_ms(elapsed) - elapsed))
        if not clock.release_set and is_most(*look.reveals()):
            clock.release_set = True
            self.desk.outbox.add(SetTimer("release", soft_deadline_ms(elapsed) - elapsed))

    def changed(self) -> bool:
        """Would a Ready say something else now than the last one said?"""
        clock = self.desk.clock
        if clock.ready is None:
            return True
        ready = self.progress.make_ready(clock.height, clock.late)
        return ready is not clock.ready.body and ready != clock.ready.body

    def send(self) -> None:
        """Tell the leader what is held; the view's clock runs from the first time."""
        if not self.is_validator or not self.pacing.has_to_say():
            return
        clock, outbox, agreement = self.desk.clock, self.desk.outbox, self._agreement()
        first = clock.ready is None
        body = self.progress.make_ready(clock.height, clock.late)
        statement = outbox.signed(self.desk.state.round, Kind.READY, body)
        clock.ready = statement
        self.take(statement)
        if agreement.leader != self.desk.me:
            outbox.send_statement(agreement.leader, statement)
        if first:
            outbox.add(SetTimer("view", agreement.timeout_ms()))

    def resend(self) -> None:
        """What the leader may have missed."""
        clock, agreement = self.desk.clock, self._agreement()
        if clock.height != agreement.height or clock.ready is None:
            return
        if self.changed():
            self.send()
        elif agreement.leader != self.desk.me:
            self.desk.outbox.send_statement(agreement.leader, clock.ready)

    def on_late(self, now: Millis) -> None:
        """The hard deadline, and some phase deadlines later the point of giving up."""
        clock = self.desk.clock
        waited = now - clock.began_ms
        give_up = give_up_ms(self.desk.learning.phase, self.desk.rules.params)
        clock.late = GAVE_UP if waited >= give_up else LATE
        self.send()
        if clock.late == LATE:
            self.desk.outbox.add(SetTimer("late", give_up - waited))

    # -- hearing it ----------------------------------------------------------------------------

    def take(self, statement: Statement) -> bool:
        """Keep a validator's latest Ready of this height; True if it says something new."""
        known, validators = self._readys.get(statement.sender), self.desk.state.validators
        if (
            statement.sender not in validators
            or known == statement
            or not _is_lean(statement, len(validators))
        ):
            return False
        self._readys[statement.sender], self._tally = statement, None
        self.cited.remember(statement)
        return True

    @property
    def has_quorum(self) -> bool:
        """Have enough said Ready for a block? With fewer, one more gives a leader nothing to propose."""
        return len(self._readys) >= quorum(len(self.desk.state.validators))

    def _count(self) -> Tally:
        """The Readys at hand, counted again only once there is another."""
        if self._tally is None:
            said = [(peer, s.body) for peer, s in self._readys.items() if isinstance(s.body, Ready)]
            self._tally = Tally(self.desk.state.validators, said)
        return self._tally

    def next_block(self) -> Block | None:
        """The block that this node, as the leader, can put before the others now."""
        if not self.has_quorum or not self._agreement().may_propose_anew or not self.is_validator:
            return None
        state, rules = self.desk.state, self.desk.rules
        body = compose(state, rules, self._count(), self.desk.pool, self.desk.memory.findings)
        if body is None:
            return None
        block = Block(
            height=state.height + 1,
            round=state.round,
            kind=blocks.KIND_OF_BODY[type(body)],
            parent=self.chain.head,
            state_root=bytes(32),
            leader=self.desk.me,
            view=self._agreement().view,
            readys=tuple(statement.cited() for _, statement in sorted(self._readys.items())),
            body=encode(body),
        )
        try:
            after = block_effect(state, block, self.chain.head, rules, self.cited.open)
        except BlockError as error:
            # Others sent what makes no valid block. Another leader may do better, or all give up.
            self.desk.outbox.notify("cannot_propose", why=str(error))
            return None
        block = evolve(block, state_root=after.root)
        if len(block.encoded) > BLOCK_BYTES:
            self.desk.outbox.notify("cannot_propose", why=f"a block above {BLOCK_BYTES} bytes")
            return None
        return block


def _is_lean(statement: Statement, n: int) -> bool:
    """No larger than what it says needs: a leader embeds the Readys of all, and a block has a bound."""
    body = statement.body
    return isinstance(body, Ready) and all(len(entry.bitmap) <= (n + 7) // 8 for entry in body.held)
