"""Bugs on the way from updates to the accepted sum (docs/PROTOCOL.md sections 3.4, 3.5, 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import evolve

from protocol import blob, compose
from protocol import round as rounds
from protocol.duties import advance, check, release
from protocol.duties.desk import Desk
from protocol.ledger.state import LedgerState, Phase
from protocol.messages import ReleaseStage
from protocol.pinning import contributors_pinned
from protocol.progress import Look
from protocol.secagg import aggregate, contribute, encoding
from protocol.secagg.aggregate import PlainSum
from protocol.secagg.commitment import Commitment
from protocol.secagg.scheme import Scheme
from protocol.sharing import ShareKind
from sim.mutants.planting import Hunter, Mutant, Swap


def _as_in_contribute(state: LedgerState) -> LedgerState:
    return evolve(state, learning=evolve(state.learning, phase=Phase.CONTRIBUTE))


def _pins_late_contributions(right: Callable[..., LedgerState]) -> Any:
    def contribution(state: LedgerState, *rest: Any) -> LedgerState:
        late = state.learning.phase is Phase.AGGREGATE
        return right(_as_in_contribute(state) if late else state, *rest)

    return contribution


def _proposes_late_contributions(right: Callable[..., Any]) -> Any:
    def aggregate_body(state: LedgerState, rules: Any, tally: Any, pool: Any, findings: Any) -> Any:
        pinned = {contribution.peer for contribution in state.learning.contributors}
        if set(contributors_pinned(state, tally)) > pinned:
            again = _as_in_contribute(state)
            return compose._BY_PHASE[Phase.CONTRIBUTE](again, rules, tally, pool, findings)
        return right(state, rules, tally, pool, findings)

    return aggregate_body


def _tells_of_late_contributions(right: Callable[..., Any]) -> Any:
    def held(self: Look) -> Any:
        said, blobs = right(self)
        if self.phase is Phase.AGGREGATE:
            self.phase = Phase.CONTRIBUTE
            late, _ = right(self)
            self.phase = Phase.AGGREGATE
            said = {**late, **said}
        return said, blobs

    return held


def _both_kinds(right: Callable[..., None]) -> Any:
    def release_shares(
        desk: Desk, stage: ReleaseStage, attempt: int, wanted: list[tuple[bytes, ShareKind]]
    ) -> None:
        if stage is ReleaseStage.UNMASK:
            wanted = [(peer, kind) for peer, _ in wanted for kind in (ShareKind.MASK, ShareKind.SELF)]
        right(desk, stage, attempt, wanted)

    return release_shares


def _reveals_early(right: Callable[[Desk], None]) -> Any:
    def do_duties(desk: Desk) -> None:
        right(desk)
        if desk.learning.phase is Phase.AGGREGATE:
            check.reveal(desk)

    return do_duties


def _in_the_clear(right: Any) -> Any:
    def publish_commitment(
        context: Any, scheme: Scheme, extended: Any, proposer: int, check_seed: bytes
    ) -> Any:
        return scheme.commitment.commit(extended)

    return publish_commitment


def _taken_as_clear(right: Any) -> Any:
    def sum_commitments(
        context: Any, scheme: Scheme, contributors: Any, published: Any, check_seeds: Any
    ) -> Any:
        return scheme.commitment.add(published)

    return sum_commitments


def _boundless(right: Any) -> Any:
    def within_bound(self: Commitment, extended_sum: Any, contributors: int) -> bool:
        return True

    return within_bound


def _padding_alone(right: Any) -> Any:
    def eq19_holds(scheme: Scheme, plain: PlainSum, *rest: Any) -> bool:
        return plain.padded_with_zero

    return eq19_holds


def _self_masks_stay(right: Callable[..., PlainSum]) -> Any:
    def unmask_sum(
        scheme: Scheme, coefficients: Any, points: Any, self_seeds: Any, dangling: Any
    ) -> PlainSum:
        return right(scheme, coefficients, points, (), dangling)

    return unmask_sum


def _rounds_down(right: Callable[..., Any]) -> Any:
    def apply_aggregate(model: Any, total: Any, fixed: Any, max_weight: int, total_weight: int) -> Any:
        exact = right(np.zeros_like(model), 2 * total, fixed, max_weight, total_weight)
        return model + exact // 2

    return apply_aggregate


def _takes_any_chunk(right: Any) -> Any:
    def verify_chunk(digest: bytes, chunk: Any) -> None:
        return None

    return verify_chunk


AGGREGATION = (
    Mutant(
        name="u2-pinned-twice",
        about="contributions that come late are pinned as well, when shares for the first U2 are out already",
        breaks='3.2: "U2 is pinned once per round"',
        caught_by="phases",
        swaps=(
            Swap(rounds, "_contribution", _pins_late_contributions),
            Swap(compose, "_aggregate", _proposes_late_contributions),
            Swap(Look, "held", _tells_of_late_contributions),
        ),
        hunters=(Hunter(manifest="late-contribution", seed=2),),
    ),
    Mutant(
        name="both-share-kinds",
        about="a holder releases its shares of the mask key and of the self seed of the same dealer",
        breaks='3.5: "Never both for one peer."',
        caught_by="conduct",
        swaps=(Swap(release, "release", _both_kinds),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="reveal-before-aggregate",
        about="check seeds and z are revealed as soon as U2 is pinned",
        breaks='3.2: "B ... pinned before any rho_i is known outside its dealer"',
        caught_by="conduct",
        swaps=(Swap(advance, "_do_duties", _reveals_early),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="commitment-unblinded",
        about="commitments are published as they are, and taken as they are",
        breaks='5.1: "unreadable until rho_i is out"',
        caught_by="blinding",
        swaps=(
            Swap(contribute, "publish_commitment", _in_the_clear),
            Swap(aggregate, "sum_commitments", _taken_as_clear),
        ),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="bound-not-checked",
        about="a sum of any size is accepted",
        breaks='5.3: "every coordinate of the extended sum is at most |U2| * 2^(b-1) in magnitude"',
        caught_by="verdicts",
        swaps=(Swap(Commitment, "within_bound", _boundless),),
        hunters=(Hunter(manifest="out-of-bounds"),),
    ),
    Mutant(
        name="equation-19-left-out",
        about="a sum need not be what was committed to",
        breaks='5.3: "commit(sum) = sum of C_i"',
        caught_by="integrity",
        swaps=(Swap(aggregate, "eq19_holds", _padding_alone),),
        hunters=(Hunter(manifest="collusive-forger"),),
    ),
    Mutant(
        name="self-masks-left-in",
        about="the self masks of U2 are not taken off the sum",
        breaks='4.1: "Unmasking subtracts b_i for U2"',
        caught_by="verdicts",
        swaps=(Swap(aggregate, "unmask_sum", _self_masks_stay),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="model-rounded-down",
        about="the mean update is rounded down instead of to the nearest",
        breaks="2.4: model'[k] = model[k] + floor(g[k] * step + 1/2)",
        caught_by="integrity",
        swaps=(Swap(encoding, "apply_aggregate", _rounds_down),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="blob-chunk-unverified",
        about="whatever bytes a holder sends are taken for the blob that was asked for",
        breaks='7.6: "A chunk is verified by itself with its path"',
        caught_by="blobs",
        swaps=(Swap(blob, "verify_chunk", _takes_any_chunk),),
        hunters=(Hunter(manifest="bent-bytes"),),
    ),
)
