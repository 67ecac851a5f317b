"""A learner without data: every node pulls the model towards a point that nearly all of them agree on.

The loss is the mean squared distance to the node's own target, in exact integers. An honest round lowers it
by about three quarters, so honest aggregates are voted for, and a poisoned one is not.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from attrs import frozen

from protocol.algebra import field
from protocol.checkpoint import decode_checkpoint
from protocol.codec import digest
from protocol.events import Digest
from protocol.jobs import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from protocol.params import MICRO, ProtocolParams
from protocol.secagg.encoding import MODEL_FRACTION_BITS
from sim.world import ReadBlob

Int64Vec = npt.NDArray[np.int64]

COMMON_SPREAD = 0.5
OWN_SPREAD = 0.02
LOSS_FRACTION_BITS = 12
"""Losses are computed on values rounded down to this many fractional bits, so that squares fit int64."""


@frozen
class SyntheticLearner:
    """Targets are within +-0.5 of the origin, common to all but for +-0.02 of each node's own."""

    params: ProtocolParams
    seed: bytes

    def train(self, node: int, job: TrainJob, read_blob: ReadBlob) -> TrainResult:
        """Half the way from the model to the node's target; no randomness but that of the target."""
        gap = self._target(node) - self._model(job.model_digest, read_blob)
        update = (gap / (2 << MODEL_FRACTION_BITS)).astype(np.float32)
        return TrainResult(update, sample_count(self.params, node))

    def evaluate(self, node: int, job: EvaluateJob, read_blob: ReadBlob) -> EvaluateResult:
        best = job.best_digest
        return EvaluateResult(
            self.loss_micro(node, job.current_digest, read_blob) / MICRO,
            self.loss_micro(node, job.candidate_digest, read_blob) / MICRO,
            None if best is None else self.loss_micro(node, best, read_blob) / MICRO,
        )

    def loss_micro(self, node: int, model_digest: Digest, read_blob: ReadBlob) -> int:
        """The mean squared distance of a model from the node's target, in micro-units."""
        gap = self._target(node) - self._model(model_digest, read_blob)
        coarse = gap >> (MODEL_FRACTION_BITS - LOSS_FRACTION_BITS)
        squares = sum(int(x) ** 2 for x in coarse) if np.abs(coarse).max() >= 2**20 else int(coarse @ coarse)
        return squares * MICRO // (self.params.dimension << (2 * LOSS_FRACTION_BITS))

    def _model(self, model_digest: Digest, read_blob: ReadBlob) -> Int64Vec:
        return decode_checkpoint(self.params, read_blob(model_digest)).model

    def _target(self, node: int) -> Int64Vec:
        return _target(self.seed, node, self.params.dimension)


def sample_count(params: ProtocolParams, member: int) -> int:
    """The public weight of a member: about half of what the network admits, and not the same for all."""
    return min(params.max_weight, params.max_weight // 2 + 1 + member % 7)


@lru_cache(maxsize=256)
def _target(seed: bytes, node: int, dimension: int) -> Int64Vec:
    """int64[d] in units of 2^-24; read-only."""
    own = digest("sim target", seed, node.to_bytes(4, "big"))
    target = _uniform(seed, dimension, COMMON_SPREAD) + _uniform(own, dimension, OWN_SPREAD)
    target.setflags(write=False)
    return target


def _uniform(seed: bytes, dimension: int, spread: float) -> Int64Vec:
    """Integers uniform within +-spread, in units of 2^-24."""
    width = int(2 * spread * (1 << MODEL_FRACTION_BITS))
    words = field.expand(seed, b"sim target", dimension).astype(np.int64)
    return words % width - width // 2
