"""Blocks in words: every field by name, peers as libp2p peer ids, digests in hex, statements opened."""

from __future__ import annotations

from enum import Enum
from typing import Any

import attrs

from flocknode.observe.statements import open_statement
from protocol.codec import DecodeError
from protocol.keys import KEY_BYTES, peer_name, short_name
from protocol.ledger import block as blocks
from protocol.ledger.block import Block, StoredBlock, decode_body
from protocol.ledger.economy import UNITS
from protocol.messages import KIND_RULES, Held, Kind, VoteOpening
from protocol.secagg.verification import Verdict

_PEERS = {"peer", "sender", "leader", "proposer", "dealer", "missing", "guilty_checks"}
_STATEMENTS = {
    "adverts",
    "bundles",
    "claim",
    "contributions",
    "evidence",
    "openings",
    "readys",
    "receipts",
    "reveals",
    "sealed_votes",
    "transactions",
}


def describe_block(stored: StoredBlock) -> dict[str, object]:
    """A block and its certificate as JSON-ready values. What does not decode stands there in hex."""
    block, vote = stored.block, stored.certificate.vote
    try:
        body = _plain("body", decode_body(block))
    except DecodeError as error:
        body = {"undecodable": block.body.hex(), "why": str(error)}
    return {
        "height": block.height,
        "round": block.round,
        "kind": block.kind.name,
        "hash": block.hash.hex(),
        "parent": block.parent.hex(),
        "state_root": block.state_root.hex(),
        "leader": peer_name(block.leader),
        "view": block.view,
        "certificate": {
            "round": stored.certificate.round,
            "phase": vote.phase.name,
            "height": vote.height,
            "view": vote.view,
            "block_hash": vote.block_hash.hex(),
            "signers": [_peer(voter) for voter, _ in stored.certificate.signatures],
        },
        "readys": [_statement(data) for data in block.readys],
        "body": body,
    }


def summarise(block: Block) -> str:
    """What a block decided, in one line."""
    try:
        return _summary(decode_body(block))
    except DecodeError as error:
        return f"undecodable: {error}"


def _summary(body: blocks.BlockBody) -> str:
    match body:
        case blocks.OpenBody():
            orders = len(body.closing.transactions)
            adverts = f"{len(body.closing.adverts)} nodes advertise keys" if body.closing.adverts else ""
            return ", ".join(
                filter(None, [adverts, f"{orders} transaction{'s' * (orders > 1)}" if orders else ""])
            )
        case blocks.SetupBody():
            return f"shared their secrets: {_senders(body.bundles)}"
        case blocks.ContributionBody():
            return f"contributed: {_senders(body.contributions)}"
        case blocks.AggregateBody():
            return f"aggregated by {_senders((body.claim,))}"
        case blocks.TimeoutBody():
            return f"aggregator {body.attempt + 1} was silent"
        case blocks.BallotBody():
            return f"{Verdict(body.verdict).name}, sealed votes: {_senders(body.sealed_votes) or 'none'}"
        case blocks.DisputeBody():
            return _ruling(body)
        case blocks.OutcomeBody():
            return f"votes: {', '.join(_vote(data) for data in body.openings) or 'none'}"
        case blocks.AbandonBody():
            return f"given up: {body.reason.name}"
        case blocks.AbortBody():
            return f"aborted: {body.reason.name}"


def tokens(units: int) -> str:
    """An amount of the stake contract, for people."""
    return f"{units / UNITS:,.2f}"


def _ruling(body: blocks.DisputeBody) -> str:
    if body.missing:
        return f"uploads missing: {_short(body.missing)}"
    guilty = f", broken checks: {_short(body.guilty_checks)}" if body.guilty_checks else ""
    return f"the sum {'is right' if body.sum_matches else 'was forged, and is replaced'}{guilty}"


def _vote(data: bytes) -> str:
    envelope, body = open_statement(data)
    assert isinstance(body, VoteOpening)
    return f"{short_name(envelope.sender)} {body.vote:+d}"


def _senders(statements: tuple[bytes, ...]) -> str:
    return _short(tuple(open_statement(data)[0].sender for data in statements))


def _short(peers: tuple[bytes, ...]) -> str:
    return " ".join(short_name(peer) for peer in peers)


def _statement(data: bytes) -> object:
    try:
        envelope, body = open_statement(data)
    except DecodeError as error:
        return {"undecodable": data.hex(), "why": str(error)}
    return {
        "kind": Kind(envelope.kind).name,
        "round": envelope.round,
        "sender": peer_name(envelope.sender),
        **_fields(body),
    }


def _fields(record: Any) -> dict[str, Any]:
    names = [field.name for field in attrs.fields(type(record))]
    return {name: _plain(name, getattr(record, name)) for name in names}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, bytes):
        if name in _STATEMENTS:
            return _statement(value)
        return _peer(value) if name in _PEERS else value.hex()
    if isinstance(value, Held):
        kind = Kind(value.kind).name if value.kind in KIND_RULES else value.kind
        return {"kind": kind, "bitmap": value.bitmap.hex()}
    if isinstance(value, Enum):
        return value.name
    if attrs.has(type(value)):
        return _fields(value)
    return value


def _peer(value: bytes) -> str:
    return peer_name(value) if len(value) == KEY_BYTES else value.hex()
