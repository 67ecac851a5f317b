"""Dishonest voters (docs/PROTOCOL.md sections 6 and 11.3)."""

from __future__ import annotations

from collections.abc import Callable

from protocol.ledger.state import Fault
from protocol.messages import Kind
from sim.adversaries.voters import Abstainer, Contrarian, VoteCopier, Withholder, Yeasayer
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import Staging, Trial, run_trial
from sim.filters import Filter
from sim.scenario.outcome import proven_faults
from sim.scenes import Cast, Scene

STRICT = {"tolerance_micro": 1_000}
"""A tolerance that tells the synthetic learner's good aggregates from none at all."""
Make = Callable[[Scene, int], Filter]


def _voters(count: int, make: Make) -> Cast:
    return lambda scene: {index: make(scene, index) for index in scene.voters[:count]}


def _refusal(count: int, make: Make) -> Callable[[str, str, int], Result]:
    """Voters that want a good sum thrown away."""

    def stage(name: str, profile: str, seed: int) -> Result:
        trial = run_trial(Staging(cast=_voters(count, make), changes=STRICT), profile, seed)
        votes = [record.votes for record in trial.records]
        found = f"votes {sorted(votes[0].values())}: {'refused' if trial.rounds_lost else 'accepted'}"
        return trial.result(name, reached=trial.rounds_lost > 0, found=found)

    return stage


def _copy(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        return VoteCopier(scene.founding.identities[index], scene.founding.genesis.network)

    trial = run_trial(Staging(cast=_voters(1, make)), profile, seed)
    return _judge_pay(name, trial)


def _unread(name: str, profile: str, seed: int) -> Result:
    return _judge_pay(
        name, run_trial(Staging(cast=_voters(1, lambda scene, index: Yeasayer())), profile, seed)
    )


def _judge_pay(name: str, trial: Trial) -> Result:
    """Paid as an honest voter is, for a vote that rests on nothing."""
    cost = trial.cost_units()
    found = f"{-cost / 1e6:+.3f} tokens against an honest vote"
    return trial.result(name, reached=cost <= 0, found=found)


def _unopened(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        kinds = frozenset({Kind.VOTE_OPENING})
        return Withholder(scene.founding.identities[index], scene.founding.genesis.network, kinds)

    trial = run_trial(Staging(cast=_voters(1, make)), profile, seed)
    paid = [fault for fault in proven_faults(trial.steps) if fault.fault is Fault.UNOPENED_VOTE]
    return trial.result(
        name,
        reached=trial.rounds_lost > 0 or not paid,
        found=f"{len(paid)} of {len(trial.adversaries)} paid for the vote that it did not open",
    )


_REFUSED = "a good aggregate is refused, or the round goes unjudged"

VOTING = (
    Attack(
        "opposite-voting",
        "one of two voters votes against a good sum",
        _REFUSED,
        _refusal(1, lambda scene, index: Contrarian()),
    ),
    Attack(
        "opposite-voting-by-all",
        "both voters vote against a good sum",
        _REFUSED,
        _refusal(2, lambda scene, index: Contrarian()),
    ),
    Attack(
        "lazy-voting",
        "a voter hands in another's sealed vote as its own, then that one's opening",
        "it is paid as much as an honest voter",
        _copy,
    ),
    Attack(
        "unread-voting",
        "a voter votes +1 without evaluating anything",
        "it is paid as much as an honest voter",
        _unread,
    ),
    Attack(
        "unopened-vote",
        "a voter seals a vote and never opens it",
        "it goes free, or the round is lost",
        _unopened,
    ),
    Attack(
        "abstaining",
        "one of two voters abstains",
        _REFUSED,
        _refusal(1, lambda scene, index: Abstainer()),
    ),
    Attack(
        "abstaining-by-all",
        "both voters abstain",
        _REFUSED,
        _refusal(2, lambda scene, index: Abstainer()),
    ),
)
