"""The parts of the fault lab that need neither root nor processes."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, field, frozen

from flocknode.founding import network_params
from flocknode.observe.log import LOG_FILE, open_log
from flocknode.store import Records, Store, StoreError
from flocknode.transport.base import Handler, Member
from flocknode.transport.memory import Hub, MemoryTransport
from protocol.blob import Chunk, blob_digest, chunk, verify_chunk
from protocol.codec import decode, encode
from protocol.durable import BLOCK
from protocol.events import Broadcast, Effect, Event, PeerUp, Persist
from sim.filters import Filter
from sim.lab.cleanup import LOCK_FILE, PREFIX, remove_leftovers, workplace
from sim.lab.damage import corrupt_store, start_over, truncate_store
from sim.lab.delay import DelayBoard, DelayedTransport
from sim.lab.filtered import FilteredEngine, FilteringTransport, serves_blobs_as_they_are
from sim.lab.links import Links, Shape, Trouble, base_of, partition, ruleset
from sim.lab.machine import LabError, check_machine
from sim.lab.plan import check, found_network, notices, plan_of
from sim.lab.timeline import Lift, Strike, Timeline
from sim.scenario.manifest import LinkTable, Scenario, ScenarioError, load_scenario, parse_scenario

SCENARIOS = sorted(Path("sim/scenarios/lab").resolve().glob("*.toml"))
HEAD = """
name = "n"
about = "a"
[network]
nodes = 5
rounds = 4
"""


def scenario_of(rest: str) -> Scenario:
    return parse_scenario(HEAD + rest, "s.toml")


# -- the machine -----------------------------------------------------------------------------------


def test_each_thing_that_is_missing_has_one_clear_line(tmp_path: Path) -> None:
    nft = tmp_path / "nft"
    nft.touch(mode=0o755)
    check_machine(euid=0, platform="linux", path=str(tmp_path), pyroute2="attrs")
    for arguments, words in (
        ({"platform": "darwin"}, "Linux only"),
        ({"euid": 1000}, "needs root"),
        ({"pyroute2": "no_such_package"}, "flocknode\\[lab\\]"),
        ({"path": "/nowhere"}, "nftables"),
    ):
        sound: dict[str, Any] = {"euid": 0, "platform": "linux", "path": str(tmp_path), "pyroute2": "attrs"}
        with pytest.raises(LabError, match=words):
            check_machine(**{**sound, **arguments})


# -- manifests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_lab_scenario_is_one_that_the_lab_can_run(path: Path) -> None:
    check(load_scenario(path))


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (
            '[[faults]]\nat = "round 1"\ndo = "busy"\nwho = 1\nfactor = 3\nfor_s = 1',
            r"faults\[0\].do.*'busy'",
        ),
        ('[[faults]]\nat = "round 1"\ndo = "clock"\nwho = 1\nfactor = 3', r"faults\[0\].do.*'clock'"),
        ('[[faults]]\nat = "round 1"\ndo = "kill"\nwho = 1\nsends = "REVEAL"', r"faults\[0\].sends"),
        ('[[faults]]\nat = "round 1"\ndo = "kill"\nwho = 1\nafter_effects = 2', r"faults\[0\].after_effects"),
        ("[[nodes]]\nwho = 1\ntwin = true", r"nodes\[0\].twin"),
        ('[[nodes]]\nwho = "aggregator"\nstake_tokens = 9.0', r"nodes\[0\].stake_tokens"),
    ],
)
def test_what_would_mean_something_else_is_refused_by_its_key(rest: str, words: str) -> None:
    with pytest.raises(LabError, match=words):
        check(scenario_of(rest))


def test_what_is_left_out_is_noticed() -> None:
    scenario = scenario_of("[link]\nduplicate = 0.1\nreorder = 0.1\nlatency_min_ms = 10\nbytes_per_s = 10000")
    keys = [line.split(":")[0] for line in notices(scenario, has_netem=False)]
    assert keys == ["link.duplicate", "link.reorder", "link.bytes_per_s", "delays"]
    assert "delays" not in " ".join(notices(scenario, has_netem=True))
    assert list(notices(scenario_of(""), has_netem=False)) == []


def test_a_plan_has_the_parameters_and_the_stakes_of_its_scenario() -> None:
    scenario = scenario_of("[[nodes]]\nwho = [2, 4]\nstake_tokens = 10.0\n[params]\nmax_attempts = 2")
    plan = plan_of(scenario, 5)
    assert plan.stakes == {2: 10_000_000, 4: 10_000_000}
    params = network_params(plan)
    assert (params.max_attempts, params.phase_deadline_ms) == (2, 4_000)
    assert (params.dimension, params.n_proposers) == (64, scenario.params.n_proposers)


def test_behaviours_become_filters_and_colluding_ones_are_refused(tmp_path: Path) -> None:
    chosen = scenario_of('[[nodes]]\nwho = "aggregator"\nbehaviour = "blind-forger"')
    network = found_network(chosen, 1, tmp_path / "a")
    assert list(network.filters) == [network.parts.aggregators[0]]
    with pytest.raises(ScenarioError, match="not in the lab"):
        found_network(scenario_of('[[nodes]]\nwho = 1\nbehaviour = "accomplice"'), 1, tmp_path / "b")


# -- links -----------------------------------------------------------------------------------------


def test_troubles_add_up_and_go_one_by_one() -> None:
    far, slow = Trouble(shapes={1: Shape(None, 50, 50)}), Trouble(shapes={1: Shape(9_000, 10, 10)})
    lossy = Trouble(loss={1: 0.5}, down=frozenset({0}), cut=frozenset({(2, 1)}))
    links = Links(count=3, base=Shape(5_000, 1, 2), troubles=(far, slow, lossy, Trouble(loss={1: 0.5})))
    assert links.shape(1) == Shape(5_000, 61, 62)
    assert links.shape(0) == Shape(5_000, 1, 2)
    assert links.loss(1) == 0.75
    assert links.loss(2) == 0.0
    assert [links.is_down(node) for node in range(3)] == [True, False, False]
    assert links.cut() == [(2, 1)]
    assert Links.whole(3).shape(1) == Shape()


def test_nodes_in_no_group_are_a_side_of_their_own() -> None:
    cut = partition(5, [[0, 1], [2, 0]])
    reached = {a: {b for b in range(5) if b != a and (a, b) not in cut} for a in range(5)}
    assert reached == {0: {1}, 1: {0}, 2: set(), 3: {4}, 4: {3}}


def test_defaults_of_the_link_table_leave_links_alone() -> None:
    assert base_of(LinkTable()) == (Shape(), 0.0)
    shape, loss = base_of(LinkTable(latency_min_ms=10, latency_max_ms=31, loss=0.1))
    assert (shape, loss) == (Shape(None, 5, 16), 0.1)  # half at each end of the way


def test_rules_replace_what_was_there_and_name_ports() -> None:
    links = Links(
        count=3, base_loss=0.01, troubles=(Trouble(cut=frozenset({(0, 2), (1, 2)}), loss={1: 0.25}),)
    )
    rules = ruleset(links, lambda node: f"p{node}")
    assert rules.startswith("table bridge faults {}\ndelete table bridge faults\n")
    assert 'iifname . oifname { "p0" . "p2", "p1" . "p2" } drop' in rules
    assert "numgen random mod 1000000 < 10000 drop" in rules
    assert rules.count('"p1" numgen random mod 1000000 < 250000 drop') == 2
    assert "drop" not in ruleset(Links.whole(3), str)


# -- the timeline ----------------------------------------------------------------------------------


@frozen
class _State:
    """As much of a ledger's state as a place looks at."""

    round: int
    learning: Any = None


