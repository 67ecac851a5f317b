"""Beacon: the next beacon follows from the pinned check seeds of U1 and from nothing else.

docs/PROTOCOL.md section 3.8: "beacon' = H("beacon", beacon, be8(round), setup, rho_1, rho_2, ...) over U1; 32
zero bytes if unknown", and section 11.4: "It does not depend on votes, tallies or the leader's choice of
transactions." Section 3.3: "A revealed rho_i is held to both conditions too", its hash and its root.
"""

from __future__ import annotations

from collections.abc import Mapping

from flocknode.observe.ledger import Step
from protocol.ledger.block import AbortBody, BallotBody, decode_body
from protocol.ledger.state import LedgerState
from protocol.params import ProtocolParams
from protocol.pinning import Rules, round_context
from protocol.sharing import ShareKind, share_root
from sim.invariants.base import InvariantError
from sim.invariants.plain import be8, tagged_hash

UNKNOWN = bytes(32)


class Beacon:
    """A `StepRule`."""

    def __init__(self, params: ProtocolParams, network: bytes) -> None:
        self._rules = Rules(params, network)

    def __call__(self, step: Step) -> None:
        before, body = step.before, decode_body(step.stored.block)
        sharers = [bundle.peer for bundle in before.learning.sharers]
        seeds = dict(zip(sharers, before.learning.check_seeds, strict=False))
        if isinstance(body, BallotBody) and not before.learning.ballot:
            self._check_seeds(before, dict(zip(sharers, body.check_seeds, strict=True)))
        elif isinstance(body, AbortBody) and not seeds:
            seeds = {entry.peer: entry.secret for entry in body.check_seeds}
            self._check_seeds(before, seeds)
        if step.after.round != before.round and step.after.beacon != _next_beacon(before, seeds):
            raise InvariantError(f"the beacon after round {before.round} is not that of its check seeds")

    def _check_seeds(self, state: LedgerState, seeds: Mapping[bytes, bytes]) -> None:
        context = round_context(state, self._rules)
        bundles = {bundle.peer: bundle for bundle in state.learning.sharers}
        for peer, seed in seeds.items():
            if seed == UNKNOWN:
                continue
            bundle = bundles[peer]
            pinned = tagged_hash("secret", b"check", self._rules.network, be8(state.round), peer, seed)
            if pinned != bundle.hash_check:
                raise InvariantError(f"round {state.round}: a check seed that nobody pinned counts")
            dealt = share_root(context, state.learning.proposers.index(peer), ShareKind.CHECK, seed)
            if dealt != bundle.share_roots[ShareKind.CHECK]:
                raise InvariantError(f"round {state.round}: a check seed counts that was not dealt so")


def _next_beacon(state: LedgerState, seeds: Mapping[bytes, bytes]) -> bytes:
    sharers = state.learning.sharers
    if not sharers:
        return tagged_hash("beacon", state.beacon, be8(state.round), b"abort")
    setup = tagged_hash("setup", *[part for bundle in sharers for part in (bundle.peer, bundle.hash_check)])
    known = [seeds.get(bundle.peer, UNKNOWN) for bundle in sharers]
    return tagged_hash("beacon", state.beacon, be8(state.round), setup, *known)
