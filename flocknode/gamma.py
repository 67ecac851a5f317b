"""The gamma of a network as people write and read it: a number of tokens, or "adaptive"."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from protocol.ledger.adaptive import AdaptiveGamma
from protocol.ledger.economy import UNITS
from protocol.params import DEFAULT_GAMMA_UNITS, ProtocolParams

ADAPTIVE = "adaptive"
DEFAULT = str(DEFAULT_GAMMA_UNITS // UNITS)


class GammaError(ValueError):
    """Neither "adaptive" nor an amount of tokens."""


def gamma_settings(text: str) -> Mapping[str, Any]:
    """The fields of `ProtocolParams` that `--gamma TEXT` sets. Raises `GammaError`."""
    if text == ADAPTIVE:
        return {"adaptive_gamma": AdaptiveGamma()}
    try:
        tokens = float(text)
    except ValueError:
        tokens = -1.0
    if not isfinite(tokens) or tokens < 0:
        raise GammaError(f"--gamma {text}: a number of tokens from 0, or {ADAPTIVE}")
    return {"gamma_units": round(tokens * UNITS)}


def describe_gamma(params: ProtocolParams) -> str:
    """What the losers of a vote pay, in a few words."""
    rule = params.adaptive_gamma
    if rule is None:
        return f"{params.gamma_units / UNITS:,.2f}"
    return f"adaptive, {rule.lowest_units / UNITS:,.2f} to {rule.highest_units / UNITS:,.2f}"
