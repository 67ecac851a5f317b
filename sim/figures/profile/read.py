"""Reading DIR/profile: a profile before, one after, and rounds that nobody watched.

`profile-before.json` and `profile-after.json` are what `flocknode bench profile` writes as profile.json.
`rounds.json` tells of rounds that were taken in turn, since a watched round is slower than another one:

    {"command": str, "seeds": str (optional), "machine": str (optional),
     "pairs": [{"before_s": s, "after_s": s, "before_slowest_s": s, "after_slowest_s": s,
                "calibration_ms": ms (optional)}, ...]}

The seconds of a pair are the median and the slowest round of one run before and one run after; a calibration
is the time of a fixed piece of work in that minute, by which the host's own speed can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from attrs import frozen

from sim.figures.json_object import JsonObject, read_object

PROFILE = "profile"
BEFORE, AFTER, ROUNDS = "profile-before.json", "profile-after.json", "rounds.json"
CPU = ("CPU ms, user", "CPU ms, system")
SEEDS = "0, which `flocknode bench round` and `profile` always use"
NO_MACHINE = f"not told in {PROFILE}/{ROUNDS}"
PAIR_KEYS = ("before_s", "after_s", "before_slowest_s", "after_slowest_s")
CALIBRATION = "calibration_ms"


@frozen(kw_only=True)
class NodeProfile:
    """What `sim.bench.profiling.profile.write` wrote.

    `watched_s`: the median round while it was watched. `per_round`: means over nodes and rounds. `parts` and
    `functions`: shares in [0, 1] of the `busy` samples of the nodes `sampled`.
    """

    command: str
    nodes: int
    dimension: int
    watched_s: float
    rounds: int
    per_round: Mapping[str, float]
    sampled: tuple[int, ...]
    busy: int
    parts: Mapping[str, float]
    functions: Mapping[str, float]

    @property
    def cpu_ms(self) -> float:
        """Of a node in a round."""
        return sum(self.per_round[name] for name in CPU)

    def part_ms(self, part: str) -> float:
        """CPU milliseconds of a part in a node and round: its share of the samples, times the CPU time."""
        return self.parts.get(part, 0.0) * self.cpu_ms


@frozen(kw_only=True)
class Pair:
    """One run before and one after, in turn; seconds."""

    before_s: float
    after_s: float
    before_slowest_s: float
    after_slowest_s: float
    calibration_ms: float | None = None

    @property
    def ratio(self) -> float:
        return self.after_s / self.before_s


@frozen(kw_only=True)
class Rounds:
    """`pairs`: at least one."""

    command: str
    seeds: str
    machine: str
    pairs: tuple[Pair, ...]

    @property
    def before_s(self) -> float:
        """Median over the pairs; `after_s` and `ratio` likewise."""
        return median(pair.before_s for pair in self.pairs)

    @property
    def after_s(self) -> float:
        return median(pair.after_s for pair in self.pairs)

    @property
    def ratio(self) -> float:
        return median(pair.ratio for pair in self.pairs)


@frozen(kw_only=True)
class ToldProfile:
    """What DIR/profile holds; None for what is not there, but never all three."""

    before: NodeProfile | None
    after: NodeProfile | None
    rounds: Rounds | None

    @property
    def machine(self) -> str:
        return self.rounds.machine if self.rounds else NO_MACHINE

    @property
    def by_file(self) -> dict[str, NodeProfile]:
        """The profiles that are there, before first."""
        both = {BEFORE: self.before, AFTER: self.after}
        return {file: profile for file, profile in both.items() if profile is not None}


def read_profile(out: Path) -> ToldProfile | None:
    """Of `out`/profile; None where it holds none of the three files.

    ToldError, which names the file and the key, where one is not as this module says.
    """
    before, after, rounds = (read_object(out / PROFILE / name) for name in (BEFORE, AFTER, ROUNDS))
    if before is None and after is None and rounds is None:
        return None
    return ToldProfile(
        before=_node_profile(before) if before else None,
        after=_node_profile(after) if after else None,
        rounds=_rounds(rounds) if rounds else None,
    )


def _node_profile(data: JsonObject) -> NodeProfile:
    per_round = data.numbers_by_name("per_node_and_round", needed=CPU)
    return NodeProfile(
        command=data.text("command"),
        nodes=data.count("nodes"),
        dimension=data.count("dimension"),
        watched_s=data.number("median_round_seconds"),
        rounds=len(data.items("round_seconds")),
        per_round=per_round,
        sampled=tuple(int(node) for node in data.items("sampled_nodes")),
        busy=data.part("samples").count("busy"),
        parts=data.numbers_by_name("share_by_part"),
        functions=data.numbers_by_name("share_by_function"),
    )


def _rounds(data: JsonObject) -> Rounds:
    data.refuse_others("command", "seeds", "machine", "pairs")
    pairs = data.parts("pairs")
    if not pairs:
        raise data.error("pairs", "at least one pair is needed")
    return Rounds(
        command=data.text("command"),
        seeds=data.text("seeds", SEEDS),
        machine=data.text("machine", NO_MACHINE),
        pairs=tuple(_pair(pair) for pair in pairs),
    )


def _pair(data: JsonObject) -> Pair:
    data.refuse_others(*PAIR_KEYS, CALIBRATION)
    calibration = data.positive(CALIBRATION) if CALIBRATION in data.data else None
    return Pair(**{key: data.positive(key) for key in PAIR_KEYS}, calibration_ms=calibration)
