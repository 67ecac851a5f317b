"""Which blobs a node holds (docs/PROTOCOL.md section 7.6): written down first, and gone in time."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from protocol import durable
from protocol.engine import Engine
from protocol.events import BlobFailed, BlobReady, DropBlob, Effect, Fetch, Persist, PutBlob
from protocol.ledger.resume import start_from
from protocol.ledger.state import Phase
from sim.scenes import Scene

STRAY = bytes([7]) * 32


def due(scene: Scene, number: int, since: int) -> set[bytes]:
    """The models that count and what a node has written down of the rounds from `since` on."""
    state = scene.engine(number).state
    rounds = rounds_of(scene.world.nodes[number].records)
    late = {blob for blob, round_ in rounds.items() if round_ >= since}
    return {state.model_digest, state.previous_model_digest} | late


def rounds_of(records: Mapping[str, Mapping[bytes, bytes]]) -> dict[bytes, int]:
    return {key[8:]: durable.round_of_key(key) for key in records.get(durable.BLOB, {})}


def test_after_each_round_a_node_holds_the_models_and_blobs_of_two_rounds() -> None:
    scene = Scene(nodes=4, seed=4)
    made = 0
    for round_ in range(1, 6):
        scene.end_round(round_)
        for node in scene.world.nodes:
            assert set(node.blobs) <= due(scene, node.index, round_)
            assert scene.engine(node.index).desk.blobs == set(node.blobs)
            made = max(made, len(node.blobs))
    assert made > 3


def test_every_blob_is_written_down_before_it_is_fetched_or_put() -> None:
    scene = Scene(nodes=4, seed=4)
    noted: dict[int, set[bytes]] = {node.index: set() for node in scene.world.nodes}
    seen = 0

    def follow(node: object, performed: list[Effect]) -> None:
        nonlocal seen
        for effect in performed:
            match effect:
                case Persist(durable.BLOB, key, bytes()):
                    noted[node.index].add(key[8:])  # type: ignore[attr-defined]
                case Fetch(digest) | PutBlob(digest):
                    assert digest in noted[node.index]  # type: ignore[attr-defined]
                    seen += 1

    scene.world.invariants.append(follow)  # type: ignore[arg-type]
    scene.end_round(2)
    assert seen > 10


class Restarted:
    """A node in phase 3 of its third round, whose process ends there; what its next life finds is changed."""

    def __init__(self) -> None:
        self.scene = Scene(nodes=4, seed=6)
        self.scene.end_round(2)
        self.scene.run_until(0, Phase.BALLOT)
        self.node = self.scene.world.nodes[0]
        self.records = {bucket: dict(rows) for bucket, rows in self.node.records.items()}
        self.blobs = set(self.node.blobs)
        self.engine = Engine(self.scene.founding.identities[0], self.scene.founding.genesis, bytes)

    def start(self) -> list[Effect]:
        """The effects with which a new life begins."""
        return self.engine.handle(start_from(self.engine.genesis, self.records, frozenset(self.blobs)), 0)


@pytest.fixture
def restarted() -> Restarted:
    return Restarted()


def dropped(effects: list[Effect]) -> set[bytes]:
    return {effect.digest for effect in effects if isinstance(effect, DropBlob)}


def test_a_restart_keeps_what_it_may_keep(restarted: Restarted) -> None:
    assert len(restarted.blobs) > 3
    assert dropped(restarted.start()) == set()
    assert restarted.engine.desk.blobs == restarted.blobs


def test_a_blob_that_was_put_before_its_record_goes_at_start(restarted: Restarted) -> None:
    restarted.blobs.add(STRAY)
    assert dropped(restarted.start()) == {STRAY}
    assert STRAY not in restarted.engine.desk.blobs


def test_a_blob_that_a_crash_kept_from_being_dropped_goes_at_start(restarted: Restarted) -> None:
    restarted.blobs.add(STRAY)
    key = durable.round_key(1, STRAY)
    restarted.records[durable.BLOB][key] = b""
    effects = restarted.start()
    assert dropped(effects) == {STRAY}
    assert Persist(durable.BLOB, key, None) in effects


def test_a_record_of_a_blob_that_never_came_goes_with_its_round(restarted: Restarted) -> None:
    key = durable.round_key(1, STRAY)
    restarted.records[durable.BLOB][key] = b""
    assert Persist(durable.BLOB, key, None) in restarted.start()


def test_a_model_that_counts_stays_however_old_its_record_is(restarted: Restarted) -> None:
    model = restarted.scene.state.model_digest
    rounds = rounds_of(restarted.records)
    restarted.records[durable.BLOB].pop(durable.round_key(rounds[model], model))
    assert model not in dropped(restarted.start())
    assert model in restarted.engine.desk.blobs


def test_what_a_fetch_brings_too_late_is_dropped_and_not_held(restarted: Restarted) -> None:
    restarted.start()
    assert restarted.engine.handle(BlobReady(STRAY), 1) == [DropBlob(STRAY)]
    assert STRAY not in restarted.engine.desk.blobs
    restarted.engine.handle(BlobFailed(STRAY), 2)
    assert STRAY not in restarted.engine.desk.unavailable


def test_an_upload_that_only_a_witness_fetched_goes_too() -> None:
    """The leak: a voter fetches an upload, others vouch for it meanwhile, and nobody thinks of it again."""
    scene = Scene(nodes=5, seed=3)
    witness = next(i for i in scene.voters if i not in scene.proposers or i != scene.aggregator)
    scene.run_until(witness, Phase.CONTRIBUTE)
    engine, node = scene.engine(witness), scene.world.nodes[witness]
    desk = engine.desk
    desk.want_blob(STRAY, (scene.peer(scene.aggregator),))
    effects = desk.outbox.take()
    assert [type(effect) for effect in effects] == [Persist, Fetch]
    engine.handle(BlobReady(STRAY), node.clock.read(scene.world.now))
    assert STRAY in desk.blobs
    gone: list[bytes] = []
    scene.world.watch = lambda at, effect: (
        gone.append(effect.digest) if at is node and isinstance(effect, DropBlob) else None
    )
    scene.end_round(1)
    assert STRAY in desk.blobs
    scene.end_round(2)
    assert STRAY not in desk.blobs
    assert STRAY in gone
