"""Stacks of running nodes, sampled from outside by py-spy: the node's code does not know of it."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import frozen

from sim.bench.profiling.parts import IDLE, NAMES, part_of

SAMPLES_PER_S = 200
TOP = 25
_STOP_S = 20.0


class ProfileError(Exception):
    """Nothing can be sampled here; the message says what is missing."""


@frozen
class Samples:
    """Of one or more processes: by part, and by innermost function of the stacks that are at work.

    `parts` counts samples of all threads; `functions` and `within` (any function on the stack) do not count
    idle ones.
    """

    parts: Mapping[str, int]
    functions: Mapping[str, int]
    within: Mapping[str, int]

    @property
    def busy(self) -> int:
        return sum(count for part, count in self.parts.items() if part != IDLE)


class Sampler:
    """py-spy attached to processes; `stop` gives what it saw. Raises `ProfileError`."""

    def __init__(self, pids: Iterable[int], directory: Path) -> None:
        program = shutil.which("py-spy")
        if program is None:
            raise ProfileError("py-spy is not installed: pip install 'flocknode[profile]'")
        self._files = {pid: directory / f"{pid}.stacks" for pid in pids}
        self._running = {pid: _attach(program, pid, file) for pid, file in self._files.items()}

    def stop(self) -> Samples:
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        lines: list[str] = []
        for pid, process in self._running.items():
            try:
                _, said = process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise ProfileError(f"py-spy did not let go of process {pid}") from error
            if not self._files[pid].is_file():
                raise ProfileError(f"py-spy saw nothing of process {pid}: {said.strip()[-200:]}")
            lines += self._files[pid].read_text().splitlines()
        return read_stacks(lines)


def _attach(program: str, pid: int, file: Path) -> subprocess.Popen[str]:
    options = ["--pid", str(pid), "--rate", str(SAMPLES_PER_S), "--format", "raw", "--output", str(file)]
    # Without stopping the process: a torn sample is dropped, a round that is delayed is another round.
    return subprocess.Popen(
        [program, "record", *options, "--nonblocking"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_stacks(lines: Iterable[str]) -> Samples:
    """What py-spy wrote as "raw": "outermost;...;innermost count", frames as "function (file:line)"."""
    parts: Counter[str] = Counter(dict.fromkeys((*NAMES, IDLE), 0))
    functions: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in lines:
        stack, _, text = line.rpartition(" ")
        if not text.isdecimal():
            continue
        count, frames = int(text), stack.split(";")
        part = part_of(frames)
        parts[part] += count
        if part != IDLE:
            names = [_without_line(frame) for frame in frames]
            functions[names[-1]] += count
            within.update(dict.fromkeys(names, count))
    return Samples(dict(parts), dict(functions.most_common(TOP)), dict(within.most_common(4 * TOP)))


def _without_line(frame: str) -> str:
    head, colon, _ = frame.rpartition(":")
    return head + ")" if colon else frame
