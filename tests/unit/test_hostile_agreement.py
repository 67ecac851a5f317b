"""Attacks on the agreement: time-outs that climb, and leaders that put the blame on others."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest

from protocol.consensus import Action, Agreement, Emit, ProposalError, Safety
from protocol.envelope import Statement, make_statement, open_envelope
from protocol.events import Penalise
from protocol.keys import Identity
from protocol.ledger.block import BlockKind
from protocol.messages import MAX_VIEW, Certificate, Kind, Timeout, Vote, VotePhase
from sim.adversaries.leaders import FramingLeader, TimeoutClimber
from sim.adversaries.voters import Withholder
from sim.filters import Filter
from sim.reading import read_statement
from sim.scenes import Scene

NETWORK = bytes(32)
FAR_VIEWS = 64


class Table:
    """The agreement of one of `n` validators, and the keys of all the others."""

    def __init__(self, n: int) -> None:
        identities = (Identity.from_seed(bytes([i + 1]) * 32) for i in range(n))
        self.identities = sorted(identities, key=lambda identity: identity.peer)
        peers = tuple(identity.peer for identity in self.identities)
        self.agreement = Agreement(
            me=peers[0],
            network=NETWORK,
            round=1,
            validators=peers,
            order=peers,
            base_ms=100,
            cap_ms=1_000,
            opener=lambda data: open_envelope(data, NETWORK, stripped=True),
            safety=Safety(1),
        )

    def timeout(self, index: int, view: int) -> None:
        """One validator says that it gave up on a view."""
        statement = make_statement(self.identities[index], NETWORK, 1, Kind.TIMEOUT, Timeout(1, view, None))
        self._perform(self.agreement.on_timeout(statement))

    def give_up(self) -> None:
        """This node's own view took too long."""
        self._perform(self.agreement.on_view_timer(self.agreement.view))

    def _perform(self, actions: list[Action]) -> None:
        for statement in self._own(actions):
            self._perform(self.agreement.on_timeout(statement))

    def _own(self, actions: list[Action]) -> Iterator[Statement]:
        for action in actions:
            if isinstance(action, Emit) and isinstance(action.body, Timeout):
                yield make_statement(
                    self.identities[0], NETWORK, 1, Kind.TIMEOUT, action.body, action.payload
                )

    @property
    def timed_out(self) -> tuple[int, int]:
        """(current view, highest view given up)."""
        return self.agreement.safety.view, self.agreement.safety.timed_out_view


def climbing() -> Iterator[int]:
    """Views that one would send to get as high as fast as it can: always the highest that is kept."""
    view = 1
    while view < MAX_VIEW:
        view += FAR_VIEWS
        yield min(view, MAX_VIEW)


@pytest.mark.parametrize(("n", "faulty"), [(4, 1), (7, 2), (10, 3)])
def test_too_few_to_matter_cannot_drag_others_from_view_to_view(n: int, faulty: int) -> None:
    """Not even together with the node's own time-out: they may name a view each that no other reached."""
    table = Table(n)
    table.give_up()
    for view in islice(climbing(), 40):
        for index in range(n - faulty, n):
            table.timeout(index, view)
            table.timeout(index, table.agreement.view + FAR_VIEWS - index)
    assert table.timed_out == (1, 1)


def test_a_third_and_one_more_are_followed_to_the_lowest_view_that_so_many_reached() -> None:
    table = Table(7)
    for index, view in ((1, 9), (2, 4)):
        table.timeout(index, view)
    assert table.timed_out == (1, 0)
    table.timeout(3, 6)
    assert table.timed_out == (4, 4)
    table.timeout(4, 5)
    assert table.timed_out == (5, 5)


def test_a_quorum_that_gave_up_on_one_view_takes_the_others_to_the_next() -> None:
    table = Table(4)
    for index in (1, 2, 3):
        table.timeout(index, 3)
    assert table.timed_out == (4, 3)


def test_a_time_out_with_a_made_up_certificate_is_refused() -> None:
    table = Table(4)
    vote = Vote(VotePhase.PREPARE, 1, 1, bytes(32))
    forged = Certificate(1, vote, tuple((i.peer, bytes(64)) for i in table.identities))
    statement = make_statement(table.identities[3], NETWORK, 1, Kind.TIMEOUT, Timeout(1, 2, forged))
    with pytest.raises(ProposalError, match="does not hold"):
        table.agreement.on_timeout(statement)
    assert table.timed_out == (1, 0)


def test_climbing_time_outs_do_not_keep_a_network_with_dead_leaders_from_its_blocks() -> None:
    """Two of seven are faulty: one climbs whenever it gives up; one never leads, so that views do pass."""

    def cast(scene: Scene) -> dict[int, Filter]:
        network, identities = scene.founding.genesis.network, scene.founding.identities
        return {
            0: TimeoutClimber(identities[0], network, FAR_VIEWS - 1),
            1: Withholder(identities[1], network, frozenset({Kind.PROPOSAL})),
        }

    scene = Scene(cast, nodes=7, seed=SEED_OF_A_DEAD_LEADER).end_round(2)
    climbed = [read_statement(data).body for index, data in scene.sent if index == 0]
    assert any(isinstance(body, Timeout) and body.view >= FAR_VIEWS for body in climbed)
    entered = {note["view"] for note in scene.notes("view")}
    assert entered
    assert all(isinstance(view, int) and view <= 3 for view in entered)
    assert all(scene.kinds(round_)[-1] is BlockKind.OUTCOME for round_ in (1, 2))


SEED_OF_A_DEAD_LEADER = 1
"""A founding in which node 1 leads a view of the first two rounds."""


def test_a_leader_that_names_another_in_an_invalid_block_is_blamed_itself() -> None:
    def cast(scene: Scene) -> dict[int, Filter]:
        framer = FramingLeader(scene.founding.identities[0], scene.founding.genesis.network, scene.peer(1))
        return {0: framer}

    scene = Scene(cast, seed=SEED_OF_A_FRAMER).end_round()
    blamed = {
        (report.effect.peer, report.effect.why)
        for report in scene.world.reports
        if isinstance(report.effect, Penalise)
    }
    assert blamed == {(scene.peer(0), "block")}
    assert scene.kinds()[-1] is BlockKind.OUTCOME


SEED_OF_A_FRAMER = 3
"""A founding in which node 0 leads a view of the first round."""
