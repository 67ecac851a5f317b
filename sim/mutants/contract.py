"""Bugs in disputes and at the end of a round: docs/PROTOCOL.md sections 3.1, 3.2, 3.8, 5.4 and 6."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve

from protocol import compose, sortition
from protocol import round as rounds
from protocol.codec import digest
from protocol.engine import Engine
from protocol.events import CancelTimer
from protocol.ledger import block as blocks
from protocol.ledger import economy, settlement
from protocol.ledger.adaptive import AdaptiveGamma, Tally
from protocol.ledger.economy import Settlement
from protocol.ledger.state import Fault, LedgerState, Phase, PinnedFault
from protocol.ledger.transactions import apply_transactions
from protocol.orders import Orders
from protocol.params import ProtocolParams
from protocol.pool import Pool
from protocol.sortition import Roles
from sim.mutants.planting import Hunter, Mutant, Swap


def _over_the_outcome(right: Callable[..., bytes]) -> Any:
    def next_beacon(state: LedgerState, check_seeds: Mapping[bytes, bytes]) -> bytes:
        return digest("beacon", right(state, check_seeds), state.model_digest)

    return next_beacon


def _remainder_lost(right: Callable[..., tuple[bool, Settlement]]) -> Any:
    def settle_vote(*arguments: Any) -> tuple[bool, Settlement]:
        accepted, settled = right(*arguments)
        return accepted, evolve(settled, treasury_delta=0)

    return settle_vote


def _adds_up_to_anything(right: Any) -> Any:
    def check_total(self: Settlement) -> None:
        return None

    return check_total


def _asserts_nothing(right: Any) -> Any:
    def settle(state: LedgerState, settled: Settlement) -> LedgerState:
        deltas = dict(settled.deltas)
        accounts = tuple(
            (peer, evolve(account, stake_units=account.stake_units + deltas.get(peer, 0)))
            for peer, account in state.accounts
        )
        treasury = state.treasury_units + settled.treasury_delta
        pool = state.pool_units + settled.pool_delta
        return evolve(state, accounts=accounts, treasury_units=treasury, pool_units=pool)

    return settle


def _pins_later(right: Callable[..., LedgerState]) -> Any:
    def pin_next(state: LedgerState, *rest: Any) -> LedgerState:
        return state if state.learning.phase is Phase.AGGREGATE else right(state, *rest)

    return pin_next


def _cites_later(right: Callable[..., Any]) -> Any:
    def aggregate(*arguments: Any) -> Any:
        body = right(*arguments)
        return evolve(body, adverts=()) if isinstance(body, blocks.AggregateBody) else body

    return aggregate


def _transactions_first(right: Callable[..., LedgerState]) -> Any:
    def end_round(state: LedgerState, params: Any, *, transactions: Any, **rest: Any) -> LedgerState:
        moved = apply_transactions(state, params, transactions)
        return right(moved, params, transactions=(), **rest)

    return end_round


def _frees_nobody(right: Any) -> Any:
    def free(self: Orders, waiting: Any, now: int) -> None:
        return None

    return free


def _keeps_the_first(right: Any) -> Any:
    def replace_transaction(self: Pool, *arguments: Any) -> bool:
        return False

    return replace_transaction


def _aggregator_proposes(right: Callable[..., Roles | None]) -> Any:
    def assign_roles(*arguments: Any) -> Roles | None:
        roles = right(*arguments)
        if roles is None:
            return None
        return evolve(roles, aggregators=(roles.proposers[0], *roles.aggregators))

    return assign_roles


def _free_of_charge(right: Any) -> Any:
    def settle_faults(state: LedgerState, params: Any, faults: Any) -> LedgerState:
        return state

    return settle_faults


def _never_forgets(right: Callable[..., LedgerState]) -> Any:
    def with_suspicion(state: LedgerState, peers: Sequence[bytes], change: int) -> LedgerState:
        return state if change < 0 else right(state, peers, change)

    return with_suspicion


def _ties_are_refused(right: Any) -> Any:
    def is_accepted(votes: Mapping[bytes, int]) -> bool:
        return sum(votes.values()) > 0

    return is_accepted


def _waits_for_ever(right: Callable[..., None]) -> Any:
    def begin_height(self: Engine, safety: Any) -> None:
        right(self, safety)
        if self.state.learning.phase is Phase.DISPUTE:
            self.outbox.add(CancelTimer("late"))

    return begin_height


def _first_reading_is_the_ruling(right: Callable[..., LedgerState]) -> Any:
    def dispute(state: LedgerState, body: Any, tally: Any) -> LedgerState:
        after, claim = right(state, body, tally), state.learning.claim
        if not body.sum_matches or claim is None:
            return after
        faults = (*after.learning.faults, PinnedFault(claim.aggregator, Fault.FORGED_AGGREGATE))
        return evolve(after, learning=evolve(after.learning, faults=faults))

    return dispute


def _counts_itself(right: Callable[..., int]) -> Any:
    def gamma_units(self: AdaptiveGamma, past: Sequence[Tally], tally: Tally) -> int:
        return right(self, (*past, tally), tally)

    return gamma_units


def _keeps_all(right: Any) -> Any:
    def recent(self: AdaptiveGamma, past: Sequence[Tally], tally: Tally) -> tuple[Tally, ...]:
        return (*past, tally)

    return recent


def _silence_at_the_lowest(right: Callable[..., int]) -> Any:
    def unopened_vote_units(params: ProtocolParams) -> int:
        rule = params.adaptive_gamma
        return right(params) if rule is None else rule.lowest_units

    return unopened_vote_units


CONTRACT = (
    Mutant(
        name="blocked-for-ever",
        about="a transaction that cannot apply any more keeps its place, and blocks those behind it",
        breaks='6: "An honest node replaces it by a CANCEL once it has stood in the way for 3 rounds"',
        caught_by="waiting",
        swaps=(Swap(Orders, "_free", _frees_nobody),),
        hunters=(Hunter(manifest="blocked-transfer"),),
    ),
    Mutant(
        name="first-version-kept",
        about="of two transactions of one slot a node keeps the one that it heard first",
        breaks='7.5: "Of two Transactions of one slot a node keeps the one with the higher revision"',
        caught_by="waiting",
        swaps=(Swap(Pool, "_replace_transaction", _keeps_the_first),),
        hunters=(Hunter(manifest="blocked-transfer"),),
    ),
    Mutant(
        name="beacon-over-the-outcome",
        about="the next beacon depends on which model was accepted, and so on the votes",
        breaks='11.4: "It does not depend on votes, tallies or the leader\'s choice of transactions."',
        caught_by="beacon",
        swaps=(Swap(settlement, "next_beacon", _over_the_outcome),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="supply-leak-on-rounding",
        about="what cannot be shared out equally is nobody's, and no assertion looks at the total",
        breaks='6: "Remainders go to the treasury."; a "constant total, asserted at every settlement"',
        caught_by="supply",
        swaps=(
            Swap(economy, "settle_vote", _remainder_lost),
            Swap(Settlement, "__attrs_post_init__", _adds_up_to_anything),
            Swap(settlement, "settle", _asserts_nothing),
        ),
        hunters=(Hunter(manifest="uneven-vote"),),
    ),
    Mutant(
        name="adverts-pinned-late",
        about="the next round's adverts are pinned by OUTCOME, when the next beacon is known",
        breaks='3.2: "They, and the stakes as weights, are pinned once: by AGGREGATE"',
        caught_by="phases",
        swaps=(
            Swap(rounds, "_pin_next", _pins_later),
            Swap(compose, "_aggregate", _cites_later),
        ),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="transactions-before-roles",
        about="transactions apply before the votes are settled and the roles are drawn",
        breaks='3.2: "Its transactions apply after the draw"',
        caught_by="contract",
        swaps=(Swap(settlement, "end_round", _transactions_first),),
        hunters=(Hunter(manifest="shifted-stake"),),
    ),
    Mutant(
        name="aggregator-proposes",
        about="a proposer is the aggregator of its own round",
        breaks='3.1: "An aggregator is never a proposer."',
        caught_by="roles",
        swaps=(Swap(sortition, "assign_roles", _aggregator_proposes),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="faults-free-of-charge",
        about="a proven fault costs nothing",
        breaks='6: "FORGED_AGGREGATE, BROKEN_CHECK, BAD_DEALING and EQUIVOCATION cost fault_penalty"',
        caught_by="contract",
        swaps=(Swap(settlement, "settle_faults", _free_of_charge),),
        hunters=(Hunter(manifest="blind-forger"),),
    ),
    Mutant(
        name="suspicion-never-falls",
        about="a member once in a void round keeps its suspicion for ever",
        breaks='6: "suspicion of U2 down by one (not if void or aborted)"',
        caught_by="contract",
        swaps=(Swap(settlement, "_with_suspicion", _never_forgets),),
        hunters=(Hunter(manifest="void-then-trusted"),),
    ),
    Mutant(
        name="ties-refused",
        about="as many votes for as against refuse an aggregate",
        breaks='6: "The aggregate is accepted iff the opened votes add up to >= 0, by heads."',
        caught_by="contract",
        swaps=(Swap(economy, "is_accepted", _ties_are_refused),),
        hunters=(Hunter(manifest="tied-vote"),),
    ),
    Mutant(
        name="gamma-by-its-own-vote",
        about="the tally of the present round counts among the recent ones",
        breaks='6: "the tallies of the last window rounds that were judged, without the present one"',
        caught_by="contract",
        swaps=(Swap(AdaptiveGamma, "gamma_units", _counts_itself),),
        hunters=(Hunter(manifest="adaptive-refusal"),),
    ),
    Mutant(
        name="tallies-for-ever",
        about="tallies are never forgotten",
        breaks='6: "the present tally is appended, and the oldest beyond window go"',
        caught_by="contract",
        swaps=(Swap(AdaptiveGamma, "recent", _keeps_all),),
        hunters=(Hunter(manifest="adaptive-refusal"),),
    ),
    Mutant(
        name="cheap-silence",
        about="under an adaptive gamma an unopened vote costs the least that losing can cost",
        breaks='6: "costs gamma (an adaptive one: highest, ..."',
        caught_by="contract",
        swaps=(Swap(settlement, "unopened_vote_units", _silence_at_the_lowest),),
        hunters=(Hunter(manifest="adaptive-silence"),),
    ),
    Mutant(
        name="dispute-without-deadline",
        about="a dispute waits for ever for an upload that nobody serves",
        breaks='5.4: "Some uploads are held by fewer than m(n) nodes at the deadline"',
        caught_by="liveness",
        swaps=(Swap(Engine, "_begin_height", _waits_for_ever),),
        hunters=(Hunter(manifest="hidden-upload"),),
    ),
    Mutant(
        name="first-reading-is-the-ruling",
        about="the aggregator pays although its sum is that of the uploads",
        breaks='5.4: "B* = B: the guilty of step 2 pay."',
        caught_by="blame",
        swaps=(Swap(rounds, "_dispute", _first_reading_is_the_ruling),),
        hunters=(Hunter(manifest="mis-committer"),),
    ),
)
