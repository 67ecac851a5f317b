"""The statements that a node holds: one for each slot, the second kept as evidence (section 7, Repair).

Of transactions, which may be replaced, the latest version is held, and no evidence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from attrs import define, field

from protocol.envelope import Slot, Statement
from protocol.messages import Kind, Transaction

_TRANSACTION = int(Kind.TRANSACTION)

Place: TypeAlias = tuple[int, int, int, bytes, bytes]
"""A `Slot`, or the plain tuple that equals it."""


@define(eq=False)
class _Row:
    """Of one round and kind: the slots that hold something, put in order when somebody asks for it."""

    slots: list[Slot] = field(factory=list)
    is_sorted: bool = True
    changes: list[Slot] = field(factory=list)

    def in_order(self) -> list[Slot]:
        if not self.is_sorted:
            self.slots.sort()
            self.is_sorted = True
        return self.slots

    def note_change(self, slot: Slot) -> None:
        if slot.kind != _TRANSACTION:  # which belong to no round, so that their list would never end
            self.changes.append(slot)


def outranks(statement: Statement, other: Statement) -> bool:
    """§7.5. Return whether of two transactions of one slot the first one counts.

    The higher revision does; of one revision, which no honest node signs twice, the lower id. So all pools
    come to hold the same, in whatever order they hear of the two.
    """
    assert isinstance(statement.body, Transaction)
    assert isinstance(other.body, Transaction)
    revisions = statement.body.revision, other.body.revision
    return revisions[0] > revisions[1] or (revisions[0] == revisions[1] and statement.id < other.id)


@define(eq=False)
class Pool:
    """Statements of the rounds that still matter, by slot and by id."""

    _by_slot: dict[Place, Statement] = field(factory=dict, init=False)
    _by_id: dict[bytes, Statement] = field(factory=dict, init=False)
    _rows: dict[tuple[int, int], _Row] = field(factory=dict, init=False)
    """By round and kind."""
    _conflicting_by_id: dict[bytes, Statement] = field(factory=dict, init=False)
    conflicts: dict[Slot, tuple[Statement, Statement]] = field(factory=dict, init=False)

    def add(self, statement: Statement) -> bool:
        """True if it is new. A second, different one of a slot is kept as evidence, a third is dropped.

        Of two transactions of one slot the one that counts is held, and the other dropped.
        """
        slot = statement.slot
        known = self._by_slot.get(slot)
        if known is not None:
            if slot.kind == _TRANSACTION:
                return self._replace_transaction(slot, known, statement)
            return known.id != statement.id and self.note_conflict(known, statement)
        self._by_slot[slot] = self._by_id[statement.id] = statement
        row = self._row(slot.round, slot.kind)
        row.slots.append(slot)
        row.is_sorted = False
        row.note_change(slot)
        return True

    def _replace_transaction(self, slot: Slot, known: Statement, statement: Statement) -> bool:
        """Hold whichever of the two counts. Return whether that is the new one."""
        if not outranks(statement, known):
            return False
        del self._by_id[known.id]
        self._by_slot[slot] = self._by_id[statement.id] = statement
        return True

    def _row(self, round_: int, kind: int) -> _Row:
        return self._rows.get((round_, kind)) or self._rows.setdefault((round_, kind), _Row())

    def changes(self, round_: int, kind: int) -> Sequence[Slot]:
        """Slots of one kind and round in the order in which what is held of them changed, again and again.

        It only grows while the round matters, so its length tells whether anything has changed. None are
        noted of transactions.
        """
        return () if kind == _TRANSACTION else self._row(round_, kind).changes

    def note_conflict(self, first: Statement, second: Statement) -> bool:
        """Two different statements of one slot: evidence. True if there was none for this slot."""
        new = first.slot not in self.conflicts
        if new:
            self.conflicts[first.slot] = (first, second)
            self._conflicting_by_id.update({first.id: first, second.id: second})
            self._row(first.slot.round, first.slot.kind).note_change(first.slot)
        return new

    def get(
        self, round_: int, kind: Kind, sender: bytes, attempt: int = 0, subject: bytes = b""
    ) -> Statement | None:
        return self._by_slot.get((round_, kind, attempt, sender, subject))

    def get_slot(self, slot: Slot) -> Statement | None:
        return self._by_slot.get(slot)

    def versions(
        self, round_: int, kind: Kind, sender: bytes, attempt: int = 0, subject: bytes = b""
    ) -> tuple[Statement, ...]:
        """What is held of one slot: none, one, or the two and the pinned one that contradict each other."""
        slot = Slot(round_, int(kind), attempt, sender, subject)
        held = self._by_slot.get(slot)
        found = {} if held is None else {held.id: held}
        for statement in self.conflicts.get(slot, ()):
            found.setdefault(statement.id, statement)
        return tuple(found.values())

    def at(self, slots: Sequence[Slot], *, evidence: bool) -> list[Statement]:
        """What is held of these slots, all of which hold something, and what contradicts it too."""
        held = [self._by_slot[slot] for slot in slots]
        if evidence and self.conflicts:
            held += [statement for slot in slots for statement in self.conflicts.get(slot, ())]
        return held

    def has_one(self, round_: int, kind: Kind, sender: bytes, attempt: int = 0) -> bool:
        """Is a statement held of this slot, and none that contradicts it?"""
        place = (round_, kind, attempt, sender, b"")
        return place in self._by_slot and (not self.conflicts or place not in self.conflicts)

    def by_id(self, statement_id: bytes) -> Statement | None:
        """Of two that conflict, either."""
        return self._by_id.get(statement_id) or self._conflicting_by_id.get(statement_id)

    def of_kind(self, round_: int, kind: Kind) -> list[Statement]:
        """All of one kind and round, in slot order."""
        row = self._rows.get((round_, kind))
        return [] if row is None else [self._by_slot[slot] for slot in row.in_order()]

    def conflicting(self, round_: int, kind: Kind) -> Iterator[Statement]:
        """Of each conflict of one kind and round, the statement that the slot does not hold."""
        for slot in sorted(self.conflicts):
            if (slot.round, slot.kind) == (round_, kind):
                for statement in self.conflicts[slot]:
                    if statement.id not in self._by_id:
                        yield statement

    def transactions(self) -> Iterator[Statement]:
        """All transactions held, of whatever round they were signed in."""
        for round_, kind in sorted(row for row in self._rows if row[1] == _TRANSACTION):
            yield from self.of_kind(round_, Kind(kind))

    def replace_by_cited(self, slot: Slot, statement: Statement) -> None:
        """A block pins this statement, or it has come with its payload: it counts, whatever was held."""
        known = self._by_slot.get(slot)
        if known is None:
            self.add(statement)
            return
        if known.id != statement.id:
            self.note_conflict(known, statement)
            del self._by_id[known.id]
        self._by_slot[slot] = self._by_id[statement.id] = statement
        self._row(slot.round, slot.kind).note_change(slot)

    def forget_before(self, round_: int) -> None:
        """Drop the statements of finished rounds; transactions stay until they are applied or void."""
        for row in [row for row in self._rows if row[0] < round_ and row[1] != _TRANSACTION]:
            for slot in self._rows.pop(row).slots:
                del self._by_id[self._by_slot.pop(slot).id]
        for slot in [s for s in self.conflicts if s.round < round_]:
            for statement in self.conflicts.pop(slot):
                self._conflicting_by_id.pop(statement.id, None)

    def forget(self, slot: Slot) -> None:
        """Drop a transaction."""
        statement = self._by_slot.pop(slot, None)
        if statement is not None:
            self._by_id.pop(statement.id, None)
            slots = self._row(slot.round, slot.kind).in_order()
            del slots[bisect_left(slots, slot)]

    def kept(self) -> Iterator[tuple[bytes, int]]:
        """(sender, bytes with payload) of everything held, evidence included: what it costs to keep it."""
        for statement in self._by_slot.values():
            yield statement.sender, statement.kept_bytes
        for pair in self.conflicts.values():
            for statement in pair:
                if statement.id not in self._by_id:
                    yield statement.sender, statement.kept_bytes
