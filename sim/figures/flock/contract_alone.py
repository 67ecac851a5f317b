"""The contract without any training: votes by a model of what real runs show, many seeds in seconds.

An aggregate is bad iff a malicious client proposed. An honest voter sees that, but errs with a given
probability; a malicious one votes the opposite of what it sees. The real runs on Lending Club have hardly any
error, those on label-skewed digits some 5 to 10 %, until the model has learned something.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen

from sim.figures.flock.contract import Contract, found_contract
from sim.figures.flock.experiment import VOTE_AGAINST, VOTE_FOR
from sim.figures.sweep import Result


@frozen(kw_only=True)
class ContractRun:
    """One cell of the figure, over all of its seeds. `gamma`: tokens, or ADAPTIVE."""

    malicious_percent: int
    mistaken_percent: int
    gamma: int
    rounds: int
    first_seed: int
    seeds: int
    clients: int


def execute_alone(run: ContractRun) -> Result:
    """By seed: "survival_malicious", mean rounds as a validator; "alive_honest", share left at the end."""
    seeds = range(run.first_seed, run.first_seed + run.seeds)
    outcomes = [_one_seed(run, seed) for seed in seeds]
    return {name: [outcome[name] for outcome in outcomes] for name in ("survival_malicious", "alive_honest")}


def _one_seed(run: ContractRun, seed: int) -> Mapping[str, float]:
    rng = np.random.default_rng([seed, 2])
    count = round(run.clients * run.malicious_percent / 100)
    malicious = frozenset(int(c) for c in rng.choice(run.clients, count, replace=False))
    contract, alive = found_contract(run.clients, seed, 1, run.gamma), 0
    for _ in range(run.rounds):
        alive += sum(contract.is_active[client] for client in malicious)
        if contract.is_over:
            continue
        votes = _votes(contract, malicious, run.mistaken_percent / 100, rng)
        contract = contract.after_round(votes)
    honest = [active for client, active in enumerate(contract.is_active) if client not in malicious]
    return {"survival_malicious": alive / max(1, count), "alive_honest": sum(honest) / len(honest)}


def _votes(
    contract: Contract, malicious: frozenset[int], mistaken: float, rng: np.random.Generator
) -> dict[int, int]:
    is_bad = not malicious.isdisjoint(contract.proposers)
    errs = rng.random(len(contract.voters)) < mistaken
    return {
        client: VOTE_AGAINST if is_bad != (client in malicious or bool(err)) else VOTE_FOR
        for client, err in zip(contract.voters, errs, strict=True)
    }
