"""What is fuzzed, by name, and the file that a crash leaves."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Protocol

from attrs import frozen

from protocol.codec import DecodeError, decode, encode

NAMES = ("decoding", "engine", "node")
CRASH_BYTES = 1 << 26


class Target(Protocol):
    """One call is one execution; it raises whatever is wrong."""

    input_bytes: int
    """The longest input that is worth trying."""

    def __call__(self, data: bytes) -> None: ...

    def history(self) -> list[bytes]:
        """The inputs that led to where the target is now: what replays a crash."""
        ...

    def seeds(self) -> list[bytes]:
        """Inputs to begin with."""
        ...

    def bent(self, data: bytes, draw: Random) -> bytes:
        """An input near this one."""
        ...


def make_target(name: str) -> Target:
    """A fresh one. Imports what it needs only now: a guided run instruments it on the way in."""
    if name == "decoding":
        from sim.fuzzing.decoding import DecodingTarget

        return DecodingTarget()
    if name == "node":
        from sim.fuzzing.shell import ShellTarget

        return ShellTarget()
    from sim.fuzzing.engine import EngineTarget

    return EngineTarget()


class CrashFileError(Exception):
    """A file replays nothing; names it."""


@frozen
class Crash:
    """The inputs after which a fresh target fails, the last of them the one that it fails on."""

    target: str
    inputs: tuple[bytes, ...]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(self))

    @staticmethod
    def read(path: Path) -> Crash:
        """Raises `CrashFileError`."""
        try:
            crash = decode(Crash, path.read_bytes(), CRASH_BYTES)
        except OSError as error:
            raise CrashFileError(f"{path}: {error.strerror}") from error
        except DecodeError as error:
            raise CrashFileError(f"{path}: not what a crash leaves: {error}") from error
        if crash.target not in NAMES:
            raise CrashFileError(f"{path}: there is no target {crash.target!r}")
        return crash

    def replay(self) -> None:
        """Raises what the target did wrong, if it still does."""
        target = make_target(self.target)
        for data in self.inputs:
            target(data)
