"""A libp2p peer that keeps none of this project's rules: a stock host, in a thread of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from multiaddr import Multiaddr
from transport_network import Network, Node, identity, until

from flocknode.transport.base import Member
from flocknode.transport.libp2p_admission import key_pair, libp2p_id
from flocknode.transport.libp2p_link import MESSAGE_PROTOCOL
from protocol.keys import Identity, PeerId

Attack = Callable[[Any, Any], Awaitable[None]]
LIMIT_S = 20.0
NOWHERE = "/ip4/127.0.0.1/tcp/1"
ATTACKER = identity(1)  # the lowest peer id dials, so its victims leave that to it


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def attack(attacker: Identity, victim: PeerId, address: str, run: Attack) -> None:
    """Dial the victim and run `run(host, connection)`; raises what that raises.

    The attacker accepts the victim's message stream, so that the victim holds a link, and reads none of it.
    """

    async def swallow(stream: Any) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        keys = key_pair(attacker)
        noise = NoiseTransport(keys, new_noise_key_pair().private_key)
        host = new_host(key_pair=keys, sec_opt={NOISE_PROTOCOL: noise})
        host.set_stream_handler(MESSAGE_PROTOCOL, swallow)
        async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            with trio.fail_after(LIMIT_S):
                await run(host, await dial(host, victim, address))

    try:
        await asyncio.to_thread(trio.run, main)
    except BaseExceptionGroup as error:
        raise _first_of(error) from None


async def dial(host: Any, victim: PeerId, address: str) -> Any:
    """A connection, at the first attempt."""
    network = host.get_network()
    network.retry_config.max_retries = 0
    network.set_resource_manager(None)  # it would limit the attacker
    return await network.dial_addr(Multiaddr(address), libp2p_id(victim))


async def open_stream(connection: Any, protocol: str) -> Any:
    stream = await connection.new_stream()
    await MultiselectClient().select_one_of([protocol], MultiselectCommunicator(stream), 5)
    return stream


async def until_closed(connection: Any) -> None:
    """Wait until the victim has closed the connection."""
    await connection.muxed_conn.event_closed.wait()


async def besieged(net: Network, **limits: Any) -> tuple[Node, Node]:
    """A victim that knows the attacker as a member, and an honest node linked to it."""
    victim, honest = await net.add(2, **limits), await net.add(3)
    await net.linked([victim, honest])
    members = [victim.member, honest.member, Member(ATTACKER.peer, NOWHERE)]
    victim.transport.set_members(members)
    return victim, honest


async def unharmed(victim: Node, honest: Node) -> None:
    """The honest node never noticed: no restart, the same link, messages both ways."""
    assert victim.transport.stats().restarts == 0
    for sender, receiver in ((victim, honest), (honest, victim)):
        count = len(receiver.handler.messages(sender.peer))
        assert sender.transport.broadcast(b"still here") >= 1
        await until(lambda r=receiver, s=sender, c=count: len(r.handler.messages(s.peer)) > c)
    assert victim.handler.changes(honest.peer) == honest.handler.changes(victim.peer) == ["up"]
