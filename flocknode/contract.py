"""The stake contract of a network as people write and read it: the interim rule, or FLock's as published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocol.ledger.judgement import Judgement
from protocol.params import ProtocolParams

INTERIM, FLOCK = "interim", "flock"
CONTRACTS = (INTERIM, FLOCK)
DEFAULT = INTERIM


class ContractError(ValueError):
    """No contract of this name."""


def contract_settings(name: str) -> Mapping[str, Any]:
    """Return the fields of `ProtocolParams` that `--contract NAME` sets. Raises `ContractError`."""
    if name not in CONTRACTS:
        raise ContractError(f"--contract {name}: choose one of {', '.join(CONTRACTS)}")
    return {"judgement": Judgement()} if name == INTERIM else {}


def contract_name(params: ProtocolParams) -> str:
    """Return the name of a network's contract."""
    return FLOCK if params.judgement is None else INTERIM
