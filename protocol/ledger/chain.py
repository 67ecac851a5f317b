"""The hash chain of final blocks, and its replay from genesis (docs/PROTOCOL.md section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, field

from protocol.checks import Checks
from protocol.envelope import Statement, open_envelope
from protocol.ledger.block import Block, StoredBlock
from protocol.ledger.state import LedgerState, genesis_state
from protocol.messages import VotePhase
from protocol.params import Genesis
from protocol.pinning import Rules
from protocol.round import BlockError, Opener


class ChainError(ValueError):
    """A stored block is wrong; `height` is the first such."""

    def __init__(self, height: int, what: str) -> None:
        super().__init__(f"block {height}: {what}")
        self.height = height


def genesis_head(network: bytes) -> bytes:
    """The parent of block 1 is the network id."""
    return network


@define(eq=False)
class Chain:
    """The state after the last final block, and how it got there."""

    genesis: Genesis
    rules: Rules
    opener: Opener
    checks: Checks = field(factory=Checks)
    state: LedgerState = field(init=False)
    head: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = genesis_state(self.genesis)
        self.head = genesis_head(self.rules.network)

    @staticmethod
    def at_genesis(genesis: Genesis, opener: Opener | None = None) -> Chain:
        """An empty chain; without an opener envelopes are opened one by one."""
        network = genesis.network
        rules = Rules(genesis.params, network)
        return Chain(genesis, rules, opener or plain_opener(network))

    @property
    def height(self) -> int:
        return self.state.height

    def check_certificate(self, stored: StoredBlock) -> None:
        """The COMMIT certificate is of this very block, by the current validators; raises `ChainError`."""
        vote, block = stored.certificate.vote, stored.block
        expected = (VotePhase.COMMIT, block.height, block.hash)
        if (vote.phase, vote.height, vote.block_hash) != expected:
            raise ChainError(block.height, "the certificate is of another block")
        if stored.certificate.round != self.state.round:
            raise ChainError(block.height, "the certificate is of another round")
        if not self.checks.certificate_holds(stored.certificate, self.rules.network, self.state.validators):
            raise ChainError(block.height, "the certificate does not hold")

    def effect(self, block: Block) -> LedgerState:
        """The state that the block would lead to; raises `BlockError`."""
        return self.checks.apply_block(self.state, block, self.head, self.rules, self.opener)

    def append(self, stored: StoredBlock) -> LedgerState:
        """Check and take the next block; raises `ChainError` naming the height."""
        if stored.block.height != self.height + 1:
            raise ChainError(stored.block.height, f"does not follow block {self.height}")
        self.check_certificate(stored)
        try:
            after = self.effect(stored.block)
        except BlockError as error:
            raise ChainError(stored.block.height, str(error)) from None
        self.take(stored.block, after)
        return after

    def take(self, block: Block, after: LedgerState) -> None:
        """The next block, whose certificate was checked and whose effect is known."""
        self.state, self.head = after, block.hash


def plain_opener(network: bytes) -> Opener:
    """Opens an envelope that stands in a block."""

    def open_cited(data: bytes) -> Statement:
        return open_envelope(data, network, stripped=True)

    return open_cited


def replay(
    genesis: Genesis, stored: Callable[[], Iterator[StoredBlock]]
) -> Iterator[tuple[StoredBlock, LedgerState, LedgerState]]:
    """Walk a ledger from genesis, checking hashes, certificates and the contract: (block, before, after).

    Raises `ChainError` at the first block that is wrong.
    """
    chain = Chain.at_genesis(genesis)
    for entry in stored():
        before = chain.state
        yield entry, before, chain.append(entry)
