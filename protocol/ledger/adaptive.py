"""A gamma that follows how sure the votes are: an option of the stake contract, after FLock's last remark.

FLock closes on setting gamma by the share of malicious clients. Nobody knows that share, but the votes tell
of it: where a share e of the voters is wrong, a majority is right with log odds proportional to its margin.
So a verdict that hung on one vote moves little money, and a clear one moves much; and while the votes of the
last rounds disagree, everything is cheaper. Integers only; a pure function of what the ledger records.

Networks have a fixed gamma (docs/PROTOCOL.md section 6). `flocknode sim figures flock` measures this rule
against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from protocol.codec import int_range
from protocol.ledger.economy import EconomyError, is_accepted
from protocol.params import MICRO

PERMILLE = 1000


@frozen
class Tally:
    """What a round's vote leaves on record: votes on the winning side, and voters that the round had."""

    winning: int
    seats: int

    @property
    def margin_permille(self) -> int:
        """By what share of the seats the winners outnumber all others, in thousandths, rounded down; never
        below zero.

        Who abstains counts with the losers: a minority that keeps silent makes no verdict look clearer.
        """
        return max(0, PERMILLE * (2 * self.winning - self.seats) // self.seats)


def tally_votes(votes: Mapping[bytes, int], seats: int) -> Tally:
    """The record of a round with these opened votes of `seats` voters.

    EconomyError as `is_accepted`, without a seat, or for more votes than seats.
    """
    if seats < max(1, len(votes)):
        raise EconomyError(f"{len(votes)} votes of {seats} voters")
    winner = 1 if is_accepted(votes) else -1
    return Tally(sum(vote == winner for vote in votes.values()), seats)


@frozen(kw_only=True)
class AdaptiveGamma:
    """gamma = clamp(slope * margin * (recent margin + floor), lowest, highest).

    `slope_units`: gamma per unit of the product. `floor_permille`: what the second factor is, in thousandths,
    when the recent votes were split in half. `window`: rounds that count as recent. `prior_margin_permille`
    and `prior_rounds`: the margin that is assumed for so many rounds before the first, and with them always.
    """

    lowest_units: int = field(default=MICRO, validator=int_range(0, 1 << 50))
    highest_units: int = field(default=9 * MICRO, validator=int_range(0, 1 << 50))
    slope_units: int = field(default=64 * MICRO, validator=int_range(0, 1 << 50))
    floor_permille: int = field(default=200, validator=int_range(0, PERMILLE))
    window: int = field(default=8, validator=int_range(1, 1 << 16))
    prior_margin_permille: int = field(default=300, validator=int_range(0, PERMILLE))
    prior_rounds: int = field(default=2, validator=int_range(1, 1 << 16))

    def __attrs_post_init__(self) -> None:
        if self.lowest_units > self.highest_units:
            raise EconomyError(f"gamma of {self.lowest_units} to {self.highest_units} units: an empty range")

    def gamma_units(self, past: Sequence[Tally], tally: Tally) -> int:
        """Gamma of the round that voted `tally`, after the rounds `past`, in order.

        One voter moves the margin by at most 2 / seats, and the recent margin by as much, divided by
        window + prior_rounds, for each round of the window in which it has a seat.
        """
        recent = past[-self.window :]
        rounds = len(recent) + self.prior_rounds
        margins = sum(entry.margin_permille for entry in recent)
        margins += self.prior_margin_permille * self.prior_rounds
        factor = margins + self.floor_permille * rounds
        gamma = self.slope_units * tally.margin_permille * factor // (PERMILLE * PERMILLE * rounds)
        return min(self.highest_units, max(self.lowest_units, gamma))
