"""What every node of a network works out alike: pure functions of bytes and immutable values.

A node asks for them through one object. Where many nodes run in one process, as in the simulator, they may
share an object that remembers results: none of them can tell it from one that works everything out anew.
"""

from __future__ import annotations

from protocol.admission import inadmissible
from protocol.certificates import certificate_holds
from protocol.context import RoundContext
from protocol.envelope import Statement, open_envelope
from protocol.keys import Agreed
from protocol.ledger.block import Block
from protocol.ledger.state import LedgerState
from protocol.messages import Certificate
from protocol.params import ProtocolParams
from protocol.pinning import ReleasedShares, Rules, check_seed_matches, commitment_fits, shares_in
from protocol.round import Opener, apply_block


class Checks:
    """Works everything out anew: the checks of a node that runs alone."""

    agreed: Agreed | None = None
    """Where the keys of all who share this object remember their agreements; None: each for itself."""

    def open(self, data: bytes, network: bytes, *, stripped: bool = False) -> Statement:
        """`protocol.envelope.open_envelope`; raises `WireError`."""
        return open_envelope(data, network, stripped=stripped)

    def inadmissible(self, statement: Statement, state: LedgerState, rules: Rules) -> str | None:
        """`protocol.admission.inadmissible`."""
        return inadmissible(statement, state, rules, self.commitment_fits)

    def certificate_holds(
        self, certificate: Certificate, network: bytes, validators: tuple[bytes, ...]
    ) -> bool:
        """`protocol.certificates.certificate_holds`."""
        return certificate_holds(certificate, network, validators)

    def apply_block(
        self, state: LedgerState, block: Block, parent: bytes, rules: Rules, opener: Opener
    ) -> LedgerState:
        """`protocol.round.apply_block`; raises `BlockError`. `state` is the one after the block `parent`."""
        return apply_block(state, block, parent, rules, opener)

    def shares_in(self, release: Statement, state: LedgerState, context: RoundContext) -> ReleasedShares:
        """`protocol.pinning.shares_in`."""
        return shares_in(release, state, context)

    def check_seed_matches(self, state: LedgerState, context: RoundContext, peer: bytes, seed: bytes) -> bool:
        """`protocol.pinning.check_seed_matches`."""
        return check_seed_matches(state, context, peer, seed)

    def commitment_fits(self, contribution: Statement, params: ProtocolParams) -> bool:
        """`protocol.pinning.commitment_fits`."""
        return commitment_fits(contribution, params)

    def note_signed(self, statement: Statement) -> None:
        """A node has signed this itself, so its signature holds."""
