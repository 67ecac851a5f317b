"""The second way to broadcast: gossipsub, for networks too large to push to every member.

Delivery is best effort and unordered; a message reaches a node once, signed by its origin, whoever forwarded
it. What libp2p's defaults would do to this network: a mesh mended every two minutes, ten messages per second
and topic, three IP addresses demanded of every mesh. What its code would do: let one malformed RPC end the
host, drop messages at a reader 32 behind, reuse sequence numbers after a restart, and mix the bytes of two
long messages on one stream.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub

from flocknode.transport.base import MAX_MESSAGE_BYTES, Counters, Dispatcher
from flocknode.transport.libp2p_admission import Roster, peer_of
from flocknode.transport.libp2p_options import Libp2pOptions
from protocol.keys import PeerId

_log = logging.getLogger(__name__)

TOPIC = "flocknode"
_DEGREE, _DEGREE_LOW, _DEGREE_HIGH = 8, 6, 12
_HEARTBEAT_S = 1
_SEEN_S = 300
_MAX_RPC_BYTES = MAX_MESSAGE_BYTES + 2**16  # one message, its signature and the sender's peer record
_MAX_SUBSCRIPTIONS = 8
_QUEUED_RPCS = 256

Offend = Callable[[PeerId, str], None]
"""Ends the link to a peer and counts why."""


@contextmanager
def _contained(counters: Counters) -> Iterator[None]:
    """For what libp2p runs as a task of its service, where an exception would end the host."""
    try:
        yield
    except Exception:
        counters.reject("gossip-error")
        _log.warning("gossipsub failed on a message", exc_info=True)


class _Router(GossipSub):  # type: ignore[misc]
    """Gossipsub with the parameters of a network of known members."""

    def __init__(self, counters: Counters) -> None:
        super().__init__(
            [PROTOCOL_ID_V11],
            degree=_DEGREE,
            degree_low=_DEGREE_LOW,
            degree_high=_DEGREE_HIGH,
            heartbeat_interval=_HEARTBEAT_S,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        self._counters = counters

    async def on_peer_subscribed(self, peer_id: Any, topic: str) -> None:
        with _contained(self._counters):
            await super().on_peer_subscribed(peer_id, topic)

    async def flush_pending_messages(self, peer_id: Any) -> None:
        with _contained(self._counters):
            await super().flush_pending_messages(peer_id)

    def _handle_dropped_rpc(self, peer_id: Any, rpc: Any, reason: str) -> None:
        self._counters.reject("gossip-dropped")
        super()._handle_dropped_rpc(peer_id, rpc, reason)


class _MemberPubsub(Pubsub):  # type: ignore[misc]
    """Pubsub that no message can end, delivering straight to the node."""

    def __init__(
        self,
        host: Any,
        router: _Router,
        deliver: Callable[[Any], None],
        counters: Counters,
        offend: Offend,
        write_timeout_s: float,
    ) -> None:
        super().__init__(
            host,
            router,
            seen_ttl=_SEEN_S,
            strict_signing=True,
            max_subscriptions_per_rpc=_MAX_SUBSCRIPTIONS,
            max_inbound_rpc_size=_MAX_RPC_BYTES,
            allowed_topics={TOPIC},
        )
        # Counting from the time in seconds, a node that sends more than one message per second and restarts
        # would repeat sequence numbers, and its new messages be dropped as seen.
        self.counter = time.time_ns()
        self._deliver, self._counters, self._offend = deliver, counters, offend
        self._write_timeout_s = write_timeout_s
        self._writing: dict[Any, trio.Lock] = {}

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        with _contained(self._counters):
            await super().push_msg(msg_forwarder, msg)

    def notify_subscriptions(self, publish_message: Any) -> None:
        self._deliver(publish_message)

    async def continuously_read_stream(self, stream: Any) -> None:
        try:
            await super().continuously_read_stream(stream)
        except Exception:
            _log.debug("reading gossip failed", exc_info=True)
            peer = peer_of(stream.muxed_conn.peer_id)
            if peer is not None:
                self._offend(peer, "malformed-gossip")

    async def handle_sending_messages(self, peer_id: Any, stream: Any, queue: Any) -> None:
        queue.max_message_size = _MAX_RPC_BYTES
        queue._queue.max_size = _QUEUED_RPCS
        lock = self._writing[stream] = trio.Lock()
        try:
            await super().handle_sending_messages(peer_id, stream, queue)
        finally:
            if self._writing.get(stream) is lock:
                del self._writing[stream]

    async def write_msg(self, stream: Any, rpc_msg: Any) -> bool:
        """One RPC at a time: several tasks write to a stream, and a long write is many frames."""
        peer = peer_of(stream.muxed_conn.peer_id)
        with trio.move_on_after(self._write_timeout_s) as limit:
            async with self._writing.setdefault(stream, trio.Lock()):
                written: bool = await super().write_msg(stream, rpc_msg)
        if peer is None:
            return False
        if limit.cancelled_caught:
            self._offend(peer, "write-timeout")
            return False
        if written:
            for message in rpc_msg.publish:
                self._counters.message_out(peer, len(message.data))
        return written


class Gossip:
    """Broadcasts over gossipsub on a host's connections."""

    def __init__(
        self,
        host: Any,
        roster: Roster,
        options: Libp2pOptions,
        counters: Counters,
        dispatcher: Dispatcher,
        offend: Offend,
    ) -> None:
        self._own = host.get_id().to_bytes()
        self._roster, self._counters, self._dispatcher = roster, counters, dispatcher
        self._limit_bytes = options.outbox_bytes
        self._router = _Router(counters)
        self._pubsub = _MemberPubsub(
            host, self._router, self._received, counters, offend, options.write_timeout_s
        )
        self._pubsub.set_topic_validator(TOPIC, self._valid, False)
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()

    @property
    def services(self) -> tuple[Any, Any]:
        """The libp2p services to run, in the order in which they start."""
        return self._router, self._pubsub

    def publish(self, message: bytes) -> bool:
        """Queue a message; False when too much is queued already."""
        if self._queued_bytes + len(message) > self._limit_bytes:
            self._counters.reject("outbox-overflow")
            return False
        self._queue.append(message)
        self._queued_bytes += len(message)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Join the topic and publish what is queued."""
        await self._pubsub.wait_until_ready()
        await self._pubsub.subscribe(TOPIC)
        while True:
            while not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
            message = self._queue.popleft()
            self._queued_bytes -= len(message)
            with _contained(self._counters):
                await self._pubsub.publish(TOPIC, message)

    async def forget(self, peer_id: Any) -> None:
        """Drop the stream to a peer whose link has ended.

        libp2p is told 0.2 s later; who has come back by then would keep a stream that leads nowhere.
        """
        with _contained(self._counters):
            self._pubsub._handle_dead_peer(peer_id)

    def close(self) -> None:
        """End the thread of libp2p's cache of seen messages."""
        self._pubsub.seen_messages.stop()

    def _valid(self, forwarder: Any, message: Any) -> bool:
        """Only members' messages of a permitted size are delivered or passed on."""
        if message.from_id == self._own:
            return True
        refusal = self._roster.refusal(peer_of(ID(message.from_id)))
        if len(message.data) > MAX_MESSAGE_BYTES:
            refusal = "oversize"
        if refusal is not None:
            self._counters.reject(refusal)
        return refusal is None

    def _received(self, message: Any) -> None:
        origin = peer_of(ID(message.from_id))
        if origin is not None and message.from_id != self._own:
            self._dispatcher.received(origin, message.data)
