"""Roles: they are drawn by the new beacon from adverts and weights that were pinned before anyone knew it.

docs/PROTOCOL.md section 3.1, "eligible", "weight" and the draw; section 3.2: "Its transactions apply *after*
the draw, so they show in validators and weights one round later, whose beacon nobody knows yet." Drawn here a
second time, with plain lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flocknode.observe.ledger import Step
from protocol.ledger.block import AbortBody, OpenBody, decode_body
from protocol.ledger.state import LedgerState, Phase
from protocol.messages import KeyAdvert
from protocol.params import ProtocolParams
from sim.invariants.base import InvariantError
from sim.invariants.plain import be8, tagged_hash
from sim.reading import read_statement

LEAST_ELIGIBLE = 4
WORDS = 1 << 256

Advert = tuple[bytes, bytes, bytes]
"""Peer, mask key, seal key."""


class Roles:
    """A `StepRule`."""

    def __init__(self, params: ProtocolParams) -> None:
        self._params = params

    def __call__(self, step: Step) -> None:
        before, after, learning = step.before, step.after, step.after.learning
        if learning.next_pinned and not before.learning.next_pinned and after.round == before.round:
            adverts = [(a.peer, a.mask_public, a.seal_public) for a in learning.next_adverts]
            if dict(learning.next_weights) != _weights(before, adverts):
                raise InvariantError(f"round {before.round}: the weights that were pinned are not the stakes")
        if after.rests:
            if learning.roles is not None or learning.phase is not Phase.ADVERT:
                raise InvariantError(f"round {after.round} is opened while training rests")
            return
        if after.round != before.round or before.learning.phase is Phase.ADVERT:
            self._check_draw(step)

    def _check_draw(self, step: Step) -> None:
        after = step.after
        adverts, weights = _pinned(step)
        if step.before.learning.reformed and not step.before.learning.next_pinned:
            weights = dict.fromkeys(weights, 1)
        # Transactions show in who is a validator after the draw only.
        voting = step.before.validators if after.round == step.before.round else after.validators
        usable = _eligible(adverts, voting)
        drawn = self._draw(after, {peer: w for peer, w in weights.items() if peer in usable})
        roles = after.learning.roles
        found = None if roles is None else (roles.proposers, roles.aggregators, roles.voters)
        if found != drawn:
            raise InvariantError(f"the roles of round {after.round} are not those that its beacon draws")

    def _draw(
        self, state: LedgerState, weights: Mapping[bytes, int]
    ) -> tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]] | None:
        if len(weights) < LEAST_ELIGIBLE:
            return None
        seed = tagged_hash("sortition", state.beacon, be8(state.round))
        order = _order(seed, sorted(weights.items()), len(weights))
        count = min(self._params.n_proposers, len(weights) - 1)
        proposers, aggregators = sorted(order[:count]), order[count:]
        voters = aggregators[1 : 1 + self._params.n_voters]
        empty = min(self._params.n_voters - len(voters), count)
        voters += _order(
            tagged_hash("sortition-fill", seed), [(peer, weights[peer]) for peer in proposers], empty
        )
        return tuple(proposers), tuple(aggregators), tuple(sorted(voters))


def _pinned(step: Step) -> tuple[list[Advert], Mapping[bytes, int]]:
    """What the draw goes by: pinned in the round before, or by this very block with the stakes before it."""
    learning, body = step.before.learning, decode_body(step.stored.block)
    if learning.next_pinned:
        pinned = [(a.peer, a.mask_public, a.seal_public) for a in learning.next_adverts]
        return pinned, dict(learning.next_weights)
    assert isinstance(body, OpenBody | AbortBody), "adverts are pinned by now"
    cited = []
    for data in body.closing.adverts:
        statement = read_statement(data)
        assert isinstance(statement.body, KeyAdvert)
        cited.append((statement.sender, statement.body.mask_public, statement.body.seal_public))
    return cited, _weights(step.before, cited)


def _eligible(adverts: Iterable[Advert], validators: Sequence[bytes]) -> set[bytes]:
    known = [advert for advert in adverts if advert[0] in validators]
    uses = Counter(key for _, mask, seal in known for key in (mask, seal))
    return {peer for peer, mask, seal in known if uses[mask] == uses[seal] == 1}


def _weights(state: LedgerState, adverts: Sequence[Advert]) -> dict[bytes, int]:
    eligible = _eligible(adverts, state.validators)
    return {
        peer: max(1, account.stake_units >> account.suspicion)
        for peer, account in state.accounts
        if peer in eligible
    }


def _order(seed: bytes, weights: Sequence[tuple[bytes, int]], count: int) -> list[bytes]:
    left, words = list(weights), 0
    drawn: list[bytes] = []
    while len(drawn) < count:
        total = sum(weight for _, weight in left)
        word = int.from_bytes(tagged_hash("sortition-word", seed, be8(words)), "big")
        words += 1
        if word >= WORDS // total * total:
            continue
        at = word % total
        place = 0
        while at >= left[place][1]:
            at -= left[place][1]
            place += 1
        drawn.append(left.pop(place)[0])
    return drawn
