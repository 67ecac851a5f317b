"""Draws that the bytes of a fuzzer decide."""

from __future__ import annotations

from random import Random


class Chances(Random):
    """A source of draws that uses up given bytes, so that a change of one byte changes one draw.

    Once they are used up, a generator seeded by all of them goes on: the same bytes, the same draws.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0
        self._rest: Random | None = None

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        if len(piece) < size:
            if self._rest is None:
                self._rest = Random(self._data)
            piece += self._rest.randbytes(size - len(piece))
        return int.from_bytes(piece, "big") >> (8 * size - k)

    def _randbelow(self, n: int) -> int:
        """By remainder: `Random` would draw again and again until a number fits, and use up more bytes."""
        return self.getrandbits(n.bit_length() + 3 if n > 1 else 0) % n

    def random(self) -> float:
        return self.getrandbits(16) / (1 << 16)
