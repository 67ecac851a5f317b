"""What holds of each peer, brought up to date statement by statement; each says something of one peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from attrs import define, field

from protocol.envelope import Slot

V = TypeVar("V")


@define(eq=False)
class Following(Generic[V]):
    """What `judge` says of the peers that statements are about, as far as it is not None.

    `sources`: changes in the pool (`Pool.changes`) that `judge` depends on; all else that it looks at must
    stay the same for as long as this object is used. A statement is about its subject, or else its sender.
    """

    sources: Sequence[Sequence[Slot]]
    judge: Callable[[bytes], V | None]
    _read: list[int] = field(init=False)
    _values: dict[bytes, V] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._read = [0] * len(self.sources)

    def values(self) -> Mapping[bytes, V]:
        """By peer, as of now. It goes on changing: copy what is to stay."""
        judge, values = self.judge, self._values
        for place, source in enumerate(self.sources):
            read = self._read[place]
            if len(source) > read:
                for slot in source[read:]:
                    peer = slot.subject or slot.sender
                    value = judge(peer)
                    if value is not None:
                        values[peer] = value
                    elif peer in values:
                        del values[peer]
                self._read[place] = len(source)
        return values
