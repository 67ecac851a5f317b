"""The node's queue: order, answers that are revoked in time, floods that do not fill the memory."""

import asyncio

import pytest

from flocknode import inbox as inbox_module
from flocknode.inbox import Inbox
from protocol.events import PeerDown, PeerUp, Received, TimerFired

PEER, OTHER = b"p" * 32, b"o" * 32


async def drain(inbox: Inbox) -> list[object]:
    """All that is given up to here."""
    end = PeerDown(bytes(32))
    inbox.put(end)
    events: list[object] = []
    while (event := await inbox.get()) is not end:
        events.append(event)
    return events


async def test_events_come_in_order_and_wake_the_reader() -> None:
    inbox = Inbox()
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put(PeerUp(PEER))
    inbox.put_answer("t", TimerFired("t"))
    assert inbox.put_message(Received(PEER, b"x"))
    assert await reader == PeerUp(PEER)
    assert await drain(inbox) == [TimerFired("t"), Received(PEER, b"x")]
    assert len(inbox) == 0


async def test_a_revoked_answer_is_not_given_and_a_later_one_of_its_slot_is() -> None:
    inbox = Inbox()
    inbox.put_answer("t", TimerFired("t"))
    inbox.put_answer("u", TimerFired("u"))
    inbox.revoke("t")
    inbox.revoke("unknown")
    inbox.put(PeerUp(PEER))
    inbox.put_answer("t", TimerFired("t"))
    assert await drain(inbox) == [TimerFired("u"), PeerUp(PEER), TimerFired("t")]


async def test_an_answer_is_given_once_even_if_it_came_twice() -> None:
    inbox = Inbox()
    inbox.put_answer("t", TimerFired("t"))
    inbox.put_answer("t", TimerFired("t"))
    assert await drain(inbox) == [TimerFired("t")]
    inbox.revoke("t")
    assert await drain(inbox) == []


async def test_one_peer_cannot_fill_the_queue_and_the_others_are_not_hindered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_BYTES", 1000)
    inbox = Inbox()
    taken = [inbox.put_message(Received(PEER, bytes(300))) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    assert inbox.put_message(Received(OTHER, bytes(1000)))
    assert not inbox.put_message(Received(OTHER, bytes(1)))
    await inbox.get()
    assert inbox.put_message(Received(PEER, bytes(300)))
    assert len(await drain(inbox)) == 4
    assert inbox.put_message(Received(PEER, bytes(1000)))


@pytest.mark.parametrize("sizes", [[0, 0], [0], [0, 1, 0], [1, 0, 1], [1, 1]])
async def test_messages_of_no_bytes_are_counted_and_forgotten_like_others(sizes: list[int]) -> None:
    """With bytes alone to go by, the entry went with the first empty message, and the second had none."""
    inbox = Inbox()
    messages = [Received(PEER, bytes(size)) for size in sizes]
    assert all(inbox.put_message(message) for message in messages)
    assert inbox.waiting(PEER) == (len(sizes), sum(sizes))
    assert await drain(inbox) == messages
    assert inbox.waiting(PEER) == (0, 0)


async def test_a_flood_of_empty_messages_is_bounded_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_MESSAGES", 3)
    inbox = Inbox()
    assert [inbox.put_message(Received(PEER, b"")) for _ in range(5)] == [True, True, True, False, False]
    assert inbox.put_message(Received(OTHER, b""))
    assert len(inbox) == 4
    with pytest.raises(TypeError, match="put_message"):
        inbox.put(Received(PEER, b""))
