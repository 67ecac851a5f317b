"""One learning round on a stage: real engines in the simulator, cast by role, everything written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import evolve

from protocol import durable
from protocol.checkpoint import decode_checkpoint
from protocol.codec import encode
from protocol.engine import Engine
from protocol.envelope import Statement, make_statement
from protocol.events import Broadcast, Effect, Notify, Send
from protocol.jobs import ContributeJob, EvaluateJob, Job, JobResult, TrainJob
from protocol.ledger.block import Block, BlockBody, BlockKind, StoredBlock, decode_body, decode_stored_block
from protocol.ledger.state import LedgerState, Phase
from protocol.messages import Kind, ReleaseStage, ShareRelease, Statements, Transaction, TransactionKind
from protocol.order import Order
from protocol.secagg.contribute import compress, encode_update
from protocol.secagg.scheme import scheme_of
from protocol.sharing import ShareKind
from sim.casting import first_roles, member_of
from sim.filters import Filter
from sim.founding import STAKE_UNITS, Founding, build_world, found, small_params
from sim.invariants.conduct import Conduct
from sim.learner import SyntheticLearner
from sim.node import Node
from sim.reading import read_statement
from sim.worker import JobWorker, Learner
from sim.world import ReadBlob

NODES = 5
"""Four proposers and one aggregator; the voters are proposers too."""
PATIENCE_MS = 300_000

Cast = Callable[["Scene"], Mapping[int, Filter]]


class NotingWorker(JobWorker):
    """Writes down every contribution that a proposer was to make, by (round, node), and who evaluated when.

    Evaluating takes `evaluate_ms`, training of some nodes `training_ms`.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        self.contributions: dict[tuple[int, int], ContributeJob] = {}
        self.evaluated: set[tuple[int, int]] = set()
        self.evaluate_ms = 300
        self.training_ms: dict[int, int] = {}

    def duration_ms(self, node: int, job: Job, random: Random) -> int:
        if isinstance(job, TrainJob) and node in self.training_ms:
            return self.training_ms[node]
        return self.evaluate_ms if isinstance(job, EvaluateJob) else super().duration_ms(node, job, random)

    def run(self, node: int, job: Job, read_blob: ReadBlob) -> JobResult:
        if isinstance(job, ContributeJob):
            self.contributions[job.context.round, node] = job
        elif isinstance(job, EvaluateJob):
            self.evaluated.add((job.round, node))
        return super().run(node, job, read_blob)


