"""Limits of the links over libp2p, apart from anything that imports it."""

from typing import Literal

from attrs import field, frozen
from attrs.validators import gt

from flocknode.transport.base import DEFAULT_OUTBOX_BYTES
from flocknode.transport.standing import Limits


@frozen
class Libp2pOptions:
    """Limits of the links. Times are seconds, sizes bytes."""

    broadcast_mode: Literal["push", "gossipsub"] = "push"
    outbox_bytes: int = field(default=DEFAULT_OUTBOX_BYTES, validator=gt(0))
    """What may wait for one peer."""
    write_timeout_s: float = field(default=10.0, validator=gt(0))
    """How long 64 kB may take to be accepted before the connection is given up."""
    keepalive_s: float = field(default=5.0, validator=gt(0))
    """An idle link shows a sign of life this often."""
    silence_timeout_s: float = field(default=20.0, validator=gt(0))
    """A peer that shows none for this long is disconnected."""
    dial_timeout_s: float = field(default=8.0, validator=gt(0))
    dial_anyway_s: float = field(default=3.0, validator=gt(0))
    """The higher peer id leaves dialling to the lower one for this long."""
    standing: Limits = field(factory=Limits)
    """What a peer may do before it is throttled, and before it is refused."""

    def __attrs_post_init__(self) -> None:
        if self.silence_timeout_s < 2 * self.keepalive_s:
            raise ValueError(
                f"silence_timeout_s {self.silence_timeout_s} leaves no room for a lost keepalive"
                f" every {self.keepalive_s} s"
            )
