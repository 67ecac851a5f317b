"""Attempts to sin without paying (docs/PROTOCOL.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.keys import Identity
from protocol.ledger.state import Fault
from protocol.messages import Transaction, TransactionKind
from sim.adversaries.aggregators import BlindForger
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import NODES, Staging, Trial, honest_run, ledger_of, run_trial
from sim.filters import Filter
from sim.founding import STAKE_UNITS, seeded_bytes
from sim.scenario.outcome import proven_faults
from sim.scenes import Scene

ROUNDS = 2


def _leave(name: str, profile: str, seed: int) -> Result:
    """It forges, and leaves in the same round with all that it has."""
    mule = _mule(seed)

    def during(scene: Scene) -> None:
        peer = scene.peer(scene.aggregator)
        for transaction in (
            Transaction(TransactionKind.LEAVE, 0, peer, 0),
            Transaction(TransactionKind.TRANSFER, 1, mule, STAKE_UNITS),
        ):
            scene.spread(scene.aggregator, transaction)

    staging = Staging(cast=lambda scene: {scene.aggregator: BlindForger()}, during=during)
    trial = run_trial(staging, profile, seed)
    return _judge(name, trial, mule)


def _move_first(name: str, profile: str, seed: int) -> Result:
    """It moves its stake in the block that draws it as the next aggregator, and forges then."""
    mule = _mule(seed)
    honest = honest_run(NODES, ROUNDS, profile, seed, None, ())
    drawn = next(step.after for step in ledger_of(honest) if step.after.round == ROUNDS)
    assert drawn.learning.roles is not None
    peer = drawn.learning.roles.aggregators[0]

    def forger(scene: Scene) -> int:
        return next(i for i in range(NODES) if scene.peer(i) == peer)

    def cast(scene: Scene) -> Mapping[int, Filter]:
        return {forger(scene): BlindForger()}

    def during(scene: Scene) -> None:
        move = Transaction(TransactionKind.TRANSFER, 0, mule, STAKE_UNITS)
        scene.spread(forger(scene), move)

    trial = run_trial(Staging(cast=cast, rounds=ROUNDS, during=during), profile, seed)
    return _judge(name, trial, mule)


def _judge(name: str, trial: Trial, mule: bytes) -> Result:
    forged = any(fault.fault is Fault.FORGED_AGGREGATE for fault in proven_faults(trial.steps))
    cost, penalty = trial.cost_units([mule]), trial.scene.params.fault_penalty_units
    found = f"the forgery was {'proven' if forged else 'not proven'}, and cost {cost / 1e6:.3f} tokens"
    return trial.result(name, reached=cost < penalty, struck=forged, found=found, accounts=[mule])


def _mule(seed: int) -> bytes:
    """An account of the attacker's that is no member."""
    return Identity.from_seed(seeded_bytes(seed, "mule")).peer


_FREE = "a proven forgery costs the attacker, all its accounts together, less than the penalty"

STAKE = (
    Attack("leave-after-forging", "an aggregator forges, and leaves with its stake at once", _FREE, _leave),
    Attack(
        "leave-before-forging",
        "a member moves its stake in the block that draws it as aggregator, then forges",
        _FREE,
        _move_first,
    ),
)
