"""The target over decoding: everything that a node reads of what others wrote.

Each reader raises the errors that it documents and no other, and whatever it accepts is written back to the
very same bytes: nothing has two encodings (docs/PROTOCOL.md section 8.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random

from attrs import define, field

from sim.fuzzing.bending import Bender, bent_bytes
from sim.fuzzing.histories import ground
from sim.fuzzing.readers import Reader, TwoEncodingsError, all_readers

INPUT_BYTES = 4096


@define(eq=False)
class DecodingTarget:
    """An input names a reader by its first byte; the rest is what is read."""

    input_bytes: int = INPUT_BYTES
    readers: Sequence[Reader] = field(factory=all_readers, init=False)
    _last: list[bytes] = field(factory=list, init=False)

    @cached_property
    def _seeds(self) -> list[bytes]:
        readers = enumerate(self.readers)
        return [bytes((index,)) + seed for index, reader in readers for seed in (b"", *reader.seeds)]

    def __call__(self, data: bytes) -> None:
        """One execution. Raises what the reader does wrong."""
        if not data:
            return
        self._last = [data]
        reader, read = self.readers[data[0] % len(self.readers)], data[1:]
        try:
            written = reader.read(read)
        except reader.refusals:
            return
        if written is not None and written != read:
            raise TwoEncodingsError(f"{reader.name}: {read.hex()} is written as {written.hex()}")

    def history(self) -> list[bytes]:
        """The last input: nothing is remembered from one to the next."""
        return self._last

    def seeds(self) -> list[bytes]:
        """Genuine inputs of every reader."""
        return self._seeds

    def bent(self, data: bytes, draw: Random) -> bytes:
        """An input near this one: one of its values changed, or its bytes."""
        if len(data) < 2 or draw.randrange(8) == 0:
            # All classes share one codec, so coverage alone would forget most of them.
            data = draw.choice(self._seeds)
        if len(data) < 2:
            return data + draw.randbytes(8)
        bend = Bender(ground()).bent_packed if draw.randrange(2) else bent_bytes
        return data[:1] + bend(data[1:], draw)
