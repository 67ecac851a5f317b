"""What came of a scenario, read off the nodes' ledgers alone, and whether it is what had to hold.

Black box: blocks, certificates and the replayed contract of each node, whoever ran them, in virtual time or
as real processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random

from attrs import field, frozen

from flocknode.observe.ledger import Step
from flocknode.observe.rounds import RoundRecord, rounds_of
from flocknode.observe.statements import open_statement
from protocol.ledger.block import AbortBody, Block, OutcomeBody, Reason, decode_body
from protocol.ledger.state import Fault, LedgerState
from sim.scenario.manifest import Scenario
from sim.scenario.returns import Return, Returns
from sim.scenario.selectors import Parts, Selector, select


@frozen(kw_only=True)
class NodeEnd:
    """One node at the end. `steps`: its ledger, checked from genesis; `fault`: why the rest does not verify.

    `honest`: neither an adversary nor a machine whose store was tampered with.
    """

    number: int
    up: bool
    honest: bool
    steps: Sequence[Step]
    fault: str | None = None

    @property
    def height(self) -> int:
        return len(self.steps)


@frozen
class ProvenFault:
    """A fault that stands on the ledger: in which round, against whom."""

    round: int
    peer: bytes
    fault: Fault


def proven_faults(steps: Iterable[Step]) -> Iterator[ProvenFault]:
    """Every fault that a round of this ledger ended with, unopened votes and contradictions included."""
    for step in steps:
        before, block = step.before, step.stored.block
        if step.after.round == before.round:
            continue
        found = {(fault.peer, fault.fault) for fault in before.learning.faults}
        body = decode_body(block)
        if isinstance(body, OutcomeBody | AbortBody):
            pairs = body.closing.equivocations
            found |= {(open_statement(first)[0].sender, Fault.EQUIVOCATION) for first, _ in pairs}
        if isinstance(body, OutcomeBody):
            opened = {open_statement(data)[0].sender for data in body.openings}
            sealed = {vote.peer for vote in before.learning.sealed_votes}
            found |= {(peer, Fault.UNOPENED_VOTE) for peer in sealed - opened}
        for peer, fault in sorted(found):
            yield ProvenFault(before.round, peer, fault)


@frozen(kw_only=True)
class Ending:
    """How a scenario ended. `parts`: those of round 1, which `paid` and the like are named by.

    `returns`: what was seen of nodes that were away.
    """

    scenario: Scenario
    nodes: Sequence[NodeEnd]
    numbers: Mapping[bytes, int]
    parts: Parts
    returns: Returns = field(factory=lambda: Returns(0))

    @property
    def longest(self) -> NodeEnd:
        """The honest node whose ledger goes furthest."""
        return max((n for n in self.nodes if n.honest), key=lambda node: (node.height, -node.number))

    @property
    def rounds(self) -> list[RoundRecord]:
        return list(rounds_of(self.longest.steps))

    def failures(self) -> list[str]:
        """What does not hold of what had to; empty where all is well."""
        return [*self._ledgers(), *self._progress(), *self._rounds(), *self._stakes(), *self._late()]

    @property
    def came_back(self) -> Mapping[int, Return]:
        """The last return of each node that was away, by node."""
        return self.returns.judged(self.longest.steps)

    def _late(self) -> Iterator[str]:
        """Whoever was away is back as it has to be, and nobody was hurt."""
        if not self.scenario.expect.caught_up:
            return
        came_back = self.came_back
        for selector, wanted in self.scenario.expect.caught_up:
            for number in self._chosen([selector]):
                if number in came_back:
                    yield from came_back[number].shortfalls(wanted)
                else:
                    yield f"node {number} was never back with anything to catch up on"

    def _chosen(self, selectors: Iterable[Selector]) -> tuple[int, ...]:
        return select(selectors, self.parts, Random(0))

    def _ledgers(self) -> Iterator[str]:
        """Each verifies from genesis, and no two contradict each other."""
        longest = [step.stored.block.hash for step in self.longest.steps]
        supplies = {step.after.supply_units for step in self.longest.steps}
        if len(supplies) > 1:
            yield "the supply is not conserved"
        for node in self.nodes:
            if not node.honest:
                continue
            if node.fault is not None:
                yield f"the ledger of node {node.number} does not verify: {node.fault}"
            if [step.stored.block.hash for step in node.steps] != longest[: node.height]:
                yield f"the ledger of node {node.number} differs from that of node {self.longest.number}"

    def _progress(self) -> Iterator[str]:
        """Who runs has gone as far as it should, and who should have refused to does not run."""
        expect = self.scenario.expect
        down = set(self._chosen(expect.down))
        for node in self.nodes:
            ended = node.steps[-1].after.round - 1 if node.steps else 0
            if node.number in down:
                if node.up:
                    yield f"node {node.number} runs, and should have refused to"
            elif node.honest and node.up and ended < expect.ended:
                yield f"node {node.number} has ended {ended} rounds of {expect.ended}"

    def _rounds(self) -> Iterator[str]:
        """What was said about a round must be true of one that has ended."""
        expect, records = self.scenario.expect, {record.round: record for record in self.rounds}
        blocks = self._blocks()
        for name in ("accepted", "refused", "aborted"):
            for round_ in getattr(expect, name):
                how = _how(records.get(round_), blocks.get(round_, ()))
                if how != name:
                    yield f"round {round_} was {how}, and should have been {name}"
        for round_, verdict in expect.verdicts.items():
            found = records[round_].verdict if round_ in records else "nothing"
            if found != verdict.name:
                yield f"round {round_} reads {found}, not {verdict.name}"
        for round_, kinds in expect.blocks.items():
            for kind in kinds:
                if kind not in {block.kind for block in blocks.get(round_, ())}:
                    yield f"round {round_} has no {kind.name} block"
        for round_, reason in expect.reasons.items():
            given = _reason_of(blocks.get(round_, ()))
            if given is not reason:
                yield f"round {round_} ended for {given.name if given else 'no reason'}, not {reason.name}"
        for round_, votes in expect.votes.items():
            cast = _votes_of(records.get(round_))
            if cast != votes:
                yield f"round {round_} has votes {list(cast)}, not {list(votes)}"
        for round_, view in expect.views.items():
            highest = max((block.view for block in blocks.get(round_, ())), default=0)
            if highest < view:
                yield f"round {round_} took {highest} views for a block at most, not {view}"
        yield from self._sizes(records)

    def _sizes(self, records: Mapping[int, RoundRecord]) -> Iterator[str]:
        sizes: Mapping[str, Callable[[RoundRecord], int]] = {
            "sharers": lambda record: len(record.sharers),
            "contributors": lambda record: len(record.contributors),
        }
        for name, size_of in sizes.items():
            for round_, wanted in getattr(self.scenario.expect, name).items():
                found = size_of(records[round_]) if round_ in records else 0
                if found != wanted:
                    yield f"round {round_} has {found} {name}, not {wanted}"

    def _blocks(self) -> dict[int, list[Block]]:
        blocks: dict[int, list[Block]] = {}
        for step in self.longest.steps:
            blocks.setdefault(step.stored.block.round, []).append(step.stored.block)
        return blocks

    def _stakes(self) -> Iterator[str]:
        expect, steps = self.scenario.expect, self.longest.steps
        found = {(self.numbers[f.peer], f.fault) for f in proven_faults(steps) if f.peer in self.numbers}
        for selector, fault in expect.paid:
            for number in self._chosen([selector]):
                if (number, fault) not in found:
                    yield f"{selector} (node {number}) did not pay for {fault.name}"
        for number in self._chosen(expect.unpaid):
            for guilty, fault in sorted(found):
                if guilty == number:
                    yield f"node {number} paid for {fault.name}"
        peers = {number: peer for peer, number in self.numbers.items()}
        state: LedgerState | None = steps[-1].after if steps else None
        for number in self._chosen(expect.evicted):
            if state is None or peers[number] in state.validators:
                yield f"node {number} is still a validator"


def _how(record: RoundRecord | None, blocks: Sequence[Block]) -> str:
    """How a round ended, in the words of the manifest. Voted down, void and unjudged rounds are refused."""
    if record is None:
        return "still open"
    if _reason_of(blocks) is not None:
        return "aborted"
    return "accepted" if record.accepted else "refused"


def _votes_of(record: RoundRecord | None) -> tuple[int, ...]:
    """Those that counted, +1 first."""
    return () if record is None else tuple(sorted((v for v in record.votes.values() if v), reverse=True))


def _reason_of(blocks: Sequence[Block]) -> Reason | None:
    body = decode_body(blocks[-1]) if blocks else None
    return body.reason if isinstance(body, AbortBody) else None
