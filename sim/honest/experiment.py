"""One network, round after round: real training without masks, real votes, the ledger's own settlement.

Who trains and who votes, what a vote says, what it costs, and which model is the best are the protocol's own
functions (`protocol.duties.vote.judge`, `protocol.ledger.settlement.end_round`). Left out are the masks, the
messages and the wire. Training never stops: a task that is done trains on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen
from attrs.validators import in_

from flocknode.behaviour import contrary
from flocknode.learning import lending_club
from flocknode.learning.datasets import load_dataset
from flocknode.learning.models import MODELS
from flocknode.learning.partition import partition_dirichlet, partition_iid, split_shard
from flocknode.learning.task import DEFAULTS, PARTITIONS, TASK_NAMES, Weights
from protocol.codec import digest
from protocol.duties.vote import judge, measure
from protocol.jobs import EvaluateResult
from protocol.ledger.judgement import Judgement, Opinion, Yardstick
from protocol.ledger.settlement import Ballot
from protocol.params import MICRO
from sim.figures.flock.aggregation import RULES
from sim.figures.flock.contract import Contract, found_contract
from sim.figures.flock.networks import StackedMlp, dimension
from sim.figures.flock.problem import Problem
from sim.figures.flock.training import Trainer, initial_weights
from sim.figures.sweep import Result

INTERIM, FLOCK = "interim", "flock"
CONTRACTS = (INTERIM, FLOCK)
NO_POISON = "none"
POISONS: dict[str, tuple[bool, float]] = {
    NO_POISON: (False, 1.0),
    "flip": (True, 1.0),
    "flip-x3": (True, 3.0),
    "sign": (False, -1.0),
    "sign-x10": (False, -10.0),
    "scale-x1000": (False, 1000.0),
}
"""By name: whether the labels of a poisoner are flipped, and what its update is multiplied by."""
ALPHA = 0.5
GAMMA_TOKENS = 8

Losses = npt.NDArray[np.float64]


@frozen(kw_only=True)
class HonestRun:
    """What a run is a pure function of.

    `partition`: iid, or dirichlet with concentration 0.5. `poisoners`: so many of the last nodes send
    `poison`, and vote against their own judgement. `rule`: the numbers of the interim contract.
    """

    task: str = field(validator=in_(TASK_NAMES))
    partition: str = field(validator=in_(PARTITIONS))
    nodes: int
    seed: int
    rounds: int
    contract: str = field(default=INTERIM, validator=in_(CONTRACTS))
    poison: str = field(default=NO_POISON, validator=in_(POISONS))
    poisoners: int = 0
    rule: Judgement = field(factory=Judgement)


def execute(run: HonestRun) -> Result:
    """Run it. JSON-ready, stakes in units by node:

    `least` and `last`: the lowest and the last stake. `rounds`: those that there were before fewer than four
    validators were left. `accepted`: how many. `first_out`: the round after which a node first was no
    validator, or None. `best_round`. `accuracy`: of the last, the best and the initial model on everybody's
    test samples; `losses`: the same, mean test losses.
    """
    return _Network.of(run).result()


def load_problem(task: str, partition: str, nodes: int, seed: int) -> Problem:
    """Return a built-in task as nodes hold it: with `load_task`'s shards and network."""
    data = load_dataset(task)
    if partition == "iid":
        shards = partition_iid(data.labels, nodes, seed)
    else:
        shards = partition_dirichlet(data.labels, nodes, ALPHA, seed)
    weights = lending_club.CLASS_WEIGHTS if task == "lending-club" else (1.0,) * data.classes
    return Problem(
        name=task,
        features=data.features,
        targets=np.eye(data.classes, dtype=np.float32)[data.labels],
        multi_label=False,
        class_weights=np.array(weights, np.float32),
        network=StackedMlp(MODELS[task]),
        defaults=DEFAULTS[task],
        splits=tuple(split_shard(data.labels, shard, seed) for shard in shards),
    )


@frozen(eq=False)
class _Model:
    """A model on the ledger: its digest, and its loss on each node's validation split (float64[nodes])."""

    digest: bytes
    weights: Weights = field(repr=False)
    losses: Losses = field(repr=False)


