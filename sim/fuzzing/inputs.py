"""Inputs that name a moment by their first two bytes; the rest decides what happens then."""

from __future__ import annotations

from random import Random

from sim.fuzzing.bending import bent_bytes


def moment_of(data: bytes, moments: int) -> int:
    """Return which of so many moments an input names."""
    return int.from_bytes(data[:2], "big") % moments


def seeds_of(moments: int) -> list[bytes]:
    """Return one input for each moment."""
    return [index.to_bytes(2, "big") + bytes([index]) * 16 for index in range(moments)]


def bent_input(data: bytes, draw: Random, longest_bytes: int, moves_in: int) -> bytes:
    """Return an input near this one; of another moment once in `moves_in` times."""
    if draw.randrange(moves_in) == 0:
        data = draw.randbytes(2) + data[2:]
    if len(data) < 3 or draw.randrange(4) == 0:
        return data[:2] + draw.randbytes(1 + draw.randrange(longest_bytes // 2))
    return data[:2] + bent_bytes(data[2:], draw)
