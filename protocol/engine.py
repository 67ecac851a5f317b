"""One node as a function of events: `Engine.handle(event, now) -> effects` (docs/PROTOCOL.md section 1).

The engine owns the chain, the agreement of the next height, the round's duties and repair, and does
no I/O. The same class runs in production, in the tests and in the simulator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from protocol import durable, keys
from protocol.admission import HARMLESS, inadmissible
from protocol.cited import Cited
from protocol.codec import DecodeError, decode, encode
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
)
from protocol.duties import check, results, share, zs
from protocol.duties.advance import advance
from protocol.duties.contribute import payload_fits
from protocol.duties.desk import Desk
from protocol.envelope import Statement, WireError, open_envelope
from protocol.events import (
    BlobFailed,
    BlobReady,
    CancelTimer,
    Command,
    Effect,
    Event,
    JobDone,
    JobFailed,
    Millis,
    PeerDown,
    PeerUp,
    Penalise,
    Received,
    SetTimer,
    Start,
    TimerFired,
)
from protocol.judging import Judging
from protocol.keys import Identity
from protocol.ledger import block as blocks
from protocol.ledger.block import Block, BlockKind, StoredBlock, decode_stored_block
from protocol.ledger.chain import Chain, ChainError
from protocol.ledger.state import LedgerState, Phase
from protocol.lifecycle import Lifecycle
from protocol.local import PhaseClock
from protocol.messages import (
    STATEMENT_KINDS,
    BlockRequest,
    Blocks,
    CertificateNotice,
    Contribution,
    Have,
    Kind,
    Proposal,
    Ready,
    SealedShares,
    StatementRequest,
    Statements,
    Timeout,
    Transaction,
    Vote,
    ZReply,
    ZRequest,
)
from protocol.outbox import Outbox
from protocol.params import Genesis
from protocol.pinning import Rules
from protocol.pool import Pool
from protocol.progress import hard_deadline_ms
from protocol.readiness import Readiness
from protocol.repair import Repair
from protocol.round import BlockError
from protocol.secrets import DealerPackage

EARLY_MESSAGES = 64
"""Agreement messages of the next height that are kept from each peer."""


class Engine:
    """One node. `entropy(n)` gives n random bytes; `weight` is the node's public sample count w_i."""

    def __init__(
        self,
        identity: Identity,
        genesis: Genesis,
        entropy: Callable[[int], bytes],
        dealer: DealerPackage | None = None,
        weight: int = 1,
    ) -> None:
        self.me = identity.peer
        self.genesis = genesis
        self.network = genesis.network
        self.entropy = entropy
        self.rejects: Counter[str] = Counter()
        self.peers: set[bytes] = set()
        self.cited = Cited(self.network)
        self.pool = Pool()
        self.outbox = Outbox(identity, self.network, self.pool)
        rules = Rules(genesis.params, self.network)
        self.chain = Chain(genesis, rules, self.cited.open)
        self.desk = Desk(
            me=self.me,
            rules=rules,
            pool=self.pool,
            outbox=self.outbox,
            entropy=entropy,
            dealer=dealer,
            weight=min(weight, genesis.params.max_weight),
            state_of=lambda: self.chain.state,
        )
        self.lifecycle = Lifecycle(self.chain, self.desk, self.cited)
        self.repair = Repair(self.desk, self.outbox, self.stored_block)
        self.judging = Judging(self.chain, self.desk, self.repair, self.cited)
        self.agreement = self._new_agreement(Safety(1))
        self.readiness = Readiness(self.desk, self.chain, self.cited, lambda: self.agreement)
        self._handlers = self._make_handlers()
        self._early: dict[bytes, list[Statement]] = {}
        self._answered_ms: dict[bytes, Millis] = {}
        self._now: Millis = 0
        self._dirty = True

    # -- views for observers -------------------------------------------------------------------

    @property
    def state(self) -> LedgerState:
        """After the last final block."""
        return self.chain.state

    @property
    def height(self) -> int:
        return self.chain.height

    @property
    def head(self) -> bytes:
        return self.chain.head

    def stored_block(self, height: int) -> StoredBlock | None:
        data = self.lifecycle.blocks.get(height)
        return None if data is None else decode_stored_block(data)

    # -- events --------------------------------------------------------------------------------

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        """The effects of one event, to be performed in this order."""
        self._now = now
        match event:
            case Start():
                self._start(event)
            case Received():
                self._receive(event.peer, event.data)
            case TimerFired():
                self._on_timer(event.key)
            case JobDone():
                self._dirty = True
                results.on_job(self.desk, event)
            case JobFailed():
                self._dirty = True
                results.on_job_failed(self.desk, event.key, event.why)
            case BlobReady():
                self._dirty = True
                self.desk.take_blob(event.digest)
            case BlobFailed():
                self._dirty = True
                self.desk.miss_blob(event.digest)
            case PeerUp():
                self.peers.add(event.peer)
                self.repair.tell(event.peer)
            case PeerDown():
                self.peers.discard(event.peer)
            case Command():
                self._command(event.transaction)
        self._note_conflicts()
        self._advance()
        effects = self.outbox.take()
        self.lifecycle.note(effects)
        return effects

    def _note_conflicts(self) -> None:
        """Votes and proposals that contradict each other are evidence like statements."""
        for first, second in self.agreement.conflicts:
            self.pool.note_conflict(first, second)
        self.agreement.conflicts.clear()

    def _advance(self) -> None:
        """Duties, judgements, progress and proposals, until nothing more is due."""
        while self._dirty:
            self._dirty = False
            advance(self.desk)
            for view, block_hash in self.judging.vouched(self.agreement.view, self._on_invalid_block):
                self._perform(self.agreement.judged(view, block_hash))
            self._dirty |= self.judging.learned | self.readiness.track(self._now)
            self.judging.learned = False
            block = self.readiness.next_block()
            if block is not None:
                self._perform(self.agreement.propose(block, encode(block)))

    def _start(self, event: Start) -> None:
        """Take up what survived: the chain, secrets, shares, own statements, and the safety state."""
        self.lifecycle.load_chain(event.records)
        self.lifecycle.load_secrets(event.records, event.blobs)
        self.lifecycle.begin_round()
        self.lifecycle.load_round(event.records)
        safety = self.lifecycle.load_safety(event.records)
        self.agreement = self._new_agreement(safety or Safety(self.chain.height + 1))
        self._begin_height()
        self.outbox.add(SetTimer("repair", self.genesis.params.repair_interval_ms))
        self.outbox.notify(
            "started", height=self.chain.height, round=self.state.round, peer=keys.peer_name(self.me)
        )

    def _begin_height(self) -> None:
        """A new phase: fresh clock, fresh agreement, hard deadline running."""
        height = self.chain.height + 1
        if self.agreement.height != height:
            self.agreement = self._new_agreement(Safety(height))
        self.desk.clock = PhaseClock(height, self._now)
        self.readiness.clear()
        self.judging.clear()
        self._dirty = True
        deadline = hard_deadline_ms(self.state.learning.phase, self.genesis.params)
        self.outbox.add(SetTimer("late", deadline))
        self.outbox.add(CancelTimer("soft"))
        self.outbox.add(CancelTimer("view"))
        self.outbox.add(CancelTimer("witness"))
        self.outbox.add(CancelTimer("release"))
        # Taken out first: one of them may decide this very height.
        early, self._early = self._early, {}
        for peer in sorted(early):
            for statement in early[peer]:
                self._dispatch(peer, statement)

    def _new_agreement(self, safety: Safety) -> Agreement:
        state, params = self.chain.state, self.genesis.params
        adverts = tuple(a.peer for a in state.learning.adverts if a.peer in state.validators)
        return Agreement(
            me=self.me,
            network=self.network,
            round=state.round,
            validators=state.validators,
            order=adverts or state.validators,
            base_ms=params.view_timeout_ms,
            cap_ms=params.max_view_timeout_ms,
            opener=self.cited.open,
            safety=safety,
        )

    # -- messages ------------------------------------------------------------------------------

    def _receive(self, peer: bytes, data: bytes) -> None:
        try:
            statement = open_envelope(data, self.network)
        except WireError as error:
            self._reject(peer, error.reason, str(error))
            return
        self._dispatch(peer, statement)

    def _reject(self, peer: bytes, reason: str, what: str) -> None:
        """Count it; unless an honest peer may send it too, report it."""
        self.rejects[reason] += 1
        if reason not in HARMLESS:
            self.outbox.notify("rejected", peer=keys.peer_name(peer), reason=reason, what=what)
            self.outbox.add(Penalise(peer, reason))

    def _dispatch(self, peer: bytes, statement: Statement) -> None:
        if statement.kind in STATEMENT_KINDS:
            self._on_statement(peer, statement)
        elif statement.sender != peer:
            self._reject(peer, "relayed", f"{statement.kind.name} of another sender")
        else:
            self._handlers[statement.kind](peer, statement)

    def _make_handlers(self) -> dict[Kind, Callable[[bytes, Statement], None]]:
        return {
            Kind.SEALED_SHARES: self._on_sealed_shares,
            Kind.Z_REQUEST: self._on_z_request,
            Kind.Z_REPLY: self._on_z_reply,
            Kind.READY: self._on_ready,
            Kind.PROPOSAL: self._on_proposal,
            Kind.VOTE: self._on_vote,
            Kind.CERTIFICATE: self._on_certificate,
            Kind.TIMEOUT: self._on_timeout,
            Kind.HAVE: self._on_have,
            Kind.STATEMENTS: self._on_statements,
            Kind.BLOCK_REQUEST: self._on_block_request,
            Kind.BLOCKS: self._on_blocks,
            Kind.STATEMENT_REQUEST: self._on_statement_request,
        }

    def _on_statement(self, peer: bytes, statement: Statement) -> None:
        reason = inadmissible(self.desk, statement)
        if reason is not None:
            self._reject(peer, reason, statement.kind.name)
            return
        new = self.pool.get_slot(statement.slot) is None
        if not self.pool.add(statement):
            return
        self.cited.remember(statement)
        if not new:
            self.outbox.notify(
                "equivocation", peer=keys.peer_name(statement.sender), kind=statement.kind.name
            )
        if statement.kind is Kind.CONTRIBUTION:
            self._keep_contribution(statement)
        self._dirty = True

    def _keep_contribution(self, statement: Statement) -> None:
        """Its commitment is needed until the round is verified, and nobody else may have it by then."""
        key = durable.round_key(statement.round, statement.id)
        self.outbox.persist(durable.STATEMENT, key, statement.to_bytes())

    def _on_sealed_shares(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, SealedShares)
        if statement.round == self.state.round and self.state.learning.phase is Phase.SHARE:
            share.on_box(self.desk, peer, statement.body.box)
            self._dirty = True
        elif statement.round == self.state.round + 1 or self.state.learning.phase is Phase.ADVERT:
            self._keep_early(peer, statement)

    def _on_z_request(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, ZRequest)
        if statement.round == self.state.round:
            zs.on_z_request(self.desk, peer, statement.body)

    def _on_z_reply(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, ZReply)
        if statement.round == self.state.round:
            zs.on_z_reply(self.desk, peer, statement.body)
            self._dirty = True

    # -- agreement -----------------------------------------------------------------------------

    def _is_current(self, peer: bytes, statement: Statement, height: int) -> bool:
        """Is it of the height that is agreed on? Earlier ones are answered, later ones kept a while."""
        if height == self.agreement.height:
            return True
        if height > self.agreement.height:
            self._keep_early(peer, statement)
            if height > self.agreement.height + 1:
                self._request_blocks(peer)
        elif statement.kind is Kind.TIMEOUT:
            last = self._answered_ms.get(peer)
            if last is None or self._now - last >= self.genesis.params.repair_interval_ms // 2:
                self._answered_ms[peer] = self._now
                self.repair.send_blocks(peer, height)
        return False

    def _keep_early(self, peer: bytes, statement: Statement) -> None:
        kept = self._early.setdefault(peer, [])
        if len(kept) < EARLY_MESSAGES and peer in self.state.validators:
            kept.append(statement)

    def _request_blocks(self, peer: bytes) -> None:
        request = BlockRequest(self.chain.height + 1)
        self.outbox.send(peer, self.state.round, Kind.BLOCK_REQUEST, request)

    def _on_ready(self, peer: bytes, statement: Statement) -> None:
        body = statement.body
        assert isinstance(body, Ready)
        if self._is_current(peer, statement, body.height) and statement.round == self.state.round:
            self._dirty |= self.readiness.take(statement)

    def _on_proposal(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Proposal)
        if self._is_current(peer, statement, statement.body.height):
            self._guarded(peer, lambda: self.agreement.on_proposal(statement))

    def _on_vote(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Vote)
        if self._is_current(peer, statement, statement.body.height):
            self._perform(self.agreement.on_vote(statement))

    def _on_certificate(self, peer: bytes, statement: Statement) -> None:
        body = statement.body
        assert isinstance(body, CertificateNotice)
        if self._is_current(peer, statement, body.certificate.vote.height):
            self._guarded(peer, lambda: self.agreement.on_certificate(body.certificate, peer))

    def _on_timeout(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Timeout)
        if self._is_current(peer, statement, statement.body.height):
            self._guarded(peer, lambda: self.agreement.on_timeout(statement))

    def _guarded(self, peer: bytes, step: Callable[[], list[Action]]) -> None:
        try:
            actions = step()
        except (ProposalError, DecodeError) as error:
            self._reject(peer, "agreement", str(error))
            return
        self._perform(actions)

    def _on_invalid_block(self, block: Block, error: BlockError) -> None:
        self._reject(block.leader, "block", str(error))

    def _perform(self, actions: list[Action]) -> None:
        """Turn what the agreement asks for into effects; its own messages come back to it at once."""
        for action in actions:
            match action:
                case Save():
                    self.outbox.persist(durable.SAFETY, durable.SAFETY_KEY, encode(action.safety))
                case Emit():
                    self._emit(action)
                case Judge():
                    self.judging.add(action.view, action.block)
                    self._dirty = True
                case EnteredView():
                    self.outbox.notify("view", height=self.agreement.height, view=action.view)
                    self.readiness.send()
                    self.outbox.add(SetTimer("view", action.timeout_ms))
                    self._dirty = True
                case Decided():
                    self._decided(StoredBlock(action.block, action.certificate))
                    return
                case WantBlock():
                    self._request_blocks(action.peer)

    def _emit(self, action: Emit) -> None:
        """Send what the agreement says; a node without a vote stays silent."""
        if not self.readiness.is_validator:
            return
        round_ = self.agreement.round
        if action.to is not None and action.to != self.me:
            self.outbox.send(action.to, round_, action.kind, action.body, action.payload)
            return
        if action.to is None:
            statement = self.outbox.announce(round_, action.kind, action.body, action.payload)
        else:
            statement = self.outbox.signed(round_, action.kind, action.body)
        match action.body:
            case Proposal():
                self._perform(self.agreement.on_proposal(statement))
            case Vote():
                self._perform(self.agreement.on_vote(statement))
            case Timeout():
                self._perform(self.agreement.on_timeout(statement))
            case _:
                pass

    def _decided(self, stored: StoredBlock) -> None:
        """A certified block is final: write it down, move the state on, begin the next phase."""
        before, block = self.state, stored.block
        try:
            self.chain.take(block, self.judging.effect(block))
        except BlockError as error:
            # A certified block that breaks a rule: more than 1/3 are faulty, or this node runs other rules.
            self.outbox.notify("fatal", why=str(error))
            return
        data = encode(stored)
        self.lifecycle.blocks[block.height] = data
        self.outbox.persist(durable.BLOCK, durable.height_key(block.height), data)
        self._take_cited(block)
        self.outbox.notify(
            "block",
            height=block.height,
            round=block.round,
            kind=block.kind.name,
            view=stored.certificate.vote.view,
            hash=block.hash.hex(),
            leader=keys.peer_name(block.leader),
            phase=self.state.learning.phase.name,
        )
        if self.state.round != before.round:
            self.lifecycle.end_round(before)
            self.lifecycle.begin_round()
        elif block.kind is BlockKind.OPEN:
            self.lifecycle.begin_round()
        elif block.kind is BlockKind.SETUP:
            self.lifecycle.recall_zs()
        self._begin_height()

    def _take_cited(self, block: Block) -> None:
        """Statements that a final block pins are held from now on, in place of others of their slots."""
        body = blocks.decode_body(block)
        cited: tuple[bytes, ...] = ()
        match body:
            case blocks.SetupBody():
                cited = body.bundles
            case blocks.ContributionBody():
                cited = (*body.contributions, *body.receipts)
            case blocks.AggregateBody():
                cited = (body.claim,)
            case blocks.BallotBody():
                cited = body.sealed_votes
                check.take_ballot(self.desk, body)
            case _:
                pass
        for data in cited:
            statement = self.cited.open(data)
            if self.pool.by_id(statement.id) is None:
                self.pool.replace_by_cited(statement.slot, statement)

    # -- timers --------------------------------------------------------------------------------

    def _on_timer(self, key: str) -> None:
        self._dirty = True
        match key:
            case "repair":
                self._on_repair_timer()
            case "soft":
                self.readiness.send()
            case "late":
                self.readiness.on_late(self._now)
            case "release":
                self.desk.clock.release = True
            case "witness":
                self.desk.clock.witness = True
            case "view":
                self._perform(self.agreement.on_view_timer(self.agreement.view))
            case _:
                self.outbox.notify("unknown_timer", key=key)

    def _on_repair_timer(self) -> None:
        interval_ms = self.genesis.params.repair_interval_ms
        self.outbox.add(SetTimer("repair", interval_ms))
        peers = sorted(self.peers & {peer for peer, _ in self.state.accounts})
        self.repair.tell_some(peers, self._draw)
        self.desk.retry_blobs()
        zs.ask_for_zs(self.desk)
        missing = check.missing_contributions(self.desk)
        if missing and peers:
            self.repair.request_statements(peers[self._draw(len(peers))], missing)
        if self._now - self.desk.clock.began_ms >= interval_ms:
            self._perform(self.agreement.resend())
            self.readiness.resend()

    def _draw(self, n: int) -> int:
        """A number below n."""
        return int.from_bytes(self.entropy(8), "big") % n

    # -- repair and sync -----------------------------------------------------------------------

    def _on_have(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Have)
        self.repair.on_have(peer, statement.round, statement.body)

    def _on_statements(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Statements)
        for data in statement.body.envelopes:
            try:
                inner = open_envelope(data, self.network)
            except WireError as error:
                self._reject(peer, error.reason, str(error))
                return
            if inner.kind not in STATEMENT_KINDS:
                self._reject(peer, "relayed", inner.kind.name)
                return
            self._take_missing_payload(inner)
            self._on_statement(peer, inner)

    def _take_missing_payload(self, statement: Statement) -> None:
        """A pinned contribution that is held without its commitment gets it now."""
        held = self.pool.by_id(statement.id)
        if held is None or held.envelope.payload or not isinstance(statement.body, Contribution):
            return
        if payload_fits(self.desk, statement):
            self.pool.replace_by_cited(statement.slot, statement)
            self._keep_contribution(statement)
            self._dirty = True

    def _on_block_request(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, BlockRequest)
        self.repair.on_block_request(peer, statement.body)

    def _on_statement_request(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, StatementRequest)
        self.repair.on_statement_request(peer, statement.body)

    def _on_blocks(self, peer: bytes, statement: Statement) -> None:
        """Catch up: every block is checked against its certificate and the rules before it counts."""
        assert isinstance(statement.body, Blocks)
        taken = 0
        for data in statement.body.blocks:
            try:
                stored = decode_stored_block(data)
                if stored.block.height != self.chain.height + 1:
                    continue
                self.chain.check_certificate(stored)
                self.judging.effect(stored.block)
            except (DecodeError, ChainError, BlockError) as error:
                self._reject(peer, "block", str(error))
                return
            self._decided(stored)
            taken += 1
        if taken > 1:
            self._request_blocks(peer)

    # -- commands ------------------------------------------------------------------------------

    def _command(self, data: bytes) -> None:
        """Sign and spread the operator's transaction."""
        try:
            transaction = decode(Transaction, data, 128)
        except DecodeError as error:
            self.outbox.notify("bad_command", why=str(error))
            return
        self.outbox.publish(0, Kind.TRANSACTION, transaction)
        self._dirty = True
