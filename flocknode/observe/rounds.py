"""The learning rounds of a ledger, as its blocks tell them (docs/PROTOCOL.md sections 3, 5 and 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import define, field, frozen

from flocknode.observe.ledger import Step
from flocknode.observe.statements import open_statement
from protocol.ledger.block import BlockKind, OutcomeBody, decode_body
from protocol.ledger.economy import is_accepted
from protocol.ledger.state import LedgerState, Phase
from protocol.secagg.verification import Verdict

ABORTED = "ABORTED"
"""In place of a verdict, where a round ended before there was one."""

PHASE_NAMES: Mapping[Phase, str] = {
    Phase.ADVERT: "advert",
    Phase.SHARE: "share",
    Phase.CONTRIBUTE: "contribute",
    Phase.AGGREGATE: "aggregate",
    Phase.BALLOT: "challenge",
    Phase.DISPUTE: "dispute",
    Phase.VOTE: "vote",
    Phase.RECOVER: "recover",
}
"""The words of docs/PROTOCOL.md section 3."""


@frozen
class PhaseEnd:
    """A phase, and the height of the block that ended it."""

    phase: str
    height: int


@frozen(kw_only=True)
class RoundRecord:
    """A round that has ended. Peers stand in the order of peers.

    `verdict`: the first reading of the two equations, before any dispute, or `ABORTED`. `sharers` is U1 and
    `contributors` U2. `votes`: +1, -1, and 0 for a voter that abstained or whose vote was not opened.
    `stake_changes`: what the end of the round did to stakes, in units. `model_digest`: the model afterwards.
    """

    round: int
    accepted: bool
    verdict: str
    attempts: int
    proposers: tuple[bytes, ...]
    voters: tuple[bytes, ...]
    aggregator: bytes | None
    sharers: tuple[bytes, ...]
    contributors: tuple[bytes, ...]
    votes: Mapping[bytes, int]
    phases: tuple[PhaseEnd, ...]
    stake_changes: Mapping[bytes, int]
    model_digest: bytes

    @property
    def dropped(self) -> tuple[bytes, ...]:
        """Proposers outside the last set that the round pinned: U2, else U1; all if there was none."""
        survivors = self.contributors or self.sharers
        return tuple(peer for peer in self.proposers if peer not in survivors)

    @property
    def last_height(self) -> int:
        return self.phases[-1].height


@define
class RoundCollector:
    """Takes the steps of one ledger in order, and gives each round when it ends."""

    _phases: list[PhaseEnd] = field(factory=list, init=False)
    _first_reading: str | None = field(default=None, init=False)

    def take(self, step: Step) -> RoundRecord | None:
        """The round that this block ended, if it ended one."""
        block, learning = step.stored.block, step.before.learning
        self._phases.append(PhaseEnd(PHASE_NAMES[learning.phase], block.height))
        if block.kind is BlockKind.BALLOT and self._first_reading is None:
            self._first_reading = Verdict(step.after.learning.verdict).name
        if step.after.round == step.before.round:
            return None
        record = self._record(step)
        self._phases, self._first_reading = [], None
        return record

    def _record(self, step: Step) -> RoundRecord:
        before, learning = step.before, step.before.learning
        opened = _opened_votes(step)
        return RoundRecord(
            round=before.round,
            accepted=bool(opened) and not learning.void and is_accepted(opened),
            verdict=self._first_reading or ABORTED,
            attempts=learning.attempt + 1,
            proposers=learning.proposers,
            voters=learning.voters,
            aggregator=learning.aggregator,
            sharers=tuple(bundle.peer for bundle in learning.sharers),
            contributors=tuple(contribution.peer for contribution in learning.contributors),
            votes={peer: opened.get(peer, 0) for peer in learning.voters},
            phases=tuple(self._phases),
            stake_changes=_changes(before, step.after),
            model_digest=step.after.model_digest,
        )


def rounds_of(steps: Iterable[Step]) -> Iterator[RoundRecord]:
    """The rounds that ended within the steps of one ledger."""
    collector = RoundCollector()
    for step in steps:
        record = collector.take(step)
        if record is not None:
            yield record


def _opened_votes(step: Step) -> dict[bytes, int]:
    """Votes that count: those other than 0."""
    body = decode_body(step.stored.block)
    if not isinstance(body, OutcomeBody):
        return {}
    openings = (open_statement(data) for data in body.openings)
    return {envelope.sender: opening.vote for envelope, opening in openings if opening.vote}


def _changes(before: LedgerState, after: LedgerState) -> dict[bytes, int]:
    old = before.stakes
    changes = {peer: units - old.get(peer, 0) for peer, units in after.stakes.items()}
    return {peer: change for peer, change in changes.items() if change}
