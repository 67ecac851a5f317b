"""The stake contract of an experiment: the ledger's own state machine, without a network under it.

Every round ends by `protocol.ledger.settlement.end_round`: the votes are settled (`settle_vote`,
`settle_rewards`) with the gamma of the network's parameters, who fell below the minimal stake leaves the
validators, and the roles of the next round are drawn by `assign_roles` with the stakes as weights. Nothing of
it is written a second time here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from protocol.codec import digest
from protocol.ledger.adaptive import AdaptiveGamma
from protocol.ledger.judgement import Judgement
from protocol.ledger.settlement import Ballot, end_round, open_round, vote_gamma_units
from protocol.ledger.state import (
    NO_DIGEST,
    LedgerState,
    PinnedAdvert,
    PinnedContribution,
    genesis_state,
)
from protocol.params import MICRO, Genesis, GenesisMember, ProtocolParams, hardened, sort_members
from protocol.sortition import default_roles

STAKE_TOKENS = 64
"""What each client starts with (FLock)."""

ADAPTIVE = 0
"""In place of a fixed gamma: the one that `AdaptiveGamma` sets."""


@frozen
class Contract:
    """The ledger after some rounds. Clients are numbers; `peers[i]` is what the ledger calls client i."""

    params: ProtocolParams
    peers: tuple[bytes, ...]
    state: LedgerState
    _adverts: tuple[PinnedAdvert, ...] = field(repr=False)

    @property
    def is_over(self) -> bool:
        """Too few clients are left for a round."""
        return self.state.learning.roles is None

    @property
    def proposers(self) -> list[int]:
        return self._numbers(self.state.learning.proposers)

    @property
    def voters(self) -> list[int]:
        return self._numbers(self.state.learning.voters)

    @property
    def stakes_units(self) -> list[int]:
        """By client."""
        stakes = self.state.stakes
        return [stakes[peer] for peer in self.peers]

    @property
    def is_active(self) -> list[bool]:
        """By client: whether it is a validator still."""
        return [self.state.is_validator(peer) for peer in self.peers]

    def gamma_units(self, votes: Mapping[int, int]) -> int:
        """What the losers of a round with these votes by client will pay."""
        return vote_gamma_units(self.state, self.params, self._by_peer(votes))

    def after_round(self, votes: Mapping[int, int] | None) -> Contract:
        """The contract after a round with these votes by client, or None for a round without a vote.

        Everybody who was drawn as a proposer has proposed.
        """
        return self.after_ballot(None if votes is None else Ballot(self._by_peer(votes), NO_DIGEST))

    def after_ballot(self, ballot: Ballot | None) -> Contract:
        """Return the contract after a round with this ballot, whose votes are by peer."""
        contributors = tuple(
            PinnedContribution(peer, NO_DIGEST, NO_DIGEST, NO_DIGEST, NO_DIGEST, True)
            for peer in self.state.learning.proposers
        )
        state = end_round(
            evolve(self.state, learning=evolve(self.state.learning, contributors=contributors)),
            self.params,
            ballot=ballot,
            faults=(),
            check_seeds={},
            adverts=self._adverts,
            transactions=(),
        )
        return evolve(self, state=state)

    def _by_peer(self, votes: Mapping[int, int]) -> dict[bytes, int]:
        return {self.peers[client]: vote for client, vote in votes.items()}

    def _numbers(self, peers: Sequence[bytes]) -> list[int]:
        number = {peer: client for client, peer in enumerate(self.peers)}
        return [number[peer] for peer in peers]


def found_contract(
    clients: int, seed: int, dimension: int, gamma: int, judgement: Judgement | None = None
) -> Contract:
    """A ledger of `clients` with 64 tokens each, the ledger's defaults, and the roles of `default_roles`.

    `gamma`: tokens, or ADAPTIVE. `judgement`: the interim rule, or None for FLock's contract. Roles of all
    rounds follow from `seed` and the stakes.
    """
    peers = tuple(_bytes32("peer", seed, client) for client in range(clients))
    n_proposers, n_voters = default_roles(clients)
    params = evolve(
        hardened(dimension=dimension, n_proposers=n_proposers, n_voters=n_voters),
        **({"adaptive_gamma": AdaptiveGamma()} if gamma == ADAPTIVE else {"gamma_units": gamma * MICRO}),
        judgement=judgement,
    )
    genesis = Genesis(
        name="flock figures",
        task="figures",
        params=params,
        members=sort_members([GenesisMember(peer, STAKE_TOKENS * MICRO) for peer in peers]),
        beacon=_bytes32("beacon", seed, 0),
        model_digest=NO_DIGEST,
    )
    adverts = tuple(
        PinnedAdvert(peer, _bytes32("mask", seed, client), _bytes32("seal", seed, client))
        for client, peer in enumerate(peers)
    )
    state = open_round(genesis_state(genesis), params, adverts)
    return Contract(params, peers, state, adverts)


def _bytes32(label: str, seed: int, client: int) -> bytes:
    return digest("flock figures", label.encode(), seed.to_bytes(8, "big"), client.to_bytes(8, "big"))
