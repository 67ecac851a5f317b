"""A gamma that follows how sure the votes are: an option of the stake contract, after FLock's last remark.

FLock closes on setting gamma by the share of malicious clients. Nobody knows that share, but the votes tell
of it: where a share e of the voters is wrong, a majority is right with log odds proportional to its margin.
So a verdict that hung on one vote moves little money, and a clear one moves much; and while the votes of the
last rounds disagree, everything is cheaper. Integers only; a pure function of what the ledger records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from protocol.codec import int_range
from protocol.ledger.economy import EconomyError, is_accepted
from protocol.params import MICRO


@frozen
class Tally:
    """What a round's vote leaves on record: votes opened on the winning and on the losing side."""

    winning: int
    losing: int


@frozen(kw_only=True)
class AdaptiveGamma:
    """gamma = clamp(slope * margin * (recent margin + floor), lowest, highest).

    `slope_units`: gamma per unit of the product. `floor_permille`: what is left of gamma, in thousandths,
    when the recent votes were split in half. `window`: rounds that count as recent. `prior_margin_permille`
    and `prior_rounds`: the margin that is assumed for so many rounds before the first.
    """

    lowest_units: int = field(default=MICRO, validator=int_range(0, 1 << 50))
    highest_units: int = field(default=11 * MICRO, validator=int_range(0, 1 << 50))
    slope_units: int = field(default=64 * MICRO, validator=int_range(0, 1 << 50))
    floor_permille: int = field(default=200, validator=int_range(0, 1000))
    window: int = field(default=8, validator=int_range(1, 1 << 16))
    prior_margin_permille: int = field(default=300, validator=int_range(0, 1000))
    prior_rounds: int = field(default=2, validator=int_range(1, 1 << 16))

    def __attrs_post_init__(self) -> None:
        if self.lowest_units > self.highest_units:
            raise EconomyError(f"gamma of {self.lowest_units} to {self.highest_units} units: an empty range")

    def gamma_units(self, past: Sequence[Tally], votes: Mapping[bytes, int], seats: int) -> int:
        """Gamma of a round with these opened `votes` of `seats` voters, after the rounds `past`, in order.

        The margin is taken over the seats, so nobody makes a verdict look clearer by abstaining. One voter
        moves it by at most 2 / seats, and the recent margin by 2 / (seats * (window + prior_rounds)) a round.
        EconomyError without a seat, or for more votes than seats.
        """
        if seats < max(1, len(votes)):
            raise EconomyError(f"{len(votes)} votes of {seats} voters")
        margin = abs(sum(votes.values()))
        recent = past[-self.window :]
        rounds = len(recent) + self.prior_rounds
        # In thousandths of a vote, over `rounds` rounds of `seats` votes.
        recent_margin = 1000 * sum(max(0, tally.winning - tally.losing) for tally in recent)
        recent_margin += self.prior_margin_permille * self.prior_rounds * seats
        factor = recent_margin + self.floor_permille * rounds * seats
        gamma = self.slope_units * margin * factor // (1000 * seats * seats * rounds)
        return min(self.highest_units, max(self.lowest_units, gamma))


def tally_votes(votes: Mapping[bytes, int]) -> Tally:
    """The record of a round's votes; who abstained is on neither side. EconomyError as `is_accepted`."""
    winner = 1 if is_accepted(votes) else -1
    opened = [vote for vote in votes.values() if vote]
    winning = sum(vote == winner for vote in opened)
    return Tally(winning, len(opened) - winning)
