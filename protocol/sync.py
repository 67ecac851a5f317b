"""Catching up on final blocks: who is asked, how often, and what a bad answer costs (docs/PROTOCOL.md 7.3).

One request is outstanding, at one peer. Its reply brings a bounded number of blocks; without a reply in time
another peer is asked. Serving has bounds of its own, by which no asker makes a node send more than a share of
its line, and which an asker that follows the rules of this module never meets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from attrs import define, field, frozen

from protocol.events import BlocksRead, CancelTimer, Millis, PeerId, ReadBlocks, SetTimer
from protocol.ledger.state import LedgerState
from protocol.messages import BlockRequest, Blocks, Kind
from protocol.outbox import Outbox

REPLY_BYTES = 256 << 10
MAX_BLOCKS = 64
"""What one reply brings at most; its first block is in it whatever its size."""

ASKED_PER_INTERVAL = 8
"""Requests that an asker makes of one peer within any repair interval."""
SERVED_PER_INTERVAL = 2 * ASKED_PER_INTERVAL
"""Replies that a peer is given within one repair interval: clocks run unlike, and windows overlap."""

LONGEST_WAIT = 4
"""A time-out is one repair interval, doubled at most so often."""
FORGOTTEN_AFTER = 5
"""After so many failures in a row a peer's word about its height counts no more until it is given again."""
WORST = 16
"""Failures are counted up to here."""
FAR = 8
"""A node whose last reply brought so many blocks, and which asks for more, is catching up."""

BLOCKS_A_TURN = 8
"""That are checked and applied in one event: a node that catches up hears others in between."""

TIMER = "sync"
APPLY_TIMER = "apply"


@define
class _Provider:
    """What is known of one peer as a source of blocks.

    `told`: the greatest height that it was told to have. `failures`: over all, by which peers are ranked;
    `strikes`: in a row, by which it is left alone for a while. `answer_ms`: how long its last reply took.
    `expected`: the height from which on a reply of it would be welcome, None where none is. `taken_up`: that
    of a reply that came and is not judged yet.
    """

    told: int = 0
    failures: int = 0
    strikes: int = 0
    answer_ms: Millis = 0
    rests_until_ms: Millis | None = None
    expected: int | None = None
    taken_up: int | None = None
    asked_ms: deque[Millis] = field(factory=lambda: deque(maxlen=ASKED_PER_INTERVAL))


@frozen
class _Reply:
    """A reply that ended before the height that its sender had told."""

    peer: PeerId
    end: int
    size: int
    count: int


