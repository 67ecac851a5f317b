"""What a simulated machine's processor takes for what its node does, in microseconds of virtual time."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen
from attrs.validators import ge

from protocol import durable
from protocol.events import BlocksRead, Broadcast, Effect, Event, Persist, Received, Send


@frozen(kw_only=True)
class Costs:
    """`message_us`: to take a message in. `kilobyte_us`: for each 1,000 bytes of messages that come or go.

    `block_us`: to check and apply a block. `read_us`: to read a stored block for a peer.
    """

    message_us: int = field(default=0, validator=ge(0))
    kilobyte_us: int = field(default=0, validator=ge(0))
    block_us: int = field(default=0, validator=ge(0))
    read_us: int = field(default=0, validator=ge(0))

    def of(self, event: Event, performed: Sequence[Effect], peers: int) -> int:
        """Return what an event and its effects take, in microseconds, with `peers` connections."""
        spent_us = moved = 0
        if isinstance(event, Received):
            spent_us += self.message_us
            moved += len(event.data)
        elif isinstance(event, BlocksRead):
            spent_us += self.read_us * len(event.blocks)
        for effect in performed:
            if isinstance(effect, Send):
                moved += len(effect.data)
            elif isinstance(effect, Broadcast):
                moved += len(effect.data) * peers
            elif isinstance(effect, Persist) and effect.bucket == durable.BLOCK:
                spent_us += self.block_us
        return spent_us + self.kilobyte_us * moved // 1_000
