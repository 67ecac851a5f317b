"""Facts that a node tells its shell about its own part in the network: what an operator is warned of.

The engine only tells facts, as `Notify` effects; what they amount to, and whether an operator hears of it, is
decided outside (`flocknode.observe.monitor`, docs/OPERATING.md). Peers stand as libp2p peer ids, networks as
hexadecimal digits, money in units.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from protocol.certificates import more_than_third, quorum
from protocol.codec import decode
from protocol.compose import vouchers_for
from protocol.duties.desk import Desk
from protocol.envelope import Envelope
from protocol.events import Millis
from protocol.jobs import ContributeResult, EvaluateResult
from protocol.keys import peer_name
from protocol.ledger.block import Block, BlockKind, OutcomeBody, decode_body
from protocol.ledger.settlement import sortition_weights
from protocol.ledger.state import LedgerState, Phase
from protocol.messages import MESSAGE_BYTES, Kind
from protocol.progress import hard_deadline_ms
from protocol.secagg.verification import Verdict
from protocol.sortition import undrawn_ppm


def report_clipping(desk: Desk, result: ContributeResult) -> None:
    """Tell what the clipping bound cut off this node's update, and what its weight was counted as (§2.3)."""
    clipping, trained = result.clipping, desk.memory.trained
    if clipping is None or trained is None:
        return
    desk.outbox.notify(
        "encoded",
        round=desk.memory.round,
        coordinates=clipping.coordinates,
        clipped_coordinates=clipping.clipped_coordinates,
        clip=clipping.clip,
        largest=clipping.largest,
        clipped_at=list(clipping.clipped_at),
        weight=desk.weight,
        trained_weight=trained.weight,
    )


def report_judgement(desk: Desk, ballot: int, vote: int, result: EvaluateResult) -> None:
    """Tell how this node votes, and, where it abstains, why (§6)."""
    why = result.why
    if vote == 0 and not why:
        why = f"the losses {result.current_loss} and {result.candidate_loss} cannot be compared"
    desk.outbox.notify("judged", round=desk.memory.round, ballot=ballot, vote=vote, why=why)


@define(eq=False)
class Reporting:
    """Tells facts of one node whenever they change; keeps only what it told last."""

    desk: Desk
    _validators: tuple[bytes, ...] = field(default=(), init=False)
    _foreign: dict[bytes, tuple[str, str]] = field(factory=dict, init=False)
    _heights: dict[bytes, int] = field(factory=dict, init=False)
    _network_height: int = field(default=0, init=False)

    # -- the network ---------------------------------------------------------------------------

    def foreign_message(self, peer: bytes, reason: str, theirs: str) -> None:
        """Tell that a peer speaks for another network, in another version or of unknown kinds (§8.6)."""
        if self._foreign.get(peer) != (reason, theirs):
            self._foreign[peer] = (reason, theirs)
            self.desk.outbox.notify(
                "foreign",
                peer=peer_name(peer),
                reason=reason,
                theirs=theirs,
                network=self.desk.rules.network.hex(),
            )

    def own_message(self, peer: bytes) -> None:
        """Tell that a peer's messages open again, if they did not."""
        if self._foreign and self._foreign.pop(peer, None) is not None:
            self.desk.outbox.notify("native", peer=peer_name(peer))

    def heard_height(self, peer: bytes, height: int) -> None:
        """Tell how far the network is, where this node is behind it by more than the block that is due.

        A height counts once more than 1/3 of the validators say that they have reached it: one of them is
        honest.
        """
        state = self.desk.state
        if peer not in state.validator_set:
            return
        self._heights[peer] = max(height, self._heights.get(peer, 0))
        if height <= state.height + 1:
            return
        reached = sorted((h for p, h in self._heights.items() if p in state.validator_set), reverse=True)
        needed = more_than_third(len(state.validators))
        network_height = reached[needed - 1] if len(reached) >= needed else 0
        if network_height > max(state.height + 1, self._network_height):
            self._network_height = network_height
            self.desk.outbox.notify("behind", height=state.height, network_height=network_height)

    # -- this node -----------------------------------------------------------------------------

    def started(self, samples: int) -> None:
        """Tell who this node is to the network, at the begin of its life."""
        self.desk.outbox.notify(
            "phase", height=self.desk.state.height, round=self.desk.state.round, phase=self._phase
        )
        if samples > self.desk.rules.params.max_weight:
            self.desk.outbox.notify(
                "samples_cut", samples=samples, max_weight=self.desk.rules.params.max_weight
            )
        self._report_membership(None, synced=False)

    def block_taken(self, before: LedgerState, block: Block, now: Millis, *, synced: bool) -> None:
        """Tell what a block means for this node; `synced`: it came ready from a peer, all decided."""
        for fields in _own_parts(self.desk, before, block):
            elapsed_ms = now - self.desk.clock.began_ms
            deadline_ms = hard_deadline_ms(before.learning.phase, self.desk.rules.params)
            times = {"elapsed_ms": elapsed_ms, "deadline_ms": deadline_ms, "synced": synced}
            self.desk.outbox.notify("part", **fields, **times)
        if self.desk.state.round != before.round or block.kind is BlockKind.OPEN:
            self._report_membership(before, synced=synced)

    @property
    def _phase(self) -> str:
        return self.desk.learning.phase.name

    def _report_membership(self, before: LedgerState | None, *, synced: bool) -> None:
        """Tell who has a vote, what this node's stake is, and whether it was drawn for a role (§3.1, §6)."""
        desk, state, params = self.desk, self.desk.state, self.desk.rules.params
        if state.validators != self._validators:
            self._validators = state.validators
            self._heights = {p: h for p, h in self._heights.items() if p in state.validator_set}
            desk.outbox.notify(
                "validators",
                round=state.round,
                peers=[peer_name(peer) for peer in state.validators],
                quorum=quorum(len(state.validators)),
            )
        account = state.account(desk.me)
        gamma = params.adaptive_gamma
        desk.outbox.notify(
            "account",
            round=state.round,
            member=account is not None and account.member,
            validator=state.is_validator(desk.me),
            stake_units=0 if account is None else account.stake_units,
            least_units=params.min_stake_units,
            gamma_units=params.gamma_units if gamma is None else gamma.highest_units,
            synced=synced,
            **self._report_draw(before),
        )

    def _report_draw(self, before: LedgerState | None) -> dict[str, object]:
        """Return whether this node could be drawn in this round, was, and how likely it was left out."""
        state, me = self.desk.state, self.desk.me
        roles = state.learning.roles
        if roles is None:
            return {"drawn": None}
        weights = dict(before.learning.next_weights if before is not None else ())
        weights = weights or dict(sortition_weights(state, state.learning.adverts))
        eligible = {advert.peer for advert in state.learning.adverts}
        seats = {*roles.proposers, roles.aggregators[0], *roles.voters}
        among = {peer: weight for peer, weight in weights.items() if peer in eligible}
        return {
            "drawn": me in seats,
            "eligible": me in eligible,
            "undrawn_ppm": undrawn_ppm(among, me, len(seats)),
            "seats": len(seats),
            "eligible_nodes": len(eligible),
        }


