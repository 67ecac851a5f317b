"""The node that is fuzzed: a real engine, what is durable of it, and all that its effects left pending."""

from __future__ import annotations

from random import Random

import numpy as np
from attrs import define, field

from protocol import durable
from protocol.algebra import field as fp
from protocol.engine import Engine
from protocol.envelope import make_statement
from protocol.events import (
    Broadcast,
    CancelJob,
    CancelTimer,
    DropBlob,
    Effect,
    Event,
    Fetch,
    JobDone,
    JobFailed,
    Notify,
    PeerUp,
    Persist,
    PutBlob,
    ReadBlocks,
    Received,
    RunJob,
    Send,
    TimerFired,
)
from protocol.jobs import EvaluateJob, EvaluateResult, Job, JobResult, TrainJob, TrainResult, run
from protocol.keys import Identity
from protocol.ledger.resume import start_from
from protocol.messages import Have, Kind
from sim.fuzzing.histories import LIAR, NODES, VICTIM, Moment
from sim.fuzzing.soundness import check_effects

MOST_EFFECTS = 60
MOST_BYTES = 3 * (256 << 10)
"""What one message may make a node do and say: a few repair replies' worth."""
TIMERS = ("soft", "witness", "release", "late", "view", "repair", "hold", "sync", "apply")


@define(eq=False)
class Victim:
    """An engine that takes up its life at a moment.

    With `works`, its jobs are done as they come; else they wait in `jobs`. Every effect is checked.
    """

    moment: Moment
    works: bool = True
    engine: Engine = field(init=False)
    records: dict[str, dict[bytes, bytes]] = field(init=False)
    blobs: dict[bytes, bytes] = field(init=False)
    jobs: dict[str, Job] = field(factory=dict, init=False)
    fetches: dict[bytes, tuple[bytes, ...]] = field(factory=dict, init=False)
    ended: str | None = field(default=None, init=False)
    """Why the shell would stop this node: its ledger and its rules disagree."""
    forged: int = field(default=0, init=False)
    """Certificates that everybody has signed for a fuzzer: see `bounds`."""
    now: int = field(default=1_000, init=False)

    def __attrs_post_init__(self) -> None:
        self.records = {bucket: dict(rows) for bucket, rows in self.moment.records.items()}
        self.blobs = dict(self.moment.blobs)
        self.start()

    def start(self) -> None:
        """A new life with what is durable; everyone connects."""
        ground = self.moment.ground
        me = ground.identities[VICTIM]
        dealt = ground.founding.packages.get(me.peer)
        self.engine = Engine(me, ground.founding.genesis, Random(self.now).randbytes, dealt)
        self.jobs.clear()
        self.fetches.clear()
        self.handle(start_from(ground.founding.genesis, self.records, frozenset(self.blobs)))
        for peer in ground.peers:
            if peer != me.peer:
                self.handle(PeerUp(peer))

    # -- events ----------------------------------------------------------------------------------

    def handle(self, event: Event, after_ms: int = 1) -> list[Effect]:
        """The effects of the event itself; jobs it leads to are done afterwards."""
        self.now += after_ms
        effects = self.engine.handle(event, self.now)
        check_effects(self.engine, effects)
        for effect in effects:
            self._perform(effect)
        return effects

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Persist(bucket, key, None):
                self.records.get(bucket, {}).pop(key, None)
            case Persist(bucket, key, bytes() as value):
                self.records.setdefault(bucket, {})[key] = value
            case PutBlob(digest, data):
                self.blobs[digest] = data
            case DropBlob(digest):
                self.blobs.pop(digest, None)
                self.fetches.pop(digest, None)
            case Fetch(digest, holders, reserves):
                self.fetches[digest] = (*holders, *reserves)
            case ReadBlocks():
                self.handle(durable.read_blocks(self.records.get(durable.BLOCK, {}), effect))
            case RunJob(key, job) if self.works:
                self.handle(self.done(key, job))
            case RunJob(key, job):
                self.jobs[key] = job
            case CancelJob(key):
                self.jobs.pop(key, None)
            case Notify("fatal", fields):
                self.ended = str(fields["why"])
            case _:
                pass

    def done(self, key: str, job: Job) -> JobDone | JobFailed:
        """What the job comes to, with the blobs at hand."""
        try:
            return JobDone(key, self._result(job))
        except (ValueError, KeyError) as error:
            return JobFailed(key, repr(error))

    def _result(self, job: Job) -> JobResult:
        match job:
            case TrainJob():
                words = fp.expand(job.seed, b"update", self.moment.ground.params.dimension)
                return TrainResult(words.astype(np.float32) / np.float32(fp.P), 1)
            case EvaluateJob():
                return EvaluateResult(2, 1)
            case _:
                return run(job, self.blobs.__getitem__)

    def hear(self, data: bytes, peer: bytes, times: int = 1) -> int:
        """Take a message, `times` in a row, and return how many refusals it led to.

        What each makes the node do is bounded. Nobody hears itself: what is in the node's own name, a replay
        or a twin's, the liar brings.
        """
        before = self.engine.rejects.total()
        for _ in range(times - 1):
            self.hear(data, peer)
        if peer == self.engine.me:
            peer = self.moment.ground.peers[LIAR]
        waiting = sum(self.engine.negotiation.early_messages().values())
        effects = self.handle(Received(peer, data))
        said = sum(len(effect.data) for effect in effects if isinstance(effect, Broadcast | Send))
        asked = sum(isinstance(effect, Fetch) for effect in effects)
        done = sum(not _clears_up(effect) for effect in effects)
        # A message that decides a height lets those that waited for it be heard, too.
        assert done <= MOST_EFFECTS + waiting, f"{done} effects of one message, {waiting} waited"
        assert said <= MOST_BYTES, f"{said} bytes said for one message"
        assert asked <= NODES, f"{asked} fetches for one message"
        return self.engine.rejects.total() - before

    def let_ask(self, identity: Identity) -> bytes:
        """Let a member say that it has the next block. Return whom the node has asked for it."""
        height = self.engine.height + 1
        have = make_statement(
            identity, self.engine.network, self.engine.state.round, Kind.HAVE, Have(height, (), b"", True)
        )
        self.hear(have.to_bytes(), identity.peer)
        return self.engine.sync.outstanding or identity.peer

    def live_on(self) -> None:
        """Deadlines pass, repair goes round, views end: nothing that was heard makes that fail."""
        for key in (*TIMERS, "repair", "unknown"):
            self.handle(TimerFired(key), after_ms=2_000)


def _clears_up(effect: Effect) -> bool:
    """What ends with a round goes all at once: as much as was ever admitted, and no more."""
    match effect:
        case Persist(_, _, None) | DropBlob() | CancelJob() | CancelTimer():
            return True
        case _:
            return False
