"""Bugs in what survives a crash or a loss (docs/PROTOCOL.md sections 7.4 and 7.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from protocol import durable
from protocol.codec import decode
from protocol.duties import results
from protocol.duties.desk import Desk
from protocol.events import Persist
from protocol.ledger import resume as resume_module
from protocol.ledger.resume import LedgerPosition
from protocol.ledger.state import LedgerState
from protocol.lifecycle import Lifecycle, Records
from protocol.outbox import Outbox
from protocol.params import Genesis
from protocol.repair import Repair
from sim.mutants.planting import Hunter, Mutant, Swap


def _unwritten(outbox: Outbox, since: int, bucket: str) -> None:
    """Takes the records of a bucket back that were to be written since."""
    kept = [e for e in outbox.effects[since:] if not (isinstance(e, Persist) and e.bucket == bucket)]
    outbox.effects[since:] = kept


def _seed_unwritten(right: Callable[..., bytes]) -> Any:
    def round_seed(self: Desk, round_: int) -> bytes:
        since = len(self.outbox.effects)
        seed = right(self, round_)
        _unwritten(self.outbox, since, durable.SECRET)
        return seed

    return round_seed


def _opening_unwritten(right: Callable[..., None]) -> Any:
    def on_evaluated(desk: Desk, ballot: int, result: Any) -> None:
        since = len(desk.outbox.effects)
        right(desk, ballot, result)
        _unwritten(desk.outbox, since, durable.OPENING)

    return on_evaluated


def _said_first(right: Callable[..., Any]) -> Any:
    def publish(self: Outbox, *arguments: Any, **rest: Any) -> Any:
        since = len(self.effects)
        statement = right(self, *arguments, **rest)
        self.effects[since:] = reversed(self.effects[since:])
        return statement

    return publish


def _statements_unread(right: Callable[..., None]) -> Any:
    def load_round(self: Lifecycle, records: Records) -> None:
        right(self, {bucket: rows for bucket, rows in records.items() if bucket != durable.STATEMENT})

    return load_round


def _seeds_unread(right: Callable[..., None]) -> Any:
    def load_secrets(self: Lifecycle, records: Records, blobs: frozenset[bytes]) -> None:
        right(self, {bucket: rows for bucket, rows in records.items() if bucket != durable.SECRET}, blobs)

    return load_secrets


def _safety_unread(right: Any) -> Any:
    def load_safety(self: Lifecycle, records: Records) -> None:
        return None

    return load_safety


def _snapshot_first(right: Callable[..., None]) -> Any:
    def take_snapshot(self: Lifecycle) -> None:
        right(self)
        effects = self.desk.outbox.effects
        effects[-2:] = [effects[-1], effects[-2]]

    return take_snapshot


def _old_snapshot(right: Callable[..., bytes]) -> Any:
    def encode_snapshot(head: bytes, state: LedgerState) -> bytes:
        return right(head, evolve(state, height=state.height - 1))

    return encode_snapshot


def _tail_unread(right: Callable[..., LedgerPosition]) -> Any:
    def resume(genesis: Genesis, snapshot: bytes | None, blocks: Any) -> LedgerPosition:
        if snapshot is None:
            return right(genesis, snapshot, blocks)
        return decode(LedgerPosition, snapshot, durable.RECORD_BYTES)

    return resume


def _nothing_dropped(right: Callable[..., None]) -> Any:
    def drop_blobs(self: Lifecycle) -> None:
        return None

    return drop_blobs


def _blobs_born_anew(right: Callable[..., None]) -> Any:
    def load_secrets(self: Lifecycle, records: Records, blobs: frozenset[bytes]) -> None:
        born = {durable.round_key(self.chain.state.round, blob): b"" for blob in sorted(blobs)}
        right(self, {**records, durable.BLOB: born}, blobs)

    return load_secrets


def _never_answers(right: Any) -> Any:
    def send_statements(self: Repair, peer: bytes, statements: Any) -> None:
        return None

    return send_statements


DURABILITY = (
    Mutant(
        name="round-seed-not-persisted",
        about="the seed of a round's secrets lives in memory only",
        breaks='3.3: "draws one 32-byte round seed, persists it before anything of it is sent"',
        caught_by="durability",
        swaps=(Swap(Desk, "round_seed", _seed_unwritten),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="opening-not-persisted",
        about="a vote is sealed whose opening lives in memory only",
        breaks='7.7: "vote opening, before the sealed vote is sent"',
        caught_by="durability",
        swaps=(Swap(results, "on_evaluated", _opening_unwritten),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="statement-before-its-record",
        about="a statement is sent, and written down afterwards",
        breaks='7.7: "every own statement", "Durable before it leaves"',
        caught_by="durability",
        swaps=(Swap(Outbox, "publish", _said_first),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="own-statements-remade",
        about="after a restart a node takes up the ledger only, and makes its keys and statements anew",
        breaks='7.7: "Own statements are sent again byte for byte after a restart."',
        caught_by="conduct",
        swaps=(
            Swap(Lifecycle, "load_round", _statements_unread),
            Swap(Lifecycle, "load_secrets", _seeds_unread),
        ),
        hunters=(Hunter(manifest="restarted-holders"),),
    ),
    Mutant(
        name="safety-unread",
        about="after a restart a node has forgotten what it proposed and voted for",
        breaks='7.2: "with the durable state"; "Propose in view v, once"',
        caught_by="conduct",
        swaps=(Swap(Lifecycle, "load_safety", _safety_unread),),
        hunters=(Hunter(manifest="restarted-leader"),),
    ),
    Mutant(
        name="snapshot-before-its-block",
        about="a snapshot of the state is written down in front of the block that led to it",
        breaks='7.3: "behind the block that ends a round ... a node writes a snapshot"',
        caught_by="resumption",
        swaps=(Swap(Lifecycle, "take_snapshot", _snapshot_first),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="snapshot-of-another-state",
        about="a snapshot is not of the state that its block leads to",
        breaks='7.3: "a snapshot of the state that it led to"',
        caught_by="resumption",
        swaps=(Swap(resume_module, "encode_snapshot", _old_snapshot),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="blocks-behind-a-snapshot-unread",
        about="a new life begins at its snapshot and forgets the blocks behind it",
        breaks='7.3: "At start a node takes up the state that its last stored block leads to"',
        caught_by="resumption",
        swaps=(Swap(resume_module, "resume", _tail_unread),),
        hunters=(Hunter(manifest="restarted-in-round-two"),),
    ),
    Mutant(
        name="blobs-kept-for-ever",
        about="no blob is ever dropped",
        breaks='7.6: "In round r a node holds the models that count and blobs of rounds r - 1 and r"',
        caught_by="holdings",
        swaps=(Swap(Lifecycle, "_drop_blobs", _nothing_dropped),),
        hunters=(Hunter(manifest="restarted-in-round-two"),),
    ),
    Mutant(
        name="blobs-of-a-restart-are-new",
        about="after a restart a node takes all blobs that it holds for those of the current round",
        breaks='7.6: "the round is written down before the blob is fetched or made"',
        caught_by="holdings",
        swaps=(Swap(Lifecycle, "load_secrets", _blobs_born_anew),),
        hunters=(Hunter(manifest="restarted-in-round-two"),),
    ),
    Mutant(
        name="repair-never-answers",
        about="what was lost on the way is never sent again",
        breaks='7.4: "In the same round it sends statements that the other lacks"',
        caught_by="liveness",
        swaps=(Swap(Repair, "_send_statements", _never_answers),),
        hunters=(Hunter(manifest="blackout"),),
    ),
)
