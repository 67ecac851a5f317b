"""What ends a node, what costs a message, and words for both (docs/PROTOCOL.md section 1).

A node ends where it can keep its promises no longer: its ledger or its blobs cannot be written, its engine
fails on an event of the node's own, or a certified block breaks a rule. Whatever else fails costs what it was
about.
"""

from __future__ import annotations

FAULT = "fault"
"""The reason of an offence: a peer's message on which this node's own code failed (section 8.6)."""
INBOX_FULL = "inbox-full"
"""The reason under which a message is counted that found no room in the queue: nobody's fault."""


class FatalError(Exception):
    """The engine cannot go on: a certified block breaks a rule of this node's."""


def describe_error(error: BaseException) -> str:
    """Return the kind and the text of `error` on one line. Never raises, whatever the error is made of."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its text cannot be had)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
