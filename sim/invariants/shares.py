"""Shares: what an honest holder gives back stands under its dealer's root, in the dealer's and its own name.

docs/PROTOCOL.md section 3.3: "leaf = merkle_leaf(scope || holder || share), scope = H("share", network,
be8(round), i, byte(kind))". Were dealer or holder not in it, one could pass another's shares off as its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from protocol.engine import Engine
from protocol.events import Broadcast, Effect
from protocol.ledger.state import LedgerState
from protocol.messages import Kind, ReleasedShare, ShareRelease
from sim.invariants.base import InvariantError
from sim.invariants.plain import be8, root_of_leaf, tagged_hash
from sim.reading import own_statements

if TYPE_CHECKING:
    from sim.node import Node


class Shares:
    """`seen` counts shares that were given back."""

    def __init__(self, network: bytes) -> None:
        self._network = network
        self.seen = 0

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest or not isinstance(node.engine, Engine):
            return
        state = node.engine.state
        for effect in performed:
            if isinstance(effect, Broadcast):
                for statement in own_statements(effect.data, node.peer):
                    if statement.kind is Kind.SHARE_RELEASE and statement.round == state.round:
                        assert isinstance(statement.body, ShareRelease)
                        self._check(node, state, statement.body)

    def _check(self, node: Node, state: LedgerState, release: ShareRelease) -> None:
        proposers = state.learning.proposers
        roots = {bundle.peer: bundle.share_roots for bundle in state.learning.sharers}
        for share in release.shares:
            leaf = self._leaf(state.round, node.peer, share)
            root = root_of_leaf(leaf, proposers.index(node.peer), len(proposers), share.proof)
            if share.dealer not in roots or root != roots[share.dealer][share.share_kind]:
                raise InvariantError(
                    f"node {node.index}, round {state.round}: a share under no root of its dealer"
                )
            self.seen += 1

    def _leaf(self, round_: int, holder: bytes, share: ReleasedShare) -> bytes:
        scope = tagged_hash("share", self._network, be8(round_), share.dealer, bytes((share.share_kind,)))
        return sha256(b"\x00" + scope + holder + share.share).digest()
