"""Which runs are made, in which order: systems take turns, so that a busy minute hits all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import evolve, frozen

from flocknode.learning.models import MODELS
from sim.bench.peers.systems import CLIENTS, ROUNDS, TASK, System

CLIENT = "client"
ROUND = "round"


@frozen
class Case:
    """A client's work with `n` clients and `d` weights, or `n` nodes for `rounds` rounds."""

    part: str
    n: int
    d: int
    rounds: int = 0

    @property
    def name(self) -> str:
        return f"{self.part}-{self.n}-{self.d}"


@frozen
class RunPlan:
    """One run of one system. Runs with the same seed train on the same data from the same model."""

    case: Case
    system: System
    seed: int

    @property
    def name(self) -> str:
        return f"{self.case.name}-{self.system.name}-{self.seed}"


@frozen(kw_only=True)
class Plan:
    """`repeats`: clients timed within one run; `client_limit_s` and `round_limit_s`: of one run."""

    client_cases: tuple[Case, ...]
    round_case: Case
    seeds: tuple[int, ...]
    repeats: int = 5
    client_limit_s: float = 180.0
    round_limit_s: float = 180.0

    def runs(self, peers: Collection[str]) -> list[RunPlan]:
        """Seed by seed, case by case; within a case the systems of `peers` in turn."""
        return [
            RunPlan(case, system, seed)
            for seed in self.seeds
            for case, systems in self._cases()
            for system in systems
            if system.peer in peers
        ]

    def limit_s(self, case: Case) -> float:
        return self.client_limit_s if case.part == CLIENT else self.round_limit_s

    def _cases(self) -> list[tuple[Case, Sequence[System]]]:
        return [*((case, CLIENTS) for case in self.client_cases), (self.round_case, ROUNDS)]


def _client(n: int, d: int) -> Case:
    return Case(CLIENT, n, d)


FULL = Plan(
    client_cases=tuple(_client(n, d) for d in (100_000, 1_000_000) for n in (20, 100)),
    round_case=Case(ROUND, 8, MODELS[TASK].dimension, rounds=10),
    seeds=(1, 2, 3),
)

QUICK = evolve(
    FULL,
    client_cases=(_client(5, 2_000),),
    round_case=evolve(FULL.round_case, rounds=2),
    seeds=(1,),
    repeats=1,
)
"""Small sizes, for a first look and for tests."""
