"""One node as a function of events: `Engine.handle(event, now) -> effects` (docs/PROTOCOL.md section 1).

The engine owns the chain, the agreement of the next height, the round's duties and repair, and does
no I/O. The same class runs in production, in the tests and in the simulator.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from attrs import evolve

from protocol import durable, keys
from protocol.codec import DecodeError, decode, encode
from protocol.compose import compose, dispute_body
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
from protocol.events import (
    BlobFailed,
    BlobReady,
    CancelJob,
    CancelTimer,
    Command,
    DropBlob,
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
from protocol.keys import Identity
from protocol.ledger import block as blocks
from protocol.ledger.block import Block, BlockKind, StoredBlock, decode_stored_block
from protocol.ledger.chain import Chain, ChainError
from protocol.ledger.state import LedgerState, Phase
from protocol.local import PhaseClock, RoundMemory
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
    Statement,
    StatementRequest,
    Statements,
    Timeout,
    Transaction,
    Vote,
    VoteOpening,
    WireError,
    ZReply,
    ZRequest,
    open_envelope,
)
from protocol.outbox import Outbox
from protocol.params import Genesis
from protocol.pool import Pool
from protocol.progress import (
    GAVE_UP_DEADLINES,
    Progress,
    hard_deadline_ms,
    is_most,
    soft_deadline_ms,
)
from protocol.repair import Repair
from protocol.round import BlockError, Rules, block_effect, evidence_holds
from protocol.secrets import DealerPackage
from protocol.sharing import load_package
from protocol.tally import Tally

OPENED_CACHE = 4096
EARLY_MESSAGES = 64
"""Agreement messages of the next height that are kept from each peer."""
REPAIR_TIMER = "repair"


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
        self.identity = identity
        self.me = identity.peer
        self.genesis = genesis
        self.network = genesis.network
        self.rules = Rules(genesis.params, self.network)
        self.chain = Chain(genesis, self.rules, self.open_cited)
        self.pool = Pool()
        self.outbox = Outbox(identity, self.network, self.pool)
        self.rejects: Counter[str] = Counter()
        self.peers: set[bytes] = set()
        self.entropy = entropy
        self.desk = Desk(
            me=self.me,
            rules=self.rules,
            pool=self.pool,
            outbox=self.outbox,
            entropy=entropy,
            dealer=dealer,
            weight=min(weight, genesis.params.max_weight),
            state_of=lambda: self.chain.state,
        )
        self.progress = Progress(self.desk)
        self.repair = Repair(self.desk, self.outbox, self.stored_block)
        self._blocks: dict[int, bytes] = {}
        self._opened: OrderedDict[bytes, Statement] = OrderedDict()
        self._readys: dict[bytes, Statement] = {}
        self._early: dict[bytes, list[Statement]] = {}
        self._judging: dict[bytes, tuple[int, Block]] = {}
        self._effects_of: dict[bytes, LedgerState] = {}
        self._persisted: dict[str, set[bytes]] = {}
        self._old_blobs: set[bytes] = set()
        self._handlers: dict[Kind, Callable[[bytes, Statement], None]] = self._make_handlers()
        self._now: Millis = 0
        self._dirty = True
        self._last_stale_answer: dict[bytes, Millis] = {}
        self.agreement = self._new_agreement(Safety(1))

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
        data = self._blocks.get(height)
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
                self.desk.fetching.discard(event.digest)
                self.desk.blobs.add(event.digest)
            case BlobFailed():
                # Repair's next tick asks again: whoever cited the blob may have it by then.
                self.desk.fetching.discard(event.digest)
            case PeerUp():
                self.peers.add(event.peer)
                self.repair.tell(event.peer)
            case PeerDown():
                self.peers.discard(event.peer)
            case Command():
                self._command(event.transaction)
        if not isinstance(event, BlobFailed):
            self._advance()
        return self._taken()

    def _taken(self) -> list[Effect]:
        effects = self.outbox.take()
        for effect in effects:
            bucket = getattr(effect, "bucket", None)
            if bucket in (durable.STATEMENT, durable.SECRET, durable.SHARE, durable.OPENING):
                self._persisted.setdefault(bucket, set()).add(getattr(effect, "key", b""))
        return effects

    def _advance(self) -> None:
        """Duties, progress and proposals, until nothing more is due."""
        while True:
            height = self.chain.height
            if self._dirty:
                self._dirty = False
                advance(self.desk)
                self._retry_judging()
                self._track_progress()
                self._try_propose()
            if self.chain.height == height and not self._dirty:
                return

    # -- start ---------------------------------------------------------------------------------

    def _start(self, event: Start) -> None:
        """Take up what survived: the chain, secrets, shares, own statements, and the safety state."""
        records = event.records
        self.desk.blobs = set(event.blobs)
        for key in sorted(records.get(durable.BLOCK, {})):
            data = records[durable.BLOCK][key]
            stored = decode_stored_block(data)
            self.chain.append(stored)
            self._blocks[stored.block.height] = data
        for bucket in (durable.STATEMENT, durable.SECRET, durable.SHARE, durable.OPENING):
            self._persisted[bucket] = set(records.get(bucket, {}))
        for key, seed in sorted(records.get(durable.SECRET, {}).items()):
            self.desk.seeds[durable.round_of_key(key)] = seed
        residual = records.get(durable.RESIDUAL, {}).get(durable.RESIDUAL_KEY)
        if residual is not None:
            self.desk.residual = decode(durable.Residual, residual, 1 << 27)
        self._begin_round()
        self._load_round(event)
        safety = records.get(durable.SAFETY, {}).get(durable.SAFETY_KEY)
        if safety is not None:
            loaded = decode(Safety, safety, durable.RECORD_BYTES)
            if loaded.height == self.chain.height + 1:
                self.agreement = self._new_agreement(loaded)
        self._begin_height()
        self.outbox.add(SetTimer(REPAIR_TIMER, self.genesis.params.repair_interval_ms))
        self.outbox.notify(
            "started", height=self.chain.height, round=self.state.round, peer=keys.peer_name(self.me)
        )

    def _load_round(self, event: Start) -> None:
        memory, round_ = self.desk.memory, self.state.round
        for key, data in sorted(event.records.get(durable.STATEMENT, {}).items()):
            if durable.round_of_key(key) >= round_:
                try:
                    self._admit(open_envelope(data, self.network))
                except WireError as error:
                    self.outbox.notify("damaged_record", bucket=durable.STATEMENT, why=str(error))
        for key, data in sorted(event.records.get(durable.SHARE, {}).items()):
            package = load_package(data)
            if durable.round_of_key(key) == round_ and package is not None:
                memory.packages[key[8:]] = package
        for key, data in sorted(event.records.get(durable.OPENING, {}).items()):
            if durable.round_of_key(key) == round_:
                memory.openings[key[8]] = decode(VoteOpening, data, 128)
        self._recall_zs()

    def _recall_zs(self) -> None:
        """z_i from the share packages that survived, as far as they fit what is pinned."""
        for bundle in self.state.learning.sharers:
            package = self.desk.memory.packages.get(bundle.peer)
            if package is not None:
                share.take_z(self.desk, bundle.peer, package.z, bundle.hash_z)

    # -- rounds and heights --------------------------------------------------------------------

    def _begin_round(self) -> None:
        round_ = self.state.round
        self.desk.memory = RoundMemory(round_)
        roles = self.state.learning.roles
        if roles is not None:
            self.outbox.notify(
                "round",
                round=round_,
                proposers=[keys.peer_name(peer) for peer in roles.proposers],
                voters=[keys.peer_name(peer) for peer in roles.voters],
                aggregator=keys.peer_name(roles.aggregators[0]),
            )

    def _begin_height(self) -> None:
        """A new phase: fresh clock, fresh agreement, hard deadline running."""
        height = self.chain.height + 1
        if self.agreement.height != height:
            self.agreement = self._new_agreement(Safety(height))
        self.desk.clock = PhaseClock(height, self._now)
        self._readys = {}
        self._judging = {}
        self._effects_of = {}
        self._dirty = True
        deadline = hard_deadline_ms(self.state.learning.phase, self.genesis.params)
        self.outbox.add(SetTimer("late", deadline))
        self.outbox.add(CancelTimer("soft"))
        self.outbox.add(CancelTimer("view"))
        if self.state.learning.phase is Phase.CONTRIBUTE:
            self.outbox.add(SetTimer("witness", deadline // 2))
        for peer in sorted(self._early):
            for statement in self._early.pop(peer):
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
            opener=self.open_cited,
            safety=safety,
        )

    def _end_round(self, before: LedgerState) -> None:
        """Forget what was private to the round; keep its blobs one round longer, and the last two models."""
        memory, ended = self.desk.memory, before.round
        self._settle_residual(before)
        for name in sorted(memory.started):
            self.outbox.add(CancelJob(f"{ended}/{name}"))
        keep = {self.state.model_digest, self.state.previous_model_digest}
        for blob in sorted((self._old_blobs - memory.blobs) - keep):
            self.desk.blobs.discard(blob)
            self.outbox.add(DropBlob(blob))
        self._old_blobs = memory.blobs | {before.previous_model_digest}
        for bucket, stored_keys in sorted(self._persisted.items()):
            for key in sorted(k for k in stored_keys if durable.round_of_key(k) <= ended):
                self.outbox.persist(bucket, key, None)
        for bucket in sorted(self._persisted):
            self._persisted[bucket] = {k for k in self._persisted[bucket] if durable.round_of_key(k) > ended}
        for round_ in [r for r in self.desk.seeds if r <= ended]:
            del self.desk.seeds[round_]
        self.pool.forget_before(ended + 1)
        for statement in list(self.pool.transactions()):
            account = self.state.account(statement.sender)
            assert isinstance(statement.body, Transaction)
            if account is None or statement.body.nonce < account.nonce:
                self.pool.forget(statement.slot)

    def _settle_residual(self, before: LedgerState) -> None:
        """What was not sent counts as left over once the contribution is in U2; else nothing changed."""
        result = self.desk.memory.contributed
        if result is None or result.residual is None:
            return
        if any(contribution.peer == self.me for contribution in before.learning.contributors):
            residual = durable.Residual(before.round, result.residual.astype("<f4").tobytes())
            self.desk.residual = residual
            self.outbox.persist(durable.RESIDUAL, durable.RESIDUAL_KEY, encode(residual))

    # -- messages ------------------------------------------------------------------------------

    def open_cited(self, data: bytes) -> Statement:
        """Open an envelope that stands in a block; each is verified once. Raises `WireError`."""
        known = self._opened.get(data)
        if known is not None:
            self._opened.move_to_end(data)
            return known
        statement = open_envelope(data, self.network, stripped=True)
        self._remember(data, statement)
        return statement

    def _remember(self, data: bytes, statement: Statement) -> None:
        self._opened[data] = statement
        if len(self._opened) > OPENED_CACHE:
            self._opened.popitem(last=False)

    def _receive(self, peer: bytes, data: bytes) -> None:
        try:
            statement = open_envelope(data, self.network)
        except WireError as error:
            self._reject(peer, error.reason, str(error))
            return
        self._dispatch(peer, statement)

    def _reject(self, peer: bytes, reason: str, what: str, *, penalise: bool = True) -> None:
        self.rejects[reason] += 1
        self.outbox.notify("rejected", peer=keys.peer_name(peer), reason=reason, what=what)
        if penalise:
            self.outbox.add(Penalise(peer, reason))

    def _dispatch(self, peer: bytes, statement: Statement) -> None:
        if statement.kind in STATEMENT_KINDS:
            self._on_statement(peer, statement)
            return
        if statement.sender != peer:
            self._reject(peer, "relayed", f"{statement.kind.name} of another sender")
            return
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
        reason = self._inadmissible(statement)
        if reason is not None:
            self._reject(peer, reason, statement.kind.name, penalise=reason not in ("stale", "early"))
            return
        if self._admit(statement):
            if statement.kind is Kind.CONTRIBUTION:
                key = durable.round_key(statement.round, statement.id)
                self.outbox.persist(durable.STATEMENT, key, statement.to_bytes())
            self._dirty = True

    def _admit(self, statement: Statement) -> bool:
        """Into the pool; equivocation is noted there. True if it is new."""
        if not self.pool.add(statement):
            return False
        self._remember_cited(statement)
        return True

    def _remember_cited(self, statement: Statement) -> None:
        cited = statement.cited()
        bare = evolve(statement.envelope, payload=b"")
        self._remember(cited, Statement(bare, statement.body, statement.id))

    def _inadmissible(self, statement: Statement) -> str | None:
        """Why a statement is refused; None if it belongs to this round or the next."""
        state, kind = self.state, statement.kind
        if kind is Kind.TRANSACTION:
            account = state.account(statement.sender)
            assert isinstance(statement.body, Transaction)
            if account is None:
                return "stranger"
            if not account.nonce <= statement.body.nonce < account.nonce + 16:
                return "stale"
            return None
        if statement.round < state.round:
            return "stale"
        # A node that is one round ahead may already advertise for the round after its own.
        if statement.round > state.round + 1 + (kind is Kind.KEY_ADVERT):
            return "early"
        if statement.sender not in state.validators:
            return "stranger"
        slot = statement.slot
        if slot.subject and slot.subject not in state.validators:
            return "subject"
        if slot.attempt % 128 >= 16:
            return "attempt"
        if isinstance(statement.body, Contribution):
            if not payload_fits(self.desk, statement):
                return "payload"
        elif kind is Kind.DEALER_EVIDENCE and (
            statement.round != state.round or not evidence_holds(state, self.rules, statement)
        ):
            return "evidence" if state.learning.sharers and statement.round == state.round else "early"
        return None

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
        """Is an agreement message for the next height? Earlier ones are answered, later ones kept a while."""
        if height == self.agreement.height:
            return True
        if height > self.agreement.height:
            self._keep_early(peer, statement)
            if height > self.agreement.height + 1:
                self.outbox.send(
                    peer, self.state.round, Kind.BLOCK_REQUEST, BlockRequest(self.chain.height + 1)
                )
        elif statement.kind is Kind.TIMEOUT:
            last = self._last_stale_answer.get(peer)
            if last is None or self._now - last >= self.genesis.params.repair_interval_ms // 2:
                self._last_stale_answer[peer] = self._now
                self.repair.send_blocks(peer, height)
        return False

    def _keep_early(self, peer: bytes, statement: Statement) -> None:
        kept = self._early.setdefault(peer, [])
        if len(kept) < EARLY_MESSAGES and peer in self.state.validators:
            kept.append(statement)

    def _on_ready(self, peer: bytes, statement: Statement) -> None:
        body = statement.body
        assert isinstance(body, Ready)
        if not self._is_current(peer, statement, body.height) or statement.round != self.state.round:
            return
        known = self._readys.get(peer)
        if peer not in self.state.validators:
            return
        if known is None or (isinstance(known.body, Ready) and known.body.sequence < body.sequence):
            self._readys[peer] = statement
            self._remember_cited(statement)
            self._dirty = True

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

    def _perform(self, actions: list[Action]) -> None:
        """Turn what the agreement asks for into effects; its own messages come back to it at once."""
        for action in actions:
            match action:
                case Save():
                    self.outbox.persist(durable.SAFETY, durable.SAFETY_KEY, encode(action.safety))
                case Emit():
                    self._emit(action)
                case Judge():
                    self._judging[action.block.hash] = (action.view, action.block)
                    self._dirty = True
                case EnteredView():
                    self._entered_view(action)
                case Decided():
                    self._decided(StoredBlock(action.block, action.certificate))
                    return
                case WantBlock():
                    self.outbox.send(
                        action.peer,
                        self.state.round,
                        Kind.BLOCK_REQUEST,
                        BlockRequest(self.chain.height + 1),
                    )

    def _emit(self, action: Emit) -> None:
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

    def _entered_view(self, action: EnteredView) -> None:
        self.outbox.add(SetTimer("view", action.timeout_ms))
        self.outbox.notify("view", height=self.agreement.height, view=action.view)
        self._send_ready()
        self._dirty = True

    def _decided(self, stored: StoredBlock) -> None:
        """A block is final: write it down, move the state on, begin the next phase."""
        before, block = self.state, stored.block
        try:
            self.chain.append(stored, self._effects_of.get(block.hash))
        except ChainError as error:
            # A certified block that breaks a rule: more than 1/3 are faulty, or this node runs other rules.
            self.outbox.notify("fatal", why=str(error))
            return
        data = encode(stored)
        self._blocks[block.height] = data
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
            self._end_round(before)
            self._begin_round()
            self._notify_outcome(before)
        elif block.kind is BlockKind.OPEN:
            self._begin_round()
        if block.kind is BlockKind.SETUP:
            self._recall_zs()
        self._begin_height()

    def _notify_outcome(self, before: LedgerState) -> None:
        after = self.state
        changed = {
            keys.peer_name(peer): account.stake_units - old.stake_units
            for peer, account in after.accounts
            if (old := before.account(peer)) is not None and old.stake_units != account.stake_units
        }
        self.outbox.notify("settled", round=before.round, changed_units=changed)
        if after.model_digest != before.model_digest:
            self.outbox.notify("model", round=before.round, digest=after.model_digest.hex())

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
                self._take_ballot(body)
            case _:
                pass
        for data in cited:
            statement = self.open_cited(data)
            if self.pool.by_id(statement.id) is None:
                self.pool.replace_by_cited(statement.slot, statement)

    def _take_ballot(self, body: blocks.BallotBody) -> None:
        findings = self.desk.memory.findings
        if body.zs:
            findings.zs = body.zs
        for bundle, seed in zip(self.state.learning.sharers, body.check_seeds, strict=False):
            if any(seed):
                findings.check_seeds[bundle.peer] = seed

    # -- judging proposals ---------------------------------------------------------------------

    def _retry_judging(self) -> None:
        for block_hash in sorted(self._judging):
            if block_hash not in self._judging:
                continue
            view, block = self._judging[block_hash]
            if view < self.agreement.view:
                del self._judging[block_hash]
            elif self._is_valid(block) and self._vouches_for(block):
                del self._judging[block_hash]
                self._perform(self.agreement.judged(view, block_hash))

    def _is_valid(self, block: Block) -> bool:
        """By its content; an invalid one is forgotten and its leader reported."""
        if block.hash in self._effects_of:
            return True
        try:
            self._effects_of[block.hash] = self.chain.effect(block)
        except BlockError as error:
            self._judging.pop(block.hash, None)
            self._reject(block.leader, "block", str(error))
            return False
        return True

    def _vouches_for(self, block: Block) -> bool:
        """Does this node's own work agree with what the block says of blobs? False: not yet, or no."""
        body = blocks.decode_body(block)
        findings = self.desk.memory.findings
        match body:
            case blocks.ContributionBody():
                return self._holds_contributions(block, body)
            case blocks.BallotBody() if not self.state.learning.ballot:
                self._learn_from_ballot(body)
                advance(self.desk)
                verified = findings.verified
                return (
                    verified is not None
                    and int(verified.verdict) == body.verdict
                    and verified.model_digest == body.candidate
                )
            case blocks.DisputeBody() if not body.missing:
                return findings.dispute is not None and dispute_body(self.state, findings.dispute) == body
            case _:
                return True

    def _learn_from_ballot(self, body: blocks.BallotBody) -> None:
        """The block's content is checked already: its seeds and zs fit what was pinned."""
        findings = self.desk.memory.findings
        findings.zs = findings.zs or body.zs
        for bundle, seed in zip(self.state.learning.sharers, body.check_seeds, strict=True):
            if any(seed):
                findings.check_seeds.setdefault(bundle.peer, seed)

    def _holds_contributions(self, block: Block, body: blocks.ContributionBody) -> bool:
        """Commitments must be at hand before they are pinned; what is missing is fetched from the leader."""
        missing = []
        for data in body.contributions:
            cited = self.open_cited(data)
            held = self.pool.by_id(cited.id)
            if held is None or not held.envelope.payload:
                missing.append(cited.id)
        if missing and block.leader != self.me:
            self.repair.request_statements(block.leader, tuple(missing))
        return not missing

    # -- readiness and proposing ---------------------------------------------------------------

    def _track_progress(self) -> None:
        """Send Ready when everything expected is here; start the soft deadline when most of it is."""
        clock = self.desk.clock
        have, expected = self.progress.count()
        if have >= expected:
            if clock.ready is None or self._ready_changed():
                self._send_ready()
        elif clock.most_since_ms is None and is_most(have, expected):
            clock.most_since_ms = self._now
            elapsed = self._now - clock.began_ms
            self.outbox.add(SetTimer("soft", soft_deadline_ms(elapsed) - elapsed))

    def _ready_changed(self) -> bool:
        clock = self.desk.clock
        return (self.progress.held(), clock.late) != clock.ready_content

    def _send_ready(self) -> None:
        """Tell the leader what is held; the view's clock runs from here."""
        if self.me not in self.state.validators:
            return
        clock, first = self.desk.clock, self.desk.clock.ready is None
        clock.sequence += 1
        # Wall-clock free and monotonic over restarts: a later life of this node starts above its former ones.
        sequence = min(1 << 32, self._now // 10 + clock.sequence)
        body = self.progress.make_ready(clock.height, sequence, clock.late)
        statement = self.outbox.signed(self.state.round, Kind.READY, body)
        clock.ready, clock.ready_content = statement, (self.progress.held(), clock.late)
        self._remember_cited(statement)
        self._readys[self.me] = statement
        leader = self.agreement.leader
        if leader != self.me:
            self.outbox.send_statement(leader, statement)
        if first and self.agreement.view == 1:
            self.outbox.add(SetTimer("view", self.agreement.timeout_ms()))
        self._dirty = True

    def _try_propose(self) -> None:
        """As the leader: put the block before the others that the Readys call for."""
        if not self.agreement.may_propose_anew or self.me not in self.state.validators:
            return
        readys = [
            (peer, statement.body)
            for peer, statement in sorted(self._readys.items())
            if isinstance(statement.body, Ready)
        ]
        tally = Tally(self.state.validators, readys)
        body = compose(self.state, self.rules, tally, self.pool, self.desk.memory.findings)
        if body is None:
            return
        block = Block(
            height=self.chain.height + 1,
            round=self.state.round,
            kind=blocks.KIND_OF_BODY[type(body)],
            parent=self.chain.head,
            state_root=bytes(32),
            leader=self.me,
            view=self.agreement.view,
            readys=tuple(self._readys[peer].cited() for peer in sorted(self._readys)),
            body=encode(body),
        )
        after = block_effect(self.state, block, self.chain.head, self.rules, self.open_cited)
        block = evolve(block, state_root=after.root)
        self._effects_of[block.hash] = after
        self._perform(self.agreement.propose(block, encode(block)))

    # -- timers --------------------------------------------------------------------------------

    def _on_timer(self, key: str) -> None:
        clock = self.desk.clock
        self._dirty = True
        match key:
            case "repair":
                self._on_repair_timer()
            case "soft":
                clock.soft_passed = True
                self._send_ready()
            case "late":
                self._on_late()
            case "witness":
                clock.witness = True
            case "view":
                self._perform(self.agreement.on_view_timer(self.agreement.view))
            case _:
                self.outbox.notify("unknown_timer", key=key)

    def _on_late(self) -> None:
        """The hard deadline, and, many of them later, the point of giving up."""
        clock, params = self.desk.clock, self.genesis.params
        deadline = hard_deadline_ms(self.state.learning.phase, params)
        waited = self._now - clock.began_ms
        clock.late = 2 if waited >= GAVE_UP_DEADLINES * deadline else 1
        self._send_ready()
        if clock.late == 1:
            self.outbox.add(SetTimer("late", max(1, GAVE_UP_DEADLINES * deadline - waited)))

    def _on_repair_timer(self) -> None:
        self.outbox.add(SetTimer(REPAIR_TIMER, self.genesis.params.repair_interval_ms))
        peers = [peer for peer in sorted(self.peers) if peer in dict(self.state.accounts)]
        self.repair.tell_some(peers, self._draw)
        zs.ask_for_zs(self.desk)
        missing = check.missing_contributions(self.desk)
        if missing and peers:
            self.repair.request_statements(peers[self._draw(len(peers))], missing)
        clock = self.desk.clock
        if self._now - clock.began_ms < self.genesis.params.repair_interval_ms:
            return
        self._perform(self.agreement.resend())
        if clock.height == self.agreement.height and clock.ready is not None:
            if self._ready_changed():
                self._send_ready()
            elif self.agreement.leader != self.me:
                self.outbox.send_statement(self.agreement.leader, clock.ready)

    def _draw(self, n: int) -> int:
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
        if held is None or held.envelope.payload or not statement.envelope.payload:
            return
        if isinstance(statement.body, Contribution) and payload_fits(self.desk, statement):
            self.pool.replace_by_cited(statement.slot, statement)
            key = durable.round_key(statement.round, statement.id)
            self.outbox.persist(durable.STATEMENT, key, statement.to_bytes())
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
        for data in statement.body.blocks:
            try:
                stored = decode_stored_block(data)
                if stored.block.height != self.chain.height + 1:
                    continue
                self.chain.check_certificate(stored)
                self._effects_of[stored.block.hash] = self.chain.effect(stored.block)
            except (DecodeError, ChainError, BlockError) as error:
                self._reject(peer, "block", str(error))
                return
            self._decided(stored)
        if statement.body.blocks and self.chain.height > 0:
            last = decode_stored_block(statement.body.blocks[-1]).block.height
            if last == self.chain.height and len(statement.body.blocks) > 1:
                self.outbox.send(
                    peer, self.state.round, Kind.BLOCK_REQUEST, BlockRequest(self.chain.height + 1)
                )

    def _command(self, data: bytes) -> None:
        """Sign and spread the operator's transaction."""
        try:
            transaction = decode(Transaction, data, 128)
        except DecodeError as error:
            self.outbox.notify("bad_command", why=str(error))
            return
        self.outbox.publish(self.state.round, Kind.TRANSACTION, transaction)
