"""What one node knows of the current round beyond the ledger: its secrets, shares, results and clocks."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

from protocol.compose import Findings
from protocol.envelope import Statement
from protocol.jobs import AggregateResult, ContributeResult, DealResult, TrainResult
from protocol.messages import ShareBundle, VoteOpening
from protocol.secrets import RoundSecrets
from protocol.sharing import HeldShare, ShareKind, SharePackage

ShareKey = tuple[ShareKind, bytes]
"""Share kind and dealer."""


@define(eq=False)
class RoundMemory:
    """Of one round; replaced when the round ends.

    `proven`: by dealer, the bundle that the package at hand was taken in under in this life.
    `released`: the valid shares of each release, in the order in which releases were counted.
    `seeds_sought`: the height, and how many reveals and releases, that check seeds were last looked for in.
    """

    round: int
    secrets: RoundSecrets | None = None
    packages: dict[bytes, SharePackage] = field(factory=dict)
    proven: dict[bytes, ShareBundle] = field(factory=dict)
    boxes: dict[bytes, bytes] = field(factory=dict)
    bad_openings: set[bytes] = field(factory=set)
    zs: dict[bytes, bytes] = field(factory=dict)
    released: list[Mapping[ShareKey, HeldShare]] = field(factory=list)
    counted_releases: set[bytes] = field(factory=set)
    started: set[str] = field(factory=set)
    dealt: DealResult | None = None
    trained: TrainResult | None = None
    contributed: ContributeResult | None = None
    aggregated: AggregateResult | None = None
    checked_uploads: set[bytes] = field(factory=set)
    bad_uploads: set[bytes] = field(factory=set)
    seeds_sought: tuple[int, int, int] = (0, 0, 0)
    openings: dict[int, VoteOpening] = field(factory=dict)
    findings: Findings = field(factory=Findings)


@define(eq=False)
class PhaseClock:
    """How far this node has come with the phase that began with the last block. Milliseconds.

    `held`: this node says nothing yet, and `began_ms` is when it will (section 3.9).
    """

    height: int
    began_ms: int
    most_since_ms: int | None = None
    release_set: bool = False
    release: bool = False
    late: int = 0
    witness_set: bool = False
    witness: bool = False
    ready: Statement | None = None
    held: bool = False
