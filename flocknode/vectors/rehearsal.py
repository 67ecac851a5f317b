"""One whole round of four nodes, block by block: what another implementation has to come to.

The nodes are real engines. Their messages are delivered at once, in the order in which they were sent; jobs
are done at once; timers fire only when nothing else is left to happen. All randomness follows from labels.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from attrs import define, evolve, field

from flocknode.vectors.values import Case, Document, example
from protocol import durable
from protocol.algebra import field as fp
from protocol.blob import blob_digest
from protocol.checkpoint import initial_checkpoint
from protocol.codec import digest, encode
from protocol.duties.vote import loss_micro
from protocol.engine import Engine
from protocol.events import (
    BlobFailed,
    BlobReady,
    Broadcast,
    CancelTimer,
    DropBlob,
    Effect,
    Event,
    Fetch,
    JobDone,
    PeerUp,
    Persist,
    PutBlob,
    ReadBlocks,
    Received,
    RunJob,
    Send,
    SetTimer,
    Start,
    TimerFired,
)
from protocol.jobs import (
    ContributeResult,
    EvaluateJob,
    EvaluateResult,
    Job,
    JobResult,
    TrainJob,
    TrainResult,
    run,
)
from protocol.keys import Identity
from protocol.ledger.block import StoredBlock, decode_stored_block
from protocol.ledger.chain import Chain
from protocol.ledger.state import LedgerState
from protocol.params import MICRO, Genesis, GenesisMember, hardened, sort_members

NODES = 4
DIMENSION = 64
CURRENT_LOSS, CANDIDATE_LOSS = 0.5, 0.4


@define(eq=False)
class Seat:
    """One node: its engine, blocks, blobs and timers, and how much entropy it has drawn."""

    identity: Identity
    engine: Engine = field(init=False)
    blocks: dict[bytes, bytes] = field(factory=dict)
    blobs: dict[bytes, bytes] = field(factory=dict)
    timers: dict[str, int] = field(factory=dict)
    draws: int = 0
    uploads: list[bytes] = field(factory=list)

    def entropy(self, size: int) -> bytes:
        """The first `size` bytes of digest("test entropy", peer, number of the draw as 8 bytes)."""
        self.draws += 1
        block = digest("test entropy", self.identity.peer, self.draws.to_bytes(8, "big"))
        assert size <= len(block)
        return block[:size]


def small_genesis(checkpoint: bytes) -> Genesis:
    """Four nodes, three of them proposers; weights count in full."""
    params = evolve(hardened(dimension=DIMENSION, n_proposers=3, n_voters=2), max_weight=1)
    identities = [Identity.from_seed(example("node", i)) for i in range(NODES)]
    return Genesis(
        name="vectors",
        task="rehearsal",
        params=params,
        members=sort_members([GenesisMember(identity.peer, 64 * MICRO) for identity in identities]),
        beacon=example("rehearsal beacon"),
        model_digest=blob_digest(checkpoint),
        pool_units=10 * MICRO,
    )


def update_of(job: TrainJob) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """float32[d]: expand(training seed, "update") / p - 1/2."""
    words = fp.expand(job.seed, b"update", DIMENSION)
    return (words.astype(np.float64) / fp.P - 0.5).astype(np.float32)


class Rehearsal:
    """The four nodes and what is on its way between them."""

    def __init__(self) -> None:
        weights = np.linspace(-1, 1, DIMENSION, dtype=np.float32)
        params = evolve(hardened(dimension=DIMENSION, n_proposers=3, n_voters=2), max_weight=1)
        self.checkpoint = initial_checkpoint(params, weights)
        self.genesis = small_genesis(self.checkpoint)
        self.now = 0
        self.waiting: deque[tuple[Seat, Event]] = deque()
        self.seats: dict[bytes, Seat] = {}
        for number in range(NODES):
            seat = Seat(Identity.from_seed(example("node", number)))
            seat.engine = Engine(seat.identity, self.genesis, seat.entropy)
            seat.blobs[self.genesis.model_digest] = self.checkpoint
            self.seats[seat.identity.peer] = seat
        for peer, seat in self.seats.items():
            self.waiting.append((seat, Start({}, frozenset(seat.blobs))))
            self.waiting.extend((seat, PeerUp(other)) for other in self.seats if other != peer)

    def run_round(self) -> None:
        """Until every node has begun round 2."""
        while any(seat.engine.state.round == 1 for seat in self.seats.values()):
            seat, event = self.waiting.popleft() if self.waiting else self._next_timer()
            for effect in seat.engine.handle(event, self.now):
                self._perform(seat, effect)

    def _next_timer(self) -> tuple[Seat, Event]:
        due, peer, key = min(
            (due, peer, key) for peer, seat in self.seats.items() for key, due in seat.timers.items()
        )
        self.now = max(self.now, due)
        del self.seats[peer].timers[key]
        return self.seats[peer], TimerFired(key)

    def _perform(self, seat: Seat, effect: Effect) -> None:
        me = seat.identity.peer
        match effect:
            case Send(peer, data):
                self.waiting.append((self.seats[peer], Received(me, data)))
            case Broadcast(data):
                self.waiting.extend(
                    (other, Received(me, data)) for peer, other in self.seats.items() if peer != me
                )
            case Fetch(blob, holders, reserves):
                self.waiting.append((seat, self._fetched(seat, blob, (*holders, *reserves))))
            case Persist(durable.BLOCK, key, bytes() as block):
                seat.blocks[key] = block
            case ReadBlocks():
                self.waiting.append((seat, durable.read_blocks(seat.blocks, effect)))
            case PutBlob(blob, data):
                seat.blobs[blob] = data
            case DropBlob(blob):
                seat.blobs.pop(blob, None)
            case SetTimer(key, delay_ms):
                seat.timers[key] = self.now + delay_ms
            case CancelTimer(key):
                seat.timers.pop(key, None)
            case RunJob(key, job):
                self.waiting.append((seat, JobDone(key, self._result(seat, job))))
            case _:
                pass

    def _fetched(self, seat: Seat, blob: bytes, holders: tuple[bytes, ...]) -> Event:
        for holder in holders:
            if blob in self.seats[holder].blobs:
                seat.blobs[blob] = self.seats[holder].blobs[blob]
                return BlobReady(blob)
        return BlobFailed(blob)

    def _result(self, seat: Seat, job: Job) -> JobResult:
        match job:
            case TrainJob():
                return TrainResult(update_of(job), 1)
            case EvaluateJob():
                return EvaluateResult(CURRENT_LOSS, CANDIDATE_LOSS)
        result = run(job, seat.blobs.__getitem__)
        if isinstance(result, ContributeResult):
            seat.uploads.append(result.upload_digest)
        return result


def whole_round() -> Document:
    """Everything that the four nodes start from, and every block with its certificate and state root."""
    rehearsal = Rehearsal()
    rehearsal.run_round()
    seat = next(iter(rehearsal.seats.values()))
    blocks, states = [], []
    chain = Chain.at_genesis(rehearsal.genesis)
    for _, data in sorted(seat.blocks.items()):
        stored = decode_stored_block(data)
        states.append(chain.append(stored))
        blocks.append(_block_case(stored))
        if states[-1].round == 2:
            break
    last = states[-1]
    return {
        "genesis": [
            {
                "genesis": rehearsal.genesis.to_bytes().hex(),
                "network": rehearsal.genesis.network.hex(),
                "model": rehearsal.checkpoint.hex(),
            }
        ],
        "nodes": [_node_case(seat, last) for seat in rehearsal.seats.values()],
        "rules": [
            {
                "entropy": 'draw n of a node: digest("test entropy", peer, n as 8 bytes big endian)',
                "update": 'float32 of expand(training seed, "update", d) / p - 1/2, computed in float64',
                "losses_micro": [loss_micro(loss) for loss in (CURRENT_LOSS, CANDIDATE_LOSS)],
            }
        ],
        "blocks": blocks,
        "outcome": [
            {
                "beacon": last.beacon.hex(),
                "model_digest": last.model_digest.hex(),
                "model": rehearsal.seats[rehearsal.genesis.members[0].peer].blobs[last.model_digest].hex(),
                "state": encode(last).hex(),
            }
        ],
    }


def _node_case(seat: Seat, last: LedgerState) -> Case:
    return {
        "private": seat.identity.private.hex(),
        "peer": seat.identity.peer.hex(),
        "upload_digests": [upload.hex() for upload in seat.uploads],
        "stake_after": last.stakes[seat.identity.peer],
    }


def _block_case(stored: StoredBlock) -> Case:
    block = stored.block
    return {
        "height": block.height,
        "kind": block.kind.name,
        "leader": block.leader.hex(),
        "hash": block.hash.hex(),
        "state_root": block.state_root.hex(),
        "block": encode(block).hex(),
        "certificate": encode(stored.certificate).hex(),
    }