@frozen(eq=False)
class _Network:
    run: HonestRun
    problem: Problem
    trainer: Trainer

    @classmethod
    def of(cls, run: HonestRun) -> _Network:
        problem = load_problem(run.task, run.partition, run.nodes, run.seed)
        return cls(run, problem, Trainer(problem))

    def result(self) -> Result:
        run = self.run
        judgement = run.rule if run.contract == INTERIM else None
        contract = found_contract(
            run.nodes, run.seed, dimension(self.problem.network), GAMMA_TOKENS, judgement
        )
        initial = current = best = self._model(0, initial_weights(self.problem, run.seed))
        yardsticks = [Yardstick()] * run.nodes
        least, accepted, rounds, first_out = np.array(contract.stakes_units), 0, 0, None
        while rounds < run.rounds and not contract.is_over:
            rounds += 1
            candidate = self._model(rounds, self._candidate(contract, current.weights, rounds))
            ballot = self._ballot(contract, current, candidate, best, yardsticks)
            contract = contract.after_ballot(ballot)
            is_new = contract.state.model_digest == candidate.digest
            yardsticks = [yardstick.ended(rounds, is_new) for yardstick in yardsticks]
            if is_new:
                accepted, current = accepted + 1, candidate
            if contract.state.best is not None and contract.state.best.round == rounds:
                best = candidate
            least = np.minimum(least, contract.stakes_units)
            if first_out is None and not all(contract.is_active):
                first_out = rounds
        ends = {"initial": initial, "last": current, "best": best}
        return {
            "least": least.tolist(),
            "last": contract.stakes_units,
            "rounds": rounds,
            "accepted": accepted,
            "first_out": first_out,
            "best_round": None if contract.state.best is None else contract.state.best.round,
            "accuracy": {name: self._accuracy(model) for name, model in ends.items()},
            "losses": {name: self._test_loss(model) for name, model in ends.items()},
        }

    def _model(self, round_: int, weights: Weights) -> _Model:
        groups = [split.validation for split in self.problem.splits]
        (losses,) = self.trainer.mean_losses(weights[None], groups)
        return _Model(digest("honest run", round_.to_bytes(8, "big")), weights, losses)

    def _is_poisoner(self, client: int) -> bool:
        return client >= self.run.nodes - self.run.poisoners

    def _candidate(self, contract: Contract, weights: Weights, round_: int) -> Weights:
        """Return the weighted mean of what the round's proposers make of `weights`, float32[d]."""
        flips, scale = POISONS[self.run.poison]
        proposers = contract.proposers
        poisons = np.array([self._is_poisoner(client) for client in proposers])
        seeds = [self.run.seed * self.run.nodes + client for client in proposers]
        fitted = self.trainer.fit(weights, proposers, (poisons & flips).tolist(), seeds, round_)
        updates = fitted.astype(np.float64) - weights
        updates[poisons] *= scale
        # As the network's encoding does, which cannot hold more.
        np.clip(updates, -contract.params.clip, contract.params.clip, out=updates)
        counts = np.array([len(self.problem.splits[client].train) for client in proposers])
        candidate: Weights = (weights + RULES["fedavg"](updates, counts, 0)).astype(np.float32)
        return candidate

    def _ballot(
        self,
        contract: Contract,
        current: _Model,
        candidate: _Model,
        best: _Model,
        yardsticks: list[Yardstick],
    ) -> Ballot:
        """Return the openings of the round's voters; brings their `yardsticks`, by node, up to date."""
        votes: dict[bytes, int] = {}
        opinions: dict[bytes, Opinion] = {}
        for client in contract.voters:
            peer = contract.peers[client]
            now, then, ever = (float(model.losses[client]) for model in (current, candidate, best))
            result = EvaluateResult(now, then, ever)
            if self._is_poisoner(client):
                result = contrary(result, contract.params)
            yardstick = yardsticks[client]
            votes[peer], _, opinions[peer] = judge(contract.params, result, yardstick)
            yardsticks[client] = measure(contract.params, result, yardstick, contract.state.round)
        return Ballot(votes, candidate.digest, opinions)

    def _accuracy(self, model: _Model) -> float:
        return self.trainer.scores(model.weights, self.problem.test)["accuracy"]

    def _test_loss(self, model: _Model) -> float:
        return float(self.trainer.mean_losses(model.weights[None], [self.problem.test])[0, 0])


def with_rule(run: HonestRun, rule: Judgement) -> HonestRun:
    """The same run under other numbers."""
    return evolve(run, rule=rule)


def least_share(result: Result, honest: int) -> float:
    """Return the lowest stake that one of the first `honest` nodes ever had, as a share of the first one."""
    return float(min(result["least"][:honest]) / (64 * MICRO))
