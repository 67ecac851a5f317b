"""Opening the statements that stand in blocks, for reading only: signatures are not looked at."""

from __future__ import annotations

from typing import Any

from protocol.codec import DecodeError, decode
from protocol.envelope import Envelope
from protocol.messages import KIND_RULES, MESSAGE_BYTES, Kind


def open_statement(data: bytes) -> tuple[Envelope, Any]:
    """An envelope and its decoded body, of the class that its kind has. Raises `DecodeError`."""
    envelope = decode(Envelope, data, MESSAGE_BYTES)
    try:
        rule = KIND_RULES[Kind(envelope.kind)]
    except ValueError:
        raise DecodeError(f"unknown kind {envelope.kind}", "Envelope.kind") from None
    return envelope, decode(rule.body, envelope.body, rule.body_bytes)
