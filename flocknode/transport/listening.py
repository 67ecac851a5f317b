"""A node's listening socket: bound once, exclusively, and kept over restarts of the host."""

import errno
import socket

from flocknode.transport.base import AddressInUseError, Endpoint, InvalidAddressError

_BACKLOG = 128


def bind(listen: Endpoint) -> socket.socket:
    """A listening socket. It is not shared (no SO_REUSEPORT): a second node on the port is told so."""
    family = socket.AF_INET6 if listen.family == "ip6" else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((listen.host, listen.port))
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUseError(str(listen)) from error
        raise InvalidAddressError(str(listen), error.strerror or str(error)) from error
    return bound


def endpoint_of(bound: socket.socket) -> Endpoint:
    """Where a socket is bound."""
    host, port = bound.getsockname()[:2]
    return Endpoint("ip6" if bound.family == socket.AF_INET6 else "ip4", host, port)
