"""When a line of a scenario takes effect: at a second, or when the network reaches a phase of a round."""

from __future__ import annotations

import re

from attrs import frozen

from flocknode.observe.rounds import PHASE_NAMES
from protocol.ledger.state import LedgerState, Phase

PHASE_OF_NAME = {name: phase for phase, name in PHASE_NAMES.items()}
_FORM = re.compile(r"round (\d{1,6})(?: / ([a-z]+))?")


class MomentError(ValueError):
    """Words that name no moment; the message says what may stand there."""


@frozen
class Place:
    """A phase of a round (None: whichever comes first)."""

    round: int
    phase: Phase | None = None

    def is_reached(self, state: LedgerState) -> bool:
        """Whether the ledger is in that very phase; phases of one round may come back."""
        if state.round != self.round:
            return False
        return self.phase is None or state.learning.phase is self.phase

    def __str__(self) -> str:
        return f"round {self.round}" + (f" / {PHASE_NAMES[self.phase]}" if self.phase is not None else "")


def parse_place(text: str) -> Place:
    """ "round 3" or "round 3 / contribute". Raises `MomentError`."""
    match = _FORM.fullmatch(text)
    if match is None or int(match[1]) < 1:
        raise MomentError(f'{text!r} is no moment: write "round 3" or "round 3 / contribute"')
    if match[2] is not None and match[2] not in PHASE_OF_NAME:
        raise MomentError(f"{text!r}: unknown phase {match[2]!r}, choose one of {', '.join(PHASE_OF_NAME)}")
    return Place(int(match[1]), None if match[2] is None else PHASE_OF_NAME[match[2]])
