"""Reading back what chapters and the comparison with peers left in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import frozen

from sim.bench.peers.compare import RESULTS
from sim.bench.peers.runs import Run
from sim.bench.peers.summary import ClientRow, RoundRow
from sim.figures.claims import Claim

PEERS = "peers"


class ToldError(ValueError):
    """A file is not what the program writes; the message names it."""


@frozen(kw_only=True)
class ToldFigure:
    """`name`: of its PNG, SVG and CSV."""

    name: str
    title: str
    text: str
    seeds: str
    claims: tuple[Claim, ...]


@frozen(kw_only=True)
class ToldChapter:
    """What `sim.figures.report.write_chapter` wrote, without the data."""

    title: str
    command: str
    text: str
    machine: str
    figures: tuple[ToldFigure, ...]

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(claim for figure in self.figures for claim in figure.claims)


@frozen(kw_only=True)
class ToldComparison:
    """What `sim.bench.peers.compare.write_comparison` wrote."""

    command: str
    machine: str
    clients: tuple[ClientRow, ...]
    rounds: tuple[RoundRow, ...]
    goals: tuple[Claim, ...]
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> str:
        return ", ".join(map(str, sorted({run.seed for run in self.runs})))


def read_chapter(out: Path, name: str) -> ToldChapter | None:
    """None where it was not made yet. ToldError for damaged files."""
    path, claims_path = out / f"{name}.json", out / f"{name}-claims.json"
    if not path.exists():
        return None
    claims = {data["name"]: data for data in read_json(claims_path)}
    data = read_json(path)
    try:
        figures = tuple(
            ToldFigure(
                **{**figure, "claims": tuple(Claim.from_json(claims[name]) for name in figure["claims"])}
            )
            for figure in data["figures"]
        )
        return ToldChapter(**{**data, "figures": figures})
    except (KeyError, TypeError) as error:
        raise ToldError(
            f"{path}: does not fit {claims_path.name}, or is of another version: {error}"
        ) from error


def read_comparison(out: Path) -> ToldComparison | None:
    """Of `out`/peers; None where no comparison was finished there. ToldError for a damaged file."""
    path = out / PEERS / RESULTS
    if not path.exists():
        return None
    data = read_json(path)
    try:
        return ToldComparison(
            command=data["command"],
            machine=data["machine"],
            clients=tuple(ClientRow(**row) for row in data["clients"]),
            rounds=tuple(RoundRow(**{**row, "accuracy": tuple(row["accuracy"])}) for row in data["rounds"]),
            goals=tuple(Claim.from_json(goal) for goal in data["goals"]),
            runs=tuple(Run.from_json(run) for run in data["runs"]),
        )
    except (KeyError, TypeError) as error:
        raise ToldError(f"{path}: not as `flocknode bench peers` writes it: {error}") from error


def read_json(path: Path) -> Any:
    """ToldError where it is none."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ToldError(f"{path}: not JSON: {error}") from error
