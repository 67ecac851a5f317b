"""Whatever goes wrong on one link to one peer ends that link and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import define, field

from flocknode.transport.libp2p_quiet import import_libp2p

import_libp2p()

from libp2p.network.stream.exceptions import StreamEOF  # noqa: E402

from flocknode.transport.base import Counters  # noqa: E402
from flocknode.transport.libp2p_link import Link  # noqa: E402
from flocknode.transport.libp2p_options import Libp2pOptions  # noqa: E402


@define(eq=False)
class _Owner:
    """Notes what a link says of itself, as its owner and as its dispatcher."""

    down: list[str | None] = field(factory=list)

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link) -> None:
        self.down.append(link.ended)

    def offended(self, peer: bytes, reason: str) -> None: ...


def new_link(owner: Any) -> Link:
    return Link(bytes(32), object(), True, owner, Libp2pOptions(), Counters(), owner)


async def hangs_up_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise StreamEOF


async def both_fail() -> None:
    """One task sees the peer's end of the stream while another is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(hangs_up_when_cancelled)


def test_a_peer_that_hangs_up_while_its_link_is_cancelled_ends_no_more_than_the_link() -> None:
    async def main() -> list[str | None]:
        owner = _Owner()
        link = new_link(owner)
        async with trio.open_nursery() as nursery:  # the host's
            with trio.CancelScope() as scope:
                nursery.start_soon(trio.lowlevel.checkpoint)
                scope.cancel()
                await link.contain(both_fail)
            assert scope.cancelled_caught
        return owner.down

    assert trio.run(main) == ["closed by the peer"]


def test_an_error_beside_no_cancellation_is_contained_too() -> None:
    async def main() -> list[str | None]:
        owner = _Owner()

        async def fails() -> None:
            async with trio.open_nursery():
                raise ValueError("odd")

        await new_link(owner).contain(fails)
        return owner.down

    assert trio.run(main) == ["ValueError: odd"]


def test_what_is_no_error_of_a_link_passes() -> None:
    async def main() -> None:
        async def interrupted() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hangs_up_when_cancelled)
                raise KeyboardInterrupt

        await new_link(_Owner()).contain(interrupted)

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main)
    assert [type(error) for error in caught.value.exceptions] == [KeyboardInterrupt]
