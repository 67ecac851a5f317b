"""The comparison as Markdown: tables, goals, every run with its seed, and the last words of lost ones."""

from __future__ import annotations

from collections.abc import Sequence

from sim.bench.peers.plan import CLIENT
from sim.bench.peers.runs import DONE, LOST, Run
from sim.bench.peers.summary import ACCURACY_ROUNDS, ClientRow, RoundRow
from sim.bench.peers.systems import CLIENTS, ROUNDS
from sim.figures.claims import Claim, claim_list

LABELS = {system.name: system.label for system in (*CLIENTS, *ROUNDS)}
NOTHING = "-"
TITLE = "flocknode beside Flower and p2pfl"


def to_markdown(
    clients: Sequence[ClientRow],
    rounds: Sequence[RoundRow],
    goals: Sequence[Claim],
    runs: Sequence[Run],
    where: str,
    command: str,
) -> str:
    """All of it, one section a part."""
    parts = [
        f"# {TITLE}",
        f"    {command}",
        how(where),
        *sections(clients, rounds, goals, runs),
    ]
    return "\n\n".join(parts) + "\n"


def how(where: str) -> str:
    """How the comparison was made."""
    return (
        f"On one machine: {where}. Each run is a process of its own, on one thread a process; systems take "
        "turns, and with the same seed they train on the same data from the same model with the same loop. "
        "All times are medians."
    )


def sections(
    clients: Sequence[ClientRow],
    rounds: Sequence[RoundRow],
    goals: Sequence[Claim],
    runs: Sequence[Run],
    heading: str = "##",
    at: str = "",
    made: str = "",
) -> list[str]:
    """Tables, pictures, goals and runs. `at`: before the pictures' names; `made`: said below each of them."""

    def picture(title: str, stem: str) -> list[str]:
        return [f"[![{title}]({at}{stem}.png)]({at}{stem}.svg)", *([made] if made else [])]

    return [
        f"{heading} One client's cryptography",
        "Keys, shares and masks of one client with all others as neighbours; flocknode's also encodes and "
        "commits, so that the sum can be verified. Ratios are to the last system of the same size.",
        client_table(clients),
        *picture("Time of a client", "peers-client"),
        f"{heading} Whole rounds, 8 nodes, MNIST",
        "Seconds and bytes leave out each run's first round, in which systems connect. Flower's simulator "
        "opens no socket for its messages: its bytes are those of the serialised messages. p2pfl's are its "
        "messages as sent; it runs in one process without Ray, with the settings of its examples. "
        "flocknode's are bytes on its connections. In flocknode the proposers of a round are drawn (4 of 8), "
        "elsewhere all nodes train. Ratios are to flocknode.",
        round_table(rounds),
        *picture("Time of a round", "peers-round"),
        *picture("Bytes of a round", "peers-bytes"),
        f"{heading} Goals",
        claim_list(goals) if goals else "None could be decided: a system is missing, or ended no run.",
        f"{heading} Every run",
        run_table(runs),
        *_lost(runs),
    ]


def client_table(rows: Sequence[ClientRow]) -> str:
    """Ratios are to the last system of the same size."""
    lines = [
        "| clients | weights | system | ms | x | upload kB | x | shares kB | runs | lost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = [other for other in rows if (other.n, other.d) == (row.n, row.d)][-1]
        cells = [
            str(row.n),
            f"{row.d:,}",
            LABELS.get(row.system, row.system),
            _number(row.seconds, 1e3, ".1f"),
            _ratio(row.seconds, base.seconds),
            _number(row.upload, 1e-3, ",.0f"),
            _ratio(row.upload, base.upload),
            _number(row.shares, 1e-3, ".1f"),
            str(row.runs),
            str(row.lost),
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def round_table(rows: Sequence[RoundRow]) -> str:
    """Ratios are to flocknode's row with training, or to the first."""
    base = next((row for row in rows if row.system == "flocknode"), rows[0] if rows else None)
    after = " / ".join(f"r{number}" for number in ACCURACY_ROUNDS)
    lines = [
        "| system | s / round | x | slowest | launch to end of round 1, s | kB / node / round, up / down "
        f"| training of a node, ms | accuracy {after} | runs | lost | not run |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            LABELS.get(row.system, row.system),
            _number(row.seconds, 1, ".2f"),
            _ratio(row.seconds, base.seconds if base else None),
            _number(row.slowest, 1, ".2f"),
            _number(row.launch, 1, ".1f"),
            f"{_number(row.sent, 1e-3, ',.0f')} / {_number(row.received, 1e-3, ',.0f')}",
            _number(row.training, 1e3, ".0f"),
            " / ".join(_number(value, 1, ".3f") for value in row.accuracy),
            str(row.runs),
            str(row.lost),
            str(row.skipped),
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def run_table(runs: Sequence[Run]) -> str:
    """One line a run."""
    lines = ["| part | size | system | seed | outcome | s | left behind |", "|---|---|---|---|---|---|---|"]
    for run in runs:
        size = f"{run.n} x {run.d:,}" if run.part == CLIENT else f"{run.n} nodes, {run.rounds} rounds"
        outcome = run.outcome if run.outcome == DONE else f"{run.outcome}: {run.reason}"
        cells = [run.part, size, run.system, str(run.seed), outcome, f"{run.seconds:.1f}"]
        lines.append(_line([*cells, f"{run.killed} killed" if run.killed else NOTHING]))
    return "\n".join(lines)


def _lost(runs: Sequence[Run]) -> list[str]:
    parts = []
    for run in runs:
        if run.outcome == LOST and run.log:
            parts.append(f"The last lines of {run.system}, seed {run.seed} ({run.reason}):")
            parts.append("\n".join(f"    {line}" for line in run.log))
    return parts


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, scale: float, form: str) -> str:
    return NOTHING if value is None else format(value * scale, form)


def _ratio(value: float | None, base: float | None) -> str:
    return NOTHING if value is None or not base else f"{value / base:.2f}"
