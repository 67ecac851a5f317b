"""The fuzz targets of `flocknode sim wire`, run for a moment without coverage; and what a crash leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define, field
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from flocknode.inbox import Inbox
from protocol.events import Received
from sim.cli.wire import wire
from sim.fuzzing import guided
from sim.fuzzing.chances import Chances
from sim.fuzzing.decoding import DecodingTarget
from sim.fuzzing.engine import EngineTarget
from sim.fuzzing.plain import run_plain
from sim.fuzzing.shell import ShellTarget
from sim.fuzzing.targets import Crash, CrashFileError
from sim.fuzzing.watching import MemoryGrowthError, Watch

SEED = 7


@pytest.mark.parametrize(("target", "runs"), [(DecodingTarget(), 5_000), (EngineTarget(), 1_500)])
def test_nothing_fails(target: DecodingTarget | EngineTarget, runs: int, tmp_path: Path) -> None:
    """Seed in the name of the file that a failure leaves."""
    watch = Watch(f"seed-{SEED}", target, 8_192, tmp_path)
    run_plain(watch, runs, SEED)
    assert watch.executions == runs


NODE_INPUTS = 45


@pytest.fixture
def node_target() -> Iterator[ShellTarget]:
    target = ShellTarget()
    yield target
    target.close()


def inputs_of(moment: int, count: int) -> Iterator[bytes]:
    """Inputs of one moment, the same every time."""
    draw = Random(f"{SEED}/{moment}")
    return (moment.to_bytes(2, "big") + draw.randbytes(24) for _ in range(count))


def hear_all(target: Callable[[bytes], None], inputs: Iterable[bytes]) -> None:
    for data in inputs:
        target(data)


def test_a_whole_node_bears_it(node_target: ShellTarget, tmp_path: Path) -> None:
    watch = Watch(f"node-{SEED}", node_target, 8_192, tmp_path)
    for moment in (0, 3, 5):
        hear_all(watch, inputs_of(moment, NODE_INPUTS))
    assert watch.executions == 3 * NODE_INPUTS


def test_a_whole_node_shows_what_ended_version_0_1(
    node_target: ShellTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two empty messages, of which the second was forgotten twice: the target finds that by itself."""

    def forget(inbox: Any, message: Received) -> None:
        left = sizes[message.peer] - len(message.data)
        if left:
            sizes[message.peer] = left
        else:
            del sizes[message.peer]

    def put_message(inbox: Any, message: Received) -> bool:
        sizes[message.peer] = sizes.get(message.peer, 0) + len(message.data)
        inbox._append(None, message)
        return True

    sizes: dict[bytes, int] = {}
    monkeypatch.setattr(Inbox, "_forget", forget)
    monkeypatch.setattr(Inbox, "put_message", put_message)
    with pytest.raises(BaseExceptionGroup) as ended:
        hear_all(node_target, inputs_of(3, 400))
    assert ended.group_contains(KeyError)


def test_every_seed_is_accepted_by_its_reader() -> None:
    """A corpus that is refused at the door explores nothing."""
    for reader in DecodingTarget().readers:
        for seed in reader.seeds:
            assert reader.read(seed) in (None, seed), reader.name


@define(eq=False)
class Fragile:
    """Fails on the third input that begins with the same byte."""

    input_bytes: int = 8
    heard: list[bytes] = field(factory=list)

    def __call__(self, data: bytes) -> None:
        self.heard = [*(known for known in self.heard if known[:1] == data[:1]), data]
        if len(self.heard) == 3:
            raise ZeroDivisionError("three of a kind")

    def history(self) -> list[bytes]:
        return self.heard

    def seeds(self) -> list[bytes]:
        return [b"a", b"a", b"b", b"b", b"b"]

    def bent(self, data: bytes, draw: Random) -> bytes:
        return data + draw.randbytes(1)


def test_a_failure_leaves_the_inputs_that_led_to_it(tmp_path: Path) -> None:
    watch = Watch("decoding", Fragile(), 8_192, tmp_path)
    with pytest.raises(ZeroDivisionError):
        run_plain(watch, 10, SEED)
    (path,) = tmp_path.iterdir()
    assert Crash.read(path) == Crash("decoding", (b"b", b"b", b"b"))
    assert watch.executions == 5


def test_memory_has_a_bound(tmp_path: Path) -> None:
    watch = Watch("decoding", Fragile(), 1, tmp_path)
    with pytest.raises(MemoryGrowthError, match="at most 1 MB"):
        watch(b"x")


def test_the_command_replays_what_a_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "a.crash"
    Crash("decoding", (b"\x00", b"\x05\x93")).write(path)
    done = CliRunner().invoke(wire, ["--replay", str(path)])
    assert (done.exit_code, done.output.strip()) == (0, f"{path}: 2 inputs of decoding, and nothing fails")
    path.write_bytes(b"\x01")
    refused = CliRunner().invoke(wire, ["--replay", str(path)])
    assert refused.exit_code == 1
    assert "not what a crash leaves" in refused.output
    Crash("weather", ()).write(path)
    with pytest.raises(CrashFileError, match="no target 'weather'"):
        Crash.read(path)


def test_without_atheris_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "is_available", lambda: False)
    refused = CliRunner().invoke(wire, ["--target", "decoding"])
    assert refused.exit_code == 1
    assert "pip install 'flocknode[fuzz]'" in refused.output
    assert CliRunner().invoke(wire, []).exit_code == 2


def test_the_command_runs_a_target_plainly(tmp_path: Path) -> None:
    arguments = ["--target", "decoding", "--runs", "300", "--plain", "--crashes", str(tmp_path)]
    done = CliRunner().invoke(wire, arguments)
    assert done.exit_code == 0, done.output
    assert "executions    300" in done.output
    assert not list(tmp_path.iterdir())


@given(st.binary(max_size=40), st.lists(st.integers(1, 300), max_size=40))
def test_the_same_bytes_draw_the_same_and_within_bounds(data: bytes, limits: list[int]) -> None:
    first, again = Chances(data), Chances(data)
    for limit in limits:
        number = first.randrange(limit)
        assert number == again.randrange(limit)
        assert 0 <= number < limit
        assert first.randbytes(3) == again.randbytes(3)
        assert 0 <= first.random() == again.random() < 1
