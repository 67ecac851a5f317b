"""From runs to medians, ratios and goals: all of it computed from what the runs gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from attrs import frozen

from sim.bench.peers.plan import CLIENT, ROUND
from sim.bench.peers.runs import DONE, LOST, SKIPPED, Run
from sim.figures.claims import Claim

Json = dict[str, Any]

GOAL_SIZES = ((20, 100_000), (100, 100_000), (20, 1_000_000), (100, 1_000_000))
"""Clients and weights for which there are goals: a tiny update is all overhead."""
TIME_GOAL = 0.2
BYTES_GOAL = 0.6
ROUND_GOAL_S = 0.6
UPLOAD_GOAL = 1.5
ACCURACY_ROUNDS = (1, 5, 10)
ROUND_GOAL = f"A round without training takes at most {ROUND_GOAL_S} s between 8 real processes"
CONTRIBUTION_GOAL = f"A proposer sends at most {UPLOAD_GOAL} times its plain update to contribute"
SOURCE = "ours"


@frozen
class ClientRow:
    """Medians over runs of the medians within each. `upload` and `shares` in bytes."""

    n: int
    d: int
    system: str
    runs: int
    lost: int
    seconds: float | None
    upload: float | None
    shares: float | None


@frozen
class RoundRow:
    """Medians over all rounds of all runs but the first of each; bytes of one node in one round.

    `accuracy`: by round of `ACCURACY_ROUNDS`, the mean over runs; None where no run came so far. `upload`:
    bytes that a proposer sends to contribute over the float32 update, where a system tells.
    """

    system: str
    runs: int
    lost: int
    skipped: int
    seconds: float | None
    slowest: float | None
    launch: float | None
    sent: float | None
    received: float | None
    training: float | None
    accuracy: tuple[float | None, ...]
    upload: float | None
    accepted: float | None


def client_rows(runs: Sequence[Run]) -> list[ClientRow]:
    """One for each size and system, in the order of the runs."""
    keys = dict.fromkeys((run.n, run.d, run.system) for run in runs if run.part == CLIENT)
    rows = []
    for n, d, system in keys:
        own = [run for run in runs if (run.part, run.n, run.d, run.system) == (CLIENT, n, d, system)]
        done = _results(own)
        rows.append(
            ClientRow(
                n=n,
                d=d,
                system=system,
                runs=len(done),
                lost=_count(own, LOST),
                seconds=_median(median(result["seconds"]) for result in done),
                upload=_median(result["upload"] for result in done),
                shares=_median(result["shares"] for result in done),
            )
        )
    return rows


def round_rows(runs: Sequence[Run]) -> list[RoundRow]:
    """One for each system, in the order of the runs."""
    rounds = [run for run in runs if run.part == ROUND]
    rows = []
    for system in dict.fromkeys(run.system for run in rounds):
        own = [run for run in rounds if run.system == system]
        done = _results(own)
        after_first = [s for result in done for s in result["round_seconds"][1:]]
        ended = sum(len(result["round_seconds"]) for result in done)
        accepted = [result["accepted"] for result in done if "accepted" in result]
        rows.append(
            RoundRow(
                system=system,
                runs=len(done),
                lost=_count(own, LOST),
                skipped=_count(own, SKIPPED),
                seconds=_median(after_first),
                slowest=max(after_first, default=None),
                launch=_median(result["launch_seconds"] for result in done),
                sent=_median(size for result in done for size in result["sent"][1:]),
                received=_median(size for result in done for size in result["received"][1:]),
                training=_median(r["training_seconds"] for r in done if "training_seconds" in r),
                accuracy=tuple(_accuracy(done, number) for number in ACCURACY_ROUNDS),
                upload=_median(
                    result["upload"] / result["float32_update"] for result in done if result.get("upload")
                ),
                accepted=sum(accepted) / ended if accepted else None,
            )
        )
    return rows


def _results(runs: Iterable[Run]) -> list[Any]:
    return [run.result for run in runs if run.outcome == DONE and run.result is not None]


def _count(runs: Iterable[Run], outcome: str) -> int:
    return sum(run.outcome == outcome for run in runs)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _accuracy(done: Sequence[Any], number: int) -> float | None:
    known = [result["accuracy"][number - 1] for result in done if len(result["accuracy"]) >= number]
    known = [value for value in known if value is not None]
    return sum(known) / len(known) if known else None


# -- goals -----------------------------------------------------------------------------------------


def goals(clients: Sequence[ClientRow], rounds: Sequence[RoundRow]) -> list[Claim]:
    """Those that can be decided: both systems were there and ended a run."""
    found = []
    by_key = {(row.n, row.d, row.system): row for row in clients}
    for n, d in GOAL_SIZES:
        own, peer = by_key.get((n, d, "flocknode-client")), by_key.get((n, d, "flower-client"))
        if own and peer:
            found += _client_goals(own, peer)
    by_system = {row.system: row for row in rounds}
    bare = by_system.get("flocknode-untrained")
    if bare is not None and bare.seconds is not None:
        found.append(_round_goal(bare))
    trained = by_system.get("flocknode")
    if trained is not None and trained.upload is not None:
        found.append(_upload_goal(trained))
    return found


def undecided(decided: Iterable[Claim]) -> list[str]:
    """Statements of the goals that are not among `decided`."""
    known = {goal.statement for goal in decided}
    clients = [goal(n, d) for n, d in GOAL_SIZES for goal in (time_goal, bytes_goal)]
    return [goal for goal in [*clients, ROUND_GOAL, CONTRIBUTION_GOAL] if goal not in known]


def time_goal(n: int, d: int) -> str:
    """What is aimed at for a client among `n`, with `d` weights."""
    return f"A client takes at most {TIME_GOAL} of the time of Flower's SecAgg+ ({n} clients, {d:,} weights)"


def bytes_goal(n: int, d: int) -> str:
    """The same for what it uploads."""
    return (
        f"A client uploads at most {BYTES_GOAL} of the bytes of Flower's SecAgg+ ({n} clients, {d:,} weights)"
    )


def _client_goals(own: ClientRow, peer: ClientRow) -> list[Claim]:
    if own.seconds is None or own.upload is None or not peer.seconds or not peer.upload:
        return []
    time_ratio, bytes_ratio = own.seconds / peer.seconds, own.upload / peer.upload
    return [
        Claim(
            name=f"client-time-{own.n}-{own.d}",
            statement=time_goal(own.n, own.d),
            source=SOURCE,
            rule="ratio of the medians; ours also encodes and commits",
            holds=time_ratio <= TIME_GOAL,
            found=f"{1000 * own.seconds:.1f} against {1000 * peer.seconds:.1f} ms, {time_ratio:.2f} times.",
            numbers={"ratio": time_ratio, "own_s": own.seconds, "peer_s": peer.seconds},
        ),
        Claim(
            name=f"client-bytes-{own.n}-{own.d}",
            statement=bytes_goal(own.n, own.d),
            source=SOURCE,
            rule="our upload and commitment over its masked int64 vector",
            holds=bytes_ratio <= BYTES_GOAL,
            found=f"{own.upload:,.0f} against {peer.upload:,.0f} bytes, {bytes_ratio:.2f} times.",
            numbers={"ratio": bytes_ratio, "own": own.upload, "peer": peer.upload},
        ),
    ]


def _round_goal(row: RoundRow) -> Claim:
    assert row.seconds is not None
    return Claim(
        name="round-seconds",
        statement=ROUND_GOAL,
        source=SOURCE,
        rule="the median over all rounds but each run's first",
        holds=row.seconds <= ROUND_GOAL_S,
        found=f"{row.seconds:.2f} s, the slowest {row.slowest:.2f} s.",
        numbers={"seconds": row.seconds},
    )


def _upload_goal(row: RoundRow) -> Claim:
    assert row.upload is not None
    return Claim(
        name="round-upload",
        statement=CONTRIBUTION_GOAL,
        source=SOURCE,
        rule="all bytes that it sends from the setup block to the contribution block, the median",
        holds=row.upload <= UPLOAD_GOAL,
        found=f"{row.upload:.2f} times.",
        numbers={"ratio": row.upload},
    )
