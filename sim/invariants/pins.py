"""Pins: what a block pins is what its Readys attest, no more and no less.

docs/PROTOCOL.md section 3.6: "Everything that it pins is a function of these Readys, its own content and the
parent state", attested by more than 1/3 of all; the table of blocks says of each what it pins. Counted here
from the Readys of the block alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from attrs import field, frozen

from flocknode.observe.ledger import Step
from protocol.ledger import block as blocks
from protocol.ledger.block import decode_body
from protocol.ledger.state import LedgerState
from protocol.messages import Contribution, Kind, Ready, Receipt, ShareBundle, Witness
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.invariants.plain import held_in, more_than, readys_of, senders_of
from sim.reading import read_statement

LEAST_SURVIVORS = 3


@frozen
class _Readys:
    """Of one block, by sender."""

    state: LedgerState
    said: dict[bytes, Ready] = field(repr=False)

    def holders(self, kind: Kind, subject: bytes) -> set[bytes]:
        validators = self.state.validators
        return {peer for peer, ready in self.said.items() if subject in held_in(ready, kind, validators)}

    def attested(self, kind: Kind, among: Collection[bytes]) -> list[bytes]:
        """Those of whom more than 1/3 of all validators hold one, in the order of peers."""
        validators = self.state.validators
        counts = Counter(
            peer for ready in self.said.values() for peer in held_in(ready, kind, validators) if peer in among
        )
        return sorted(peer for peer in counts if more_than(1, counts[peer], len(validators)))


class Pins:
    """A `StepRule`."""

    def __init__(self, params: ProtocolParams) -> None:
        self._params = params

    def __call__(self, step: Step) -> None:
        state, block = step.before, step.stored.block
        readys = _Readys(state, dict(readys_of(block.readys)))
        body = decode_body(block)
        where = f"round {state.round}: {block.kind.name}"
        match body:
            case blocks.OpenBody():
                wanted = [] if state.rests else self._adverts(readys)
                _same(where, "adverts", senders_of(body.closing.adverts), wanted)
            case blocks.SetupBody():
                self._check_setup(where, readys, body)
            case blocks.ContributionBody():
                self._check_contribution(where, readys, body)
            case blocks.AggregateBody():
                self._check_aggregate(where, readys, step)
                _same(where, "adverts", senders_of(body.adverts), self._adverts(readys))
            case blocks.AbandonBody() if not state.learning.next_pinned:
                _same(where, "adverts", senders_of(body.adverts), self._adverts(readys))
            case blocks.BallotBody():
                voters = state.learning.voters if step.after.learning.sealed_votes else ()
                pinned = [vote.peer for vote in step.after.learning.sealed_votes]
                _same(where, "sealed votes", pinned, readys.attested(Kind.SEALED_VOTE, voters))
            case blocks.DisputeBody():
                members = [c.peer for c in state.learning.contributors]
                held = readys.attested(Kind.CONTRIBUTION, members)
                _same(where, "missing uploads", list(body.missing), set(members) - set(held))
            case blocks.OutcomeBody():
                sealed = [vote.peer for vote in state.learning.sealed_votes]
                attested = readys.attested(Kind.VOTE_OPENING, sealed)
                _same(where, "openings", senders_of(body.openings), attested)
            case blocks.AbortBody() if not state.learning.check_seeds:
                sharers = [bundle.peer for bundle in state.learning.sharers]
                named = [entry.peer for entry in body.check_seeds]
                _same(where, "check seeds", named, readys.attested(Kind.REVEAL, sharers))
            case _:
                pass

    def _adverts(self, readys: _Readys) -> list[bytes]:
        return readys.attested(Kind.KEY_ADVERT, readys.state.validators)

    def _check_setup(self, where: str, readys: _Readys, body: blocks.SetupBody) -> None:
        """U1: the bundle attested, no complaint attested, the package held by T holders or more."""
        proposers = readys.state.learning.proposers
        accused = readys.attested(Kind.COMPLAINT, proposers)
        expected = [
            peer
            for peer in readys.attested(Kind.SHARE_BUNDLE, proposers)
            if peer not in accused
            and more_than(2, len(readys.holders(Kind.SEALED_SHARES, peer) & set(proposers)), len(proposers))
        ]
        _same(where, "U1", senders_of(body.bundles), expected)
        self._check_size(where, readys.state, expected)
        for data in body.bundles:
            bundle = read_statement(data).body
            if isinstance(bundle, ShareBundle) and not 1 <= bundle.weight <= self._params.max_weight:
                raise InvariantError(f"{where}: a weight of {bundle.weight} samples is pinned")

    def _check_contribution(self, where: str, readys: _Readys, body: blocks.ContributionBody) -> None:
        """U2: of U1, the contribution attested, and so its receipt or its witnesses, which are cited."""
        sharers = [bundle.peer for bundle in readys.state.learning.sharers]
        vouched = {*readys.attested(Kind.RECEIPT, sharers), *readys.attested(Kind.WITNESS, sharers)}
        expected = [peer for peer in readys.attested(Kind.CONTRIBUTION, sharers) if peer in vouched]
        _same(where, "U2", senders_of(body.contributions), expected)
        self._check_size(where, readys.state, expected)
        for data in body.contributions:
            statement = read_statement(data)
            assert isinstance(statement.body, Contribution)
            if not _is_vouched_for(
                readys.state, statement.sender, statement.body.upload_digest, body.receipts
            ):
                raise InvariantError(f"{where}: nobody vouches for an upload of U2")

    def _check_size(self, where: str, state: LedgerState, members: Collection[bytes]) -> None:
        threshold = 2 * len(state.learning.proposers) // 3 + 1
        if len(members) < max(LEAST_SURVIVORS, threshold):
            raise InvariantError(f"{where}: {len(members)} members, {threshold} are needed")

    def _check_aggregate(self, where: str, readys: _Readys, step: Step) -> None:
        claim = step.after.learning.claim
        assert claim is not None, "an aggregate pins a claim"
        holders = sum(claim.sum_digest in ready.blobs for ready in readys.said.values())
        if not more_than(2, holders, len(readys.state.validators)):
            raise InvariantError(f"{where}: {holders} hold the sum, which is no quorum")


def _is_vouched_for(state: LedgerState, proposer: bytes, upload: bytes, vouchers: Iterable[bytes]) -> bool:
    """By the active aggregator, or by more than 1/3 of the voters, and two where there are two."""
    witnesses = set()
    for data in vouchers:
        statement = read_statement(data)
        if statement.round != state.round:
            continue
        if statement.body == Receipt(state.learning.attempt, proposer, upload):
            if statement.sender == state.learning.aggregator:
                return True
        elif statement.body == Witness(proposer, upload) and statement.sender in state.learning.voters:
            witnesses.add(statement.sender)
    voters = len(state.learning.voters)
    return len(witnesses) >= min(voters, max(2, voters // 3 + 1))


def _same(where: str, what: str, found: Collection[bytes], expected: Collection[bytes]) -> None:
    if sorted(found) != sorted(expected):
        raise InvariantError(
            f"{where}: {len(found)} {what} are pinned, and the Readys attest {len(expected)}"
        )
