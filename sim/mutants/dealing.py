"""Bugs in keys, shares and what proves a dealer guilty (docs/PROTOCOL.md section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from protocol import admission, pinning, secrets, sharing
from protocol import round as rounds
from protocol.codec import digest
from protocol.duties.desk import Desk
from protocol.ledger.state import LedgerState
from protocol.messages import Kind, ShareBundle
from protocol.secrets import round_bytes, secret_hash
from protocol.tally import Tally
from sim.mutants.planting import Hunter, Mutant, Swap

MOST_WEIGHT = 1 << 16
"""What the wire admits."""


def _nobody_in_the_leaf(right: Any) -> Any:
    def share_scope(context: Any, dealer: int, kind: int) -> bytes:
        return digest("share", context.network, round_bytes(context.round), bytes((kind,)))

    return share_scope


def _one_key_for_ever(right: Callable[..., bytes]) -> Any:
    def round_secret(round_seed: bytes, network: bytes, round_: int, name: str) -> bytes:
        return right(round_seed, network, 1 if name == "mask" else round_, name)

    return round_secret


def _one_seed_for_ever(right: Callable[..., bytes]) -> Any:
    def round_seed(self: Desk, round_: int) -> bytes:
        if round_ not in self.seeds and self.seeds:
            self.seeds[round_] = self.seeds[max(self.seeds)]
            self.outbox.persist("secret", round_bytes(round_), self.seeds[round_])
        return right(self, round_)

    return round_seed


def _without(what: str) -> Callable[[Any], Any]:
    """U1 as the Readys attest it, with one of its conditions left out: "holders" or "complaints"."""

    def change(right: Any) -> Any:
        def sharers_pinned(state: LedgerState, tally: Tally) -> tuple[bytes, ...]:
            learning = state.learning
            accused = set() if what == "complaints" else set(tally.attested(Kind.COMPLAINT))
            least = 0 if what == "holders" else learning.threshold
            return tuple(
                peer
                for peer in tally.attested(Kind.SHARE_BUNDLE)
                if peer in learning.proposers
                and peer not in accused
                and tally.count(Kind.SEALED_SHARES, peer, among=set(learning.proposers)) >= least
            )

        return sharers_pinned

    return change


def _hash_alone(right: Any) -> Any:
    def check_seed_matches(state: LedgerState, context: Any, peer: bytes, seed: bytes) -> bool:
        pinned = {bundle.peer: bundle.hash_check for bundle in state.learning.sharers}
        return pinned.get(peer) == secret_hash("check", context.network, state.round, peer, seed)

    return check_seed_matches


def _any_evidence(right: Any) -> Any:
    def evidence_holds(state: LedgerState, rules: Any, statement: Any) -> bool:
        return statement.round == state.round and bool(state.learning.sharers)

    return evidence_holds


def _admits_any_weight(right: Callable[..., str | None]) -> Any:
    def wrong_content(state: LedgerState, rules: Any, statement: Any, fits: Any) -> str | None:
        return None if isinstance(statement.body, ShareBundle) else right(state, rules, statement, fits)

    return wrong_content


def _pins_any_weight(right: Callable[..., LedgerState]) -> Any:
    def setup(state: LedgerState, body: Any, tally: Tally, rules: Any, opener: Any) -> LedgerState:
        lax = evolve(rules, params=evolve(rules.params, max_weight=MOST_WEIGHT))
        return right(state, body, tally, lax, opener)

    return setup


DEALING = (
    Mutant(
        name="merkle-leaf-without-dealer",
        about="the leaf of a share does not name its dealer, so that another may pass it off as its own",
        breaks='3.3: scope = H("share", network, be8(round), i, byte(kind))',
        caught_by="shares",
        swaps=(Swap(sharing, "share_scope", _nobody_in_the_leaf),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="mask-key-reused",
        about="a node masks with the same key in every round",
        breaks='3.2: "KeyAdvert: fresh X25519 mask and seal keys"',
        caught_by="privacy",
        swaps=(
            Swap(secrets, "_round_secret", _one_key_for_ever),
            Swap(Desk, "round_seed", _one_seed_for_ever),
        ),
        hunters=(Hunter(manifest="drop-in-round-two"),),
    ),
    Mutant(
        name="sharers-without-holders",
        about="a dealer is in U1 whose packages fewer than T holders have",
        breaks='3.6: "whose package at least T holders ... hold"',
        caught_by="pins",
        swaps=(Swap(pinning, "sharers_pinned", _without("holders")),),
        hunters=(Hunter(manifest="withheld-boxes"),),
    ),
    Mutant(
        name="complaints-ignored",
        about="a dealer is in U1 that never answered a complaint",
        breaks='3.3: "A dealer about whom more than 1/3 report an unanswered complaint is left out of U1."',
        caught_by="pins",
        swaps=(Swap(pinning, "sharers_pinned", _without("complaints")),),
        hunters=(Hunter(manifest="unanswered-complaint"),),
    ),
    Mutant(
        name="check-seed-root-ignored",
        about="a revealed check seed counts that fits its hash, however it was dealt",
        breaks='3.3: "A revealed rho_i is held to both conditions too"',
        caught_by="beacon",
        swaps=(Swap(pinning, "check_seed_matches", _hash_alone),),
        hunters=(Hunter(manifest="garbage-check-seed"),),
    ),
    Mutant(
        name="evidence-unproven",
        about="evidence against a dealer is believed as it is",
        breaks='3.3: "T shares that stand under the root and fail this prove the dealer guilty"',
        caught_by="blame",
        swaps=(Swap(pinning, "evidence_holds", _any_evidence),),
        hunters=(Hunter(manifest="false-accuser"),),
    ),
    Mutant(
        name="weight-unbounded",
        about="a proposer may claim more samples than the network admits",
        breaks='2.3: "The sample count w in [1, w_max] is public"',
        caught_by="pins",
        swaps=(
            Swap(admission, "_wrong_content", _admits_any_weight),
            Swap(rounds, "_setup", _pins_any_weight),
        ),
        hunters=(Hunter(manifest="inflated-weight"),),
    ),
)
