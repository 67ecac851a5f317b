"""What must be true of every effect of a node, whatever was sent to it (docs/PROTOCOL.md section 1)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from protocol import durable
from protocol.engine import Engine
from protocol.envelope import WireError, open_envelope
from protocol.events import (
    Broadcast,
    Effect,
    Fetch,
    Notify,
    Penalise,
    Persist,
    PutBlob,
    ReadBlocks,
    RunJob,
    Send,
    SetTimer,
    ShowOrders,
)
from protocol.messages import MESSAGE_BYTES
from protocol.offences import OFFENCES

TIMER_KEYS = {"soft", "witness", "release", "late", "view", "repair", "hold", "sync", "apply"}
BUCKETS = {
    durable.BLOCK,
    durable.SNAPSHOT,
    durable.STATEMENT,
    durable.SAFETY,
    durable.SECRET,
    durable.SHARE,
    durable.OPENING,
    durable.ORDER,
    durable.RESIDUAL,
    durable.BLOB,
}
LONGEST_TIMER_MS = 30 * 86_400_000


class UnsoundEffectError(AssertionError):
    """An effect that no shell could perform, or that another node would refuse."""


def check_effects(engine: Engine, effects: Sequence[Effect]) -> None:
    """Raises `UnsoundEffectError` naming the first effect that is wrong, and why."""
    for effect in effects:
        why = _wrong(engine, effect)
        if why is not None:
            raise UnsoundEffectError(f"{type(effect).__name__}: {why}: {effect!r}"[:500])
    if engine.outbox.effects:
        raise UnsoundEffectError(f"{len(engine.outbox.effects)} effects are left in the outbox")


def _wrong(engine: Engine, effect: Effect) -> str | None:
    match effect:
        case Send(peer, data):
            return "to itself" if peer == engine.me else _wrong_message(engine, data)
        case Broadcast(data):
            return _wrong_message(engine, data)
        case Fetch(digest, holders, reserves):
            return _wrong_fetch(engine, digest, (*holders, *reserves))
        case SetTimer(key, delay_ms):
            if key not in TIMER_KEYS:
                return "an unknown timer"
            return None if 0 <= delay_ms <= LONGEST_TIMER_MS else "a delay that no loop takes"
        case Persist(bucket, _, value):
            if bucket not in BUCKETS:
                return "an unknown bucket"
            return "a record above its limit" if len(value or b"") > durable.RECORD_BYTES else None
        case PutBlob(digest, _):
            return None if len(digest) == 32 else "a digest of a wrong size"
        case ReadBlocks(_, first_height, last_height, max_bytes):
            return None if 1 <= first_height <= last_height <= engine.height and max_bytes else "no blocks"
        case RunJob(key, _):
            return None if key.startswith(f"{engine.state.round}/") else "a job of another round"
        case Penalise(peer, why):
            return None if why in OFFENCES and peer != engine.me else "itself, or for no known reason"
        case Notify(_, fields) | ShowOrders(_, fields):
            return _wrong_notice(fields)
        case _:
            return None


def _wrong_message(engine: Engine, data: bytes) -> str | None:
    """Another node must be able to open what this one says."""
    if len(data) > MESSAGE_BYTES:
        return f"a message of {len(data)} bytes"
    try:
        statement = open_envelope(data, engine.network)
    except WireError as error:
        return f"a message that others refuse: {error}"
    return None if statement.sender == engine.me else "a message in another's name"


def _wrong_fetch(engine: Engine, digest: bytes, holders: tuple[bytes, ...]) -> str | None:
    if len(digest) != 32:
        return "a digest of a wrong size"
    if not holders or len(set(holders)) != len(holders):
        return "no holders, or one twice"
    if engine.me in holders:
        return "from itself"
    strangers = set(holders) - {peer for peer, _ in engine.state.accounts}
    return "from somebody who is no member" if strangers else None


def _wrong_notice(fields: object) -> str | None:
    try:
        json.dumps(fields)
    except (TypeError, ValueError) as error:
        return f"not for JSON: {error}"
    return None
