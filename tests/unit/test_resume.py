"""A stored ledger is taken up from its snapshot, streaming, without its signatures; and never if damaged."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from flocknode.observe.log import make_logger
from flocknode.startup import InterruptedStartError, start_event
from flocknode.store import Store, StoreError
from protocol import durable, keys
from protocol.codec import decode, encode
from protocol.engine import Engine
from protocol.events import Effect, Persist, Start
from protocol.ledger.block import BlockKind, StoredBlock
from protocol.ledger.chain import Chain, ChainError
from protocol.ledger.resume import LedgerPosition, encode_snapshot, resume, start_from
from protocol.params import Genesis
from sim.founding import build_world
from sim.invariants.conduct import Conduct
from sim.invariants.holdings import Holdings
from sim.invariants.resumption import Resumption
from sim.node import Node
from sim.scenes import Scene
from sim.world import World


@frozen(eq=False)
class Stored:
    """What a node has stored after three rounds and a part of a fourth, and where full checks say it ends."""

    genesis: Genesis
    blocks: list[bytes]
    snapshot: bytes
    end: LedgerPosition
    scene: Scene

    @property
    def taken_at(self) -> int:
        """The height of the snapshot."""
        return decode(LedgerPosition, self.snapshot, durable.RECORD_BYTES).state.height


@pytest.fixture(scope="module")
def stored() -> Stored:
    scene = Scene(nodes=4, seed=2)
    for round_ in (1, 2, 3):
        scene.end_round(round_)
    node = scene.world.nodes[0]
    taken_at = node.height
    scene.world.run(lambda _: node.height >= taken_at + 2, max_virtual_ms=60_000)
    blocks = [data for _, data in sorted(node.records[durable.BLOCK].items())]
    chain = Chain.at_genesis(scene.founding.genesis)
    for data in blocks:
        chain.append(decode(StoredBlock, data, 1 << 20))
    snapshot = node.records[durable.SNAPSHOT][durable.SNAPSHOT_KEY]
    return Stored(scene.founding.genesis, blocks, snapshot, LedgerPosition(chain.head, chain.state), scene)


def test_a_ledger_ends_where_full_checks_say_with_and_without_its_snapshot(stored: Stored) -> None:
    assert 0 < stored.taken_at < len(stored.blocks)
    assert resume(stored.genesis, stored.snapshot, stored.blocks) == stored.end
    assert resume(stored.genesis, None, stored.blocks) == stored.end


def test_an_empty_store_ends_at_genesis(stored: Stored) -> None:
    chain = Chain.at_genesis(stored.genesis)
    assert resume(stored.genesis, None, []) == LedgerPosition(chain.head, chain.state)


def test_no_signature_is_checked_and_only_blocks_behind_the_snapshot_are_applied(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[int] = []
    append = Chain.append

    def counted(self: Chain, block: StoredBlock) -> object:
        applied.append(block.block.height)
        return append(self, block)

    def refuse(*_: object) -> bool:
        raise AssertionError("a signature is checked")

    monkeypatch.setattr(Chain, "append", counted)
    monkeypatch.setattr(keys, "verify", refuse)
    assert resume(stored.genesis, stored.snapshot, stored.blocks) == stored.end
    assert applied == list(range(stored.taken_at + 1, len(stored.blocks) + 1))


def test_blocks_are_read_one_after_the_other_and_none_is_kept(stored: Stored) -> None:
    fresh = [bytes(bytearray(data)) for data in stored.blocks]
    unused = sys.getrefcount(fresh[0])
    most = 0

    def streamed() -> Iterator[bytes]:
        nonlocal most
        for place in range(len(fresh)):
            most = max(most, sum(sys.getrefcount(fresh[i]) > unused for i in range(place)))
            yield fresh[place]

    resume(stored.genesis, stored.snapshot, streamed())
    assert most <= 1
    assert [sys.getrefcount(fresh[i]) for i in range(len(fresh))] == [unused] * len(fresh)


def _changed(data: bytes, **changes: Any) -> bytes:
    stored = decode(StoredBlock, data, 1 << 20)
    return encode(evolve(stored, block=evolve(stored.block, **changes)))


@pytest.mark.parametrize("place", [0, 3, -1])
def test_a_changed_block_is_refused_with_its_height(stored: Stored, place: int) -> None:
    blocks = list(stored.blocks)
    blocks[place] = _changed(blocks[place], state_root=bytes(32))
    height = 1 + range(len(blocks))[place]
    with pytest.raises(ChainError, match=f"block {height}: the certificate is of another block"):
        resume(stored.genesis, stored.snapshot, blocks)


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_a_missing_block_is_refused_with_its_height(stored: Stored, with_snapshot: bool) -> None:
    snapshot = stored.snapshot if with_snapshot else None
    blocks = [*stored.blocks[:4], *stored.blocks[5:]]
    with pytest.raises(ChainError, match="block 5: missing"):
        resume(stored.genesis, snapshot, blocks)


def test_blocks_that_end_before_the_snapshot_are_refused(stored: Stored) -> None:
    with pytest.raises(ChainError, match=f"block 4: missing: the snapshot is of block {stored.taken_at}"):
        resume(stored.genesis, stored.snapshot, stored.blocks[:3])


def test_a_block_that_is_none_is_refused_with_its_height(stored: Stored) -> None:
    with pytest.raises(ChainError, match="block 3: "):
        resume(stored.genesis, stored.snapshot, [*stored.blocks[:2], b"none", *stored.blocks[3:]])


def test_the_ledger_of_another_network_is_refused(stored: Stored) -> None:
    with pytest.raises(ChainError, match="block 1: does not extend"):
        resume(evolve(stored.genesis, name="another"), stored.snapshot, stored.blocks)


def test_a_snapshot_that_does_not_match_its_block_is_refused(stored: Stored) -> None:
    position = decode(LedgerPosition, stored.snapshot, durable.RECORD_BYTES)
    richer = evolve(position.state, treasury_units=position.state.treasury_units + 1)
    for snapshot in (encode_snapshot(position.head, richer), encode_snapshot(bytes(32), position.state)):
        with pytest.raises(ChainError, match=f"block {stored.taken_at}: the snapshot"):
            resume(stored.genesis, snapshot, stored.blocks)
    with pytest.raises(ChainError, match="snapshot of the ledger's state is damaged"):
        resume(stored.genesis, stored.snapshot[:-1], stored.blocks)


def test_a_block_behind_the_snapshot_that_breaks_a_rule_is_refused(stored: Stored) -> None:
    """Its certificate names it, so it is the rules that refuse it."""
    last = decode(StoredBlock, stored.blocks[-1], 1 << 20)
    block = evolve(last.block, state_root=bytes(32))
    vote = evolve(last.certificate.vote, block_hash=block.hash)
    forged = encode(StoredBlock(block, evolve(last.certificate, vote=vote)))
    with pytest.raises(ChainError, match=f"block {len(stored.blocks)}: state_root"):
        resume(stored.genesis, stored.snapshot, [*stored.blocks[:-1], forged])


def test_an_engine_never_begins_at_genesis_over_stored_blocks(stored: Stored) -> None:
    identity = stored.scene.founding.identities[0]
    engine = Engine(identity, stored.genesis, bytes)
    with pytest.raises(ValueError, match="starts where they end"):
        engine.handle(Start({durable.BLOCK: {durable.height_key(1): stored.blocks[0]}}), 0)


def test_an_engine_stands_where_its_ledger_ends(stored: Stored) -> None:
    engine = Engine(stored.scene.founding.identities[0], stored.genesis, bytes)
    node = stored.scene.world.nodes[0]
    engine.handle(start_from(stored.genesis, node.records, frozenset(node.blobs)), 0)
    assert (engine.head, engine.state) == (stored.end.head, stored.end.state)


def test_a_crash_at_any_effect_of_a_rounds_end_loses_nothing() -> None:
    """Between a block and its snapshot, a blob and its record, elsewhere: a node is back where it was."""
    crashed_behind: set[str] = set()
    for place in range(24):
        world = build_world(4, place, invariants=[Resumption(), Holdings(), Conduct()], keep_trace=0)
        crash_in_round_end(world, world.nodes[place % 4], place, crashed_behind)
        goal = max(node.height for node in world.nodes) + 8
        world.run(lambda world, goal=goal: min(n.height for n in world.nodes) >= goal, max_virtual_ms=180_000)  # type: ignore[misc]
    assert {"block", "snapshot", "blob", "DropBlob"} <= crashed_behind


def crash_in_round_end(world: World, victim: Node, place: int, crashed_behind: set[str]) -> None:
    """Crash a node `place` effects after the block that ends its second round, and wait until it is back."""
    behind: list[Effect] = []

    def watch(node: Node, effect: Effect) -> None:
        if node is not victim or node.life > 0:
            return
        is_end = isinstance(effect, Persist) and effect.bucket == durable.BLOCK and effect.value is not None
        if behind or (is_end and ends_round(effect, 2)):
            behind.append(effect)
        if len(behind) == place + 1:
            name = effect.bucket if isinstance(effect, Persist) else type(effect).__name__
            crashed_behind.add(name)
            world.crash(node.index, restart_ms=50)

    world.watch = watch
    world.run(lambda _: victim.life == 1 and victim.alive, max_virtual_ms=180_000)


def ends_round(effect: Effect, round_: int) -> bool:
    assert isinstance(effect, Persist)
    assert effect.value is not None
    block = decode(StoredBlock, effect.value, 1 << 20).block
    return block.round == round_ and block.kind in {BlockKind.OUTCOME, BlockKind.ABORT}


# -- the shell's part ------------------------------------------------------------------------------


async def _take_up(
    directory: Path,
    stored: Stored,
    blocks: Iterable[bytes],
    stop: asyncio.Event | None = None,
    resume_: Any = None,
) -> Start:
    store = await Store.open(directory)
    try:
        batch = [Persist(durable.BLOCK, durable.height_key(h), b) for h, b in enumerate(blocks, 1)]
        await store.commit([*batch, Persist(durable.SNAPSHOT, durable.SNAPSHOT_KEY, stored.snapshot)])
        log = make_logger([io.StringIO()], "n", "info")
        return await start_event(
            store, resume_ or partial(resume, stored.genesis), frozenset(), log, stop or asyncio.Event()
        )
    finally:
        await store.close()


async def test_a_start_carries_where_the_ledger_ends_and_not_its_blocks(
    tmp_path: Path, stored: Stored
) -> None:
    start = await _take_up(tmp_path, stored, stored.blocks)
    assert start == Start({}, frozenset(), stored.end)


async def test_a_damaged_ledger_is_refused_with_file_height_and_reason(
    tmp_path: Path, stored: Stored
) -> None:
    with pytest.raises(StoreError, match=r"ledger\.db: damaged: block 4: missing"):
        await _take_up(tmp_path, stored, stored.blocks[:3])


async def test_a_stop_is_heard_while_the_ledger_is_read(tmp_path: Path, stored: Stored) -> None:
    """However many blocks there are: the loop turns while they are read, and reading ends at once."""
    stop, loop, read = asyncio.Event(), asyncio.get_running_loop(), 0

    def endless(snapshot: bytes | None, blocks: Iterable[bytes]) -> LedgerPosition:
        nonlocal read
        for _ in blocks:
            read += 1
            if read == 2:
                loop.call_soon_threadsafe(stop.set)
                asyncio.run_coroutine_threadsafe(_turns(3), loop).result(30)
        raise AssertionError("the stop was not heard")

    with pytest.raises(InterruptedStartError):
        await _take_up(tmp_path, stored, stored.blocks, stop, endless)
    assert read == 2


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
