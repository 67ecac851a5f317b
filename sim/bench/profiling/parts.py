"""Which part of a node a sampled stack is at work in, or that it only waits."""

from __future__ import annotations

from typing import Final

IDLE: Final = "idle"
OTHER: Final = "other"

WAITS: Final = (
    "EpollSelector.select (selectors.py",
    "_worker (concurrent/futures/thread.py",
    "WorkerThread._work (trio/_core/_thread_cache.py",
    "EpollIOManager.get_events (trio/_core/_io_epoll.py",
    "_end_with_launcher (flocknode/demo/fleet.py",
)
"""Innermost frames of threads with nothing to do. Some sleep in C, where the profiler takes them for busy."""

PARTS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("logging", ("(structlog/", "(flocknode/observe/log.py")),
    (
        "signature checks",
        (
            "verify (protocol/keys.py",
            "certificate_holds (protocol/certificates.py",
            "keys_are_sound (protocol/pinning.py",
        ),
    ),
    ("codec", ("(protocol/codec.py", "(protocol/envelope.py")),
    ("ledger: SQLite and fsync", ("(flocknode/store.py", "(flocknode/files.py", "(flocknode/blobs.py")),
    (
        "kernels and jobs",
        ("(protocol/jobs.py", "(protocol/secagg/", "(protocol/algebra/", "(protocol/judge.py"),
    ),
    ("engine rules", ("(protocol/",)),
    ("noise", ("(libp2p/security/", "(noise/", "(flocknode/transport/libp2p_admission.py")),
    ("yamux", ("(libp2p/stream_muxer/", "(flocknode/transport/libp2p_yamux.py")),
    ("sockets, trio and libp2p", ("(trio/", "(libp2p/", "(outcome/", "(flocknode/transport/")),
    ("the node's shell", ("(flocknode/",)),
    ("asyncio and threads", ("(asyncio/", "(selectors.py", "(concurrent/", "(threading.py", "(contextvars")),
)
"""The first frame from the inside that bears one of these marks decides; for a frame, the first such part."""

NAMES: Final = (*(name for name, _ in PARTS), OTHER)


def part_of(frames: list[str]) -> str:
    """The part of a stack of "function (file:line)", outermost first; `IDLE` where its thread waits."""
    if not frames or frames[-1].startswith(WAITS):
        return IDLE
    if frames[-1].startswith("["):  # what the operating system does for the interpreter itself
        return OTHER
    certain = _by_any_frame(frames)
    if certain is not None:
        return certain
    for frame in reversed(frames):
        for name, marks in PARTS:
            if any(mark in frame for mark in marks):
                return name
    return OTHER


def _by_any_frame(frames: list[str]) -> str | None:
    """Logging and signature checks are named by a caller: what they call is of all kinds."""
    for name, marks in PARTS[:2]:
        if any(mark in frame for frame in frames for mark in marks):
            return name
    return None