class Sync:
    """One node's requests for blocks. `state()` is the current one, `draw(n)` gives a number below n.

    Deterministic in what is heard, in the times and in `draw`.
    """

    def __init__(
        self,
        outbox: Outbox,
        state: Callable[[], LedgerState],
        interval_ms: Millis,
        draw: Callable[[int], int],
    ) -> None:
        self._outbox = outbox
        self._state = state
        self._interval_ms = interval_ms
        self._draw = draw
        self._providers: dict[PeerId, _Provider] = {}
        self._outstanding: PeerId | None = None
        self._short: _Reply | None = None
        self._brought = 0

    @property
    def outstanding(self) -> PeerId | None:
        """The peer that has been asked and has not answered yet."""
        return self._outstanding

    @property
    def is_catching_up(self) -> bool:
        """Return whether this node is far behind: real blocks came, many at once, and more are asked for.

        It rests on blocks that were checked, not on anybody's word, so no liar puts a node to rest.
        """
        return self._outstanding is not None and self._brought >= FAR

    def providers(self) -> int:
        """Return of how many peers something is remembered."""
        return len(self._providers)

    # -- hearing -------------------------------------------------------------------------------

    def note(self, peer: PeerId, height: int) -> None:
        """Remember that a peer was told to have the block of this height."""
        provider = self._providers.setdefault(peer, _Provider())
        provider.told = max(provider.told, height)

    def heard(self, peer: PeerId, height: int, now: Millis) -> None:
        """Remember it, and ask for blocks unless a request is outstanding."""
        self.note(peer, height)
        self.ask(now)

    def lost(self, peer: PeerId, now: Millis) -> None:
        """The connection to a peer is gone: its word is to be given again, and somebody else is asked."""
        provider = self._providers.get(peer)
        if provider is None:
            return
        provider.told, provider.expected = 0, None
        if self._outstanding == peer and provider.taken_up is None:
            self._fail(peer, now)
            self.ask(now)

    # -- asking --------------------------------------------------------------------------------

    def ask(self, now: Millis) -> None:
        """Ask the best peer for the next blocks, if any is known to have them and none is asked already."""
        if self._outstanding is not None:
            return
        state = self._state()
        willing = {peer: p for peer, p in sorted(self._providers.items()) if p.told > state.height}
        if not willing:
            return
        # Whoever failed waits for those who did not, also where these are to be left alone for a moment.
        rested = [p for p in willing.values() if p.rests_until_ms is None or p.rests_until_ms <= now]
        fewest = min(provider.failures for provider in rested or willing.values())
        best = {peer: provider for peer, provider in willing.items() if provider.failures == fewest}
        free = {peer: p for peer, p in best.items() if self._free_at(p, now) <= now}
        if not free:
            soonest = min(self._free_at(provider, now) for provider in best.values())
            self._outbox.add(SetTimer(TIMER, soonest - now))
            return
        quickest = min(map(self._slowness, free.values()))
        equals = [peer for peer, provider in free.items() if self._slowness(provider) == quickest]
        self._request(equals[self._draw(len(equals)) if len(equals) > 1 else 0], state, now)

    def _free_at(self, provider: _Provider, now: Millis) -> Millis:
        """Return when a peer may be asked: after its rest, and within its allowance of requests."""
        free_ms = now if provider.rests_until_ms is None else provider.rests_until_ms
        if len(provider.asked_ms) == ASKED_PER_INTERVAL:
            free_ms = max(free_ms, provider.asked_ms[0] + self._interval_ms)
        return free_ms

    def _slowness(self, provider: _Provider) -> int:
        """Return how long the last reply took: quarters of an interval, in powers of two."""
        return (4 * provider.answer_ms // self._interval_ms).bit_length()

    def _request(self, peer: PeerId, state: LedgerState, now: Millis) -> None:
        provider = self._providers[peer]
        self._outstanding = peer
        provider.expected = state.height + 1
        provider.asked_ms.append(now)
        self._outbox.send(peer, state.round, Kind.BLOCK_REQUEST, BlockRequest(state.height + 1))
        self._outbox.add(SetTimer(TIMER, self._patience_ms(provider)))

    def _patience_ms(self, provider: _Provider) -> Millis:
        """Return the time-out: longer for a peer that failed before, or whose last reply took long."""
        wait_ms = max(self._interval_ms << min(provider.strikes, LONGEST_WAIT), 2 * provider.answer_ms)
        return min(wait_ms, self._interval_ms << LONGEST_WAIT)

    def on_timer(self, now: Millis) -> None:
        """No reply came in time, or a peer's rest is over: ask again, the one that failed last of all."""
        if self._outstanding is not None:
            self._fail(self._outstanding, now)
        self.ask(now)

    def _fail(self, peer: PeerId, now: Millis) -> None:
        """Count a failure; the peer rests longer each time, if there is nobody else from the second on."""
        provider = self._providers[peer]
        provider.failures = min(provider.failures + 1, WORST)
        provider.strikes = min(provider.strikes + 1, WORST)
        rest = (1 << min(provider.strikes - 1, LONGEST_WAIT)) - 1
        provider.rests_until_ms = now + rest * self._interval_ms
        if provider.strikes >= FORGOTTEN_AFTER:
            provider.told = 0
        if self._outstanding == peer:
            self._outstanding, self._brought = None, 0
            self._outbox.add(CancelTimer(TIMER))

    # -- replies -------------------------------------------------------------------------------

    def welcome(self, peer: PeerId, now: Millis) -> bool:
        """Return whether a reply of this peer is expected, on time or late; another one then is not.

        Its time-out is over: what follows is up to this node, and ends with `replied`.
        """
        provider = self._providers.get(peer)
        if provider is None or provider.expected is None or provider.taken_up is not None:
            return False
        provider.taken_up, provider.expected = provider.expected, None
        if self._outstanding == peer:
            self._outbox.add(CancelTimer(TIMER))
        provider.answer_ms = now - provider.asked_ms[-1] if provider.asked_ms else 0
        return True

    def took_block(self, height: int, size: int) -> None:
        """A block of a reply was taken: whoever could have sent it before, and did not, has held it back."""
        short, self._short = self._short, None
        if short is not None and short.end + 1 == height and short.size + size <= REPLY_BYTES:
            provider = self._providers[short.peer]
            provider.failures = min(provider.failures + 1, WORST)

    def replied(self, peer: PeerId, sizes: tuple[int, ...], taken: int, *, sound: bool, now: Millis) -> None:
        """Judge a welcome reply of blocks of these sizes, `taken` of which were taken; then go on.

        `sound`: no block of it was refused. A reply that brought nothing, while the node still lacks what it
        asked for, is a failure like none at all.
        """
        provider, height = self._providers[peer], self._state().height
        expected, provider.taken_up = provider.taken_up, None
        useful = expected is not None and height >= expected
        if not sound or not useful:
            self._fail(peer, now)
        else:
            provider.strikes, provider.rests_until_ms = 0, None
            if self._outstanding == peer:
                self._outstanding, self._brought = None, taken
                self._outbox.add(CancelTimer(TIMER))
            if taken and height < provider.told and len(sizes) < MAX_BLOCKS:
                self._short = _Reply(peer, height, sum(sizes), len(sizes))
        self.ask(now)


@define
class _Served:
    """What one peer was given: replies since `since_ms`, and the end of the last one."""

    since_ms: Millis = 0
    replies: int = 0
    last_height: int = 0
    last_ms: Millis | None = None
    reading: bool = False


class Serving:
    """One node's replies to requests for blocks: bounded for each peer, whatever it asks.

    A peer has one reply at a time, `SERVED_PER_INTERVAL` a repair interval, and no block a second time within
    half an interval. Asking for more costs nothing and brings nothing.
    """

    def __init__(self, outbox: Outbox, state: Callable[[], LedgerState], interval_ms: Millis) -> None:
        self._outbox = outbox
        self._state = state
        self._interval_ms = interval_ms
        self._served: dict[PeerId, _Served] = {}

    def peers(self) -> int:
        """Return of how many peers something is remembered."""
        return len(self._served)

    def on_request(self, peer: PeerId, first_height: int, now: Millis) -> None:
        """Have consecutive final blocks read, as many as fit one reply, if the peer may have them now."""
        last_height = min(first_height + MAX_BLOCKS - 1, self._state().height)
        if first_height <= last_height and self._allows(peer, first_height, now):
            self._served[peer].reading = True
            self._outbox.add(ReadBlocks(peer, first_height, last_height, REPLY_BYTES))

    def _allows(self, peer: PeerId, first_height: int, now: Millis) -> bool:
        served = self._served.setdefault(peer, _Served(now))
        if served.reading:
            return False
        if (
            served.last_ms is not None
            and first_height <= served.last_height
            and now - served.last_ms < self._interval_ms // 2
        ):
            return False
        if now - served.since_ms >= self._interval_ms:
            served.since_ms, served.replies = now, 0
        if served.replies >= SERVED_PER_INTERVAL:
            return False
        served.replies += 1
        return True

    def on_blocks_read(self, event: BlocksRead, now: Millis) -> None:
        """Send the blocks that were read to the peer that asked for them."""
        served = self._served.setdefault(event.peer, _Served(now))
        served.reading = False
        if event.blocks:
            served.last_height, served.last_ms = event.first_height + len(event.blocks) - 1, now
            self._outbox.send(event.peer, self._state().round, Kind.BLOCKS, Blocks(event.blocks))


def sizes_of(blocks: Iterable[bytes]) -> tuple[int, ...]:
    """Return the sizes of encoded blocks, in bytes."""
    return tuple(map(len, blocks))