def _faults(rest: str) -> Timeline:
    return Timeline(scenario_of(rest).faults)


def test_a_place_strikes_once_and_its_lift_comes_later() -> None:
    timeline = _faults('[[faults]]\nat = "round 2"\nafter_s = 1.0\ndo = "pause"\nwho = 1\nfor_s = 2.0')
    timeline.begin(0.0)
    timeline.reached(_State(1), 0.5)  # type: ignore[arg-type]
    assert timeline.due(5.0) == []
    assert timeline.missed() == [0]
    for _ in range(2):
        timeline.reached(_State(2), 5.0)  # type: ignore[arg-type]
    assert timeline.due(5.9) == []
    assert timeline.due(6.0) == [Strike(0)]
    timeline.lift_later(0, 8.0)
    assert timeline.due(9.0) == [Lift(0)]
    assert timeline.missed() == []


def test_a_repeated_fault_strikes_until_its_round_begins_and_never_twice_at_once() -> None:
    timeline = _faults('[[faults]]\nat_s = 1.0\nevery_s = 1.0\nuntil_round = 3\ndo = "kill"\nwho = "random"')
    timeline.begin(0.0)
    assert timeline.due(1.0) == [Strike(0)]
    assert timeline.due(1.5) == []
    assert timeline.due(7.0) == [Strike(0)]  # the machine was late
    assert timeline.due(7.9) == []
    assert timeline.due(8.0) == [Strike(0)]
    timeline.reached(_State(3), 8.5)  # type: ignore[arg-type]
    assert timeline.due(20.0) == []
    assert timeline.missed() == []


