"""What every duty works with: the ledger's state, the node's secrets and blobs, and its outbox."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from attrs import define, evolve, field

from protocol import durable
from protocol.checks import Checks
from protocol.context import RoundContext
from protocol.events import DropBlob, Fetch, PutBlob, RunJob
from protocol.jobs import Job
from protocol.ledger.chain import Chain
from protocol.ledger.judgement import Yardstick
from protocol.ledger.state import LedgerState, Phase, RoundState
from protocol.local import PhaseClock, RoundMemory
from protocol.outbox import Outbox
from protocol.params import Setup
from protocol.pinning import Rules, round_context
from protocol.pool import Pool
from protocol.secrets import DealerPackage, RoundSecrets, dealt_round_seed, dealt_u_seed

T = TypeVar("T")


@define(eq=False)
class Desk:
    """One node's."""

    me: bytes
    rules: Rules
    pool: Pool
    outbox: Outbox
    entropy: Callable[[int], bytes]
    dealer: DealerPackage | None
    weight: int
    chain: Chain
    checks: Checks
    memory: RoundMemory = field(init=False)
    clock: PhaseClock = field(init=False)
    blobs: set[bytes] = field(factory=set, init=False)
    blob_rounds: dict[bytes, int] = field(factory=dict, init=False)
    """The round in which each blob was last wanted or made; written down before it is fetched or put."""
    fetching: set[bytes] = field(factory=set, init=False)
    unavailable: set[bytes] = field(factory=set, init=False)
    seeds: dict[int, bytes] = field(factory=dict, init=False)
    residual: durable.Residual | None = field(default=None, init=False)
    yardstick: Yardstick = field(factory=Yardstick, init=False)
    _context: tuple[int, RoundContext] | None = field(default=None, init=False)
    _worked_out: dict[Hashable, tuple[Hashable, Any]] = field(factory=dict, init=False)

    @property
    def state(self) -> LedgerState:
        """After the last final block."""
        return self.chain.state

    @property
    def learning(self) -> RoundState:
        return self.chain.state.learning

    @property
    def context(self) -> RoundContext:
        """Of the current round and height, with the dealer's U where there is one."""
        height = self.state.height
        if self._context is None or self._context[0] != height:
            context = round_context(self.state, self.rules)
            if self.dealer is not None:
                context = evolve(context, u_seed=dealt_u_seed(self.dealer, self.rules.network))
            self._context = (height, context)
        return self._context[1]

    def worked_out(self, name: Hashable, basis: Hashable, work_out: Callable[[], T]) -> T:
        """What `work_out` gave when the basis, all that it depends on, was last another one."""
        known = self._worked_out.get(name)
        if known is None or known[0] != basis:
            known = self._worked_out[name] = (basis, work_out())
        value: T = known[1]
        return value

    def index(self, peer: bytes) -> int:
        return self.learning.proposers.index(peer)

    @property
    def is_proposer(self) -> bool:
        return self.me in self.chain.state.learning.proposer_set

    @property
    def is_contributor(self) -> bool:
        return any(contribution.peer == self.me for contribution in self.learning.contributors)

    def round_seed(self, round_: int) -> bytes:
        """The seed of all my secrets of a round: drawn once, durable before anything of it is sent."""
        seed = self.seeds.get(round_)
        if seed is None:
            if self.rules.params.setup is Setup.DEALER and self.dealer is not None:
                seed = dealt_round_seed(self.dealer, self.rules.network, round_)
            else:
                seed = self.entropy(32)
            self.seeds[round_] = seed
            self.outbox.persist(durable.SECRET, durable.round_key(round_), seed)
        return seed

    def secrets(self, round_: int) -> RoundSecrets:
        seed = self.round_seed(round_)
        network, agreed = self.rules.network, self.checks.agreed
        return self.worked_out("secrets", seed, lambda: RoundSecrets.derive(seed, network, round_, agreed))

    def my_secrets(self) -> RoundSecrets:
        if self.memory.secrets is None:
            self.memory.secrets = self.secrets(self.memory.round)
        return self.memory.secrets

    def marks(self) -> tuple[int, ...]:
        """Another one after every duty that did something: it sent something, or learned something."""
        memory, findings = self.memory, self.memory.findings
        return (
            len(self.outbox.effects),
            len(memory.boxes),
            len(memory.zs),
            len(memory.counted_releases),
            len(findings.check_seeds),
            findings.zs is not None,
        )

    def has_run(self, name: str) -> bool:
        """Was this job of the round started?"""
        return name in self.memory.started

    def run(self, name: str, job: Job) -> None:
        """Start a job of this round once."""
        if not self.has_run(name):
            self.memory.started.add(name)
            self.outbox.add(RunJob(f"{self.memory.round}/{name}", job))

    def want_blob(self, blob: bytes, source: tuple[bytes, ...], others: tuple[bytes, ...] = ()) -> bool:
        """Is the blob held? If not, fetch it: from its source first, then from anyone who may have it."""
        if blob in self.blobs:
            return True
        holders = tuple(dict.fromkeys(peer for peer in source if peer != self.me))
        reserves = tuple(dict.fromkeys(peer for peer in others if peer != self.me and peer not in holders))
        if blob not in self.fetching and blob not in self.unavailable and (holders or reserves):
            self.note_blob(blob)
            self.fetching.add(blob)
            self.outbox.add(Fetch(blob, holders, reserves))
        return False

    def note_blob(self, blob: bytes) -> None:
        """§7.6. Write down that the blob is of this round, so that it goes with it whatever happens."""
        round_, known = self.memory.round, self.blob_rounds.get(blob)
        if known == round_:
            return
        self.outbox.persist(durable.BLOB, durable.round_key(round_, blob), b"")
        if known is not None:
            self.outbox.persist(durable.BLOB, durable.round_key(known, blob), None)
        self.blob_rounds[blob] = round_

    def drop_blob(self, blob: bytes) -> None:
        """Let a blob go, and a fetch of it that may be under way."""
        known = self.blob_rounds.pop(blob, None)
        if known is not None:
            self.outbox.persist(durable.BLOB, durable.round_key(known, blob), None)
        self.fetching.discard(blob)
        self.unavailable.discard(blob)
        self.blobs.discard(blob)
        self.outbox.add(DropBlob(blob))

    def take_blob(self, blob: bytes) -> None:
        """Take a blob that was fetched; one that is not wanted any more, whose fetch was late, is let go."""
        self.fetching.discard(blob)
        if blob in self.blob_rounds:
            self.blobs.add(blob)
        elif blob not in self.blobs:
            self.outbox.add(DropBlob(blob))

    def miss_blob(self, blob: bytes) -> None:
        """A fetch failed: try again once a repair interval."""
        self.fetching.discard(blob)
        if blob in self.blob_rounds:
            self.unavailable.add(blob)

    def retry_blobs(self) -> None:
        """By now somebody else may have what nobody had."""
        self.unavailable.clear()

    def put_blob(self, blob: bytes, data: bytes) -> None:
        """Keep a blob that this node has made, to the end of the next round."""
        self.note_blob(blob)
        self.blobs.add(blob)
        self.outbox.add(PutBlob(blob, data))

    @property
    def advert_round(self) -> int:
        """The round that adverts are collected for now."""
        state = self.chain.state
        return state.round + (state.learning.phase is not Phase.ADVERT)

    def is_contributor_peer(self, peer: bytes) -> bool:
        return any(contribution.peer == peer for contribution in self.learning.contributors)
