"""Liveness: once the network has healed, every round ends within a stated time.

docs/PROTOCOL.md section 3.6, "Giving up", and section 7.2: at least q(n) validators are up and connected
within the time-outs, and leaders rotate.
"""

from __future__ import annotations

from protocol.certificates import quorum
from protocol.events import Millis
from protocol.ledger.state import Phase
from protocol.params import ProtocolParams
from protocol.progress import give_up_ms

LONGEST_WAY = (
    Phase.ADVERT,
    Phase.SHARE,
    Phase.CONTRIBUTE,
    Phase.BALLOT,
    Phase.DISPUTE,
    Phase.BALLOT,
    Phase.VOTE,
    Phase.RECOVER,
)
"""Every phase that a round can go through, AGGREGATE apart, which each attempt enters anew."""


def view_bound_ms(params: ProtocolParams, validators: int) -> Millis:
    """The time-outs of as many views in a row as can have a faulty or absent leader, and of one more."""
    views = validators - quorum(validators) + 2
    return sum(
        min(params.max_view_timeout_ms, params.view_timeout_ms << view) for view in range(min(views, 32))
    )


def round_bound_ms(params: ProtocolParams, validators: int) -> Millis:
    """A round ends within this: each phase is given up in time, and each block takes a few views."""
    phases = [*LONGEST_WAY, *[Phase.AGGREGATE] * params.max_attempts]
    held_ms = 0 if params.pace is None else params.pace.interval_ms
    views = view_bound_ms(params, validators)
    return held_ms + sum(give_up_ms(phase, params) + views + params.repair_interval_ms for phase in phases)
