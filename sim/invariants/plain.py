"""Hashes, trees and counts of docs/PROTOCOL.md, written down a second time.

Invariants that used the protocol's own functions for these would share their mistakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from protocol.messages import Kind, Ready
from sim.reading import read_statement


def tagged_hash(domain: str, *parts: bytes) -> bytes:
    """H of section 8.2."""
    state = sha256()
    for part in (domain.encode(), *parts):
        state.update(len(part).to_bytes(8, "big") + part)
    return state.digest()


def be8(number: int) -> bytes:
    return number.to_bytes(8, "big")


def root_of_leaf(leaf: bytes, index: int, leaves: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an RFC 6962 path leads to, an odd node moving up; None for a path of another length."""
    siblings, node = iter(path), leaf
    while leaves > 1:
        if index ^ 1 < leaves:
            sibling = next(siblings, None)
            if sibling is None:
                return None
            pair = sibling + node if index & 1 else node + sibling
            node = sha256(b"\x01" + pair).digest()
        index, leaves = index >> 1, (leaves + 1) >> 1
    return node if next(siblings, None) is None else None


def more_than(thirds: int, count: int, n: int) -> bool:
    """Whether `count` is more than `thirds` thirds of n."""
    return 3 * count > thirds * n


def readys_of(readys: Iterable[bytes]) -> Iterator[tuple[bytes, Ready]]:
    """Who sent which of a block's Readys; a repeated one comes twice."""
    for data in readys:
        statement = read_statement(data)
        if isinstance(statement.body, Ready):
            yield statement.sender, statement.body


def held_in(ready: Ready, kind: Kind, validators: Sequence[bytes]) -> set[bytes]:
    """Whom a Ready says it holds a statement of this kind about: bit k is validator k, little endian."""
    bits = next((entry.bitmap for entry in ready.held if entry.kind == kind), b"")
    return {
        peer
        for place, peer in enumerate(validators)
        if place // 8 < len(bits) and bits[place // 8] >> place % 8 & 1
    }


def senders_of(entries: Iterable[bytes]) -> list[bytes]:
    """Who signed the statements that a block cites, in the block's order."""
    return [read_statement(data).sender for data in entries]
