"""An adversary that follows the ledger goes on with it after a restart of its node."""

from __future__ import annotations

from protocol.ledger.resume import start_from
from sim.adversaries.following import Following
from sim.fuzzing.histories import ground


def test_a_follower_goes_on_where_its_nodes_ledger_ends() -> None:
    """Since blocks are no longer among the records of a start, a follower used to fall back to genesis."""
    network = ground()
    moment = max(network.moments, key=lambda moment: moment.height)
    genesis = network.founding.genesis
    start = start_from(genesis, moment.records, frozenset())
    follower = Following(network.identities[0], network.network, genesis)
    assert follower.events(start) == [start]
    assert start.ledger is not None
    assert moment.height > 0
    assert (follower.chain.height, follower.chain.head) == (moment.height, start.ledger.head)
    assert follower.chain.state == start.ledger.state
