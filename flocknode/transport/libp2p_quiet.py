"""Importing libp2p without letting it decide what a process logs."""

import logging
import os


def import_libp2p() -> None:
    """Import libp2p (0.6 s to 0.9 s, once) and put its logging under the application's control.

    Its import clears the handlers of the `libp2p` logger, stops propagation and leaves warnings to logging's
    last resort, stderr; and it warns of every failed dial. Afterwards it is silent unless the application has
    set a level for `libp2p`, or the environment LIBP2P_DEBUG, and goes wherever the application's own
    handlers go.
    """
    logger = logging.getLogger("libp2p")
    level = logger.level
    import libp2p.network.connection.swarm_connection as swarm_connection

    # This module calls logging.debug() itself, which installs a stderr handler on the root logger.
    swarm_connection.logging = logging.getLogger(swarm_connection.__name__)
    if os.environ.get("LIBP2P_DEBUG"):
        return
    logger.propagate = True
    logger.setLevel(level if level != logging.NOTSET else logging.CRITICAL)
