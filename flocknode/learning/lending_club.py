"""The public schema of the Lending Club loans: how 22 columns become one feature vector.

Standardising with means and deviations of the pooled data would hand every node a statistic of everyone
else's customers before the first mask is drawn, and computing them needs a party that sees all of it. So
nothing here is estimated: vocabularies are those of the lender's application form, and ranges are round
numbers from its product terms (loans of 1,000 to 40,000 dollars at 5 to 31 % a year), from common knowledge
of household finances, or plain counts. Each node encodes its rows alone and all of them agree on what a
coordinate means.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

LABEL_COLUMN = "Class"
LABELS = ("good", "bad")

CLASS_WEIGHTS = (0.5 / 0.95, 0.5 / 0.05)
"""Loss weight of a good and of a bad loan: both classes count the same when 1 loan in 20 goes bad.
A constant of the task, because a weight from local counts explodes on a shard with one bad loan."""

FEATURE_LIMIT = 2.0
"""Encoded numbers are clipped to this: a typing error in an income must not own the gradient."""


class SchemaError(ValueError):
    """A column is missing or holds a value outside the public schema; the message names column and value."""


@frozen
class Linear:
    """Maps [low, high], in the column's unit, to [-1, 1]."""

    low: float
    high: float


@frozen
class Logarithmic:
    """Maps log(1 + x) for x in [low, high], in the column's unit, to [-1, 1]: for money and counts."""

    low: float
    high: float


NUMERIC: Mapping[str, Linear | Logarithmic] = {
    "funded_amnt": Linear(1_000, 40_000),  # dollars
    "int_rate": Linear(5, 31),  # percent a year
    "annual_inc": Logarithmic(15_000, 300_000),  # dollars
    "delinq_2yrs": Logarithmic(0, 10),
    "inq_last_6mths": Logarithmic(0, 5),
    "revol_util": Linear(0, 100),  # percent
    "acc_now_delinq": Logarithmic(0, 3),
    "open_il_6m": Logarithmic(0, 20),
    "open_il_12m": Logarithmic(0, 10),
    "open_il_24m": Logarithmic(0, 10),
    "total_bal_il": Logarithmic(1_000, 200_000),  # dollars
    "all_util": Linear(0, 100),  # percent
    "inq_fi": Logarithmic(0, 10),
    "inq_last_12m": Logarithmic(0, 20),
    "delinq_amnt": Logarithmic(0, 100_000),  # dollars
    "num_il_tl": Logarithmic(0, 40),
    "total_il_high_credit_limit": Logarithmic(1_000, 200_000),  # dollars
}

STATES = (
    "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO "
    "MT NE NV NH NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY"
)
"""Postal codes of the 50 states and the District of Columbia."""

ORDINAL: Mapping[str, tuple[str, ...]] = {
    "term": ("term_36", "term_60"),  # months
    "sub_grade": tuple(f"{grade}{step}" for grade in "ABCDEFG" for step in range(1, 6)),
}

NOMINAL: Mapping[str, tuple[str, ...]] = {
    "verification_status": ("Not_Verified", "Source_Verified", "Verified"),
    "emp_length": ("emp_unk", "emp_lt_1", *(f"emp_{years}" for years in range(1, 10)), "emp_ge_10"),
    "addr_state": tuple(STATES.split()),
}

COLUMNS = (*NUMERIC, *ORDINAL, *NOMINAL, LABEL_COLUMN)
FEATURES = len(NUMERIC) + len(ORDINAL) + sum(len(vocabulary) for vocabulary in NOMINAL.values())


def encode(columns: Mapping[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features float32[n, FEATURES] within +-FEATURE_LIMIT and labels int64[n] (1 is a bad loan).

    `columns` maps every name of COLUMNS to its n values. Numbers and ranks are scaled to about [-1, 1],
    nominal columns are one-hot. Row by row: no value depends on another row. Raises SchemaError.
    """
    for name in COLUMNS:
        if name not in columns:
            raise SchemaError(f"Lending Club column {name!r} is missing")
    parts = [_scaled(name, columns[name], rule)[:, None] for name, rule in NUMERIC.items()]
    for name, vocabulary in ORDINAL.items():
        rank = _ranks(name, columns[name], vocabulary)
        parts.append((2.0 * rank / (len(vocabulary) - 1) - 1.0)[:, None])
    for name, vocabulary in NOMINAL.items():
        parts.append(np.eye(len(vocabulary))[_ranks(name, columns[name], vocabulary)])
    return np.hstack(parts).astype(np.float32), _ranks(LABEL_COLUMN, columns[LABEL_COLUMN], LABELS)


def _scaled(name: str, values: npt.NDArray[Any], rule: Linear | Logarithmic) -> npt.NDArray[np.float64]:
    x = values.astype(np.float64)
    if not np.isfinite(x).all() or x.min(initial=0.0) < 0:
        raise SchemaError(f"Lending Club column {name!r} holds a negative or missing number")
    low, high = rule.low, rule.high
    if isinstance(rule, Logarithmic):
        x, low, high = np.log1p(x), float(np.log1p(low)), float(np.log1p(high))
    scaled: npt.NDArray[np.float64] = 2.0 * (x - low) / (high - low) - 1.0
    return np.clip(scaled, -FEATURE_LIMIT, FEATURE_LIMIT)


def _ranks(name: str, values: npt.NDArray[Any], vocabulary: tuple[str, ...]) -> npt.NDArray[np.int64]:
    words = np.array(vocabulary)
    order = np.argsort(words)
    found = np.minimum(np.searchsorted(words, values, sorter=order), len(words) - 1)
    ranks = order[found]
    unknown = words[ranks] != values
    if unknown.any():
        raise SchemaError(
            f"Lending Club column {name!r} holds {str(values[unknown][0])!r}, not in the schema"
        )
    return ranks.astype(np.int64)
