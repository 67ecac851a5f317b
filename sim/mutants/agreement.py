"""Bugs in the agreement on one block (docs/PROTOCOL.md section 7.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import evolve

from protocol import certificates
from protocol import round as rounds
from protocol.consensus import Action, Agreement, Decided, Emit
from protocol.engine import Engine
from protocol.judging import Judging
from protocol.ledger.block import Block
from protocol.ledger.chain import Chain, ChainError
from protocol.messages import Certificate, Timeout, Vote, VotePhase
from protocol.tally import Tally
from sim.mutants.planting import Hunter, Mutant, Swap


def _without_a_lock(right: Any) -> Any:
    def highest_qc(self: Agreement) -> None:
        return None

    return highest_qc


def _unjustified(right: Any) -> Any:
    def check_justification(self: Agreement, body: Any) -> None:
        return None

    return check_justification


def _decides_on_prepare(right: Callable[..., list[Action]]) -> Any:
    def on_sound_certificate(self: Agreement, certificate: Certificate, sender: bytes) -> list[Action]:
        vote = certificate.vote
        block = self._blocks.get(vote.block_hash)
        if block is None or vote.phase is VotePhase.COMMIT:
            return right(self, certificate, sender)
        self._decided = True
        return [Decided(block, certificate)]

    return on_sound_certificate


def _any_certificate(right: Any) -> Any:
    def check_certificate(self: Chain, stored: Any) -> None:
        holds = self.checks.certificate_holds(stored.certificate, self.rules.network, self.state.validators)
        if not holds or stored.certificate.vote.block_hash != stored.block.hash:
            raise ChainError(stored.block.height, "the certificate does not hold")

    return check_certificate


def _reports_foreigners(right: Callable[..., None]) -> Any:
    def reject(self: Engine, peer: bytes, reason: str, what: str) -> None:
        right(self, peer, reason, what)
        if reason in ("version", "network", "kind"):
            self.outbox.penalise(peer, reason)

    return reject


def _in_stale_views(phase: VotePhase) -> Callable[[Any], Any]:
    """A vote as if the node had never given up on the view."""

    def change(right: Callable[..., list[Action]]) -> Any:
        def vote(self: Agreement, view: int, block_hash: bytes) -> list[Action]:
            given_up, self.safety = self.safety.timed_out_view, evolve(self.safety, timed_out_view=0)
            actions = right(self, view, block_hash)
            self.safety = evolve(self.safety, timed_out_view=given_up)
            return actions

        vote.__doc__ = f"{phase.name} in views that are given up."
        return vote

    return change


def _two_thirds(right: Any) -> Any:
    def quorum(n: int) -> int:
        return 2 * n // 3

    return quorum


def _a_third(right: Any) -> Any:
    def more_than_third(n: int) -> int:
        return max(1, n // 3)

    return more_than_third


def _keeps_no_certificate(right: Any) -> Any:
    def raise_high_qc(self: Agreement, certificate: Certificate) -> list[Action]:
        return []

    return raise_high_qc


def _votes_first(right: Callable[..., list[Action]]) -> Any:
    def vote(self: Agreement, cast: Vote) -> list[Action]:
        save, emit = right(self, cast)
        assert isinstance(emit, Emit)
        return [emit, save]

    return vote


def _keeps_all_timeouts(right: Callable[..., list[Action]]) -> Any:
    def on_timeout(self: Agreement, statement: Any) -> list[Action]:
        before = {view: dict(kept) for view, kept in self._timeouts.items()}
        assert isinstance(statement.body, Timeout)
        actions = right(self, statement)
        for view, kept in before.items():
            if view > self.view:
                self._timeouts[view] = {**kept, **self._timeouts.get(view, {})}
        return actions

    return on_timeout


class _CountedTwice(Tally):
    """Counts Readys, not those who sent them."""

    def __init__(self, validators: tuple[bytes, ...], readys: Any) -> None:
        listed = list(readys)
        super().__init__(validators, listed)
        self._listed = len(listed)

    @property
    def is_quorum(self) -> bool:
        return self._listed >= certificates.quorum(len(self.validators))


def _repeated_readys(right: Any) -> Any:
    def block_tally(state: Any, block: Block, opener: Any) -> Tally:
        statements = [opener(data) for data in block.readys]
        said = [(s.sender, s.body) for s in statements if s.sender in state.validators]
        tally = _CountedTwice(state.validators, said)
        if not tally.is_quorum:
            raise rounds.BlockError(f"block {block.height}: {len(said)} Readys are no quorum")
        return tally

    return block_tally


def _errors_get_out(right: Any) -> Any:
    def vouched(self: Any, view: int, on_invalid: Any) -> Iterator[tuple[int, bytes]]:
        for block_hash, (wanted, block) in sorted(self._waiting.items()):
            self.effect(block)
            if wanted < view or self._agrees(block):
                del self._waiting[block_hash]
                yield wanted, block_hash

    return vouched


def _vouches_for_anything(right: Any) -> Any:
    def agrees(self: Any, block: Block) -> bool:
        return True

    return agrees


AGREEMENT = (
    Mutant(
        name="no-lock-across-views",
        about="a new leader forgets the certificates of earlier views, and nobody asks for them",
        breaks='7.2: "a qc forces its block"',
        caught_by="agreement",
        swaps=(
            Swap(Agreement, "_highest_qc", _without_a_lock),
            Swap(Agreement, "_check_justification", _unjustified),
        ),
        hunters=(Hunter(manifest="secret-certificate"),),
    ),
    Mutant(
        name="decides-on-prepare",
        about="a prepare certificate is taken for a decision",
        breaks='7.2: "On a commit certificate: the block is final."',
        caught_by="quorums",
        swaps=(
            Swap(Agreement, "_on_sound_certificate", _decides_on_prepare),
            Swap(Chain, "check_certificate", _any_certificate),
        ),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="stale-view-accepted",
        about="a proposal of a view that the node has given up on still gets its PREPARE",
        breaks='7.2: "A node signs nothing of v, or before it, after Timeout(v)."',
        caught_by="conduct",
        swaps=(Swap(Agreement, "_prepare", _in_stale_views(VotePhase.PREPARE)),),
        hunters=(Hunter(manifest="slow-leader"),),
    ),
    Mutant(
        name="commit-after-timeout",
        about="COMMIT is signed in a view that the node has given up on",
        breaks='7.2: "COMMIT(v) once, if v is the current view and v > timed-out view"',
        caught_by="conduct",
        swaps=(Swap(Agreement, "_commit", _in_stale_views(VotePhase.COMMIT)),),
        hunters=(Hunter(manifest="slow-leader", seed=4),),
    ),
    Mutant(
        name="quorum-of-two-thirds",
        about="floor(2n/3) signatures are a quorum",
        breaks='notation: q(n) = floor(2n/3) + 1, "more than 2/3"',
        caught_by="quorums",
        swaps=(Swap(certificates, "quorum", _two_thirds),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="attested-by-a-third",
        about="what floor(n/3) Readys hold counts as attested",
        breaks='notation: m(n) = floor(n/3) + 1, "more than 1/3"',
        caught_by="pins",
        swaps=(Swap(certificates, "more_than_third", _a_third),),
        hunters=tuple(Hunter(manifest="known-to-few", seed=seed) for seed in (2, 4, 6, 9)),
    ),
    Mutant(
        name="ready-counted-twice",
        about="a Ready that stands twice in a block counts twice",
        breaks='3.6: "at least q(n) Readys of distinct validators"',
        caught_by="quorums",
        swaps=(Swap(rounds, "block_tally", _repeated_readys),),
        hunters=(Hunter(manifest="repeated-ready"),),
    ),
    Mutant(
        name="high-qc-not-raised",
        about="a node commits without keeping the prepare certificate that it commits to",
        breaks='7.2: "Before COMMIT(v) it raised high_qc to at least v, durably."',
        caught_by="durability",
        swaps=(Swap(Agreement, "_raise_high_qc", _keeps_no_certificate),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="vote-before-its-record",
        about="a vote is sent, and written down afterwards",
        breaks='7.2: "All that this uses is durable before the message that needs it."',
        caught_by="durability",
        swaps=(Swap(Agreement, "_vote", _votes_first),),
        hunters=(Hunter(manifest="calm"),),
    ),
    Mutant(
        name="all-timeouts-kept",
        about="Timeouts of all views to come are kept of each sender",
        breaks='7.2: "Of views to come the highest Timeout of each sender is kept."',
        caught_by="memory",
        swaps=(Swap(Agreement, "on_timeout", _keeps_all_timeouts),),
        hunters=(Hunter(manifest="flood-of-timeouts"),),
    ),
    Mutant(
        name="invalid-block-raises",
        about="a proposal that breaks a rule is not turned down, its error leaves the engine",
        breaks='8.6: "What is refused is counted by reason." Nothing that a peer sends raises.',
        caught_by="no exception leaves the engine",
        swaps=(Swap(Judging, "vouched", _errors_get_out),),
        hunters=(Hunter(manifest="framing-leader"),),
    ),
    Mutant(
        name="verdict-not-vouched-for",
        about="a validator votes for a verdict and a candidate that it has not worked out itself",
        breaks='3.6: "of a first BALLOT that its own verification gave the same verdict and candidate"',
        caught_by="integrity",
        swaps=(Swap(Judging, "_agrees", _vouches_for_anything),),
        hunters=(Hunter(manifest="lying-leader"),),
    ),
    Mutant(
        name="foreigners-reported",
        about="a peer of another network or version is reported, and refused by all in the end",
        breaks='8.6: "a node never reports itself, nor for ... another genesis or other software"',
        caught_by="conduct",
        swaps=(Swap(Engine, "_reject", _reports_foreigners),),
        hunters=(Hunter(manifest="foreign-speaker"),),
    ),
)