# -- disks -----------------------------------------------------------------------------------------


async def _stored(directory: Path, blocks: int) -> None:
    store = await Store.open(directory)
    for height in range(1, blocks + 1):
        value = Random(height).randbytes(700)
        await store.commit([Persist(BLOCK, height.to_bytes(8, "big"), value)])
    await store.close()


@pytest.mark.parametrize(("blocks", "seed"), [(0, 1), (1, 2), (12, 3), (12, 4), (12, 5)])
async def test_a_corrupt_store_is_refused(tmp_path: Path, blocks: int, seed: int) -> None:
    await _stored(tmp_path, blocks)
    corrupt_store(tmp_path, Random(seed))
    with pytest.raises(StoreError, match=r"ledger\.db"):
        await _load(tmp_path)


async def _load(directory: Path) -> Records:
    store = await Store.open(directory)
    try:
        await store.with_blocks(list)
        return await store.load()
    finally:
        await store.close()


@pytest.mark.parametrize("blocks", [0, 1, 12])
async def test_a_truncated_store_is_refused_and_a_new_one_is_not(tmp_path: Path, blocks: int) -> None:
    await _stored(tmp_path, blocks)
    truncate_store(tmp_path)
    with pytest.raises(StoreError, match=r"ledger\.db"):
        await Store.open(tmp_path)
    start_over(tmp_path)
    assert await _load(tmp_path) == {}


def test_damage_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no store to damage"):
        truncate_store(tmp_path)


def test_a_full_disk_costs_log_lines_and_not_the_node(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).symlink_to("/dev/full")
    log, file = open_log(tmp_path, "n", "info")
    for number in range(1_000):
        log.info("said", number=number)
    with suppress(OSError):
        file.close()


# -- directories -----------------------------------------------------------------------------------


def test_only_directories_that_nobody_holds_are_removed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, young, other = (tmp_path / name for name in (f"{PREFIX}dead", f"{PREFIX}young", "mine"))
    for path in (dead, young, other):
        path.mkdir()
    (dead / LOCK_FILE).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    with workplace(None) as root:
        assert root.parent == tmp_path
        assert remove_leftovers() == [dead]
        assert root.is_dir()
    assert not root.exists()
    assert young.is_dir()
    assert other.is_dir()
    past = time.time() - 3_600
    os.utime(young, (past, past))
    assert remove_leftovers() == [young]


def test_a_kept_directory_must_be_new_and_stays(tmp_path: Path) -> None:
    with workplace(tmp_path / "kept") as root:
        (root / "file").touch()
    assert (root / "file").exists()
    with pytest.raises(LabError, match="not empty"), workplace(root):
        pass


# -- delays ----------------------------------------------------------------------------------------


