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

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import isfinite, isnan

from attrs import field, frozen

from protocol.codec import bytes_of, int_range
from protocol.ledger.economy import EconomyError

PERMILLE = 1000
MAX_CHANGE = 16
"""The largest coarse change by magnitude; what changes more, or is not finite, counts as this."""


@frozen
class BestModel:
    """The best model so far by the voters' judgement: the round that made it (0: the genesis), its digest."""

    round: int = field(validator=int_range(0, 1 << 40))
    digest: bytes = field(validator=bytes_of(32))


@frozen
class Opinion:
    """What an opened vote says beyond +1 or -1.

    `change`: how much worse the candidate is than the worse of its comparisons with the current and the best
    model, in steps of tolerance / `steps`, rounded up, clipped to +-16; below zero where it is better than
    both. `improves`: its loss is below the best model's. `done`: the voter's task says that it is done.
    """

    change: int = field(default=0, validator=int_range(-MAX_CHANGE, MAX_CHANGE))
    improves: bool = False
    done: bool = False


@frozen
class Losses:
    """What a voter measured, on its own validation split: None where it could not, NaN counts as None.

    `best` None: the best model was not at hand; `largest`: the largest magnitude of a finite loss that this
    voter has measured of an accepted model, the initial one among them.
    """

    current: float | None
    candidate: float | None
    best: float | None
    largest: float = 0.0


@frozen(kw_only=True)
class Judgement:
    """The numbers of the rule; all relative, so that no unit of a loss is in them.

    `tolerance_permille`: by what part of the reference loss a candidate may be worse. `floor_permille`: the
    least reference, as a part of the largest loss of an accepted model. `steps`: coarse steps in one
    tolerance. `full_step`: the grade from which a member of a refused sum pays the whole gamma.
    `contrary_permille`: what a vote against a clear verdict costs at most, in thousandths of gamma.
    """

    tolerance_permille: int = field(default=100, validator=int_range(1, 1000 * PERMILLE))
    floor_permille: int = field(default=20, validator=int_range(0, PERMILLE))
    steps: int = field(default=2, validator=int_range(1, MAX_CHANGE - 1))
    full_step: int = field(default=MAX_CHANGE, validator=int_range(2, MAX_CHANGE))
    contrary_permille: int = field(default=16, validator=int_range(0, PERMILLE))

    def __attrs_post_init__(self) -> None:
        if self.full_step <= self.steps:
            raise EconomyError(f"judgement: full_step {self.full_step} is not above steps {self.steps}")

    # -- a voter ---------------------------------------------------------------------------------

    def form_opinion(self, losses: Losses, done: bool = False) -> tuple[int, Opinion]:
        """Return the vote and the opinion that these losses lead to.

        +1 iff the candidate is worse than neither the current nor the best model by more than the tolerance.
        A candidate without a finite loss gets -1 where the current model has one: it is too wild. Who cannot
        measure the current model either, or failed to measure the candidate, abstains.
        """
        current, candidate = _usable(losses.current), losses.candidate
        if current is None or candidate is None:
            return 0, Opinion()
        if not isfinite(candidate):
            return (-1, Opinion(MAX_CHANGE)) if isfinite(current) else (0, Opinion())
        best = _usable(losses.best)
        worst = max(
            self._steps_worse(candidate, reference, losses.largest)
            for reference in (current, best)
            if reference is not None
        )
        return self.vote_of(worst), Opinion(worst, best is not None and candidate < best, done)

    def vote_of(self, change: int) -> int:
        """Return the vote that goes with a coarse change: within the tolerance, or not."""
        return 1 if change <= self.steps else -1

    def is_sound(self, vote: int, opinion: Opinion) -> bool:
        """Return whether vote and opinion can stand in one opening: who abstains says nothing else."""
        return opinion == Opinion() if vote == 0 else vote == self.vote_of(opinion.change)

    def _steps_worse(self, candidate: float, reference: float, largest: float) -> int:
        """Return the coarse change of a finite `candidate` against `reference`, which may be infinite."""
        if not isfinite(reference):
            return -MAX_CHANGE
        scale = max(abs(Fraction(reference)), Fraction(largest) * self.floor_permille / PERMILLE)
        worse = Fraction(candidate) - Fraction(reference)
        if scale == 0:
            return MAX_CHANGE if worse > 0 else -MAX_CHANGE if worse < 0 else 0
        steps = worse * self.steps * PERMILLE / (scale * self.tolerance_permille)
        return max(-MAX_CHANGE, min(MAX_CHANGE, -(-steps.numerator // steps.denominator)))

    # -- the ledger ------------------------------------------------------------------------------

    def member_price(self, grade: int, gamma: int) -> int:
        """Return what each member of a sum that was refused with this grade pays, in units."""
        above = min(grade, self.full_step) - self.steps
        span = self.full_step - self.steps
        return gamma * above**2 // span**2 if above > 0 else 0

    def contrary_price(self, winning: int, losing: int, gamma: int) -> int:
        """Return what each vote against the verdict pays: nothing unless three quarters were of one mind."""
        return gamma * self.contrary_permille // PERMILLE if winning >= 3 * losing else 0


def _usable(loss: float | None) -> float | None:
    return None if loss is None or isnan(loss) else loss


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