class Scene:
    """`cast` maps nodes to the filters that make adversaries of them, once the roles are known.

    `aggregators` (in order), `proposers` and `voters` are those of round 1, as indices of nodes. For each
    node of `twins` there is one more machine with its key. `learner`: in place of the synthetic one.
    """

    def __init__(
        self, cast: Cast | None = None, *, nodes: int = NODES, seed: int = 1, profile: str = "hardened",
        twins: Callable[[Scene], Sequence[int]] | None = None, learner: Learner | None = None,
        **changes: Any,
    ) -> None:  # fmt: skip
        self.params = evolve(small_params(nodes, profile), max_weight=1, **changes)
        self.founding: Founding = found(nodes, seed, self.params)
        roles = first_roles(self.founding)
        self.aggregators = [member_of(self.founding, peer) for peer in roles.aggregators]
        self.proposers = [member_of(self.founding, peer) for peer in roles.proposers]
        self.voters = [member_of(self.founding, peer) for peer in roles.voters]
        self.sent: list[tuple[int, bytes]] = []
        self._orders = 0
        synthetic = SyntheticLearner(self.params, self.founding.bytes32("learner"))
        self.worker = NotingWorker(learner or synthetic)
        self.filters = dict(cast(self)) if cast else {}
        self.world = build_world(
            nodes,
            seed,
            params=self.params,
            filters=self.filters,
            twins=twins(self) if twins else (),
            worker=self.worker,
            invariants=[Conduct(), self._note],
        )
        self.world.run(lambda world: all(node.alive for node in world.nodes))

    def _note(self, node: Node, performed: Sequence[Effect]) -> None:
        for effect in performed:
            if isinstance(effect, Broadcast | Send):
                self.sent.append((node.index, effect.data))

    # -- who and what ----------------------------------------------------------------------------

    @property
    def aggregator(self) -> int:
        return self.aggregators[0]

    def peer(self, index: int) -> bytes:
        return self.founding.identities[index].peer

    def peers(self, indices: Sequence[int]) -> tuple[bytes, ...]:
        return tuple(sorted(self.peer(index) for index in indices))

    def engine(self, index: int) -> Engine:
        engine = self.world.nodes[index].engine
        assert isinstance(engine, Engine)
        return engine

    @property
    def observer(self) -> int:
        """The first of the honest nodes that are up and have the longest ledger."""
        up = [node.index for node in self.world.nodes if node.honest and node.alive]
        return max(up, key=lambda index: (self.engine(index).height, -index))

    @property
    def state(self) -> LedgerState:
        return self.engine(self.observer).state

    # -- transactions ----------------------------------------------------------------------------

    def order(
        self, index: int, kind: TransactionKind, peer: bytes = bytes(32), units: int = 0,
        replaces: int | None = None,
    ) -> bytes:  # fmt: skip
        """Give a node its operator's order; returns the order's id."""
        self._orders += 1
        order = Order(self._orders.to_bytes(16, "big"), kind, peer, units, replaces)
        self.world.command(index, encode(order))
        return order.id

    def orders(self, index: int) -> dict[str, Mapping[str, Any]]:
        """What a node shows of its operator's orders, by their ids in hex."""
        rows: Any = self.world.nodes[index].orders.get("orders", ())
        return {row["order"]: row for row in rows}

    def waiting(self, index: int) -> list[Mapping[str, Any]]:
        """The transactions of its own that a node shows as waiting."""
        rows: Any = self.world.nodes[index].orders.get("waiting", ())
        return list(rows)

    def spread(self, index: int, transaction: Transaction) -> None:
        """Sign a transaction with a node's key, unasked, and bring it to everybody."""
        identity, network = self.founding.identities[index], self.founding.genesis.network
        self.world.spread(
            index, make_statement(identity, network, 0, Kind.TRANSACTION, transaction).to_bytes()
        )

    # -- running ---------------------------------------------------------------------------------

    def run_until(self, index: int, phase: Phase) -> None:
        """Until one node has committed the block that begins a phase."""
        self.world.run(lambda _: self.engine(index).state.learning.phase is phase, max_virtual_ms=PATIENCE_MS)

    def end_round(self, round_: int = 1, but: Iterable[int] = ()) -> Scene:
        """Until every node that is up has ended the round, those in `but` excepted."""
        waited_for = [node for node in self.world.nodes if node.index not in set(but)]
        self.world.run(
            lambda _: all(self.engine(n.index).state.round > round_ for n in waited_for if n.alive),
            max_virtual_ms=PATIENCE_MS,
        )
        return self

    # -- what came of it -------------------------------------------------------------------------

    def blocks(self, round_: int = 1) -> list[Block]:
        return [stored.block for stored in self.ledger() if stored.block.round == round_]

    def ledger(self) -> list[StoredBlock]:
        """Every block that the observer has stored."""
        rows = self.world.nodes[self.observer].records.get(durable.BLOCK, {})
        return [decode_stored_block(data) for _, data in sorted(rows.items())]

    def kinds(self, round_: int = 1) -> list[BlockKind]:
        return [block.kind for block in self.blocks(round_)]

    def body(self, kind: BlockKind, round_: int = 1) -> Any:
        """The body of the round's last block of a kind."""
        bodies: list[BlockBody] = [decode_body(b) for b in self.blocks(round_) if b.kind is kind]
        return bodies[-1]

    def verdicts(self) -> list[str]:
        """What honest nodes read off the first aggregate: one entry, as they agree."""
        return sorted({str(fields["verdict"]) for fields in self.notes("verified")})

    def notes(self, kind: str) -> list[Mapping[str, object]]:
        return [
            report.effect.fields
            for report in self.world.reports
            if isinstance(report.effect, Notify)
            and report.effect.kind == kind
            and self.world.nodes[report.node].honest
        ]

    def statements(self, kind: Kind, round_: int = 1) -> list[tuple[int, Statement]]:
        """Everything of one kind that left any node, with the node that sent it."""
        opened = ((index, statement) for index, data in self.sent for statement in _opened(data))
        return [(index, s) for index, s in opened if s.kind is kind and s.round == round_]

    def released(self, stage: ReleaseStage) -> set[tuple[bytes, ShareKind]]:
        """Whose secrets of which kind any holder gave a share of, in round 1."""
        return {
            (share.dealer, ShareKind(share.share_kind))
            for _, statement in self.statements(Kind.SHARE_RELEASE)
            if isinstance(statement.body, ShareRelease) and statement.body.stage is stage
            for share in statement.body.shares
        }

    def contributors(self) -> list[int]:
        """U2 of round 1, in the order of `proposers`."""
        cited = self.body(BlockKind.CONTRIBUTION).contributions
        senders = {s.sender for _, s in self.statements(Kind.CONTRIBUTION) if s.cited() in cited}
        return [index for index in self.proposers if self.peer(index) in senders]

    def change(self, index: int) -> int:
        """What a node has won or lost since genesis, in units."""
        account = self.state.account(self.peer(index))
        assert account is not None
        return account.stake_units - STAKE_UNITS

    def suspicion(self, index: int) -> int:
        account = self.state.account(self.peer(index))
        assert account is not None
        return account.suspicion

    def model(self) -> npt.NDArray[np.int64]:
        """The model that the ledger names now."""
        node = self.world.nodes[self.observer]
        return decode_checkpoint(self.params, node.blobs[self.state.model_digest]).model

    def initial_model(self) -> npt.NDArray[np.int64]:
        return decode_checkpoint(self.params, self.founding.checkpoint).model

    def extended_update(self, index: int, round_: int = 1) -> npt.NDArray[np.int64]:
        """A node's honest update with its opening randomness, before any mask."""
        job = self.worker.contributions[round_, index]
        sent, _ = compress(self.params, job.update, job.residual, None)
        return encode_update(self.params, scheme_of(job.context), sent, job.weight, job.secrets)

    def extended_sum(self, contributors: Sequence[int]) -> npt.NDArray[np.int64]:
        """The plain sum of these nodes' updates and opening randomness: no masks, no fields."""
        total: list[int] = []
        for index in contributors:
            extended = self.extended_update(index)
            total = [int(x) + y for x, y in zip(extended, total or [0] * extended.size, strict=True)]
        return np.array(total, dtype=np.int64)

    def plain_model(self, contributors: Sequence[int]) -> npt.NDArray[np.int64]:
        """Where the plain sum takes the initial model: its mean, rounded half up."""
        scheme = scheme_of(self.worker.contributions[1, contributors[0]].context)
        step = Fraction(2**24, 2**scheme.fixed.fraction_bits * len(contributors))
        total = self.extended_sum(contributors)[: scheme.length]
        moved = [
            int(old) + math.floor(step * int(x) + Fraction(1, 2))
            for old, x in zip(self.initial_model(), total, strict=True)
        ]
        return np.array(moved, dtype=np.int64)


def _opened(data: bytes) -> list[Statement]:
    statement = read_statement(data)
    if isinstance(statement.body, Statements):
        return [read_statement(entry) for entry in statement.body.envelopes]
    return [statement]