@define(eq=False)
class _Hears:
    """A handler that notes what it is told."""

    told: list[object] = field(factory=list)
    blobs: dict[bytes, bytes] = field(factory=dict)

    def received(self, peer: bytes, message: bytes) -> None:
        self.told.append(message)

    def peer_up(self, peer: bytes) -> None:
        self.told.append("up")

    def peer_down(self, peer: bytes) -> None:
        self.told.append("down")

    async def read_blob(self, peer: bytes, digest: bytes, index: int) -> bytes | None:
        data = self.blobs.get(digest)
        return None if data is None else encode(chunk(data, index))


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10.0):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def test_delayed_messages_arrive_all_and_in_order_and_delays_come_and_go() -> None:
    hub, board = Hub(), DelayBoard(2)
    peers = [bytes([number]) * 32 for number in range(2)]
    transports = [DelayedTransport(MemoryTransport(hub, p, f"m{i}"), board, i) for i, p in enumerate(peers)]
    handlers = [_Hears(), _Hears()]
    for transport, handler in zip(transports, handlers, strict=True):
        transport.set_members([Member(peer, f"m{i}") for i, peer in enumerate(peers)])
        await transport.start(handler)
    await _until(lambda: all(handler.told == ["up"] for handler in handlers))
    board.set(0, 1, 40)
    sent = [struct.pack("<I", number) for number in range(40)]
    for message in sent[:20]:
        assert transports[0].send(peers[1], message)
    await asyncio.sleep(0)
    assert handlers[1].told == ["up"]
    for message in sent[20:39]:
        assert transports[0].broadcast(message) == 1
    board.set(0, 0, 0)
    transports[0].broadcast(sent[39])  # without delay, and behind the others all the same
    await _until(lambda: len(handlers[1].told) == 41)
    assert handlers[1].told[1:] == sent
    assert not transports[0].send(bytes(32), b"to nobody")
    for transport in transports:
        await transport.stop()


# -- filters ---------------------------------------------------------------------------------------


class _Echo(Filter):
    """Shows each event twice, and lets the second effect of each handling go."""

    def events(self, event: Event) -> list[Event]:
        return [event, event]

    def effects(self, effects: list[Effect]) -> list[Effect]:
        return effects[:1]


class _Engine:
    def __init__(self) -> None:
        self.seen: list[tuple[Event, int]] = []

    def handle(self, event: Event, now: int) -> list[Effect]:
        self.seen.append((event, now))
        return [Broadcast(bytes([len(self.seen)])), Broadcast(b"dropped")]


def test_an_engine_sees_and_says_what_its_filter_lets_pass() -> None:
    engine, event = _Engine(), PeerUp(bytes(32))
    assert FilteredEngine(engine, _Echo()).handle(event, 7) == [Broadcast(b"\1"), Broadcast(b"\2")]
    assert engine.seen == [(event, 7), (event, 7)]


class _Bends(Filter):
    """Withholds from one peer and lies to another."""

    def serve(self, digest: bytes, peer: bytes, data: bytes) -> bytes | None:
        return {b"w" * 32: None, b"l" * 32: data[:-1]}.get(peer, data)


async def test_blobs_are_served_as_the_filter_says() -> None:
    data = Random(3).randbytes(2**20 + 5)
    digest = blob_digest(data)
    bent = FilteringTransport(MemoryTransport(Hub(), bytes(32), "m"), _Bends())
    handler: Handler = bent.handler_for(_Hears(blobs={digest: data}))
    for index in range(2):
        true = await handler.read_blob(b"p" * 32, digest, index)
        lied = await handler.read_blob(b"l" * 32, digest, index)
        assert true is not None
        assert lied is not None
        verify_chunk(digest, decode(Chunk, true, 2**21))
        with pytest.raises(ValueError, match="not part of blob"):
            verify_chunk(digest, decode(Chunk, lied, 2**21))
    assert await handler.read_blob(b"w" * 32, digest, 0) is None
    assert await handler.read_blob(b"p" * 32, digest, 2) is None
    assert await handler.read_blob(b"p" * 32, bytes(32), 0) is None
    assert serves_blobs_as_they_are(_Echo())
    assert not serves_blobs_as_they_are(_Bends())
