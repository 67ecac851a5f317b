"""A run for people: its rounds, who misbehaved and what it cost, and whether it passed."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from flocknode.observe.describe import tokens
from flocknode.observe.live import make_table
from protocol.ledger.economy import UNITS
from sim.scenario.outcome import proven_faults
from sim.scenario.run import Run

PIPE_WIDTH = 140


def print_run(run: Run) -> None:
    """Tables on standard output, and the verdict in the last line."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    _print_rounds(console, run)
    _print_nodes(console, run)
    for strike in run.strikes:
        nodes = ", ".join(map(str, strike.nodes))
        console.print(f"{strike.at_ms / 1_000:>9.3f} s  round {strike.round}: {strike.kind.value} {nodes}")
    console.print(
        f"\nseed {run.stage.seed}: {run.events} events in {run.virtual_ms / 1_000:.1f} virtual seconds, "
        f"history {run.trace_digest[:16]}"
    )
    if run.violation is not None:
        console.print(Text(f"violated: {run.violation.invariant}", style="bold red"))
        console.print(Text(run.violation.what))
    for failure in run.failures:
        console.print(Text(f"not as expected: {failure}", style="bold red"))
    if run.passed:
        console.print(Text("no invariant was violated, and all that was expected came about", style="green"))


def _print_rounds(console: Console, run: Run) -> None:
    table = make_table(run.stage.scenario.name)
    for name in ("round", "verdict", "outcome", "U2", "votes", "attempts", "faults on the ledger"):
        table.add_column(name)
    faults = list(proven_faults(run.ending.longest.steps))
    numbers = run.ending.numbers
    for record in run.ending.rounds:
        table.add_row(
            str(record.round),
            record.verdict,
            "accepted" if record.accepted else "not accepted",
            " ".join(str(numbers[peer]) for peer in record.contributors) or "-",
            " ".join(f"{numbers[peer]}:{vote:+d}" for peer, vote in record.votes.items()) or "-",
            str(record.attempts),
            " ".join(f"{numbers[f.peer]}:{f.fault.name}" for f in faults if f.round == record.round) or "-",
        )
    console.print(table)
    console.print()


def _print_nodes(console: Console, run: Run) -> None:
    table = make_table("nodes")
    for name in ("node", "in round 1", "behaviour", "struck", "state", "block", "stake", "change"):
        table.add_column(name)
    parts, genesis = run.ending.parts, run.stage.founding.genesis
    founded = {member.peer: member.stake_units for member in genesis.members}
    for node in run.ending.nodes:
        peer = run.stage.founding.identities[node.number].peer
        roles = [
            name
            for name, who in (
                ("proposer", parts.proposers),
                ("aggregator", parts.aggregators[:1]),
                ("voter", parts.voters),
            )
            if node.number in who
        ]
        behaviour, watched = run.stage.cast.get(node.number, ("honest", None))
        steps = run.ending.longest.steps
        account = steps[-1].after.account(peer) if steps else None
        stake = founded[peer] if account is None else account.stake_units
        table.add_row(
            str(node.number),
            ", ".join(roles) or "-",
            Text(behaviour, style="" if watched is None else "red"),
            "-" if watched is None else str(watched.struck),
            "up" if node.up else "down",
            str(node.height),
            tokens(stake),
            f"{(stake - founded[peer]) / UNITS:+,.2f}",
        )
    console.print(table)
    console.print()
