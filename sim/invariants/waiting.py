"""Waiting: a transaction that cannot apply frees those behind it, and one that was replaced stays replaced.

docs/PROTOCOL.md section 6: "An honest node replaces it by a CANCEL once it has stood in the way for 3
rounds"; section 7.5: "Of two Transactions of one slot a node keeps the one with the higher revision".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from flocknode.observe.ledger import Step
from protocol.events import Broadcast, Effect, Send
from protocol.messages import Have, Kind, Transaction
from sim.invariants.base import InvariantError
from sim.reading import own_statements

if TYPE_CHECKING:
    from sim.node import Node

MOST_ROUNDS = 3 + 2
"""In the way, and until the CANCEL has reached a leader whose block carries it."""
TAG_BYTES = 4


@define(eq=False)
class _Account:
    """What one honest node has signed: by number, the ids by revision. `since`: a number, and its round."""

    node: Node
    signed: dict[int, dict[int, bytes]] = field(factory=dict)
    since: tuple[int, int] | None = None


class Waiting:
    """An invariant, and a step rule (`at_step`). A node that was down is waited for anew."""

    def __init__(self) -> None:
        self._accounts: dict[bytes, _Account] = {}

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        for effect in performed:
            if not isinstance(effect, Broadcast | Send):
                continue
            for statement in own_statements(effect.data, node.peer):
                if isinstance(statement.body, Transaction):
                    account = self._accounts.setdefault(node.peer, _Account(node))
                    versions = account.signed.setdefault(statement.body.nonce, {})
                    versions[statement.body.revision] = statement.id
                elif isinstance(statement.body, Have) and node.peer in self._accounts:
                    _check_held(node, self._accounts[node.peer], statement.body)

    def at_step(self, step: Step) -> None:
        """Called with each block once."""
        for peer, account in sorted(self._accounts.items()):
            after = step.after.account(peer)
            is_next = after is not None and any(number >= after.nonce for number in account.signed)
            if after is None or not is_next or not account.node.alive or not account.node.honest:
                account.since = None
                continue
            if account.since is None or account.since[0] != after.nonce:
                account.since = after.nonce, step.after.round
            elif step.after.round - account.since[1] > MOST_ROUNDS:
                raise InvariantError(
                    f"node {account.node.index}: number {after.nonce} has stood in the way since round "
                    f"{account.since[1]}"
                )


def _check_held(node: Node, account: _Account, have: Have) -> None:
    """What a node tells that it holds is the last version that it signed."""
    tags = next((held.bitmap for held in have.held if held.kind == Kind.TRANSACTION), b"")
    held = {tags[i : i + TAG_BYTES] for i in range(0, len(tags), TAG_BYTES)}
    for number, versions in sorted(account.signed.items()):
        for revision in sorted(versions)[:-1]:
            if versions[revision][:TAG_BYTES] in held:
                raise InvariantError(
                    f"node {node.index}: holds revision {revision} of number {number}, and has signed another"
                )
