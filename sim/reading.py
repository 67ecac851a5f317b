"""Reading what nodes send, from outside: decoded once, signatures not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from protocol.codec import decode
from protocol.envelope import Envelope, Statement, signing_digest
from protocol.messages import KIND_RULES, MESSAGE_BYTES, Body, Kind

REMEMBERED = 1 << 14


@lru_cache(maxsize=REMEMBERED)
def read_statement(data: bytes) -> Statement:
    """An envelope, decoded but not verified; raises `ValueError` where it is none."""
    envelope = decode(Envelope, data, MESSAGE_BYTES)
    rule = KIND_RULES[Kind(envelope.kind)]
    body: Body = decode(rule.body, envelope.body, rule.body_bytes)
    return Statement(
        envelope,
        body,
        signing_digest(envelope.network, envelope.round, envelope.kind, envelope.sender, envelope.body),
    )


def own_statements(data: bytes, peer: bytes) -> Iterator[Statement]:
    """The message, if it is the sender's own; what it relays in a batch others have said before."""
    statement = read_statement(data)
    if statement.sender == peer:
        yield statement
