"""An engine that is behind: what it asks for, and what it does with what it is given (PROTOCOL §7.3)."""

from __future__ import annotations

import pytest

from protocol import durable, sync
from protocol.engine import Engine
from protocol.envelope import make_statement, open_envelope
from protocol.events import (
    Broadcast,
    Effect,
    PeerDown,
    PeerUp,
    Penalise,
    Persist,
    Received,
    Send,
    SetTimer,
    Start,
    TimerFired,
)
from protocol.ledger.block import decode_stored_block
from protocol.messages import BlockRequest, Blocks, Body, Have, Kind, Ready, Timeout
from protocol.sync import BLOCKS_A_TURN, MAX_BLOCKS
from sim.scenes import Scene

LATE = 0
ROUNDS = 5


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A network that has ended some rounds; its ledger is what the late node lacks."""
    scene = Scene(nodes=4, seed=5)
    for round_ in range(1, ROUNDS + 1):
        scene.end_round(round_)
    return scene


class Late:
    """Node 0 with an empty ledger, connected to the three others, and what it asks of them."""

    def __init__(self, scene: Scene) -> None:
        founding = scene.founding
        self.others = [identity for i, identity in enumerate(founding.identities) if i != LATE]
        self.ledger = scene.world.nodes[1].records[durable.BLOCK]
        self.height = len(self.ledger)
        self.now = 1_000
        drawn = iter(range(10**6))
        self.engine = Engine(
            founding.identities[LATE],
            founding.genesis,
            lambda n: next(drawn).to_bytes(n, "big"),
            founding.packages.get(founding.identities[LATE].peer),
        )
        self.effects: list[Effect] = []
        self.handle(Start({}))
        for identity in self.others:
            self.handle(PeerUp(identity.peer))

    def handle(self, event: object, after_ms: int = 1) -> list[Effect]:
        self.now += after_ms
        effects = self.engine.handle(event, self.now)  # type: ignore[arg-type]
        self.effects += effects
        return effects

    def say(self, who: int, kind: Kind, body: Body, round_: int | None = None) -> list[Effect]:
        identity = self.others[who]
        round_ = self.engine.state.round if round_ is None else round_
        statement = make_statement(identity, self.engine.network, round_, kind, body)
        return self.handle(Received(identity.peer, statement.to_bytes()))

    def have(self, who: int, height: int | None = None) -> list[tuple[int, int]]:
        return self.requests(self.say(who, Kind.HAVE, Have(height or self.height, (), b"", True)))

    def blocks(self, first: int, count: int = MAX_BLOCKS) -> tuple[bytes, ...]:
        heights = range(first, min(first + count, self.height + 1))
        return tuple(self.ledger[durable.height_key(height)] for height in heights)

    def give(self, who: int, *blocks: bytes) -> list[Effect]:
        """A reply, and everything that it leads to without another."""
        effects = self.say(who, Kind.BLOCKS, Blocks(blocks))
        while self.engine._replies:
            effects = [*effects, *self.handle(TimerFired(sync.APPLY_TIMER))]
        return effects

    def requests(self, effects: list[Effect]) -> list[tuple[int, int]]:
        """(whom, first height) of each request for blocks."""
        peers = [identity.peer for identity in self.others]
        found = []
        for effect in effects:
            if isinstance(effect, Send):
                body = open_envelope(effect.data, self.engine.network).body
                if isinstance(body, BlockRequest):
                    found.append((peers.index(effect.peer), body.first_height))
        return found

    def wait(self) -> list[tuple[int, int]]:
        """The time-out passes; whom it asks then."""
        timer = [e for e in self.effects if isinstance(e, SetTimer) and e.key == sync.TIMER][-1]
        return self.requests(self.handle(TimerFired(sync.TIMER), timer.delay_ms))

    def penalised(self) -> list[tuple[int, str]]:
        peers = [identity.peer for identity in self.others]
        return [(peers.index(e.peer), e.why) for e in self.effects if isinstance(e, Penalise)]


@pytest.fixture
def late(scene: Scene) -> Late:
    return Late(scene)


def test_whatever_others_say_one_request_is_outstanding(late: Late) -> None:
    """Every message of a later height, of every peer, asked for the same blocks again."""
    asked = []
    for height in range(2, 40):
        for who in range(3):
            asked += late.requests(late.say(who, Kind.READY, Ready(height, 0, (), ())))
            asked += late.requests(late.say(who, Kind.TIMEOUT, Timeout(height + 1, 1, None)))
            asked += late.have(who, height)
    assert len(asked) == 1
    assert asked[0][1] == 1


def test_a_ledger_is_fetched_by_one_request_for_each_reply(late: Late) -> None:
    ((who, first),) = late.have(0)
    asked = []
    while late.engine.height < late.height:
        effects = late.give(who, *late.blocks(first, 10))
        requests = late.requests(effects)
        assert len(requests) <= 1
        if requests:
            ((who, first),) = requests
            asked.append(first)
    assert asked == list(range(11, late.height + 1, 10))
    assert late.penalised() == []


def test_a_reply_is_applied_a_few_blocks_an_event_and_the_next_is_asked_for_behind_it(late: Late) -> None:
    late.have(0)
    events = [late.say(0, Kind.BLOCKS, Blocks(late.blocks(1, 20)))]
    while late.engine._replies:
        assert late.requests(events[-1]) == late.have(1) == []
        events.append(late.handle(TimerFired(sync.APPLY_TIMER)))
    written = [
        sum(isinstance(e, Persist) and e.bucket == durable.BLOCK for e in effects) for effects in events
    ]
    assert written == [BLOCKS_A_TURN, BLOCKS_A_TURN, 20 - 2 * BLOCKS_A_TURN]
    assert [first for _, first in late.requests(events[-1])] == [21]


def test_a_node_that_catches_up_says_nothing_of_heights_that_are_past(late: Late) -> None:
    late.have(0)
    effects = late.give(0, *late.blocks(1, 20))
    said = [e.data for e in effects if isinstance(e, Send | Broadcast)]
    assert [open_envelope(data, late.engine.network).kind for data in said] == [Kind.BLOCK_REQUEST]


def test_a_second_reply_waits_for_the_first(late: Late) -> None:
    ((silent, _),) = late.have(0)
    late.have(1)
    ((other, _),) = late.wait()
    late.say(other, Kind.BLOCKS, Blocks(late.blocks(1, 12)))
    late.say(silent, Kind.BLOCKS, Blocks(late.blocks(1, 20)))
    assert late.engine.height == BLOCKS_A_TURN
    while late.engine._replies:
        late.handle(TimerFired(sync.APPLY_TIMER))
    assert late.engine.height == 20
    assert late.penalised() == []


def test_a_peer_that_leaves_while_its_reply_is_applied_has_answered(late: Late) -> None:
    ((who, _),) = late.have(0)
    late.have(1)
    late.say(who, Kind.BLOCKS, Blocks(late.blocks(1, 20)))
    assert late.requests(late.handle(PeerDown(late.others[who].peer))) == []
    asked = []
    while late.engine._replies:
        asked += late.requests(late.handle(TimerFired(sync.APPLY_TIMER)))
    assert late.engine.height == 20
    assert asked == [(1, 21)]


def test_a_block_that_the_agreement_decides_meanwhile_is_not_taken_twice(late: Late) -> None:
    late.have(0)
    late.say(0, Kind.BLOCKS, Blocks(late.blocks(1, 20)))
    (data,) = late.blocks(BLOCKS_A_TURN + 1, 1)
    late.engine._decided(decode_stored_block(data))
    while late.engine._replies:
        late.handle(TimerFired(sync.APPLY_TIMER))
    assert late.engine.height == 20
    assert late.penalised() == []


def test_a_late_reply_is_taken_and_what_comes_twice_is_not(late: Late) -> None:
    ((silent, _),) = late.have(0)
    late.have(1)
    ((other, _),) = late.wait()
    late.give(silent, *late.blocks(1, 5))
    assert late.engine.height == 5
    late.give(other, *late.blocks(1, 7))
    assert late.engine.height == 7
    assert late.penalised() == []


def test_blocks_that_were_not_asked_for_are_neither_read_nor_held_against_anybody(late: Late) -> None:
    late.say(0, Kind.BLOCKS, Blocks((b"garbage",)))
    late.give(0, *late.blocks(1, 5))
    assert late.engine.height == 0
    assert late.engine.rejects == {"unasked": 2}
    assert late.penalised() == []


@pytest.mark.parametrize("kind", ["garbage", "bent"])
def test_who_gives_what_does_not_hold_pays_and_another_is_asked(late: Late, kind: str) -> None:
    ((liar, _),) = late.have(0)
    late.have(1)
    good = late.blocks(1, 3)
    bad = {
        "garbage": (*good, b"garbage"),
        "bent": (*good, late.blocks(4, 1)[0][:-9] + bytes(9)),
    }[kind]
    ((other, first),) = late.requests(late.give(liar, *bad))[-1:]
    assert late.penalised() == [(liar, "block")]
    assert (other, first) == (1, late.engine.height + 1)
    assert late.engine.height == 3
    late.give(other, *late.blocks(first, 9))
    assert late.engine.height == first + 8


def test_a_peer_that_leaves_is_not_waited_for(late: Late) -> None:
    ((who, _),) = late.have(0)
    late.have(1)
    ((other, first),) = late.requests(late.handle(PeerDown(late.others[who].peer)))
    assert (other, first) == (1, 1)


def test_early_messages_are_looked_at_once_when_their_height_is_reached(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them were dispatched again after each block."""
    for height in range(2, 30):
        late.say(1, Kind.READY, Ready(height, 0, (), ()))
    seen: list[tuple[int, int]] = []
    dispatch = Engine._dispatch

    def noted(self: Engine, peer: bytes, statement: object) -> None:
        body = getattr(statement, "body", None)
        if isinstance(body, Ready):
            seen.append((body.height, self.height))
        dispatch(self, peer, statement)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "_dispatch", noted)
    late.give(1, *late.blocks(1, 25))
    assert late.engine.height == 25
    begun = [*range(1 + BLOCKS_A_TURN, 26, BLOCKS_A_TURN), 26]
    assert seen == [(height, height - 1) for height in begun]
    assert len(late.engine.negotiation._early._of_peer[late.others[1].peer]) == 3