def _own_parts(desk: Desk, before: LedgerState, block: Block) -> Iterator[dict[str, object]]:
    """Yield, for each part that this node had in the phase that a block ended, whether that counted.

    `step`: where a part that did not count was stuck.
    """
    me, learning, after = desk.me, before.learning, desk.state.learning
    round_, pool, memory = before.round, desk.pool, desk.memory

    def part(role: str, counted: bool, step: str) -> dict[str, object]:
        fields = {"round": round_, "phase": learning.phase.name, "role": role, "counted": counted}
        return fields if counted else {**fields, "step": step}

    match block.kind:
        case BlockKind.SETUP if me in learning.proposer_set:
            shared = pool.get(round_, Kind.SHARE_BUNDLE, me) is not None
            yield part("sharer", me in after.sharer_set, "attestation" if shared else "dealing")
        case BlockKind.CONTRIBUTION if me in learning.sharer_set:
            counted = any(contribution.peer == me for contribution in after.contributors)
            yield part("proposer", counted, _contribution_step(desk, before))
        case BlockKind.ABANDON if learning.phase is Phase.CONTRIBUTE and me in learning.sharer_set:
            if pool.get(round_, Kind.CONTRIBUTION, me) is None:
                yield part("proposer", False, _contribution_step(desk, before))
        case BlockKind.AGGREGATE if after.claim is not None and after.claim.aggregator == me:
            yield part("aggregator", True, "")
        case BlockKind.TIMEOUT if learning.aggregator == me:
            yield part("aggregator", False, "aggregation")
        case BlockKind.BALLOT if me in learning.voter_set and after.verdict == Verdict.TRUSTED:
            sealed = any(vote.peer == me for vote in after.sealed_votes)
            decided = learning.ballot in memory.openings
            tried = f"evaluate/{learning.ballot}" in memory.started
            step = "attestation" if decided else "evaluation" if tried else "verification"
            yield part("voter", sealed, step)
        case BlockKind.OUTCOME if any(vote.peer == me for vote in learning.sealed_votes):
            body = decode_body(block)
            openings = body.openings if isinstance(body, OutcomeBody) else ()
            opened = any(decode(Envelope, data, MESSAGE_BYTES).sender == me for data in openings)
            yield part("opener", opened, "opening")
        case _:
            pass


def _contribution_step(desk: Desk, before: LedgerState) -> str:
    """Return where this node's contribution was stuck when the phase ended."""
    if desk.pool.get(before.round, Kind.CONTRIBUTION, desk.me) is not None:
        return "attestation" if vouchers_for(before, desk.pool, desk.me) else "receipt"
    if desk.memory.trained is None:
        return "training"
    return "encoding"
