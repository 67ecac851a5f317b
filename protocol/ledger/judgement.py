"""The interim rule of judgement: relative tolerance, a ratchet, the best model, prices by how bad a sum is.

An option of the stake contract (docs/PROTOCOL.md section 6). FLock's contract takes a whole gamma from every
member of a refused sum, and hands it to those who refused. So honest nodes that train for long, or whose data
differ, bleed each other dry over differences that nobody can tell from noise. Here a refusal costs by how
much worse the sum made the model, next to nothing near the tolerance; nobody earns by it; and what voters
compare is relative, so that a price in euros and a cross-entropy are judged alike.

Voters measure losses as floating-point numbers and compare them exactly, as fractions. What goes on the
ledger, and all that is done with it, is integers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import isfinite, isnan, nan, sqrt
from statistics import mean

from attrs import evolve, field, frozen

from protocol.codec import DecodeError, bytes_of, int_range
from protocol.ledger.economy import EconomyError

PERMILLE = 1000
MAX_CHANGE = 16
"""The largest coarse change by magnitude; what changes more, or is not finite, counts as this."""
LARGEST_CHANGE = Fraction(1 << 20)
"""The largest relative change by magnitude."""
HISTORY = 16
"""Accepted sums whose changes a voter remembers."""
LEAST_HISTORY = 4
UNKNOWN_NOISE = 0.5
DEVIATIONS = 2
LARGEST_REMEMBERED = 4.0


@frozen
class BestModel:
    """The best model so far by the voters' judgement: the round that made it (0: the genesis), its digest."""

    round: int = field(validator=int_range(0, 1 << 40))
    digest: bytes = field(validator=bytes_of(32))


@frozen
class Opinion:
    """What an opened vote says beyond +1 or -1.

    `change`: how much worse the candidate is (`Judgement.relative_change`), in half doublings of what this
    voter cannot tell from noise: 0 within it, k > 0 where it is worse by at most 2^(k/2) times that and by
    more than 2^((k-1)/2) times, below zero where it is better by as much, clipped to +-16.
    `improves`: its loss is below the best model's. `done`: the voter's task says that it is done.
    """

    change: int = field(default=0, validator=int_range(-MAX_CHANGE, MAX_CHANGE))
    improves: bool = False
    done: bool = False


@frozen
class Losses:
    """What a voter measured, on its own validation split: None where it could not, NaN counts as None.

    `best` None: the best model was not at hand.
    """

    current: float | None
    candidate: float | None
    best: float | None = None


@frozen
class Yardstick:
    """What a voter has measured before; private to it, durable, and only of models that were accepted.

    `largest`: the largest magnitude of a finite loss. `changes`: the relative changes that it measured of its
    last 16 accepted sums, oldest first. `pending`: that of the candidate of `round`, not yet accepted.
    """

    largest: float = 0.0
    changes: tuple[float, ...] = ()
    round: int = 0
    pending: float | None = None

    @property
    def noise(self) -> float:
        """Return the relative change that this voter cannot tell from noise; 1/2 while it has seen too few.

        The mean of `changes` and two deviations, each change counted as at most `LARGEST_REMEMBERED`, so that
        a poison that was accepted does not hide all later ones. Means are exact, and roots correctly rounded.
        """
        if len(self.changes) < LEAST_HISTORY:
            return UNKNOWN_NOISE
        middle = mean(map(Fraction, self.changes))
        deviation = sqrt(mean((Fraction(change) - middle) ** 2 for change in self.changes))
        return float(middle) + DEVIATIONS * deviation

    def measured(self, losses: Losses, round_: int, change: float | None) -> Yardstick:
        """Return the yardstick after an evaluation of `round_`.

        The candidate's loss does not count for `largest`: nobody has accepted it, and a poison could make
        every difference look small.
        """
        known = [abs(x) for x in (losses.current, losses.best) if x is not None and isfinite(x)]
        return evolve(self, largest=max([self.largest, *known]), round=round_, pending=change)

    def ended(self, round_: int, accepted: bool) -> Yardstick:
        """Return the yardstick after the end of `round_`."""
        if self.pending is None or self.round != round_:
            return self
        change = max(-LARGEST_REMEMBERED, min(LARGEST_REMEMBERED, self.pending))
        changes = (*self.changes, change)[-HISTORY:] if accepted else self.changes
        return evolve(self, changes=changes, pending=None)

    def to_bytes(self) -> bytes:
        """Return the record: doubles, big endian: largest, round, pending or NaN, changes."""
        pending = nan if self.pending is None else self.pending
        return struct.pack(f">{3 + len(self.changes)}d", self.largest, self.round, pending, *self.changes)

    @staticmethod
    def from_bytes(record: bytes) -> Yardstick:
        """Return the yardstick of a record. Raises `DecodeError` for what is none."""
        count, rest = divmod(len(record), 8)
        if rest or not 3 <= count <= 3 + HISTORY:
            raise DecodeError(f"a yardstick of {len(record)} bytes")
        largest, round_, pending, *changes = struct.unpack(f">{count}d", record)
        if not all(isfinite(x) for x in (largest, round_, *changes)) or largest < 0 or round_ < 0:
            raise DecodeError("a yardstick that is no number")
        return Yardstick(largest, tuple(changes), int(round_), pending if isfinite(pending) else None)


