"""Blame: no honest node pays for a provable fault, and an honest aggregator that a client frames is cleared.

docs/PROTOCOL.md section 5.4: "First readings are not rulings", and section 6: "Provable faults".
"""

from __future__ import annotations

from collections.abc import Callable

from flocknode.observe.ledger import Step
from protocol.ledger.block import DisputeBody, decode_body
from protocol.ledger.state import Fault
from sim.invariants.base import InvariantError
from sim.scenario.outcome import proven_faults

PROVABLE = (Fault.FORGED_AGGREGATE, Fault.BROKEN_CHECK, Fault.BAD_DEALING, Fault.EQUIVOCATION)
"""Faults that nobody commits who only fails; an unopened vote is one that a crash causes too."""


class Blame:
    """`is_honest(peer)`: neither an adversary nor a machine whose store was tampered with.

    `was_away(peer)`: whether faults kept it from the network in this round. Section 11.5, limit 8: an honest
    aggregator that nobody can reach until the deadline of a dispute pays for a missing upload.
    """

    def __init__(
        self,
        is_honest: Callable[[bytes], bool],
        was_away: Callable[[bytes], bool],
        name: Callable[[bytes], str],
    ) -> None:
        self._is_honest = is_honest
        self._was_away = was_away
        self._name = name
        self._excused: set[tuple[int, bytes]] = set()
        self.cleared = 0
        """Rulings in which an honest aggregator was cleared."""

    def __call__(self, step: Step) -> None:
        body = decode_body(step.stored.block)
        if isinstance(body, DisputeBody):
            self._check_ruling(step, body)
        for found in proven_faults([step]):
            if found.fault not in PROVABLE or not self._is_honest(found.peer):
                continue
            if found.fault is Fault.FORGED_AGGREGATE and (found.round, found.peer) in self._excused:
                continue
            raise InvariantError(
                f"round {found.round}: node {self._name(found.peer)} is honest, "
                f"and pays for {found.fault.name}"
            )

    def _check_ruling(self, step: Step, body: DisputeBody) -> None:
        claim = step.before.learning.claim
        assert claim is not None, "a dispute is about a claim"
        if not self._is_honest(claim.aggregator):
            return
        if body.missing:
            if self._was_away(claim.aggregator):
                self._excused.add((step.before.round, claim.aggregator))
            return
        if not body.sum_matches:
            raise InvariantError(
                f"round {step.before.round}: node {self._name(claim.aggregator)} added up right, "
                "and is found guilty"
            )
        self.cleared += 1
