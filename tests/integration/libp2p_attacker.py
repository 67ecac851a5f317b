"""A libp2p peer that keeps none of this project's rules: a stock host in a thread of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p import new_host
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key_pair
from multiaddr import Multiaddr

from flocknode.transport.libp2p_admission import key_pair, libp2p_id
from protocol.keys import Identity, PeerId

Attack = Callable[[Any, Any], Awaitable[None]]


async def attack(attacker: Identity, victim: PeerId, address: str, run: Attack, dial: bool = True) -> None:
    """Run `run(host, connection)` in another thread; raises what that raises."""

    async def main() -> None:
        keys = key_pair(attacker)
        noise = NoiseTransport(keys, new_noise_key_pair().private_key)
        host = new_host(key_pair=keys, sec_opt={NOISE_PROTOCOL: noise})
        async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            network = host.get_network()
            network.retry_config.max_retries = 0
            connection = await network.dial_addr(Multiaddr(address), libp2p_id(victim)) if dial else None
            await run(host, connection)

    await asyncio.to_thread(trio.run, main)


async def open_stream(connection: Any, protocol: str) -> Any:
    stream = await connection.new_stream()
    await MultiselectClient().select_one_of([protocol], MultiselectCommunicator(stream), 5)
    return stream


async def until_closed(connection: Any, limit_s: float = 10.0) -> None:
    """Wait until the victim has closed the connection."""
    with trio.fail_after(limit_s):
        await connection.muxed_conn.event_closed.wait()
