"""Proposals under judgement: valid by content, and in agreement with this node's own work (section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from protocol.cited import Cited
from protocol.compose import dispute_body
from protocol.duties.desk import Desk
from protocol.ledger import block as blocks
from protocol.ledger.block import Block
from protocol.ledger.chain import Chain
from protocol.ledger.state import LedgerState
from protocol.repair import Repair
from protocol.round import BlockError


class Judging:
    """Blocks of the next height that wait for a PREPARE vote of this node.

    What a block says of blobs (a verdict, a candidate model, a ruling) is vouched for only once the
    node's own job has said the same; until then it waits. `learned`: a block told this node what its
    duties can go on with.
    """

    def __init__(self, chain: Chain, desk: Desk, repair: Repair, cited: Cited) -> None:
        self.chain = chain
        self.desk = desk
        self.repair = repair
        self.cited = cited
        self.effects: dict[bytes, LedgerState] = {}
        self.learned = False
        self._waiting: dict[bytes, tuple[int, Block]] = {}

    def clear(self) -> None:
        """The height has its block."""
        self.effects = {}
        self._waiting = {}

    @property
    def is_waiting(self) -> bool:
        """Is there a block that this node could not vouch for yet?"""
        return bool(self._waiting)

    def add(self, view: int, block: Block) -> None:
        self._waiting[block.hash] = (view, block)

    def vouched(
        self, view: int, on_invalid: Callable[[int, BlockError], None]
    ) -> Iterator[tuple[int, bytes]]:
        """(view, block hash) of those that this node can vouch for now; earlier views are forgotten."""
        for block_hash in sorted(self._waiting):
            entry = self._waiting.get(block_hash)
            if entry is None:
                continue
            wanted, block = entry
            if wanted < view:
                del self._waiting[block_hash]
                continue
            try:
                self.effect(block)
            except BlockError as error:
                del self._waiting[block_hash]
                on_invalid(wanted, error)
                continue
            if self._agrees(block):
                del self._waiting[block_hash]
                yield wanted, block_hash

    def effect(self, block: Block) -> LedgerState:
        """The state that the block leads to, worked out once; raises `BlockError`."""
        block_hash = block.hash
        if block_hash not in self.effects:
            self.effects[block_hash] = self.chain.effect(block)
        return self.effects[block_hash]

    def _agrees(self, block: Block) -> bool:
        body, findings = blocks.decode_body(block), self.desk.memory.findings
        match body:
            case blocks.ContributionBody():
                return self._holds_commitments(block, body)
            case blocks.BallotBody() if not self.desk.learning.ballot:
                self._learn(body)
                verified = findings.verified
                return verified is not None and (int(verified.verdict), verified.model_digest) == (
                    body.verdict,
                    body.candidate,
                )
            case blocks.DisputeBody() if not body.missing:
                return (
                    findings.dispute is not None and dispute_body(self.desk.state, findings.dispute) == body
                )
            case _:
                return True

    def _learn(self, body: blocks.BallotBody) -> None:
        """The block's seeds and zs fit what was pinned, so this node can verify with them."""
        findings = self.desk.memory.findings
        if findings.zs is None:
            findings.zs, self.learned = body.zs, True
        for bundle, seed in zip(self.desk.learning.sharers, body.check_seeds, strict=True):
            if any(seed) and bundle.peer not in findings.check_seeds:
                findings.check_seeds[bundle.peer], self.learned = seed, True

    def _holds_commitments(self, block: Block, body: blocks.ContributionBody) -> bool:
        """Commitments must be at hand before they are pinned; what is missing is fetched from the leader."""
        missing = []
        for data in body.contributions:
            cited = self.cited.open(data)
            held = self.desk.pool.by_id(cited.id)
            if held is None or not held.envelope.payload:
                missing.append(cited.id)
        if missing and block.leader != self.desk.me:
            self.repair.request_statements(block.leader, tuple(missing))
        return not missing
