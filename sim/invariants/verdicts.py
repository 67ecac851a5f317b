"""Verdicts: what reads TRUSTED is within the bound, and what honest nodes made together reads TRUSTED.

docs/PROTOCOL.md section 5.3: "every coordinate of the extended sum is at most |U2| * 2^(b-1) in magnitude",
with b of section 2.3; and its table of first readings, of which only the first line is left where U2 and the
aggregator are honest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flocknode.observe.ledger import Step
from protocol.algebra.field import P
from protocol.checkpoint import decode_checkpoint
from protocol.ledger.block import BlockKind
from protocol.ledger.state import RoundState
from protocol.params import ProtocolParams
from protocol.secagg.verification import Verdict
from sim.invariants.base import InvariantError
from sim.invariants.sums import parts_of_sum
from sim.notes import Notes

MOST_BITS = 20
SUM_BITS = 27


def value_bits(n_proposers: int) -> int:
    """b of section 2.3."""
    return min(MOST_BITS, SUM_BITS - (n_proposers - 1).bit_length())


class Verdicts:
    """A `StepRule`. `blob_of` gives a blob that any node holds. `trusted` counts sums that were checked."""

    def __init__(
        self,
        params: ProtocolParams,
        notes: Notes,
        blob_of: Callable[[bytes], bytes | None],
        is_honest: Callable[[bytes], bool],
    ) -> None:
        self._params = params
        self._notes = notes
        self._blob_of = blob_of
        self._is_honest = is_honest
        self.trusted = 0

    def __call__(self, step: Step) -> None:
        before, after = step.before, step.after
        if step.stored.block.kind is not BlockKind.BALLOT:
            return
        if after.learning.verdict == Verdict.TRUSTED:
            self._check_bound(before.round, before.model_digest, after.learning)
        elif not before.learning.ballot and self._all_honest(after.learning):
            name = Verdict(after.learning.verdict).name
            raise InvariantError(f"round {before.round}: the sum of honest nodes reads {name}")

    def _all_honest(self, learning: RoundState) -> bool:
        assert learning.claim is not None, "a ballot is about a claim"
        members = [contribution.peer for contribution in learning.contributors]
        return all(self._is_honest(peer) for peer in [*members, learning.claim.aggregator])

    def _check_bound(self, round_: int, model_digest: bytes, learning: RoundState) -> None:
        current = self._blob_of(model_digest)
        if current is None:
            raise InvariantError(f"round {round_}: nobody holds the current model")
        checkpoint = decode_checkpoint(self._params, current)
        parts = parts_of_sum(round_, learning.contributors, self._notes, self._blob_of, checkpoint)
        total = np.sum([plain.astype(object) for _, plain in parts], axis=0)
        bound = len(parts) << (value_bits(self._params.n_proposers) - 1)
        worst = max(abs((int(x) + P // 2) % P - P // 2) for x in total)
        if worst > bound:
            raise InvariantError(
                f"round {round_}: a sum reads TRUSTED with a value of {worst}, above {bound}"
            )
        self.trusted += 1
