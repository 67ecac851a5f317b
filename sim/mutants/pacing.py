"""Bugs in a network's pace, its rest, and blocks without roles: docs/PROTOCOL.md section 3.9."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from protocol.ledger import settlement
from protocol.ledger.pace import Pace, Rest, Training
from protocol.ledger.state import LedgerState, PinnedAdvert
from protocol.pacing import Pacing
from sim.mutants.planting import Hunter, Mutant, Swap


def _at_once(right: Any) -> Any:
    def hold_ms(self: Pacing, now: int) -> int:
        return 0

    return hold_ms


def _never_rests(right: Callable[..., Training]) -> Any:
    def after_round(self: Training, pace: Pace, **vote: Any) -> Training:
        return evolve(right(self, pace, **vote), rest=Rest.NONE)

    return after_round


def _any_gift_wakes(right: Callable[..., Training]) -> Any:
    def after_funding(self: Training, pace: Pace, *, round_: int, units: int) -> Training:
        return right(self, pace, round_=round_, units=pace.resume_units if units else 0)

    return after_funding


def _for_nothing(right: Callable[..., LedgerState | None]) -> Any:
    def reform(state: LedgerState, *rest: Any) -> LedgerState:
        return right(state, *rest) or evolve(state, learning=evolve(state.learning, reformed=True))

    return reform


def _by_stake(right: Any) -> Any:
    def equal_weights(state: LedgerState, adverts: Iterable[PinnedAdvert]) -> tuple[tuple[bytes, int], ...]:
        return settlement.sortition_weights(state, adverts)

    return equal_weights


def _validators_stay(right: Callable[..., LedgerState | None]) -> Any:
    def reform(state: LedgerState, *rest: Any) -> LedgerState | None:
        after = right(state, *rest)
        same = after is not None and after.round == state.round and after.rests == state.rests
        return evolve(after, validators=state.validators) if same and after is not None else after

    return reform


def _counts_paid(right: Callable[..., Training]) -> Any:
    def after_round(self: Training, pace: Pace, **vote: Any) -> Training:
        return evolve(right(evolve(self, paid=False), pace, **vote), paid=self.paid)

    return after_round


PACING = (
    Mutant(
        name="no-interval",
        about="a proposer deals as soon as the round begins",
        breaks='3.9: "A proposer deals no sooner than interval_ms after this node\'s SHARE phase ..."',
        caught_by="pacekept",
        swaps=(Swap(Pacing, "hold_ms", _at_once),),
        hunters=(Hunter(manifest="interval"),),
    ),
    Mutant(
        name="never-rests",
        about="training goes on after the last round",
        breaks='3.9: "ROUNDS if last_round > 0 and r >= last_round"',
        caught_by="rest",
        swaps=(Swap(Training, "after_round", _never_rests),),
        hunters=(Hunter(manifest="rest"),),
    ),
    Mutant(
        name="any-gift-wakes",
        about="a gift below the price of a round wakes training",
        breaks='3.9: "Once they reach resume_units"',
        caught_by="rest",
        swaps=(Swap(Training, "after_funding", _any_gift_wakes),),
        hunters=(Hunter(manifest="rest"),),
    ),
    Mutant(
        name="block-for-nothing",
        about="an OPEN block without roles need not carry a transaction that applies",
        breaks='3.9: "valid if and only if at least one of its transactions applies"',
        caught_by="rest",
        swaps=(Swap(settlement, "reform", _for_nothing),),
        hunters=(Hunter(manifest="empty-opener", seed=2),),
    ),
    Mutant(
        name="stake-in-a-reformed-round",
        about="stake that was moved while the beacon was known weighs in the draw",
        breaks='3.1: "In a reformed round ... every weight is 1"',
        caught_by="roles",
        swaps=(Swap(settlement, "equal_weights", _by_stake),),
        hunters=(Hunter(manifest="reformed"),),
    ),
    Mutant(
        name="validators-stay",
        about="who joins in a block without roles does not become a validator",
        breaks='3.9: "the validators follow from the accounts at once"',
        caught_by="contract",
        swaps=(Swap(settlement, "reform", _validators_stay),),
        hunters=(Hunter(manifest="reformed"),),
    ),
    Mutant(
        name="patience-ends-paid-rounds",
        about="patience ends training although rounds are paid for",
        breaks='3.9: "Paid rounds are trained whatever patience and voters say"',
        caught_by="rest",
        swaps=(Swap(Training, "after_round", _counts_paid),),
        hunters=(Hunter(manifest="paid", seed=2),),
    ),
)
