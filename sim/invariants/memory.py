"""Bounded memory: what one peer can make a node keep does not grow with what it sends.

docs/PROTOCOL.md section 8.6: "What a node keeps of one peer is bounded by the slots that it has."
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from protocol.admission import CHECK_RELEASES, NONCE_WINDOW
from protocol.early import EARLY_MESSAGES
from protocol.engine import Engine
from protocol.events import Effect
from protocol.params import ProtocolParams
from protocol.secagg.scheme import build_scheme
from sim.invariants.base import InvariantError

if TYPE_CHECKING:
    from sim.node import Node

EVERY = 64
"""Events of a node between two looks at its memory."""
VERSIONS = 2
"""Of one slot: the statement, and the one that contradicts it."""
ROUNDS = 2
"""The current round and the next."""
SHARE_BYTES = 512
"""One released share with its Merkle proof, encoded."""
OPENING_BYTES = 5 << 10
SMALL_BYTES = 512
"""Any statement whose size does not grow with the round."""


def slots_of_peer(params: ProtocolParams, validators: int) -> int:
    """How many statements one sender has room for in one round (docs/PROTOCOL.md section 8.6)."""
    about_others = params.max_attempts + 4
    """Receipts of each attempt; witness, complaint, opening and evidence, each about anybody."""
    alone = 1 + 1 + 1 + 1 + 2 + 2 + (1 + CHECK_RELEASES) + params.max_attempts
    return about_others * validators + alone


def most_kept(params: ProtocolParams, validators: int) -> dict[str, int]:
    """The most of each that a node keeps of one peer."""
    slots, proposers = slots_of_peer(params, validators), params.n_proposers
    commitment = build_scheme(params, bytes(32), bytes(32)).commitment_bytes
    bytes_a_round = (
        slots * SMALL_BYTES
        + (1 + CHECK_RELEASES) * proposers * SHARE_BYTES
        + params.max_attempts * proposers * 2 * SMALL_BYTES
        + proposers * SMALL_BYTES
        + validators * (OPENING_BYTES + proposers * SHARE_BYTES)
        + commitment
    )
    return {
        "statements": VERSIONS * (ROUNDS * slots + 1 + NONCE_WINDOW),
        "statement_bytes": VERSIONS * (ROUNDS * bytes_a_round + SMALL_BYTES * (1 + NONCE_WINDOW)),
        "early_messages": EARLY_MESSAGES,
        "early_boxes": ROUNDS * VERSIONS,
        "timeouts": 2,
    }


def kept_by(engine: Engine) -> Mapping[str, Mapping[bytes, int]]:
    """What an engine keeps of each peer, by the names of `most_kept`."""
    statements: Counter[bytes] = Counter()
    sizes: Counter[bytes] = Counter()
    for sender, size in engine.pool.kept():
        statements[sender] += 1
        sizes[sender] += size
    return {
        "statements": statements,
        "statement_bytes": sizes,
        "early_messages": engine.negotiation.early_messages(),
        "early_boxes": engine.negotiation.early_boxes(),
        "timeouts": engine.agreement.timeouts_kept(),
    }


class Memory:
    """Looks at every honest engine now and then; `peak` is the largest share of a bound seen, by what."""

    def __init__(self, params: ProtocolParams) -> None:
        self._params = params
        self._most: dict[int, dict[str, int]] = {}
        self._events: Counter[int] = Counter()
        self.peak: dict[str, float] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        self._events[node.index] += 1
        if not node.honest or self._events[node.index] % EVERY or not isinstance(node.engine, Engine):
            return
        accounts = len(node.engine.state.accounts)
        if accounts not in self._most:
            self._most[accounts] = most_kept(self._params, accounts)
        most = self._most[accounts]
        for what, by_peer in kept_by(node.engine).items():
            for peer, amount in by_peer.items():
                if amount > most[what]:
                    raise InvariantError(
                        f"node {node.index} keeps {amount} {what} of peer {peer.hex()[:12]}, "
                        f"at most {most[what]} are due"
                    )
                self.peak[what] = max(self.peak.get(what, 0.0), amount / most[what])
