"""Uniform draws under a condition: words of a pseudo-random stream, taken in order, refused ones skipped.

docs/PROTOCOL.md section 2. Skipping keeps the draw exactly uniform over the accepted values, and the result
depends on the stream alone, so every implementation draws the same.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from protocol.algebra import field
from protocol.algebra.field import FieldVec

Acceptance: TypeAlias = Callable[[FieldVec], npt.NDArray[np.bool_]]

# Enough for the rare refusals of a typical condition; a second, longer expansion follows when it is not.
_SPARE_WORDS = 16


def first_accepted(seed: bytes, label: bytes, count: int, accept: Acceptance) -> FieldVec:
    """The first `count` words of `expand(seed, label)` that `accept` admits, uint32[count].

    `accept` maps uint32[m] to bool[m], looks at each word alone and admits some. FieldError for a bad seed.
    """
    drawn = count + _SPARE_WORDS
    while True:
        words = field.expand(seed, label, drawn)
        kept = words[accept(words)]
        if kept.size >= count:
            return np.ascontiguousarray(kept[:count])
        drawn *= 2