@frozen(kw_only=True)
class Judgement:
    """The numbers of the rule; all relative, so that no unit of a loss is in them.

    `tolerance_permille`: by what part of the reference loss a candidate may be worse. `floor_permille`: the
    least reference, as a part of the largest loss of an accepted model. A member of a refused sum pays
    nothing up to the grade `free_step`, the whole gamma from `full_step` on, and in proportion in between.
    `contrary_permille`: what a vote against a clear verdict costs, in thousandths of gamma. `patience`: after
    so many rounds without a better model a refusal costs half, after three times as many a quarter: training
    that has come to its end is refused often, and by honest voters.
    """

    tolerance_permille: int = field(default=100, validator=int_range(1, 1000 * PERMILLE))
    floor_permille: int = field(default=20, validator=int_range(0, PERMILLE))
    free_step: int = field(default=4, validator=int_range(0, MAX_CHANGE - 1))
    full_step: int = field(default=8, validator=int_range(1, MAX_CHANGE))
    contrary_permille: int = field(default=16, validator=int_range(0, PERMILLE))
    patience: int = field(default=32, validator=int_range(1, 1 << 20))
    strikes: int = field(default=8, validator=int_range(1, 1 << 10))
    forgive: int = field(default=8, validator=int_range(1, 1 << 10))

    def __attrs_post_init__(self) -> None:
        if self.full_step <= self.free_step:
            raise EconomyError(
                f"judgement: full_step {self.full_step} is not above free_step {self.free_step}"
            )

    # -- a voter ---------------------------------------------------------------------------------

    def relative_change(self, losses: Losses, yardstick: Yardstick) -> float | None:
        """Return by what part the candidate is worse, negative where it is better; None: not comparable.

        Against the current model alone where it is better than that by more than the tolerance, else the
        worse of the comparisons with the current and the best model.

        At most `LARGEST_CHANGE` by magnitude, and that where the candidate's loss is not finite while the
        current model's is: it is too wild. The vote does not go by this number, which is rounded.
        """
        worse = self._worse(losses, yardstick)
        return None if worse is None else float(worse)

    def form_opinion(self, losses: Losses, yardstick: Yardstick, done: bool = False) -> tuple[int, Opinion]:
        """Return the vote and the opinion that these losses lead to.

        +1 iff the candidate is worse than neither the current nor the best model by more than the tolerance,
        or better than the current one by more than that: a step back from a poison that was accepted is good,
        however far the best model is still off. Who cannot measure the current model, or failed to measure
        the candidate, abstains.
        """
        worse = self._worse(losses, yardstick)
        if worse is None:
            return 0, Opinion()
        square = (worse / max(self._tolerance, Fraction(yardstick.noise))) ** 2
        step = next((k for k in range(MAX_CHANGE) if square <= 1 << k), MAX_CHANGE)
        best, candidate = _usable(losses.best), losses.candidate
        improves = best is not None and candidate is not None and candidate < best
        return (1 if worse <= self._tolerance else -1), Opinion(step if worse > 0 else -step, improves, done)

    def is_sound(self, vote: int, opinion: Opinion) -> bool:
        """Return whether vote and opinion can stand in one opening: who abstains says nothing else."""
        if vote == 0:
            return opinion == Opinion()
        return opinion.change <= 0 if vote == 1 else opinion.change >= 0

    def _worse(self, losses: Losses, yardstick: Yardstick) -> Fraction | None:
        current, candidate = _usable(losses.current), losses.candidate
        if current is None or candidate is None:
            return None
        if not isfinite(candidate):
            return LARGEST_CHANGE if isfinite(current) else None
        best = _usable(losses.best)
        known = yardstick.measured(losses, 0, None).largest
        least = Fraction(known) * self.floor_permille / PERMILLE
        against_current = _change(candidate, current, least)
        if best is None or against_current < -self._tolerance:
            return against_current
        return max(against_current, _change(candidate, best, least))

    @property
    def _tolerance(self) -> Fraction:
        return Fraction(self.tolerance_permille, PERMILLE)

    # -- the ledger ------------------------------------------------------------------------------

    def alert_after(self, alert: int, accepted: bool, grade: int) -> int:
        """Return the alert after a judged sum: how many refusals above `free_step` there were of late.

        In parts of `forgive` a refusal, at most `strikes` of them; each other judged sum takes one part off.
        """
        if accepted or grade <= self.free_step:
            return max(0, alert - 1)
        return min(self.strikes * self.forgive, alert + self.forgive)

    def member_price(self, grade: int, gamma: int, age: int, alert: int) -> int:
        """Return what each member of a sum that was refused with this grade pays, in units.

        `age`: rounds since the one that made the best model. `alert`: with this refusal (`alert_after`).
        """
        above = max(0, min(grade, self.full_step) - self.free_step)
        whole = (self.full_step - self.free_step) * (self.patience + age) * self.strikes * self.forgive
        return gamma * above * self.patience * alert // whole

    def contrary_price(self, winning: int, losing: int, gamma: int) -> int:
        """Return what each vote against the verdict pays: nothing unless three quarters were of one mind."""
        return gamma * self.contrary_permille // PERMILLE if winning >= 3 * losing else 0


def _usable(loss: float | None) -> float | None:
    return None if loss is None or isnan(loss) else loss


def _change(candidate: float, reference: float, least: Fraction) -> Fraction:
    """Return by what part of `reference`, at least of `least`, a finite candidate is worse, exactly."""
    if not isfinite(reference):
        return -LARGEST_CHANGE
    scale = max(abs(Fraction(reference)), least)
    worse = Fraction(candidate) - Fraction(reference)
    if scale == 0:
        return LARGEST_CHANGE if worse > 0 else -LARGEST_CHANGE if worse < 0 else Fraction(0)
    return max(-LARGEST_CHANGE, min(LARGEST_CHANGE, worse / scale))


def grade_of(changes: Iterable[int]) -> int:
    """Return the lower median of the coarse changes of a ballot: half of the heads at least say no more.

    EconomyError where there are none.
    """
    ordered = sorted(changes)
    if not ordered:
        raise EconomyError("a grade of no votes")
    return ordered[(len(ordered) - 1) // 2]


def is_improvement(opinions: Mapping[bytes, Opinion]) -> bool:
    """Return whether a strict majority of the opened votes, abstentions among them, says so."""
    return 2 * sum(opinion.improves for opinion in opinions.values()) > len(opinions)
