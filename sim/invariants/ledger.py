"""Chain validity: what an honest node commits, anyone can check from genesis, and comes to the same state.

docs/PROTOCOL.md section 7.1: "A ledger can be checked from genesis by anyone: hashes, certificates, Readys,
every embedded statement and the contract."
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flocknode.observe.ledger import Step
from protocol import durable
from protocol.codec import DecodeError
from protocol.engine import Engine
from protocol.events import Effect, Persist
from protocol.ledger.block import decode_stored_block
from protocol.ledger.chain import Chain, ChainError
from protocol.params import Genesis
from sim.invariants.base import InvariantError, StepRule, apply_rule

if TYPE_CHECKING:
    from sim.node import Node


class Ledger:
    """Replays what honest nodes commit on a chain of its own, and shows each block to the `rules` once.

    `steps` is the ledger so far, as far as any honest node has taken it.
    """

    def __init__(self, genesis: Genesis, rules: Sequence[StepRule] = ()) -> None:
        self.genesis = genesis
        self.steps: list[Step] = []
        self.rules = list(rules)
        self._chain = Chain.at_genesis(genesis)

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None:
        if not node.honest:
            return
        for effect in performed:
            if isinstance(effect, Persist) and effect.bucket == durable.BLOCK and effect.value is not None:
                self._take(node, durable.height_of_key(effect.key), effect.value)

    def _take(self, node: Node, height: int, value: bytes) -> None:
        if height > len(self.steps) + 1:
            raise InvariantError(f"node {node.index} committed height {height} after {len(self.steps)}")
        if height == len(self.steps) + 1:
            self._append(node, value)
        engine = node.engine
        if isinstance(engine, Engine) and engine.height == height:
            mine, checked = engine.state, self.steps[height - 1].after
            if mine is not checked and mine != checked:
                raise InvariantError(f"node {node.index} is in another state after block {height}")

    def _append(self, node: Node, value: bytes) -> None:
        before = self._chain.state
        try:
            stored = decode_stored_block(value)
            step = Step(stored, before, self._chain.append(stored))
        except (ChainError, DecodeError) as error:
            raise InvariantError(f"node {node.index} committed what does not verify: {error}") from error
        self.steps.append(step)
        for rule in self.rules:
            apply_rule(rule, step)
