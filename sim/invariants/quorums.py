"""Quorums: every block rests on the signatures and the Readys of more than 2/3 of all validators.

docs/PROTOCOL.md, notation: 'q(n) floor(2n/3) + 1, "more than 2/3", a quorum'; section 3.6: "at least q(n)
Readys of distinct validators"; section 7.2: a certificate "is q(n) signatures of distinct validators on one
Vote". Counted here from the block alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from flocknode.observe.ledger import Step
from protocol.messages import VotePhase
from sim.invariants.base import InvariantError
from sim.invariants.plain import more_than, senders_of


class Quorums:
    """A `StepRule`."""

    def __call__(self, step: Step) -> None:
        block, certificate = step.stored.block, step.stored.certificate
        vote = certificate.vote
        if (vote.phase, vote.height, vote.block_hash) != (VotePhase.COMMIT, block.height, block.hash):
            raise InvariantError(f"block {block.height} was taken without a commit certificate of its own")
        validators = step.before.validators
        _require(block.height, "commit signatures", [peer for peer, _ in certificate.signatures], validators)
        _require(block.height, "Readys", senders_of(block.readys), validators)


def _require(height: int, what: str, senders: Sequence[bytes], validators: Sequence[bytes]) -> None:
    if len(set(senders)) != len(senders):
        raise InvariantError(f"block {height}: somebody is counted twice among its {what}")
    counted = set(senders) & set(validators)
    if not more_than(2, len(counted), len(validators)):
        raise InvariantError(f"block {height} has {len(counted)} {what} of {len(validators)} validators")
