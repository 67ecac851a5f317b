"""How a run of the lab went, as JSON and in tables. Nodes by number, amounts in units, times in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
from rich.console import Console
from rich.text import Text

from flocknode.observe.live import make_table
from flocknode.observe.report import Json
from flocknode.observe.rounds import RoundRecord
from sim.lab.run import LabResult
from sim.lab.screen import outcome_of
from sim.scenario.outcome import NodeEnd, proven_faults


def make_report(result: LabResult) -> Json:
    """JSON-ready values."""
    ending = result.ending
    numbers = ending.numbers
    return {
        "scenario": ending.scenario.name,
        "seed": result.seed,
        "seconds": round(result.seconds, 3),
        "notices": list(result.notices),
        "rounds": [_round(record, numbers) for record in ending.rounds],
        "faults": [
            {
                "fault": blow.number,
                "do": blow.do.value,
                "at_s": round(blow.at_s, 3),
                "lifted_s": None if blow.lifted_s is None else round(blow.lifted_s, 3),
                "round": blow.round,
                "phase": blow.phase,
                "who": list(blow.who),
                "to": list(blow.to),
                "groups": [list(group) for group in blow.groups],
            }
            for blow in result.blows
        ],
        "paid": [
            {"round": proven.round, "node": numbers[proven.peer], "fault": proven.fault.name}
            for proven in proven_faults(ending.longest.steps)
            if proven.peer in numbers
        ],
        "returns": [attrs.asdict(back) for back in ending.came_back.values()],
        "nodes": [_node(node, code) for node, code in zip(ending.nodes, result.exit_codes, strict=True)],
        "failures": list(result.failures),
    }


def _round(record: RoundRecord, numbers: Mapping[bytes, int]) -> Json:
    def named(peers: Iterable[bytes]) -> list[int]:
        return [numbers[peer] for peer in peers]

    def by_number(values: Mapping[bytes, int]) -> dict[str, int]:
        return {str(numbers[peer]): value for peer, value in values.items()}

    return {
        "round": record.round,
        "accepted": record.accepted,
        "verdict": record.verdict,
        "attempts": record.attempts,
        "proposers": named(record.proposers),
        "voters": named(record.voters),
        "aggregator": None if record.aggregator is None else numbers[record.aggregator],
        "sharers": named(record.sharers),
        "contributors": named(record.contributors),
        "votes": by_number(record.votes),
        "phases": [[end.phase, end.height] for end in record.phases],
        "stake_changes": by_number(record.stake_changes),
        "model_digest": record.model_digest.hex(),
    }


def _node(node: NodeEnd, exit_code: int | None) -> Json:
    head = node.steps[-1].stored.block.hash.hex() if node.steps else None
    return {
        "node": node.number,
        "up": node.up,
        "honest": node.honest,
        "height": node.height,
        "head": head,
        "fault": node.fault,
        "exit_code": exit_code,
    }


def print_summary(console: Console, result: LabResult) -> None:
    """What happened, where it has not been told line by line, and what does not hold of what had to."""
    if console.is_terminal:
        _print_tables(console, result)
    for failure in result.failures:
        console.print(Text(failure, style="bold red"))


def _print_tables(console: Console, result: LabResult) -> None:
    rounds = make_table("rounds")
    for name in ("round", "outcome"):
        rounds.add_column(name)
    for record in result.ending.rounds:
        rounds.add_row(str(record.round), outcome_of(record))
    faults = make_table("faults")
    for name in ("at", "until", "in round", "what"):
        faults.add_column(name)
    for blow in result.blows:
        until = "-" if blow.lifted_s is None else f"{blow.lifted_s:.2f} s"
        faults.add_row(f"{blow.at_s:.2f} s", until, f"{blow.round} / {blow.phase}", str(blow))
    for table in (rounds, faults) if result.blows else (rounds,):
        console.print(table)
        console.print()


def verdict(result: LabResult) -> str:
    """One line."""
    name, seconds = result.ending.scenario.name, f"{result.seconds:.1f} s"
    if result.failures:
        return f"{name}: FAILED, {len(result.failures)} of what had to hold does not ({seconds})"
    up = sum(node.up for node in result.ending.nodes)
    return f"{name}: all that had to hold holds; {up} nodes up, {len(result.blows)} faults ({seconds})"
