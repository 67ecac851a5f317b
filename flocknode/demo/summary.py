"""How a demo went, in words and tables; all of it from the nodes' ledgers and logs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flocknode.demo.options import DemoOptions
from flocknode.observe.best import describe_best
from flocknode.observe.describe import tokens
from flocknode.observe.live import make_table, phases_table, rounds_table
from flocknode.observe.report import (
    Background,
    NodeRecord,
    ended_rounds,
    is_consistent,
    is_supply_conserved,
    longest,
    scores_by_round,
)
from protocol.keys import short_name
from protocol.ledger.economy import UNITS


def print_summary(
    console: Console, options: DemoOptions, nodes: Sequence[NodeRecord], background: Background
) -> bool:
    """Whether the demo passed: all rounds ended at every node, and all ledgers are identical and verify."""
    records = ended_rounds(nodes, options.rounds)
    logs = {node.peer: node.log for node in nodes}
    faults = _faults(options, nodes)
    if not options.quiet:
        scores = scores_by_round(records, list(logs.values()), background.initial)
        for table in (
            rounds_table(records, scores, background.plain),
            phases_table(records, logs),
            _stakes(nodes, background),
        ):
            console.print(table)
            console.print()
        best = describe_best(longest(nodes).end.state.best)
        if best:
            console.print(best, highlight=False)
    for fault in faults:
        console.print(Text(fault, style="bold red"))
    if not faults:
        verified = f"{len(nodes)} ledgers are identical and verify from genesis; the supply is conserved."
        console.print(Text(f"{len(records)} rounds. {verified}", style="green"))
    return not faults


def _faults(options: DemoOptions, nodes: Sequence[NodeRecord]) -> list[str]:
    faults = [
        f"the ledger of node {number} ({short_name(node.peer)}) is wrong: {node.fault}"
        for number, node in enumerate(nodes)
        if node.fault is not None
    ]
    if not faults and not is_consistent(nodes):
        faults.append("the ledgers of the nodes differ")
    if not is_supply_conserved(nodes):
        faults.append("the supply is not conserved")
    behind = [
        number
        for number, node in enumerate(nodes)
        if node.end.state.round <= options.rounds and not node.end.state.rests
    ]
    if behind:
        faults.append(f"round {options.rounds} has not ended at nodes {', '.join(map(str, behind))}")
    return faults


def _stakes(nodes: Sequence[NodeRecord], background: Background) -> Table:
    table = make_table("stakes")
    for name in ("node", "peer", "role"):
        table.add_column(name)
    for name in ("stake", "change", "last block"):
        table.add_column(name, justify="right")
    table.add_column("active")
    table.add_column("head")
    for number, node in enumerate(nodes):
        end = node.end
        account = end.state.account(node.peer)
        stake = 0 if account is None else account.stake_units
        founded = {member.peer: member.stake_units for member in node.genesis.members}
        change = stake - founded.get(node.peer, 0)
        role = background.roles.get(node.peer, "honest")
        table.add_row(
            str(number),
            short_name(node.peer),
            Text(role, style="red" if role == "poison" else ""),
            tokens(stake),
            Text(f"{change / UNITS:+,.2f}", style="red" if change < 0 else "green"),
            str(end.height),
            "yes" if node.peer in end.state.validators else "no",
            end.head.hex()[:12],
        )
    return table
