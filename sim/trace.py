"""What happened in a simulation, line by line: the evidence that a run is a function of its seed."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import deque
from collections.abc import Callable

from protocol.events import (
    BlobFailed,
    BlobReady,
    BlocksRead,
    Broadcast,
    CancelJob,
    CancelTimer,
    Command,
    DropBlob,
    Effect,
    Event,
    Fetch,
    JobDone,
    JobFailed,
    Notify,
    PeerDown,
    PeerId,
    PeerUp,
    Penalise,
    Persist,
    PutBlob,
    ReadBlocks,
    Received,
    RunJob,
    Send,
    SetTimer,
    ShowOrders,
    Start,
    TimerFired,
)

UNHASHED_LINES = 256


class Trace:
    """A running SHA-256 over every line, and the last `keep` lines for people."""

    def __init__(self, keep: int) -> None:
        self._state = hashlib.sha256()
        self._unhashed: list[str] = []
        self.lines: deque[str] = deque(maxlen=keep)
        self.count = 0

    def add(self, now: int, node: int, text: str) -> None:
        line = f"{now} {node} {text}"
        self._unhashed.append(line)
        self.lines.append(line)
        self.count += 1
        if len(self._unhashed) >= UNHASHED_LINES:
            self._hash()

    def _hash(self) -> None:
        self._state.update("".join([line + "\n" for line in self._unhashed]).encode())
        self._unhashed.clear()

    def digest(self) -> str:
        """Hex SHA-256 over all lines so far, those no longer kept included."""
        self._hash()
        return self._state.hexdigest()

    def tail(self, lines: int) -> str:
        return "\n".join(list(self.lines)[-lines:])


def event_text(event: Event, name: Callable[[PeerId], str]) -> str:
    """One line for an event; payloads appear as length and CRC-32."""
    match event:
        case Received(peer, data):
            return f"< {name(peer)} {_payload(data)}"
        case TimerFired(key):
            return f"fired {key}"
        case JobDone(key, result):
            return f"done {key} {type(result).__name__}"
        case JobFailed(key, why):
            return f"failed {key}: {why}"
        case BlobReady(digest):
            return f"ready {digest.hex()[:12]}"
        case BlobFailed(digest):
            return f"unavailable {digest.hex()[:12]}"
        case BlocksRead(peer, first_height, blocks):
            return f"read {name(peer)} {first_height}+{len(blocks)} {sum(map(len, blocks))}"
        case PeerUp(peer):
            return f"up {name(peer)}"
        case PeerDown(peer):
            return f"down {name(peer)}"
        case Start(records, blobs, _):
            counts = ",".join(f"{bucket}:{len(records[bucket])}" for bucket in sorted(records))
            return f"start {counts} blobs:{len(blobs)}"
        case Command(order):
            return f"command {_payload(order)}"


def effect_text(effect: Effect, name: Callable[[PeerId], str]) -> str:
    """One line for an effect."""
    match effect:
        case Persist(bucket, key, value):
            shown = "deleted" if value is None else _payload(value)
            return f"persist {bucket}/{key.hex()[:24]} {shown}"
        case Send(peer, data):
            return f"> {name(peer)} {_payload(data)}"
        case Broadcast(data):
            return f"> all {_payload(data)}"
        case Fetch(digest, holders, reserves):
            then = f" then {','.join(map(name, reserves))}" if reserves else ""
            return f"fetch {digest.hex()[:12]} {','.join(map(name, holders))}{then}"
        case PutBlob(digest, data):
            return f"put {digest.hex()[:12]} {len(data)}"
        case DropBlob(digest):
            return f"drop {digest.hex()[:12]}"
        case ReadBlocks(peer, first_height, last_height, _):
            return f"read {name(peer)} {first_height}..{last_height}"
        case SetTimer(key, delay_ms):
            return f"timer {key} {delay_ms}"
        case CancelTimer(key):
            return f"untimer {key}"
        case RunJob(key, job):
            return f"job {key} {type(job).__name__}"
        case CancelJob(key):
            return f"unjob {key}"
        case Penalise(peer, why):
            return f"penalise {name(peer)}: {why}"
        case Notify(kind, fields):
            return f"notify {kind} {json.dumps(dict(fields), default=repr)}"
        case ShowOrders(taken, view):
            shown = _payload(json.dumps(dict(view)).encode())
            return f"orders {','.join(order.hex() for order in taken)} {shown}"


def _payload(data: bytes) -> str:
    return f"{len(data)}:{zlib.crc32(data):08x}"
