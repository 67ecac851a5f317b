"""Who will have which role: sortition is public, so a scenario can choose its adversaries by role."""

from __future__ import annotations

from protocol.ledger.settlement import open_round
from protocol.ledger.state import PinnedAdvert, genesis_state
from protocol.sortition import Roles
from sim.founding import Founding, seeded_bytes


def first_roles(founding: Founding) -> Roles:
    """The roles of round 1 if every founding member advertises in time."""
    state = genesis_state(founding.genesis)
    adverts = [
        PinnedAdvert(peer, seeded_bytes(0, f"mask {peer.hex()}"), seeded_bytes(0, f"seal {peer.hex()}"))
        for peer in state.validators
    ]
    roles = open_round(state, founding.genesis.params, adverts).learning.roles
    assert roles is not None, "a genesis has at least four members"
    return roles


def member_of(founding: Founding, peer: bytes) -> int:
    """The index of the member with this key."""
    return next(i for i, identity in enumerate(founding.identities) if identity.peer == peer)
