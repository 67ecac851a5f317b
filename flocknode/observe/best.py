"""Which model is the best so far, read from a node's stored blocks without checking them again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import define, field

from flocknode.blobs import DIRECTORY
from flocknode.observe.statements import open_statement
from protocol.ledger.block import BallotBody, BlockKind, OutcomeBody, StoredBlock, decode_body
from protocol.ledger.economy import is_accepted
from protocol.ledger.judgement import BestModel, is_improvement
from protocol.ledger.state import genesis_state
from protocol.messages import VoteOpening
from protocol.params import Genesis


@define
class BestModelReader:
    """Follows `LedgerState.best` by what BALLOT and OUTCOME blocks say; None under FLock's contract."""

    best: BestModel | None
    _candidate: bytes = field(default=b"", init=False)

    @classmethod
    def of(cls, genesis: Genesis) -> BestModelReader:
        """Return the reader of a ledger without a block."""
        return cls(genesis_state(genesis).best)

    def take(self, stored: StoredBlock) -> None:
        """Take the next block. Raises `DecodeError` for one that is no block of its kind."""
        if self.best is None or stored.block.kind not in (BlockKind.BALLOT, BlockKind.OUTCOME):
            return
        body = decode_body(stored.block)
        if isinstance(body, BallotBody):
            self._candidate = body.candidate
        elif isinstance(body, OutcomeBody):
            openings = {}
            for data in body.openings:
                envelope, opening = open_statement(data)
                assert isinstance(opening, VoteOpening)
                openings[envelope.sender] = opening
            votes = {peer: opening.vote for peer, opening in openings.items() if opening.vote}
            opinions = {peer: opening.opinion for peer, opening in openings.items()}
            if votes and is_accepted(votes) and is_improvement(opinions):
                self.best = BestModel(stored.block.round, self._candidate)


def best_model(genesis: Genesis, blocks: Iterable[StoredBlock]) -> BestModel | None:
    """Return the best model after these blocks, all from the first on. Raises `DecodeError`."""
    reader = BestModelReader.of(genesis)
    for stored in blocks:
        reader.take(stored)
    return reader.best


def describe_best(best: BestModel | None, directory: Path | None = None) -> str:
    """Return which model is the best, and where `directory` keeps it; empty where none is named."""
    if best is None:
        return ""
    made = f"of round {best.round}" if best.round else "the initial one"
    where = "" if directory is None else f", {directory / DIRECTORY / best.digest.hex()}"
    return f"best model: {made}{where or ', ' + best.digest.hex()[:12]}"
