"""A gamma that follows how sure the votes are: an option of the stake contract, after FLock's last remark.

FLock closes on setting gamma by the share of malicious clients. Nobody knows that share, but the votes tell
of it, in two ways.

- Where a share e of the voters is wrong, a majority is right with log odds proportional to its margin. So a
  verdict that hung on one vote moves little money, and a clear one moves much.
- A rejected round costs its proposers, honest ones too. While few clients are malicious, verdicts are clear
  and nearly all who pay are honest: gamma stays moderate. While votes are split, a clear verdict is rare, and
  finds many malicious clients among those who pay: it may cost more.

Integers only; a pure function of what the ledger records (docs/PROTOCOL.md section 6). `flocknode sim figures
flock` measures this rule against a fixed gamma.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from protocol.codec import int_range
from protocol.ledger.economy import UNITS, EconomyError, is_accepted

PERMILLE = 1000
MAX_WINDOW = 1024
"""Rounds at most that count as recent: their tallies are part of the state, which every block hashes."""


@frozen
class Tally:
    """What a round's vote leaves on record: votes on the winning side, and voters that the round had."""

    winning: int = field(validator=int_range(0, 1 << 16))
    seats: int = field(validator=int_range(1, 1 << 16))

    def __attrs_post_init__(self) -> None:
        if self.winning > self.seats:
            raise EconomyError(f"tally: {self.winning} of {self.seats} votes")

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
    """gamma = clamp(slope * margin, lowest, calm + (highest - calm) * max(0, 1 - 2 * recent margin)).

    `slope_units`: gamma per unit of the margin. `calm_units` is the most that it can be while the recent
    votes were clear, `highest_units` when they were split in half. `window`: rounds that count as recent.
    `prior_margin_permille` and `prior_rounds`: the margin that is assumed for so many rounds before the
    first; they always count too, so that a few rounds decide nothing.
    """

    lowest_units: int = field(default=UNITS, validator=int_range(0, 1 << 50))
    calm_units: int = field(default=8 * UNITS, validator=int_range(0, 1 << 50))
    highest_units: int = field(default=9 * UNITS, validator=int_range(0, 1 << 50))
    slope_units: int = field(default=40 * UNITS, validator=int_range(0, 1 << 50))
    window: int = field(default=8, validator=int_range(1, MAX_WINDOW))
    prior_margin_permille: int = field(default=300, validator=int_range(0, PERMILLE))
    prior_rounds: int = field(default=2, validator=int_range(1, 1 << 16))

    def __attrs_post_init__(self) -> None:
        if not self.lowest_units <= self.calm_units <= self.highest_units:
            raise EconomyError(
                f"gamma: {self.lowest_units}, {self.calm_units}, {self.highest_units} units are not ascending"
            )

    def gamma_units(self, past: Sequence[Tally], tally: Tally) -> int:
        """Gamma of the round that voted `tally`, after the rounds `past`, in order.

        One voter moves the margin by at most 2 / seats, and the recent margin by as much, divided by
        window + prior_rounds, for each round of the window in which it has a seat.
        """
        wanted = self.slope_units * tally.margin_permille // PERMILLE
        return min(self.ceiling_units(past), max(self.lowest_units, wanted))

    def recent(self, past: Sequence[Tally], tally: Tally) -> tuple[Tally, ...]:
        """What is kept for later rounds once this one has voted `tally`: the last `window`, in order."""
        return (*past, tally)[-self.window :]

    def ceiling_units(self, past: Sequence[Tally]) -> int:
        """The most that gamma can be after the rounds `past`."""
        recent = past[-self.window :]
        margins = sum(entry.margin_permille for entry in recent)
        margins += self.prior_margin_permille * self.prior_rounds
        split = max(0, PERMILLE - 2 * margins // (len(recent) + self.prior_rounds))
        return self.calm_units + (self.highest_units - self.calm_units) * split // PERMILLE
