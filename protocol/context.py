"""What every step of one round is computed from (docs/PROTOCOL.md section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import field, frozen

from protocol.params import ProtocolParams

Index: TypeAlias = int
"""A peer's place in the round's proposers; its Shamir abscissa is one more."""

ReadBlob: TypeAlias = Callable[[bytes], bytes]
"""The bytes of a blob that the node holds, by digest."""


class JobError(ValueError):
    """A job does not fit its round, or a blob is not what a job was promised; the message names which."""


def require(holds: bool, what: str) -> None:
    """`JobError` with this text unless the condition holds."""
    if not holds:
        raise JobError(what)


@frozen(cache_hash=True)
class RoundContext:
    """What all jobs of one round share.

    `sharers` is U1 in ascending order (empty before the setup block). The publics are those of the
    proposers' key adverts. `u_seed` is the seed of the singular matrices: the trusted dealer's
    (`protocol.secrets.dealt_u_seed`), None in a network without one.
    """

    params: ProtocolParams
    network: bytes
    round: int
    beacon: bytes
    proposers: tuple[bytes, ...]
    mask_publics: tuple[bytes, ...]
    seal_publics: tuple[bytes, ...]
    threshold: int
    sharers: tuple[Index, ...] = ()
    u_seed: bytes | None = field(default=None, repr=False)
