"""How nodes reach each other: the interface (`base`), libp2p, and an in-memory double for one process."""

from flocknode.transport.base import (
    AddressInUseError,
    FetchFailedError,
    Handler,
    InvalidAddressError,
    Member,
    MessageTooLargeError,
    Transport,
    TransportError,
    TransportStats,
    UnreachableError,
)

__all__ = [
    "AddressInUseError",
    "FetchFailedError",
    "Handler",
    "InvalidAddressError",
    "Member",
    "MessageTooLargeError",
    "Transport",
    "TransportError",
    "TransportStats",
    "UnreachableError",
]
