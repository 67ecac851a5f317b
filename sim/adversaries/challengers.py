"""Proposers that choose their part of a clear challenge last (docs/PROTOCOL.md sections 5.2, 5.3 and 9)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import define, evolve, field

from protocol.algebra import field as fp
from protocol.codec import digest
from protocol.envelope import Statement
from protocol.events import Broadcast, Effect, Event
from protocol.jobs import ContributeJob
from protocol.messages import Reveal
from protocol.secagg.commitment import SingularCommitment, challenge_vector
from protocol.secagg.scheme import Scheme, scheme_of
from sim.adversaries.coalition import Coalition
from sim.adversaries.forgery import Int64Vec
from sim.adversaries.tampering import StatementTampering, heard

TRIES = 1 << 18
"""Seeds that each of a pair of rushers tries at most; p^(1/2), about 2^15.5, of each make a fit likely."""


@define(eq=False)
class RushingChallenger(StatementTampering):
    """Holds its reveal back until it knows everyone else's challenge, then picks a seed of its own.

    Equation 19 is one equation over F_p. Two of a coalition whose aggregator added `delta` look for two seeds
    with which it holds, by a meeting in the middle. `place` is 0 or 1: each works out both seeds and sends
    its own. Where challenges are not sent, its own is empty and it has no choice.
    """

    coalition: Coalition
    delta: Callable[[Scheme], Int64Vec]
    place: int
    others: int
    _heard: dict[int, dict[bytes, bytes]] = field(factory=dict, init=False)
    _held: Statement | None = field(default=None, init=False)

    def events(self, event: Event) -> list[Event]:
        for statement in heard(event):
            if isinstance(statement.body, Reveal):
                self._heard.setdefault(statement.round, {})[statement.sender] = statement.body.challenge_seed
        return [event]

    def rewrite(self, statement: Statement, to: bytes | None) -> Statement | None:
        body, job = statement.body, self.coalition.job_of(statement.round)
        if not isinstance(body, Reveal) or not body.challenge_seed or job is None:
            return statement
        honest = self._honest(statement.round, job)
        if len(honest) < self.others:
            self._held = statement
            return None
        agreed = self.coalition.challenges
        if statement.round not in agreed:
            agreed[statement.round] = fitting_seeds(job, self.delta, honest)
        seeds = agreed[statement.round]
        if seeds is None:
            return statement
        chosen = evolve(body, challenge_seed=seeds[self.place])
        return self.signed(statement.round, statement.kind, chosen)

    def effects(self, effects: list[Effect]) -> list[Effect]:
        performed = super().effects(effects)
        if self._held is not None:
            held, self._held = self._held, None
            chosen = self.rewrite(held, None)
            if chosen is not None:
                performed.append(Broadcast(chosen.to_bytes()))
        return performed

    def _honest(self, round_: int, job: ContributeJob) -> list[bytes]:
        """The challenge seeds of those outside the coalition."""
        inside = {job.context.proposers[place] for told, place in self.coalition.jobs if told == round_}
        known = self._heard.get(round_, {})
        return [seed for peer, seed in sorted(known.items()) if peer not in inside and seed]


def fitting_seeds(
    job: ContributeJob, delta: Callable[[Scheme], Int64Vec], honest: list[bytes]
) -> tuple[bytes, bytes] | None:
    """Two seeds with which R U delta = 0, R being the sum of all challenges; None where none was found."""
    scheme = scheme_of(job.context)
    if not isinstance(scheme.commitment, SingularCommitment):
        return None
    seen = _Seen(scheme.commitment, delta(scheme))
    owed = -sum(seen.part_of(seed) for seed in honest) % fp.P
    first: dict[int, bytes] = {}
    for count in range(TRIES):
        mine, partner = (digest("rushing", bytes((who,)), count.to_bytes(8, "big")) for who in (0, 1))
        first[seen.part_of(mine)] = mine
        fit = first.get((owed - seen.part_of(partner)) % fp.P)
        if fit is not None:
            return fit, partner
    return None


class _Seen:
    """What one challenge sees of a delta that moves the first group only: R_i[0] U delta[0] in F_p."""

    def __init__(self, commitment: SingularCommitment, delta: Int64Vec) -> None:
        self._size = commitment.group_size
        group = fp.from_signed(delta[: self._size]).reshape(-1, 1)
        self._moved = np.ascontiguousarray(fp.matmul(commitment.matrix(), group).reshape(-1))

    def part_of(self, seed: bytes) -> int:
        return int(fp.dot(challenge_vector(seed, self._size), self._moved))
