"""Phases: a round moves along the arrows of docs/PROTOCOL.md section 3.2 only, and what is pinned stays.

"Holders act on final blocks only, so nobody is shown two survivor sets, and U2 is pinned once per round."
"Key adverts for round r + 1 are sent during round r. They, and the stakes as weights, are pinned once: by
AGGREGATE; if the round is given up before it, by ABANDON; if it ends in SHARE, by that ABORT."
"""

from __future__ import annotations

from collections.abc import Mapping

from flocknode.observe.ledger import Step
from protocol.ledger.block import BlockKind
from protocol.ledger.state import Phase, RoundState
from sim.invariants.base import InvariantError

ARROWS: Mapping[tuple[Phase, BlockKind], tuple[Phase, ...]] = {
    (Phase.ADVERT, BlockKind.OPEN): (Phase.SHARE, Phase.ADVERT),
    (Phase.SHARE, BlockKind.SETUP): (Phase.CONTRIBUTE,),
    (Phase.CONTRIBUTE, BlockKind.CONTRIBUTION): (Phase.AGGREGATE,),
    (Phase.AGGREGATE, BlockKind.TIMEOUT): (Phase.AGGREGATE,),
    (Phase.AGGREGATE, BlockKind.AGGREGATE): (Phase.BALLOT,),
    (Phase.BALLOT, BlockKind.BALLOT): (Phase.VOTE, Phase.DISPUTE),
    (Phase.DISPUTE, BlockKind.DISPUTE): (Phase.BALLOT, Phase.VOTE),
    (Phase.CONTRIBUTE, BlockKind.ABANDON): (Phase.RECOVER,),
    (Phase.AGGREGATE, BlockKind.ABANDON): (Phase.RECOVER,),
    (Phase.BALLOT, BlockKind.ABANDON): (Phase.RECOVER,),
}
"""Inside a round."""

ENDS = {
    (Phase.VOTE, BlockKind.OUTCOME),
    (Phase.SHARE, BlockKind.ABORT),
    (Phase.BALLOT, BlockKind.ABORT),
    (Phase.DISPUTE, BlockKind.ABORT),
    (Phase.VOTE, BlockKind.ABORT),
    (Phase.RECOVER, BlockKind.ABORT),
}
"""Out of it."""

PINNED_ONCE = ("sharers", "contributors", "check_seeds", "z_root", "next_adverts", "next_weights")
PINS_ADVERTS = (BlockKind.AGGREGATE, BlockKind.ABANDON)


class Phases:
    """A `StepRule`."""

    def __call__(self, step: Step) -> None:
        before, after, kind = step.before, step.after, step.stored.block.kind
        move = before.learning.phase, kind
        where = f"round {before.round}: {kind.name} in {move[0].name}"
        if after.round != before.round:
            if move not in ENDS or after.round != before.round + 1:
                raise InvariantError(f"{where} ends the round")
            return
        if after.learning.phase not in ARROWS.get(move, ()):
            raise InvariantError(f"{where} leads to {after.learning.phase.name}")
        if move == (Phase.ADVERT, BlockKind.OPEN) and after.learning.phase is Phase.SHARE:
            return  # what was pinned for this round has been used
        _check_pinned(before.learning, after.learning, where)
        if kind in PINS_ADVERTS and not after.learning.next_pinned:
            raise InvariantError(f"{where} leaves the next round's adverts open")


def _check_pinned(before: RoundState, after: RoundState, where: str) -> None:
    for name in PINNED_ONCE:
        known = getattr(before, name)
        if known and getattr(after, name) != known:
            raise InvariantError(f"{where}: {name} are pinned a second time")
    if before.next_pinned and not after.next_pinned:
        raise InvariantError(f"{where}: the next round's adverts are open again")
