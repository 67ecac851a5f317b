"""Ways to bend a message: as bytes, as a body that is truly signed, as a block that a leader proposes.

`draw` decides: a seeded generator, or `chances.Chances`, the bytes of a fuzzer.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
import msgpack  # type: ignore[import-untyped]
from attrs import frozen

from protocol.codec import DecodeError, decode, encode
from protocol.engine import Engine
from protocol.envelope import Envelope, signing_digest
from protocol.ledger.block import Block, BlockKind
from protocol.messages import (
    MESSAGE_BYTES,
    Certificate,
    Kind,
    Vote,
    VotePhase,
)
from protocol.round import BlockError, block_effect
from sim.fuzzing.histories import LIAR, Ground, by_id

INTEGERS = [0, 1, -1, 2, 3, 15, 16, 127, 128, 255, 256]
INTEGERS += [2**20, 2**20 + 1, 2**40, 2**44, 2**60, 2**63, 2**64 - 1]


def bent_bytes(data: bytes, draw: Random) -> bytes:
    """A flipped bit, noise put in, a piece cut out, the end cut off, a piece said twice. Not of no bytes."""
    at, length = draw.randrange(len(data)), draw.choice([1, 1, 2, 8, 40])
    match draw.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + draw.randbytes(length) + data[at:]
        case 2:
            return data[:at] + data[at + length :]
        case 3:
            return data[:at]
        case _:
            return data[: at + length] + data[at:]


@frozen(eq=False)
class Bender:
    """Bends messages of one network, and signs them with its members' keys."""

    ground: Ground

    def signed(self, envelope: Envelope, member: int | None = None) -> Envelope:
        """The envelope under a true signature: its sender's, or in another member's name."""
        if member is None:
            member = self.ground.peers.index(envelope.sender)
        identity = self.ground.identities[member]
        changed = attrs.evolve(envelope, sender=identity.peer)
        return attrs.evolve(changed, signature=identity.sign(by_id(changed)))

    def bent_value(self, value: Any, draw: Random) -> Any:
        """One place of a decoded body, changed."""
        if isinstance(value, list):
            if value and draw.random() < 0.8:
                at = draw.randrange(len(value))
                return [*value[:at], self.bent_value(value[at], draw), *value[at + 1 :]]
            match draw.randrange(4):
                case 0:
                    return value[:-1]
                case 1:
                    return value + value[:1]
                case 2:
                    return value[::-1]
                case _:
                    return value * 3
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return draw.choice([*INTEGERS, value + 1, value - 1])
        if isinstance(value, bytes):
            choices: list[Callable[[], bytes]] = [
                lambda: bytes(len(value)),
                lambda: draw.randbytes(len(value)),
                lambda: draw.choice(self.ground.peers),
                lambda: value[:-1],
                lambda: b"",
                lambda: bent_bytes(value, draw) if value else b"\x00",
                lambda: self.bent_packed(value, draw),
                lambda: self.bent_inner(value, draw),
            ]
            return draw.choice(choices)()
        return draw.choice([None, 0, b"", [], True])

    def bent_packed(self, data: bytes, draw: Random) -> bytes:
        """A body inside a body, if that is what it is."""
        try:
            return bytes(msgpack.packb(self.bent_value(msgpack.unpackb(data, strict_map_key=False), draw)))
        except (ValueError, OverflowError, TypeError, msgpack.exceptions.UnpackException):
            return data[::-1]

    def bent_inner(self, data: bytes, draw: Random) -> bytes:
        """If it is a member's envelope: with another body, truly signed."""
        try:
            envelope = decode(Envelope, data, MESSAGE_BYTES)
        except DecodeError:
            return data[:-1]
        if envelope.sender not in self.ground.peers:
            return data[:-1]
        return encode(self.signed(attrs.evolve(envelope, body=self.bent_packed(envelope.body, draw))))

    def bent_block(self, block: Block, draw: Random) -> Block:
        """A block with some places of its body changed, now and then one of its frame."""
        for _ in range(draw.choice([1, 1, 2, 3])):
            block = attrs.evolve(block, body=self.bent_packed(block.body, draw))
        match draw.randrange(8):
            case 0:
                readys = list(block.readys)
                at = draw.randrange(len(readys))
                readys[at] = self.bent_inner(readys[at], draw)
                block = attrs.evolve(block, readys=tuple(readys))
            case 1:
                block = attrs.evolve(block, readys=block.readys[1:])
            case 2:
                block = attrs.evolve(block, kind=draw.choice(list(BlockKind)))
            case 3:
                block = attrs.evolve(block, leader=draw.choice([*self.ground.peers, bytes(32)]))
            case _:
                pass
        return block

    def bent_body(self, envelope: Envelope, draw: Random) -> Envelope:
        """A message of the liar's with some places of its body, or its frame, changed: truly signed."""
        changed = envelope
        for _ in range(draw.choice([0, 1, 1, 1, 2, 4])):
            changed = attrs.evolve(changed, body=self.bent_packed(changed.body, draw))
        match draw.randrange(8):
            case 0:
                changed = attrs.evolve(changed, round=max(0, changed.round + draw.choice([-1, 1, 2, 10])))
            case 1:
                changed = attrs.evolve(changed, kind=int(draw.choice(list(Kind))))
            case 2:
                changed = attrs.evolve(changed, payload=self.bent_packed(changed.payload, draw))
            case 3:
                changed = attrs.evolve(changed, payload=draw.randbytes(40))
            case _:
                pass
        return self.signed(changed, draw.choice([LIAR, None]))

    def with_its_root(self, engine: Engine, block: Block) -> Block:
        """The block with the root of the state that it leads to, if it leads to one."""
        try:
            after = block_effect(engine.state, block, engine.head, engine.chain.rules, engine.cited.open)
        except BlockError:
            return block
        return attrs.evolve(block, state_root=after.root)

    def certificate(self, round_: int, vote: Vote) -> Certificate:
        """Everyone's signature under one vote."""
        network, body = self.ground.network, encode(vote)
        signatures = [
            (who.peer, who.sign(signing_digest(network, round_, Kind.VOTE, who.peer, body)))
            for who in self.ground.identities
        ]
        return Certificate(round_, vote, tuple(sorted(signatures)))

    def certified(self, block: Block) -> Certificate:
        """Everyone's COMMIT signature."""
        return self.certificate(block.round, Vote(VotePhase.COMMIT, block.height, 1, block.hash))
