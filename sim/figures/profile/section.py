"""The section of docs/RESULTS.md about what a node does in a round, before the changes and after them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from sim.figures.claims import claim_list
from sim.figures.markdown import table
from sim.figures.profile.claims import GOAL, GOAL_NODES, decides_goal, profile_claims
from sim.figures.profile.read import (
    AFTER,
    BEFORE,
    CPU,
    PROFILE,
    ROUNDS,
    SEEDS,
    Rounds,
    ToldProfile,
)
from sim.figures.profile.shares import LARGEST, TOP, largest_parts, parts_by_size, top_functions

TITLE = "A node during a round, before and after"
PICTURE = "profile-parts"
CHANGES = (
    "What was changed between the two (CHANGELOG.md): a node's event loop watches trio's sockets itself; the "
    "records of all events that wait share one transaction, of few statements; signatures are checked by "
    "libsodium; duties and the agreement are woken by what concerns them; threads hand over to each other "
    "within 0.2 ms (`sys.setswitchinterval`); a fetched blob of one chunk is stored in one call to the "
    "thread for files."
)
NOTHING = "–"


def markdown(told: ToldProfile, at: str) -> list[str]:
    """Paragraphs; `at`: the way from the document to the directory of results, "" or ending in "/"."""
    at = f"{at}{PROFILE}/"
    commands = dict.fromkeys(profile.command for profile in told.by_file.values())
    if told.rounds:
        commands[told.rounds.command] = None
    parts = [f"## {TITLE}", "\n".join(f"    {command}" for command in commands), CHANGES, *_missing(told)]
    if told.by_file:
        parts += [_watched(told), *_counts(told), *_parts(told, at), *_functions(told)]
    claims = profile_claims(told)
    if told.rounds:
        parts += [*_pairs(told.rounds), *_undecided(told.rounds), claim_list(claims)]
    return [*parts, _data(told, at)]


def _missing(told: ToldProfile) -> list[str]:
    """What is not there, and what therefore cannot be told."""
    said = []
    if told.before is None or told.after is None:
        missing = " and ".join(name for name in (BEFORE, AFTER) if name not in told.by_file)
        said.append(
            f"**Not there: {missing}.** Nothing is compared that needs it; `flocknode bench profile --help` "
            "says how it is made."
        )
    elif told.before.command != told.after.command:
        said.append(
            "**The two profiles were made by different commands**: their difference is not the changes'."
        )
    if told.rounds is None:
        said.append(f"**Not there: {ROUNDS}.** Rounds that nobody watched were not compared.")
    return said


def _watched(told: ToldProfile) -> str:
    """How the profiles were made, and the largest parts."""
    seen = [
        f"{_when(file)}, the median of {profile.rounds} rounds of {profile.nodes} nodes with "
        f"{profile.dimension:,} weights took {profile.watched_s:.3f} s while watched, and a node's CPU time "
        f"in a round was {profile.cpu_ms:.1f} ms; {profile.busy:,} samples of threads at work were taken of "
        f"nodes {', '.join(map(str, profile.sampled))}."
        for file, profile in told.by_file.items()
    ]
    (file, first), *others = told.by_file.items()
    largest = "; ".join(
        f"{part} ({_percent(first.parts[part])}, {first.part_ms(part):.1f} ms"
        + "".join(f", {_when(name).lower()} {other.part_ms(part):.1f} ms" for name, other in others)
        + ")"
        for part in largest_parts(first)
    )
    seen.append(f"Watching slows a round. {_when(file)}, the {LARGEST} largest parts were: {largest}.")
    return " ".join(seen)


def _when(file: str) -> str:
    return {BEFORE: "Before", AFTER: "After"}[file]


def _counts(told: ToldProfile) -> list[str]:
    names = dict.fromkeys(name for profile in told.by_file.values() for name in profile.per_round)
    profiles = told.by_file.values()
    rows = [_count_row(name, [profile.per_round.get(name) for profile in profiles]) for name in names]
    rows.insert(len(CPU), _count_row("CPU ms, both", [profile.cpu_ms for profile in profiles]))
    return ["### Per node and round", table(("per node and round", *_columns(told), "change"), rows)]


def _count_row(name: str, values: Sequence[float | None]) -> list[str]:
    return [name, *(NOTHING if number is None else f"{number:,.1f}" for number in values), _change(values)]


def _change(values: Sequence[float | None]) -> str:
    """In percent of the first of two; nothing where one is missing, or the first is 0."""
    if len(values) != 2 or None in values or not values[0]:
        return NOTHING
    before, after = (value or 0.0 for value in values)
    return f"{100 * (after - before) / before:+.1f} %"


def _columns(told: ToldProfile, unit: str = "") -> list[str]:
    return [_when(file).lower() + unit for file in told.by_file]


def _parts(told: ToldProfile, at: str) -> list[str]:
    profiles = list(told.by_file.values())
    rows = [
        [
            part,
            *(_percent(profile.parts.get(part)) for profile in profiles),
            *(f"{profile.part_ms(part):.1f}" for profile in profiles),
            _change([profile.part_ms(part) for profile in profiles]),
        ]
        for part in parts_by_size(told)
    ]
    columns = ("part", *_columns(told), *_columns(told, ", ms"), "change of ms")
    return [
        "### CPU time by part",
        f"[![CPU time by part]({at}{PICTURE}.png)]({at}{PICTURE}.svg)",
        "Shares of the samples of threads at work. The milliseconds of a node and round are share times CPU "
        "time, so they are as exact as the samples are many; CPU time is of all nodes, samples are of some. "
        "A thread at work may also be waiting, for a processor, the disk or the interpreter's lock: what the "
        "ledger's thread itself computes is counted above, as CPU us in transactions.",
        table(columns, rows),
    ]


def _functions(told: ToldProfile) -> list[str]:
    rows = [
        [f"`{name}`", *(_percent(profile.functions.get(name)) for profile in told.by_file.values())]
        for name in top_functions(told)
    ]
    return [
        "### Functions at work",
        f"Innermost functions, the first {TOP} of each profile, by their share of its samples; {NOTHING}: "
        "not among those that the profile lists.",
        table(("function", *_columns(told)), rows),
    ]


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def _pairs(rounds: Rounds) -> list[str]:
    rows = [
        [
            str(number),
            f"{pair.before_s:.3f}",
            f"{pair.after_s:.3f}",
            f"{pair.ratio:.3f}",
            f"{pair.before_slowest_s:.3f}",
            f"{pair.after_slowest_s:.3f}",
            NOTHING if pair.calibration_ms is None else f"{pair.calibration_ms:.1f}",
        ]
        for number, pair in enumerate(rounds.pairs, 1)
    ]
    calibrations = [pair.calibration_ms for pair in rounds.pairs if pair.calibration_ms is not None]
    rows.append(
        [
            "median",
            f"{rounds.before_s:.3f}",
            f"{rounds.after_s:.3f}",
            f"{rounds.ratio:.3f}",
            f"{median(pair.before_slowest_s for pair in rounds.pairs):.3f}",
            f"{median(pair.after_slowest_s for pair in rounds.pairs):.3f}",
            f"{median(calibrations):.1f}" if calibrations else NOTHING,
        ]
    )
    columns = (
        "pair",
        "median round before, s",
        "after, s",
        "after / before",
        "slowest before, s",
        "slowest after, s",
        "calibration, ms",
    )
    text = (
        "Rounds that nobody watched, before and after in turn. The calibration is a fixed piece of work: "
        "where it took longer, the host was slower. The ratio in the last line is the median of the ratios."
    )
    return ["### Rounds, unwatched", text, table(columns, rows)]


def _undecided(rounds: Rounds) -> list[str]:
    if decides_goal(rounds):
        return []
    return [f'**Not decided**: "{GOAL}". The command of these rounds does not say --nodes {GOAL_NODES}.']


def _data(told: ToldProfile, at: str) -> str:
    """The commands, the seeds, and the files behind the section."""
    there = [*told.by_file, *([ROUNDS] if told.rounds else [])]
    links = ", ".join(f"[{name}]({at}{name})" for name in there)
    seeds = told.rounds.seeds if told.rounds else SEEDS
    return f"Commands: those above. Seeds: {seeds}. Data: {links}."
