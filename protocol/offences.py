"""Why a node reports a peer: the words that `Penalise` carries (docs/PROTOCOL.md section 8.6).

Which refusals are reported is decided here, so it is the same at every node. What a report costs the peer is
the transport's business.
"""

from __future__ import annotations

from typing import Final

FOREIGN: Final = frozenset({"version", "network", "kind"})
"""Reasons of refusals that an honest peer gives whose genesis or software is not this node's: an accident of
an operator, which both sides say in their logs, and for which neither pays."""

HARMLESS: Final = frozenset({"stale", "early", "unasked"}) | FOREIGN
"""Reasons of refusals that an honest peer gives too, on another round, behind a bad link, late, or of another
network or version: only counted."""

OF_MESSAGES: Final = frozenset({"malformed", "oversized", "signature"})
"""What does not open: `protocol.envelope.WireError`."""

OF_STATEMENTS: Final = frozenset({"stranger", "slot", "size", "payload", "key", "weight", "evidence"})
"""What no pool takes: `protocol.admission.inadmissible`."""

OF_CONDUCT: Final = frozenset({"relayed", "agreement", "block", "share", "seal", "z-reply"})
"""Another's message passed on that must come from its sender; a step of the agreement, a block, a released
share, a seal key or a sealed z that does not hold."""

OFFENCES: Final = OF_MESSAGES | OF_STATEMENTS | OF_CONDUCT
"""All that is reported."""
