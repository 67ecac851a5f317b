"""One node as a function of events: `Engine.handle(event, now) -> effects` (docs/PROTOCOL.md section 1).

The engine owns the chain, the agreement of the next height, the round's duties and repair, and does
no I/O. The same class runs in production, in the tests and in the simulator.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from attrs import define

from protocol import durable, keys, sync
from protocol.checks import Checks
from protocol.cited import Cited
from protocol.codec import DecodeError
from protocol.consensus import Agreement, Safety
from protocol.duties import check, results, share, zs
from protocol.duties.advance import advance, looked_at, makes_due
from protocol.duties.contribute import payload_fits
from protocol.duties.desk import Desk
from protocol.envelope import Statement, WireError
from protocol.events import (
    BlobFailed,
    BlobReady,
    BlocksRead,
    CancelTimer,
    Command,
    Effect,
    Event,
    JobDone,
    JobFailed,
    Millis,
    PeerDown,
    PeerUp,
    Received,
    SetTimer,
    Start,
    TimerFired,
)
from protocol.judging import Judging
from protocol.keys import Identity
from protocol.ledger import block as blocks
from protocol.ledger.block import Block, BlockKind, StoredBlock, decode_stored_block, encode_stored_block
from protocol.ledger.chain import Chain, ChainError
from protocol.ledger.state import LedgerState, Phase
from protocol.lifecycle import Lifecycle
from protocol.local import PhaseClock
from protocol.messages import (
    STATEMENT_KINDS,
    BlockRequest,
    Blocks,
    Contribution,
    Have,
    Kind,
    SealedShares,
    StatementRequest,
    Statements,
    ZReply,
    ZRequest,
)
from protocol.negotiation import Negotiation
from protocol.offences import FOREIGN, HARMLESS
from protocol.orders import Orders
from protocol.outbox import Outbox
from protocol.pacing import waits_for_transactions
from protocol.params import Genesis
from protocol.pinning import Rules
from protocol.pool import Pool
from protocol.progress import hard_deadline_ms
from protocol.repair import Repair
from protocol.reporting import Reporting
from protocol.round import BlockError, transactions_applied
from protocol.secrets import DealerPackage
from protocol.sync import Serving, Sync


@define
class _Reply:
    """Blocks of a peer that are to be checked and applied, a few in each event; `taken`: so many were."""

    peer: bytes
    sizes: tuple[int, ...]
    blocks: deque[bytes]
    taken: int = 0


class Engine:
    """One node. `entropy(n)` gives n random bytes; `weight` is the node's public sample count w_i.

    `checks` may be shared with other nodes (`protocol.checks`).
    """

    def __init__(
        self,
        identity: Identity,
        genesis: Genesis,
        entropy: Callable[[int], bytes],
        dealer: DealerPackage | None = None,
        weight: int = 1,
        checks: Checks | None = None,
    ) -> None:
        self.me = identity.peer
        self.genesis = genesis
        self.network = genesis.network
        self.entropy = entropy
        self.rejects: Counter[str] = Counter()
        self.peers: set[bytes] = set()
        self.checks = checks or Checks()
        self.cited = Cited(self.network, self.checks)
        self.pool = Pool()
        self.outbox = Outbox(identity, self.network, self.pool, self.checks.note_signed)
        rules = Rules(genesis.params, self.network)
        self.chain = Chain(genesis, rules, self.cited.open, self.checks)
        self.desk = Desk(
            me=self.me,
            rules=rules,
            pool=self.pool,
            outbox=self.outbox,
            entropy=entropy,
            dealer=dealer,
            weight=min(weight, genesis.params.max_weight),
            chain=self.chain,
            checks=self.checks,
        )
        self.reporting = Reporting(self.desk)
        self._samples = weight
        self.lifecycle = Lifecycle(self.chain, self.desk, self.cited)
        interval_ms = genesis.params.repair_interval_ms
        self.sync = Sync(self.outbox, lambda: self.chain.state, interval_ms, self._draw)
        self.serving = Serving(self.outbox, lambda: self.chain.state, interval_ms)
        self.repair = Repair(self.desk, self.outbox, self.sync)
        self.orders = Orders(self.desk, self.lifecycle.forget_transactions)
        self.judging = Judging(self.chain, self.desk, self.repair, self.cited)
        self.negotiation = Negotiation(
            self.desk,
            self.cited,
            self.judging,
            self.repair,
            self.sync,
            decide=self._decided,
            reject=self._reject,
            want=lambda peer: self.sync.heard(peer, self.agreement.height, self._now),
            checks=self.checks,
        )
        self.pacing = self.negotiation.readiness.pacing
        self._handlers = self._make_handlers()
        self._replies: deque[_Reply] = deque()
        self._now: Millis = 0
        self._look = True
        """Something happened: see whether the agreement can go on."""
        self._due = True
        """And whether a duty is due."""
        self._looked_at: frozenset[Kind] = frozenset()
        """The kinds of statements that duties of this height look at."""

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

    @property
    def agreement(self) -> Agreement:
        """On the next height."""
        return self.negotiation.agreement

    @property
    def _is_catching_up(self) -> bool:
        """Whether blocks of others are still to be applied, or many came and more are asked for."""
        return bool(self._replies) or self.sync.is_catching_up

    # -- events --------------------------------------------------------------------------------

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        """The effects of one event, to be performed in this order."""
        self._now = now
        match event:
            case Received():
                self._receive(event.peer, event.data)
            case Start():
                self._start(event)
            case TimerFired():
                self._on_timer(event.key)
            case JobDone():
                self._look = self._due = True
                results.on_job(self.desk, event)
            case JobFailed():
                self._look = self._due = True
                results.on_job_failed(self.desk, event.key, event.why)
            case BlobReady():
                self._look = self._due = True
                self.desk.take_blob(event.digest)
            case BlobFailed():
                self._look = self._due = True
                self.desk.miss_blob(event.digest)
            case BlocksRead():
                self.serving.on_blocks_read(event, self._now)
            case PeerUp():
                self.peers.add(event.peer)
                self.repair.tell(event.peer)
            case PeerDown():
                self.peers.discard(event.peer)
                self.sync.lost(event.peer, self._now)
            case Command():
                self._command(event.order)
        self._advance()
        if not self.outbox.effects:
            return []
        effects = self.outbox.take()
        self.lifecycle.note(effects)
        return effects

    def _advance(self) -> None:
        """Duties, judgements, Readys and proposals, until the agreement has nothing more to go on with.

        Duties that did something are looked at again with the next event. A node that is catching up has no
        use for duties of heights that have passed: it looks at them when it has arrived.
        """
        if self._is_catching_up:
            return
        talks = self.negotiation
        woken = self._due
        while woken or self._look or talks.moved:
            look, due = self._look or talks.moved, self._due or talks.moved
            self._look = talks.moved = woken = False
            self._due = due and advance(self.desk)
            # Duties that do nothing change nothing that the agreement looks at.
            if look or self._due:
                talks.advance(self._now)

    def _start(self, event: Start) -> None:
        """Take up what survived: the chain, secrets, shares, own statements, and the safety state."""
        self.lifecycle.load_chain(event)
        self.lifecycle.load_secrets(event.records, event.blobs)
        self.lifecycle.begin_round()
        self.lifecycle.load_round(event.records)
        self.orders.load(event.records.get(durable.ORDER, {}))
        safety = self.lifecycle.load_safety(event.records)
        self.pacing.begin_life(self._now)
        self._begin_height(safety or Safety(self.chain.height + 1))
        self.outbox.add(SetTimer("repair", self.genesis.params.repair_interval_ms))
        self.outbox.notify(
            "started", height=self.chain.height, round=self.state.round, peer=keys.peer_name(self.me)
        )
        self.orders.resume()
        self.reporting.started(self._samples)
        if waits_for_transactions(self.state):
            self._tell_waiting()

    def _begin_height(self, safety: Safety) -> None:
        """A new phase: fresh clock, fresh agreement, hard deadline running."""
        self.negotiation.begin(safety)
        hold_ms = self.pacing.hold_ms(self._now)
        self.desk.clock = PhaseClock(safety.height, self._now + hold_ms, held=hold_ms > 0)
        if hold_ms:
            self.outbox.add(SetTimer("hold", hold_ms))
        else:
            self.pacing.note_dealing(self._now)
        self._looked_at = looked_at(self.desk)
        self._look = self._due = True
        deadline = hard_deadline_ms(self.state.learning.phase, self.genesis.params)
        self.outbox.add(SetTimer("late", hold_ms + deadline))
        for key in ("soft", "view", "witness", "release", *(() if hold_ms else ("hold",))):
            self.outbox.add(CancelTimer(key))
        for peer, statement in self.negotiation.take_early():
            self._dispatch(peer, statement)
        self._follow_orders()

    def _follow_orders(self) -> None:
        """What waits is judged by the present state, not by those that are passed while catching up."""
        if not self._is_catching_up:
            self.orders.follow(self._now)

    def _end_hold(self) -> None:
        """The phase begins now at this node: deadlines count from here."""
        clock = self.desk.clock
        if not clock.held:
            return
        clock.held, clock.began_ms = False, self._now
        self.pacing.note_dealing(self._now)
        deadline = hard_deadline_ms(self.state.learning.phase, self.genesis.params)
        self.outbox.add(CancelTimer("hold"))
        self.outbox.add(SetTimer("late", deadline))
        self._look = self._due = True

    # -- messages ------------------------------------------------------------------------------

    def _receive(self, peer: bytes, data: bytes) -> None:
        try:
            statement = self.checks.open(data, self.network)
        except WireError as error:
            if error.reason in FOREIGN:
                self.reporting.foreign_message(peer, error.reason, error.theirs)
            self._reject(peer, error.reason, str(error))
            return
        self.reporting.own_message(peer)
        self._dispatch(peer, statement)

    def _reject(self, peer: bytes, reason: str, what: str) -> None:
        """Count it; unless an honest peer may send it too, report it."""
        self.rejects[reason] += 1
        if reason not in HARMLESS:
            self.outbox.notify("rejected", peer=keys.peer_name(peer), reason=reason, what=what)
            self.outbox.penalise(peer, reason)

    def _dispatch(self, peer: bytes, statement: Statement) -> None:
        if statement.kind in STATEMENT_KINDS:
            self._on_statement(peer, statement)
        elif statement.sender != peer:
            self._reject(peer, "relayed", f"{statement.kind.name} of another sender")
        else:
            self._handlers[statement.kind](peer, statement)

    def _make_handlers(self) -> dict[Kind, Callable[[bytes, Statement], None]]:
        talks = self.negotiation
        return {
            Kind.SEALED_SHARES: self._on_sealed_shares,
            Kind.Z_REQUEST: self._on_z_request,
            Kind.Z_REPLY: self._on_z_reply,
            Kind.READY: lambda peer, statement: talks.on_ready(peer, statement, self._now),
            Kind.PROPOSAL: lambda peer, statement: talks.on_proposal(peer, statement, self._now),
            Kind.VOTE: lambda peer, statement: talks.on_vote(peer, statement, self._now),
            Kind.CERTIFICATE: lambda peer, statement: talks.on_certificate(peer, statement, self._now),
            Kind.TIMEOUT: lambda peer, statement: talks.on_timeout(peer, statement, self._now),
            Kind.HAVE: self._on_have,
            Kind.STATEMENTS: self._on_statements,
            Kind.BLOCK_REQUEST: self._on_block_request,
            Kind.BLOCKS: self._on_blocks,
            Kind.STATEMENT_REQUEST: self._on_statement_request,
        }

    def _on_statement(self, peer: bytes, statement: Statement) -> None:
        reason = self.checks.inadmissible(statement, self.chain.state, self.desk.rules)
        if reason is not None:
            self._reject(peer, reason, statement.kind.name)
            return
        if not self.pool.add(statement):
            return
        self.cited.remember(statement)
        if self.pool.conflicts and self.pool.get_slot(statement.slot) is not statement:
            self.outbox.notify(
                "equivocation", peer=keys.peer_name(statement.sender), kind=statement.kind.name
            )
        if statement.kind is Kind.CONTRIBUTION:
            self._keep_contribution(statement)
        if statement.kind is Kind.SHARE_BUNDLE and self.desk.clock.held and self.pacing.is_overtaken():
            self._end_hold()
        self._due |= statement.sender == self.me or (
            statement.kind in self._looked_at and makes_due(self.desk, statement)
        )
        self._look |= self.negotiation.is_concerned(statement.kind, statement.round)

    def _keep_contribution(self, statement: Statement) -> None:
        """Its commitment is needed until the round is verified, and nobody else may have it by then."""
        key = durable.round_key(statement.round, statement.id)
        self.outbox.persist(durable.STATEMENT, key, statement.to_bytes())

    def _on_sealed_shares(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, SealedShares)
        if statement.round == self.state.round and self.state.learning.phase is Phase.SHARE:
            share.on_box(self.desk, peer, statement.body.box)
            held = None if self._due else share.open_box(self.desk, peer)
            if held is not None:
                self._look |= self.negotiation.is_concerned(held, statement.round)
        elif statement.round == self.state.round + 1 or (
            statement.round == self.state.round and self.state.learning.phase is Phase.ADVERT
        ):
            self.negotiation.keep_box(peer, statement)

    def _on_z_request(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, ZRequest)
        if statement.round == self.state.round:
            zs.on_z_request(self.desk, peer, statement.body)

    def _on_z_reply(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, ZReply)
        if statement.round == self.state.round:
            zs.on_z_reply(self.desk, peer, statement.body)
            self._look = self._due = True

    # -- blocks --------------------------------------------------------------------------------

    def _decided(self, stored: StoredBlock) -> None:
        """A certified block is final: take it, and begin the next phase."""
        if self._take_block(stored):
            self._begin_height(Safety(stored.block.height + 1))

    def _take_block(self, stored: StoredBlock, *, synced: bool = False) -> bool:
        """Write a final block down and move the state on; return whether it breaks no rule.

        The next height is to be begun afterwards, once for all blocks that are taken together. `synced`: a
        peer gave it with its certificate; this node had no part in deciding it.
        """
        before, block, parent = self.state, stored.block, self.head
        try:
            self.chain.take(block, self.judging.effect(block))
        except BlockError as error:
            # A certified block that breaks a rule: more than 1/3 are faulty, or this node runs other rules.
            self.outbox.notify("fatal", why=str(error))
            return False
        self.judging.clear()
        # What became of orders is written first: after a crash in between the block is decided once more.
        self.orders.note_block(self.state, self._own_transactions(before, block, parent))
        key = durable.height_key(block.height)
        self.outbox.persist(durable.BLOCK, key, encode_stored_block(stored))
        if self.state.round != before.round or block.kind is BlockKind.OPEN:
            self.lifecycle.take_snapshot()
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
        self.reporting.block_taken(before, block, self._now, synced=synced)
        if self.state.round != before.round:
            self.lifecycle.end_round(before)
            self.lifecycle.begin_round()
        elif block.kind is BlockKind.OPEN and self.state.learning.phase is Phase.ADVERT:
            self.lifecycle.apply_transactions(before)
        elif block.kind is BlockKind.OPEN:
            self.lifecycle.apply_transactions(before)
            self.lifecycle.begin_round()
        elif block.kind is BlockKind.SETUP:
            share.keep_pinned_packages(self.desk)
        if waits_for_transactions(self.state) and (
            not waits_for_transactions(before) or len(self.state.validators) != len(before.validators)
        ):
            self._tell_waiting()
        elif before.rests and not self.state.rests:
            self.outbox.notify("resumed", round=self.state.round, **_end_of(self.state))
        return True

    def _own_transactions(self, before: LedgerState, block: Block, parent: bytes) -> list[Statement]:
        """This node's transactions that a block has carried out."""
        account, nonce = before.account(self.me), 0
        if account is not None:
            nonce = account.nonce
        after = self.state.account(self.me)
        if after is None or after.nonce == nonce:
            return []
        applied = transactions_applied(before, self.state, block, parent, self.desk.rules, self.cited.open)
        return [statement for statement in applied if statement.sender == self.me]

    def _tell_waiting(self) -> None:
        """Say once that no round will be opened, and why."""
        state = self.state
        if state.training is not None and state.rests:
            best = {} if state.best is None else {"best_round": state.best.round}
            why = state.training.rest.name.lower()
            self.outbox.notify("resting", round=state.round - 1, why=why, **best)
        else:
            # Without a single validator nobody can make a block any more.
            self.outbox.notify("too_few_validators", round=state.round, validators=len(state.validators))

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
            case _:
                pass
        for data in cited:
            statement = self.cited.open(data)
            if self.pool.by_id(statement.id) is None:
                self.pool.replace_by_cited(statement.slot, statement)

    # -- timers --------------------------------------------------------------------------------

    def _on_timer(self, key: str) -> None:
        self._look = self._due = True
        match key:
            case sync.TIMER:
                self.sync.on_timer(self._now)
            case sync.APPLY_TIMER:
                self._apply_blocks()
            case "repair":
                self._on_repair_timer()
            case "soft":
                self.negotiation.readiness.send()
            case "late":
                self.negotiation.readiness.on_late(self._now)
            case "hold":
                self._end_hold()
            case "release":
                self.desk.clock.release = True
            case "witness":
                self.desk.clock.witness = True
            case "view":
                self.negotiation.on_view_timer()
            case _:
                self.outbox.notify("unknown_timer", key=key)

    def _on_repair_timer(self) -> None:
        interval_ms = self.genesis.params.repair_interval_ms
        self.outbox.add(SetTimer("repair", interval_ms))
        if self._is_catching_up:
            return
        peers = sorted(self.peers & {peer for peer, _ in self.state.accounts})
        self.repair.tell_some(peers, self._draw)
        self.desk.retry_blobs()
        zs.ask_for_zs(self.desk)
        missing = check.missing_contributions(self.desk)
        if missing and peers:
            self.repair.request_statements(peers[self._draw(len(peers))], missing)
        if self._now - self.desk.clock.began_ms >= interval_ms:
            self.negotiation.resend()
        self._follow_orders()

    def _draw(self, n: int) -> int:
        """A number below n."""
        return int.from_bytes(self.entropy(8), "big") % n

    # -- repair and sync -----------------------------------------------------------------------

    def _on_have(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Have)
        self.reporting.heard_height(peer, statement.body.height)
        self.repair.on_have(peer, statement.round, statement.body, self._now)

    def _on_statements(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Statements)
        for data in statement.body.envelopes:
            try:
                inner = self.checks.open(data, self.network)
            except WireError as error:
                # Whoever relays has opened it: of another network or version it has nothing to relay.
                is_foreign = error.reason in FOREIGN - {"kind"}
                self._reject(peer, "relayed" if is_foreign else error.reason, str(error))
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
            self._look = self._due = True

    def _on_block_request(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, BlockRequest)
        self.serving.on_request(peer, statement.body.first_height, self._now)

    def _on_statement_request(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, StatementRequest)
        self.repair.on_statement_request(peer, statement.body)

    def _on_blocks(self, peer: bytes, statement: Statement) -> None:
        assert isinstance(statement.body, Blocks)
        if not self.sync.welcome(peer, self._now):
            self._reject(peer, "unasked", "blocks that nobody waits for")
            return
        blocks_ = statement.body.blocks
        self._replies.append(_Reply(peer, sync.sizes_of(blocks_), deque(blocks_)))
        if len(self._replies) == 1:
            self._apply_blocks()

    def _apply_blocks(self) -> None:
        """Catch up: every block is checked against its certificate and the rules before it counts."""
        if not self._replies:
            return
        reply, before = self._replies[0], self.chain.height
        sound = self._apply_some(reply)
        if not sound or not reply.blocks:
            self._replies.popleft()
            self.sync.replied(reply.peer, reply.sizes, reply.taken, sound=sound, now=self._now)
        if self._replies:
            self.outbox.add(SetTimer(sync.APPLY_TIMER, 0))
        if self.chain.height > before:
            self._begin_height(Safety(self.chain.height + 1))

    def _apply_some(self, reply: _Reply) -> bool:
        """Apply the next blocks of a reply, as many as one event bears; return whether all of them held."""
        for _ in range(sync.BLOCKS_A_TURN):
            if not reply.blocks:
                break
            data = reply.blocks.popleft()
            try:
                stored = decode_stored_block(data)
                if stored.block.height <= self.chain.height:
                    continue
                if stored.block.height > self.chain.height + 1:
                    reply.blocks.clear()  # the answer to a request of an earlier life, or of no use
                    break
                self.chain.check_certificate(stored)
                self.judging.effect(stored.block)
            except (DecodeError, ChainError, BlockError) as error:
                self._reject(reply.peer, "block", str(error))
                return False
            if not self._take_block(stored, synced=True):
                reply.blocks.clear()
                break
            self.sync.took_block(stored.block.height, len(data))
            reply.taken += 1
        return True

    # -- commands ------------------------------------------------------------------------------

    def _command(self, data: bytes) -> None:
        """Sign and spread the operator's transaction, or refuse it."""
        self.orders.take(data)
        self._look = self._due = True


def _end_of(state: LedgerState) -> dict[str, int]:
    """Return how far training goes, for a notice."""
    return {} if state.training is None else {"last_round": state.training.last_round}
