"""A running network on a terminal: who does what, how far the round is, and how the last ones went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flocknode.observe.describe import tokens
from flocknode.observe.follow import Follower
from flocknode.observe.nodelog import NodeLog
from flocknode.observe.report import Scores, phase_bytes, phase_seconds, scores_by_round, upload_bytes
from flocknode.observe.rounds import ABORTED, RoundRecord
from protocol.keys import short_name
from protocol.ledger.state import LedgerState

STEPS = ("share", "contribute", "aggregate", "challenge", "vote")
ALL_STEPS = ("advert", "share", "contribute", "aggregate", "challenge", "dispute", "vote", "recover")
EQUATIONS: Mapping[str, tuple[bool, bool]] = {
    "TRUSTED": (True, True),
    "LAZY_AGGREGATOR": (False, False),
    "COLLUDING_AGGREGATOR": (True, False),
    "CHECK_FAULT": (False, True),
}
"""What each verdict says of eq. 18 and eq. 19 (docs/PROTOCOL.md section 5)."""

EXTRA_SCORES: Mapping[str, str] = {"auroc": "AUROC", "balanced_accuracy": "balanced"}
WIDE = 118
"""Columns with which seconds and bytes of all phases stand on one line."""
PANEL_LINES = 4
TABLE_LINES = 3
"""Of a table without rows."""


@frozen(kw_only=True)
class View:
    """What a live view shows besides what its follower knows. `kinds`, `running`: by node number."""

    title: str
    rounds: int
    follower: Follower
    members: Sequence[bytes]
    kinds: Sequence[str]
    running: Sequence[bool]
    elapsed_s: float


def make_table(title: str) -> Table:
    """An empty table in the one style that all of them have."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def live_view(view: View, width: int = 120, height: int = 60) -> RenderableType:
    """What fits on a screen of so many columns and lines."""
    follower = view.follower
    logs = dict(zip(view.members, follower.logs, strict=True))
    shown = [record for record in follower.rounds if record.round <= view.rounds]
    scores = scores_by_round(shown, follower.logs, {})
    parts: list[RenderableType] = [
        Panel(Group(_progress(view, len(shown)), _steps(follower)), title=view.title, title_align="left"),
        nodes_table(view),
    ]
    # Two tables with a line for each round, the second with two where seconds and bytes do not fit on one.
    lines = 1 if width >= WIDE else 2
    left = height - PANEL_LINES - 3 * TABLE_LINES - len(view.members) - 1
    newest = max(1, left // (1 + lines))
    parts.append(rounds_table(shown[-newest:], scores[-newest:]))
    if left >= 1 + lines:
        parts.append(phases_table(shown[-newest:], logs))
    return Group(*parts)


def _progress(view: View, ended: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    now = min(view.follower.state.round, view.rounds)
    grid.add_row(
        Text(f"round {now} of {view.rounds}", style="bold"),
        ProgressBar(total=view.rounds, completed=ended, width=40),
        f"block {view.follower.state.height}",
        f"{view.elapsed_s:.0f} s",
    )
    return grid


def _steps(follower: Follower) -> Text:
    text = Text()
    phase = follower.phase
    shown = [step for step in ALL_STEPS if step in STEPS or step == phase]
    for number, step in enumerate(shown):
        text.append(" > " if number else "", style="dim")
        text.append(step, style="bold reverse" if step == phase else "dim")
    if follower.state.rests:
        text.append("   training rests", style="bold yellow")
    return text


def nodes_table(view: View) -> Table:
    """One line a node: its part in the round that runs, its stake, its traffic."""
    table = make_table("nodes")
    for name in ("node", "peer", "kind", "state", "in this round"):
        table.add_column(name, no_wrap=True)
    for name in ("stake", "block", "in", "out"):
        table.add_column(name, justify="right")
    state = view.follower.state
    for number, peer in enumerate(view.members):
        log, running = view.follower.logs[number], view.running[number]
        account = state.account(peer)
        table.add_row(
            str(number),
            short_name(peer),
            Text(view.kinds[number], style="red" if view.kinds[number] == "poison" else ""),
            Text("up", style="green") if running else Text("killed", style="bold red"),
            _role(state, peer),
            "" if account is None else tokens(account.stake_units),
            str(log.height),
            _size(log.bytes_in),
            _size(log.bytes_out),
        )
    return table


def _role(state: LedgerState, peer: bytes) -> Text:
    learning = state.learning
    roles = []
    if peer in learning.proposers:
        steps = [
            (any(bundle.peer == peer for bundle in learning.sharers), "shared"),
            (any(contribution.peer == peer for contribution in learning.contributors), "uploaded"),
        ]
        done = [word for is_done, word in steps if is_done]
        roles.append("proposer" + (f", {done[-1]}" if done else ""))
    if peer == learning.aggregator:
        roles.append("aggregator")
    if peer in learning.voters:
        roles.append("voter")
    return Text(", ".join(roles) or "-")


def rounds_table(
    records: Sequence[RoundRecord], scores: Sequence[Scores], plain: Sequence[Scores] | None = None
) -> Table:
    """One line a round. `plain`: the scores of plain FedAvg after each of them, where they are known."""
    table = make_table("rounds")
    extra = {name: word for name, word in EXTRA_SCORES.items() if any(name in s for s in scores)}
    drops = any(record.dropped for record in records)
    table.add_column("round", justify="right")
    table.add_column("verdict", min_width=len("rejected"))
    for name in ("eq18", "eq19", "updates", *(["dropped"] if drops else []), "votes", "loss", "accuracy"):
        table.add_column(name, justify="right", no_wrap=name != "dropped")
    for name in (*([] if plain is None else ["FedAvg"]), *extra.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for number, (record, score) in enumerate(zip(records, scores, strict=True)):
        row: list[RenderableType] = [str(record.round), _verdict(record), *_equations(record.verdict)]
        row.append(f"{len(record.contributors)}/{len(record.proposers)}")
        if drops:
            row.append(" ".join(short_name(peer) for peer in record.dropped) or "-")
        row += [_votes(record), _number(score.get("loss"), 4), _number(score.get("accuracy"), 3)]
        if plain is not None:
            row.append(_number(plain[number].get("accuracy"), 3) if number < len(plain) else "-")
        table.add_row(*row, *(_number(score.get(name), 3) for name in extra))
    return table


def phases_table(records: Sequence[RoundRecord], logs: Mapping[bytes, NodeLog]) -> Table:
    """Seconds of each phase, and what all nodes together sent in it; one line a round."""
    table = make_table("seconds and bytes sent")
    rows = [(r, phase_seconds(r, list(logs.values())), phase_bytes(r, list(logs.values()))) for r in records]
    others = dict.fromkeys(name for _, seconds, _ in rows for name in seconds if name not in STEPS)
    names = [*others, *STEPS]
    for name in ("round", *names, "all", "upload"):
        table.add_column(name, justify="right")
    for record, seconds, sent in rows:
        cells = [f"{seconds[n]:.2f}\xa0s {_size(sent[n])}" if n in seconds else "-" for n in names]
        uploads = upload_bytes(record, logs).values()
        table.add_row(
            str(record.round),
            *cells,
            f"{sum(seconds.values()):.2f} s",
            _size(max(uploads)) if uploads else "-",
        )
    return table


def _verdict(record: RoundRecord) -> Text:
    if record.accepted:
        return Text(record.verdict, style="green")
    outcome = "" if record.verdict == ABORTED else " rejected"
    return Text(record.verdict + outcome, style="bold red")


def _equations(verdict: str) -> tuple[Text, Text]:
    held = EQUATIONS.get(verdict)
    if held is None:
        return Text("-"), Text("-")
    eq18, eq19 = (Text("ok", style="green") if holds else Text("fails", style="red") for holds in held)
    return eq18, eq19


def _votes(record: RoundRecord) -> str:
    return " ".join(f"{vote:+d}" if vote else "0" for vote in record.votes.values()) or "-"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _size(count: int) -> str:
    # With a space that does not break.
    return f"{count / 1e6:.1f}\xa0MB" if count >= 1e6 else f"{count / 1e3:.0f}\xa0kB"
