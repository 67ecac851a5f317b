"""Integrity: no honest node ever adopts an aggregate that is not the exact sum over the pinned U2.

docs/PROTOCOL.md section 5.5: "an accepted sum is g = (sum of q_i over honest i in U2) + x, with x fixed by
what the dishonest members committed to."
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flocknode.observe.ledger import Step
from protocol.checkpoint import decode_checkpoint
from protocol.codec import digest
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.invariants.sums import Int64Vec, moved, parts_of_sum, support_of
from sim.notes import Notes


class Integrity:
    """`blob_of` gives a blob that any node holds; `Notes` what each proposer meant.

    `checked` counts the models that were compared: a run in which none was proves nothing.
    """

    def __init__(
        self, params: ProtocolParams, notes: Notes, blob_of: Callable[[bytes], bytes | None]
    ) -> None:
        self._params = params
        self._notes = notes
        self._blob_of = blob_of
        self.checked = 0

    def __call__(self, step: Step) -> None:
        before, after = step.before, step.after
        if after.model_digest == before.model_digest:
            return
        adopted, current = self._blob_of(after.model_digest), self._blob_of(before.model_digest)
        if adopted is None or current is None:
            raise InvariantError(f"round {before.round}: nobody holds the model that was adopted")
        expected = self._expected(step, current)
        found = decode_checkpoint(self._params, adopted).model
        if not np.array_equal(found, expected):
            wrong = int(np.flatnonzero(found != expected)[0])
            raise InvariantError(
                f"round {before.round}: the adopted model is not the sum over U2; weight {wrong} is "
                f"{found[wrong]}, not {expected[wrong]} (model {digest('model', adopted).hex()[:12]})"
            )
        self.checked += 1

    def _expected(self, step: Step, current: bytes) -> Int64Vec:
        learning, checkpoint = step.before.learning, decode_checkpoint(self._params, current)
        parts = parts_of_sum(step.before.round, learning.contributors, self._notes, self._blob_of, checkpoint)
        job, _ = parts[-1]
        pinned = {contribution.peer for contribution in learning.contributors}
        weights = {bundle.peer: bundle.weight for bundle in learning.sharers if bundle.peer in pinned}
        sums = [plain for _, plain in parts]
        return moved(self._params, checkpoint.model, job, sums, weights, support_of(job, checkpoint))
