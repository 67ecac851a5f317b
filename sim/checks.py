"""Checks that the nodes of a simulated network share: each is worked out once, whoever asks.

They are functions of their arguments alone, so a run cannot tell a result that is remembered from one that is
worked out anew. Only what holds is remembered; what fails is found out again by everyone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from protocol import keys
from protocol.admission import inadmissible
from protocol.certificates import certificate_holds
from protocol.checks import Checks
from protocol.context import RoundContext
from protocol.envelope import Statement, open_envelope
from protocol.ledger.block import Block
from protocol.ledger.state import LedgerState
from protocol.messages import KIND_RULES, MESSAGE_BYTES, Certificate, Kind
from protocol.params import ProtocolParams
from protocol.pinning import ReleasedShares, Rules, check_seed_matches, commitment_fits, shares_in
from protocol.round import Opener, apply_block

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

OPENED_BYTES = 32 << 20
STATEMENT_BYTES = 4 << 10
"""What a statement weighs beside its bytes."""
SIGNATURES = 16_384
CERTIFICATES = 256
STATES = 64
RELEASES = 1_024
COMMITMENTS = 256
SEEDS = 1_024
AGREEMENTS = 16_384


class Remembered(Generic[K, V]):
    """A dict whose values weigh at most `limit` together; those whose keys are oldest go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._entries: dict[K, V] = {}
        self._weights: deque[tuple[K, int]] = deque()
        self.get: Callable[[K], V | None] = self._entries.get

    def keep(self, key: K, value: V, weight: int = 1) -> V:
        """Remember a value that is not None, and return it. Its weight follows from the key."""
        if key not in self._entries:
            self._weights.append((key, weight))
            self._held += weight
        self._entries[key] = value
        while self._held > self._limit:
            oldest, its_weight = self._weights.popleft()
            del self._entries[oldest]
            self._held -= its_weight
        return value


class Latest(dict[K, V]):
    """As many entries as `limit`: the oldest goes when there is one more."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._limit:
            del self[next(iter(self))]


class SharedChecks(Checks):
    """Of one network."""

    def __init__(self) -> None:
        self.agreed = Latest[tuple[bytes, bytes], bytes](AGREEMENTS)
        self._opened: Remembered[bytes, Statement] = Remembered(OPENED_BYTES)
        self._admitted: Remembered[tuple[bytes, int], tuple[Statement, LedgerState]] = Remembered(
            OPENED_BYTES
        )
        self._signed: Remembered[bytes, tuple[bytes, bytes]] = Remembered(SIGNATURES)
        self._certificates: Remembered[tuple[Certificate, bytes, tuple[bytes, ...]], bool] = Remembered(
            CERTIFICATES
        )
        self._shares: Remembered[bytes, tuple[tuple[object, ...], ReleasedShares]] = Remembered(RELEASES)
        self._commitments: Remembered[tuple[bytes, bytes, ProtocolParams], bool] = Remembered(COMMITMENTS)
        self._seeds: Remembered[tuple[bytes, bytes, bytes], bool] = Remembered(SEEDS)
        self._states: Remembered[tuple[bytes, bytes, bytes], LedgerState] = Remembered(STATES)

    def open(self, data: bytes, network: bytes, *, stripped: bool = False) -> Statement:
        known = self._opened.get(data)
        if (
            known is not None
            and known.envelope.network == network
            and not (stripped and known.envelope.payload)
        ):
            return known
        opened = open_envelope(data, network, stripped=stripped, verify=self.verify)
        return self._opened.keep(data, opened, STATEMENT_BYTES + len(data))

    def inadmissible(self, statement: Statement, state: LedgerState, rules: Rules) -> str | None:
        """Nodes share their states and what they have opened, so sameness is that of the objects.

        Around each block some are asked after it and some before it, in turn.
        """
        key = statement.id, id(state)  # which stays its own: the state is kept with the answer
        known = self._admitted.get(key)
        if known is not None and known[0] is statement and known[1] is state:
            return None
        reason = inadmissible(statement, state, rules, self.commitment_fits)
        if reason is None:
            self._admitted.keep(key, (statement, state), STATEMENT_BYTES + len(statement.encoded))
        return reason

    def certificate_holds(
        self, certificate: Certificate, network: bytes, validators: tuple[bytes, ...]
    ) -> bool:
        key = (certificate, network, validators)
        return self._certificates.get(key) or (
            certificate_holds(certificate, network, validators, self.verify)
            and self._certificates.keep(key, True)
        )

    def apply_block(
        self, state: LedgerState, block: Block, parent: bytes, rules: Rules, opener: Opener
    ) -> LedgerState:
        """A block's hash binds all that led to it, the state before it included."""
        key = (rules.network, parent, block.hash)
        return self._states.get(key) or self._states.keep(
            key, apply_block(state, block, parent, rules, opener)
        )

    def shares_in(self, release: Statement, state: LedgerState, context: RoundContext) -> ReleasedShares:
        """What is pinned counts as the same where it is the same object: nodes share their states."""
        learning = state.learning
        pinned = (learning.sharers, learning.adverts, context.proposers)
        known = self._shares.get(release.id)
        if known is not None and all(a is b for a, b in zip(known[0], pinned, strict=True)):
            return known[1]
        return self._shares.keep(release.id, (pinned, shares_in(release, state, context)))[1]

    def check_seed_matches(self, state: LedgerState, context: RoundContext, peer: bytes, seed: bytes) -> bool:
        """A state's root binds what it pins of every seed."""
        key = (state.root, peer, seed)
        return self._seeds.get(key) or (
            check_seed_matches(state, context, peer, seed) and self._seeds.keep(key, True)
        )

    def commitment_fits(self, contribution: Statement, params: ProtocolParams) -> bool:
        key = (contribution.id, contribution.envelope.payload, params)
        return self._commitments.get(key) or (
            commitment_fits(contribution, params) and self._commitments.keep(key, True)
        )

    def note_signed(self, statement: Statement) -> None:
        """The others need not even read what one of the nodes has written and signed."""
        if statement.kind is Kind.VOTE:  # of which a certificate shows the signature alone
            self._signed.keep(statement.id, (statement.sender, statement.envelope.signature))
        if _would_open(statement):
            self._opened.keep(statement.encoded, statement, STATEMENT_BYTES + len(statement.encoded))
            if statement.envelope.payload:  # without which it stands in blocks
                bare = statement.bare
                self._opened.keep(bare.encoded, bare, STATEMENT_BYTES + len(bare.encoded))

    def verify(self, peer: bytes, message: bytes, signature: bytes) -> bool:
        """`protocol.keys.verify`, without the work where one of the nodes itself made the signature."""
        return self._signed.get(message) == (peer, signature) or keys.verify(peer, message, signature)


def _would_open(statement: Statement) -> bool:
    """Is it within the limits of its kind? All else that `open_envelope` asks for, its making has seen to."""
    rule, envelope = KIND_RULES[statement.kind], statement.envelope
    return (
        type(statement.body) is rule.body
        and len(envelope.body) <= rule.body_bytes
        and len(envelope.payload) <= rule.payload_bytes
        and len(statement.encoded) <= MESSAGE_BYTES
    )
