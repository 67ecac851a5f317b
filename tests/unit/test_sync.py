"""Catching up: one request at a time, bad sources last, bounded replies (docs/PROTOCOL.md section 7.3)."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field

from protocol.early import EARLY_BYTES, EARLY_MESSAGES, EarlyMessages
from protocol.events import BlocksRead, CancelTimer, Effect, ReadBlocks, SetTimer
from protocol.messages import BlockRequest, Body, Kind
from protocol.sync import (
    ASKED_PER_INTERVAL,
    FAR,
    MAX_BLOCKS,
    REPLY_BYTES,
    SERVED_PER_INTERVAL,
    Serving,
    Sync,
)

INTERVAL_MS = 1_000
BLOCK_BYTES = 4_000
PEERS = [bytes([number]) * 32 for number in range(1, 5)]
HONEST, OTHER, THIRD, LIAR = PEERS


@define(eq=False)
class Outbox:
    """Notes what is sent in place of signing it."""

    effects: list[Effect] = field(factory=list)
    sent: list[tuple[bytes, Kind, Body]] = field(factory=list)

    def add(self, effect: Effect) -> None:
        self.effects.append(effect)

    def send(self, peer: bytes, round_: int, kind: Kind, body: Body) -> None:
        self.sent.append((peer, kind, body))


class Asker:
    """A node that is behind, and peers that answer as a test has them do."""

    def __init__(self, seed: int = 1) -> None:
        self.state = SimpleNamespace(height=0, round=1)
        self.outbox = Outbox()
        random = Random(seed)
        self.sync = Sync(self.outbox, lambda: self.state, INTERVAL_MS, random.randrange)  # type: ignore
        self.now = 0

    @property
    def asked(self) -> list[tuple[bytes, int]]:
        """Whom it has asked from which height on, so far."""
        return [
            (peer, body.first_height) for peer, _, body in self.outbox.sent if isinstance(body, BlockRequest)
        ]

    def hear(self, height: int, *peers: bytes) -> None:
        for peer in peers:
            self.sync.heard(peer, height, self.now)

    def answer(self, count: int = MAX_BLOCKS, *, peer: bytes | None = None, size: int = BLOCK_BYTES) -> None:
        """The peer that is asked, or another one, gives so many of the next blocks."""
        peer = peer or self.sync.outstanding
        assert peer is not None
        if not self.sync.welcome(peer, self.now):
            return
        for _ in range(count):
            self.state.height += 1
            self.sync.took_block(self.state.height, size)
        self.sync.replied(peer, (size,) * count, count, sound=True, now=self.now)

    def give_nonsense(self) -> None:
        peer = self.sync.outstanding
        assert peer is not None
        assert self.sync.welcome(peer, self.now)
        self.sync.replied(peer, (BLOCK_BYTES,), 0, sound=False, now=self.now)

    def fire(self) -> None:
        """The timer fires when it is due."""
        (*_, last) = [e for e in self.outbox.effects if isinstance(e, SetTimer | CancelTimer)]
        assert isinstance(last, SetTimer)
        self.now += last.delay_ms
        self.sync.on_timer(self.now)


def test_a_thousand_messages_of_later_heights_make_one_request() -> None:
    asker = Asker()
    for height in range(1, 1_000):
        asker.hear(height, *PEERS)
    assert len(asker.asked) == 1
    asker.answer()
    assert [first for _, first in asker.asked] == [1, 1 + MAX_BLOCKS]


def test_what_is_one_height_ahead_is_noted_and_not_asked_for() -> None:
    asker = Asker()
    asker.sync.note(HONEST, 1)
    assert asker.asked == []
    asker.sync.ask(asker.now)
    assert asker.asked == [(HONEST, 1)]


def test_it_ends_when_nobody_has_more() -> None:
    asker = Asker()
    asker.hear(3, HONEST)
    asker.answer(3)
    assert len(asker.asked) == 1
    assert asker.sync.outstanding is None
    assert asker.outbox.effects[-1] == CancelTimer("sync")


@pytest.mark.parametrize("seed", range(8))
def test_a_silent_peer_costs_one_time_out_and_is_asked_last(seed: int) -> None:
    """It claims more than anybody has, and keeps claiming it."""
    asker = Asker(seed)
    asker.hear(2**40, LIAR)
    asker.hear(5_000, HONEST, OTHER)
    waited = 0
    while asker.state.height < 5_000:
        asker.hear(2**40, LIAR)
        if asker.sync.outstanding == LIAR:
            before = asker.now
            asker.fire()
            waited += asker.now - before
        elif asker.sync.outstanding is None:
            asker.fire()  # within the allowance of requests
        else:
            asker.now += 20
            asker.answer(min(MAX_BLOCKS, 5_000 - asker.state.height))
    assert waited <= INTERVAL_MS
    assert sum(peer == LIAR for peer, _ in asker.asked) <= 2  # and once more when nobody else has more


@pytest.mark.parametrize("seed", range(8))
def test_nonsense_costs_no_time_and_the_sender_is_asked_last(seed: int) -> None:
    asker = Asker(seed)
    asker.hear(1_000, LIAR, HONEST)
    while asker.state.height < 900:
        asker.now += 200
        if asker.sync.outstanding == LIAR:
            asker.give_nonsense()
        else:
            asker.answer()
    assert sum(peer == LIAR for peer, _ in asker.asked) <= 1


def test_who_holds_blocks_back_is_found_out_by_the_next_block() -> None:
    asker = Asker()
    asker.hear(1_000, LIAR)
    asker.hear(1_000, HONEST)
    asker.answer(1)
    asker.now += 10
    while asker.sync.outstanding != HONEST:
        asker.answer(1)
        asker.now += 200
    for _ in range(5):
        asker.answer()
        asker.now += 200
    first_honest = next(i for i, (peer, _) in enumerate(asker.asked) if peer == HONEST)
    assert all(peer == HONEST for peer, _ in asker.asked[first_honest:])
    assert sum(peer == LIAR for peer, _ in asker.asked) <= 2


def test_large_blocks_make_short_replies_that_nobody_is_blamed_for() -> None:
    asker = Asker()
    asker.hear(40, HONEST)
    for _ in range(20):
        asker.answer(1, size=REPLY_BYTES - 1)
        asker.now += 200
    asker.hear(40, OTHER)
    for _ in range(20):
        asker.answer(1, size=REPLY_BYTES - 1)
        asker.now += 200
    asker.hear(1_000, HONEST, OTHER)
    for _ in range(4):
        asker.answer()
        asker.now += 200
    assert {peer for peer, _ in asker.asked[-6:]} <= {HONEST, OTHER}
    assert sum(peer == OTHER for peer, _ in asker.asked) > 0


def test_who_answers_slowly_is_asked_after_those_who_are_quick() -> None:
    asker = Asker(3)
    asker.hear(10_000, *PEERS)
    for _ in range(40):
        if asker.sync.outstanding is None:
            asker.fire()
        asker.now += 900 if asker.sync.outstanding == LIAR else 30
        asker.answer()
    # Once to learn it, and once when the others were to be left alone for a moment.
    assert sum(peer == LIAR for peer, _ in asker.asked) <= 2


def test_a_late_reply_is_taken_and_lengthens_the_time_out_of_its_sender() -> None:
    """A line on which a reply takes 2.6 s: the requests add up to four, and no reply is lost."""
    asker = Asker()
    asker.hear(10_000, HONEST)
    asked_at: deque[int] = deque()
    seen = 0
    for _ in range(200):
        for _ in asker.asked[seen:]:
            asked_at.append(asker.now)
        seen = len(asker.asked)
        reply_at = asked_at[0] + 2_600 if asked_at else None
        (*_, last) = [e for e in asker.outbox.effects if isinstance(e, SetTimer | CancelTimer)]
        due = asker.now + last.delay_ms if isinstance(last, SetTimer) else 1 << 60
        if reply_at is not None and reply_at <= due:
            asker.now = max(asker.now, reply_at)
            asked_at.popleft()
            asker.answer(peer=HONEST)
        else:
            asker.fire()
        if asker.state.height >= 2_000:
            break
    assert asker.state.height >= 2_000
    assert len(asker.asked) <= 2_000 // MAX_BLOCKS + 4


def test_the_only_source_is_asked_ever_more_rarely_while_it_is_silent() -> None:
    asker = Asker()
    asker.hear(100, LIAR)
    while asker.now < 3_600_000:
        asker.hear(100, LIAR)
        asker.fire()
    assert len(asker.asked) <= 3_600_000 // (30 * INTERVAL_MS) + 10


def test_a_source_whose_connection_breaks_is_replaced_at_once() -> None:
    asker = Asker()
    asker.hear(100, HONEST)
    asker.hear(100, OTHER)
    asker.sync.lost(HONEST, asker.now)
    assert asker.asked == [(HONEST, 1), (OTHER, 1)]
    assert not asker.sync.welcome(HONEST, asker.now)


def test_an_answer_is_welcome_once() -> None:
    asker = Asker()
    asker.hear(1, HONEST)
    assert not asker.sync.welcome(OTHER, asker.now)
    asker.answer(1)
    assert not asker.sync.welcome(HONEST, asker.now)


def test_only_blocks_that_were_taken_make_a_node_rest_from_its_duties() -> None:
    asker = Asker()
    asker.hear(2**40, LIAR)
    assert not asker.sync.is_catching_up
    asker.hear(2**40, HONEST)
    asker.fire()
    asker.answer(FAR)
    assert asker.sync.is_catching_up
    asker.fire()
    assert not asker.sync.is_catching_up


@pytest.mark.parametrize("seed", range(20))
def test_one_request_is_outstanding_whatever_happens(seed: int) -> None:
    """A random history: at most one request is not answered, not timed out, and its peer not lost."""
    random, asker = Random(seed), Asker(seed)
    open_, seen = 0, 0
    asked_at: dict[bytes, list[int]] = {peer: [] for peer in PEERS}
    for _ in range(2_000):
        before = asker.sync.outstanding
        match random.randrange(6):
            case 0 | 1:
                asker.hear(asker.state.height + random.randrange(300), random.choice(PEERS))
            case 2 | 3 if before is not None:
                asker.answer(random.randrange(0, 9))
                open_ = 0
            case 4 if before is not None:
                asker.fire()
                open_ = 0
            case _:
                peer = random.choice(PEERS)
                asker.sync.lost(peer, asker.now)
                open_ = 0 if peer == before else open_
        for peer, _ in asker.asked[seen:]:
            asked_at[peer].append(asker.now)
        open_ += len(asker.asked) - seen
        seen = len(asker.asked)
        assert open_ <= 1
        asker.now += random.randrange(200)
    for times in asked_at.values():
        for first, last in zip(times, times[ASKED_PER_INTERVAL:], strict=False):
            assert last - first >= INTERVAL_MS


# -- serving -----------------------------------------------------------------------------------


def _serving(height: int = 100_000) -> tuple[Serving, Outbox]:
    outbox = Outbox()
    state: Any = SimpleNamespace(height=height, round=1)
    return Serving(outbox, lambda: state, INTERVAL_MS), outbox  # type: ignore[arg-type]


def _serve(serving: Serving, outbox: Outbox, peer: bytes, first: int, now: int) -> int:
    """Ask for blocks, have them read at once, and return how many are sent."""
    reads, sent = len(outbox.effects), len(outbox.sent)
    serving.on_request(peer, first, now)
    for effect in outbox.effects[reads:]:
        assert isinstance(effect, ReadBlocks)
        count = effect.last_height - effect.first_height + 1
        serving.on_blocks_read(BlocksRead(peer, effect.first_height, (b"x",) * count), now)
    return sum(len(getattr(body, "blocks", ())) for _, _, body in outbox.sent[sent:])


def test_an_asker_at_its_own_pace_is_never_refused() -> None:
    serving, outbox = _serving()
    height, now = 1, 0
    for burst in range(20):
        for _ in range(ASKED_PER_INTERVAL):
            assert _serve(serving, outbox, HONEST, height, now) == MAX_BLOCKS, burst
            height += MAX_BLOCKS
            now += 1
        now += INTERVAL_MS


@pytest.mark.parametrize("kind", ["same", "descending", "ascending", "random"])
def test_no_asker_gets_more_than_its_allowance(kind: str) -> None:
    random = Random(7)
    serving, outbox = _serving()
    given: Counter[int] = Counter()
    for step in range(40_000):
        now = step // 4
        first = {
            "same": 1,
            "descending": 50_000 - step,
            "ascending": 1 + step * MAX_BLOCKS,
            "random": random.randrange(1, 90_000),
        }[kind]
        given[now // INTERVAL_MS] += bool(_serve(serving, outbox, LIAR, first, now))
    assert max(given.values()) <= SERVED_PER_INTERVAL + 1
    if kind in ("same", "descending"):
        assert max(given.values()) <= 3
    assert _serve(serving, outbox, HONEST, 1, now) == MAX_BLOCKS  # others have their own


def test_a_lost_reply_is_given_again_when_its_time_out_has_passed() -> None:
    serving, outbox = _serving()
    assert _serve(serving, outbox, HONEST, 1, 0)
    assert not _serve(serving, outbox, HONEST, 1, INTERVAL_MS // 2 - 1)
    assert _serve(serving, outbox, HONEST, 1, INTERVAL_MS)


# -- early messages ----------------------------------------------------------------------------


def _message(number: int, size: int = 100) -> Any:
    return SimpleNamespace(number=number, kept_bytes=size)


def test_an_early_message_is_given_once_and_only_at_its_height() -> None:
    early = EarlyMessages()
    for height in (5, 6, 7, 7):
        early.keep(HONEST, height, _message(height))
    assert early.take(4) == []
    assert [s.number for _, s in early.take(6)] == [6]  # type: ignore[attr-defined]
    assert early.counts() == {HONEST: 1}  # the second of height 7 is the same message
    assert [s.number for _, s in early.take(7)] == [7]  # type: ignore[attr-defined]
    assert early.take(7) == []
    assert early.counts() == early.weights() == {}


def test_the_latest_heights_are_kept_where_room_is_short() -> None:
    early = EarlyMessages()
    for height in range(1, 500):
        early.keep(HONEST, height, _message(height))
        assert early.counts()[HONEST] <= EARLY_MESSAGES
    early.keep(HONEST, 3, _message(3))
    assert early.take(3) == []
    assert [s.number for _, s in early.take(499)] == [499]  # type: ignore[attr-defined]


def test_early_messages_have_a_bound_in_bytes_for_each_peer() -> None:
    early = EarlyMessages()
    for number in range(30):
        early.keep(LIAR, 9, _message(number, 1 << 20))
        early.keep(HONEST, 9, _message(number, 1))
    assert early.weights() == {LIAR: EARLY_BYTES, HONEST: 30}
    early.keep(LIAR, 10, _message(0, EARLY_BYTES + 1))
    assert early.weights() == {LIAR: EARLY_BYTES, HONEST: 30}
