"""One run of FLock's experiment: 50 clients, some malicious, real training, votes on real losses, stakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import field, frozen
from attrs.validators import in_

from flocknode.learning.task import Weights
from protocol.duties.vote import loss_micro
from protocol.ledger.economy import is_accepted
from sim.figures.flock.aggregation import RULES
from sim.figures.flock.contract import Contract, found_contract
from sim.figures.flock.history import History
from sim.figures.flock.networks import dimension
from sim.figures.flock.problem import Problem, load_problem
from sim.figures.flock.training import Trainer, initial_weights
from sim.figures.sweep import Result

VOTE = "vote"

BOOST = 10.0
"""What a malicious proposer multiplies its update by, as `BoostedTask` does."""

VOTE_FOR, VOTE_AGAINST = 1, -1


@frozen(kw_only=True)
class FlockRun:
    """What a run is a pure function of.

    `rule`: how proposals become a model: one of `RULES` without a vote, or "vote" (FedAvg, and the contract
    decides). `gamma`: tokens, or ADAPTIVE; only votes use it. `malicious_percent`: eta. `images` and
    `labels`: paths, for the task "images".
    """

    task: str
    rule: str = field(validator=in_((*RULES, VOTE)))
    malicious_percent: int
    seed: int
    rounds: int
    gamma: int = 8
    clients: int = 50
    boost: float = BOOST
    images: str = ""
    labels: str = ""

    @property
    def malicious_count(self) -> int:
        return round(self.clients * self.malicious_percent / 100)


def malicious_clients(run: FlockRun) -> frozenset[int]:
    """Whom the seed makes malicious, for the whole run."""
    rng = np.random.default_rng([run.seed, 1])
    return frozenset(int(c) for c in rng.choice(run.clients, run.malicious_count, replace=False))


def execute(run: FlockRun) -> Result:
    """Run it; see `History` for what it returns."""
    paths = (Path(run.images), Path(run.labels)) if run.images else (None, None)
    return _Experiment.of(run, load_problem(run.task, run.clients, run.seed, *paths)).result()


@frozen(eq=False)
class _Experiment:
    run: FlockRun
    problem: Problem
    trainer: Trainer
    malicious: frozenset[int]

    @classmethod
    def of(cls, run: FlockRun, problem: Problem) -> _Experiment:
        return cls(run, problem, Trainer(problem), malicious_clients(run))

    def result(self) -> Result:
        run, problem = self.run, self.problem
        contract = found_contract(run.clients, run.seed, dimension(problem.network), run.gamma)
        weights = initial_weights(problem, run.seed)
        history = History(self.malicious)
        history.add_state(contract, self._scores(weights))
        for round_ in range(1, run.rounds + 1):
            if contract.is_over:
                break
            candidate = self.candidate(contract, weights, round_)
            if run.rule == VOTE:
                votes = self.votes(contract, weights, candidate)
                by_peer = {contract.peers[client]: vote for client, vote in votes.items()}
                after = contract.after_round(votes)
                spoiled = self._is_worse(contract, weights, candidate)
                history.add_vote(contract, after, votes, spoiled)
                weights = candidate if is_accepted(by_peer) else weights
            else:
                after = contract.after_round(None)
                weights = candidate
            contract = after
            history.add_state(contract, self._scores(weights))
        return history.result(run.rounds)

    def candidate(self, contract: Contract, weights: Weights, round_: int) -> Weights:
        """float32[d]: the aggregate of what the round's proposers make of `weights`."""
        run, proposers = self.run, contract.proposers
        poisons = np.array([client in self.malicious for client in proposers])
        fitted = self.trainer.fit(weights, proposers, poisons.tolist(), self._seeds(proposers), round_)
        updates = fitted.astype(np.float64) - weights
        updates[poisons] *= run.boost
        # As the network's encoding does, which cannot hold more.
        np.clip(updates, -contract.params.clip, contract.params.clip, out=updates)
        counts = np.array([len(self.problem.splits[client].train) for client in proposers])
        # The robust rules are told eta, which a user would have to guess.
        assumed = round(len(proposers) * run.malicious_percent / 100)
        rule = RULES["fedavg" if run.rule == VOTE else run.rule]
        candidate: Weights = (weights + rule(updates, counts, assumed)).astype(np.float32)
        return candidate

    def votes(self, contract: Contract, weights: Weights, candidate: Weights) -> dict[int, int]:
        """+1 or -1 of each voter, by docs/PROTOCOL.md section 6; a malicious one votes the opposite."""
        groups = [self.problem.splits[client].validation for client in contract.voters]
        losses = self.trainer.mean_losses(np.stack([weights, candidate]), groups)
        tolerance = contract.params.tolerance_micro
        votes = {}
        for client, current, proposed in zip(contract.voters, *losses.tolist(), strict=True):
            good = loss_micro(proposed) <= loss_micro(current) + tolerance
            votes[client] = VOTE_FOR if good != (client in self.malicious) else VOTE_AGAINST
        return votes

    def _is_worse(self, contract: Contract, weights: Weights, candidate: Weights) -> bool:
        """The voting rule on everybody's test samples: whether the aggregate is in truth a bad one."""
        ((current,), (proposed,)) = self.trainer.mean_losses(
            np.stack([weights, candidate]), [self.problem.test]
        ).tolist()
        return loss_micro(proposed) > loss_micro(current) + contract.params.tolerance_micro

    def _scores(self, weights: Weights) -> dict[str, float]:
        return self.trainer.scores(weights, self.problem.test)

    def _seeds(self, clients: list[int]) -> list[int]:
        return [self.run.seed * self.run.clients + client for client in clients]
