"""Poisoning: real training on handwritten digits, with two of seven nodes dishonest throughout.

docs/PROTOCOL.md section 11.3: the vote decides about poison, by loss on the voters' own data. The poisoners
vote against whatever is good and for whatever is bad, wherever they are voters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import evolve

from flocknode.learning.models import MODELS
from protocol.secagg.encoding import model_to_float
from sim.adversaries.proposers import Scaler
from sim.adversaries.tampering import Both
from sim.adversaries.voters import Contrarian
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import NODES, Staging, Trial, run_trial
from sim.casting import first_roles, member_of
from sim.filters import Filter
from sim.founding import found, small_params
from sim.scenes import Scene

if TYPE_CHECKING:
    from sim.learning import Poison, RealLearner, Trigger

TASK = "digits"
ROUNDS = 8
POISONERS = 2
MARGIN = 0.05
"""By so much the accuracy has to be lower than in the honest run, for poisoning to have succeeded."""
TRIGGER_MARGIN = 0.5
"""By so much more often the trigger has to work than in the honest run."""
SCALE = 10.0
BACKDOOR_SCALE = 2.0
TRIGGER_PIXELS = (0, 7, 56, 63)
"""The corners of the picture, which no digit touches."""
TRIGGER_TARGET = 7

DIMENSION = MODELS[TASK].dimension


@lru_cache(maxsize=2)
def _learner(profile: str, seed: int) -> RealLearner:
    """Everyone honest."""
    from sim.learning import RealLearner, real_tasks

    params = small_params(NODES, profile, dimension=DIMENSION)
    return RealLearner(params, real_tasks(TASK, NODES, seed))


def _poisoners(profile: str, seed: int) -> tuple[int, ...]:
    """The first proposers of the first round; they stay poisoners whatever role they have later."""
    founding = found(NODES, seed, small_params(NODES, profile, dimension=DIMENSION))
    return tuple(member_of(founding, peer) for peer in first_roles(founding).proposers[:POISONERS])


def _trial(
    profile: str, seed: int, make: Callable[[], Filter], poison: Callable[[], Poison] | None = None
) -> Trial:
    """`make` gives the poisoners' filters, `poison` what becomes of their task."""
    members, honest = _poisoners(profile, seed), _learner(profile, seed)
    staging = Staging(
        cast=lambda scene: {member: make() for member in members},
        rounds=ROUNDS,
        learner=evolve(honest, poison=dict.fromkeys(members, poison()) if poison else {}),
        honest_learner=honest,
        changes={"dimension": DIMENSION},
    )
    return run_trial(staging, profile, seed)


def _accuracy(scene: Scene, learner: RealLearner) -> float:
    return learner.test_accuracy(model_to_float(scene.model()))


def _judge_accuracy(name: str, trial: Trial, learner: RealLearner) -> Result:
    honest, poisoned = (_accuracy(scene, learner) for scene in (trial.honest, trial.scene))
    found_ = f"accuracy {100 * poisoned:.1f} %, honest {100 * honest:.1f} %"
    return trial.result(name, reached=poisoned < honest - MARGIN, found=found_)


def label_flip(name: str, profile: str, seed: int) -> Result:
    def poison() -> Poison:
        from flocknode.learning.poisoning import PoisonedTask

        return PoisonedTask

    return _judge_accuracy(name, _trial(profile, seed, Contrarian, poison), _learner(profile, seed))


def sign_flip(name: str, profile: str, seed: int) -> Result:
    trial = _trial(profile, seed, lambda: Both(Scaler(-1.0), Contrarian()))
    return _judge_accuracy(name, trial, _learner(profile, seed))


def scaling(name: str, profile: str, seed: int) -> Result:
    trial = _trial(profile, seed, lambda: Both(Scaler(-SCALE), Contrarian()))
    return _judge_accuracy(name, trial, _learner(profile, seed))


def backdoor(name: str, profile: str, seed: int) -> Result:
    """They vote honestly: nothing must draw attention."""
    trigger, learner = _trigger(), _learner(profile, seed)

    def poison() -> Poison:
        from flocknode.learning.poisoning import BoostedTask

        return lambda task: BoostedTask(trigger.learned_beside(task), BACKDOOR_SCALE)

    trial = _trial(profile, seed, Filter, poison)
    stamped = tuple(trigger.test_of(task) for task in learner.tasks)
    honest, obeyed = (
        learner.test_accuracy(model_to_float(scene.model()), stamped) for scene in (trial.honest, trial.scene)
    )
    accuracy = _accuracy(trial.scene, learner)
    return trial.result(
        name,
        reached=obeyed > honest + TRIGGER_MARGIN,
        found=f"trigger works {100 * obeyed:.0f} %, honest {100 * honest:.0f} %; "
        f"accuracy {100 * accuracy:.1f} %",
    )


def _trigger() -> Trigger:
    from sim.learning import Trigger

    return Trigger(TRIGGER_PIXELS, TRIGGER_TARGET)


_LOWER = f"accuracy of the final model at least {100 * MARGIN:.0f} points below that of the honest run"

POISONING = (
    Attack(
        "label-flip", f"two of {NODES} learn flipped labels and vote the other way round", _LOWER, label_flip
    ),
    Attack(
        "sign-flip", f"two of {NODES} send the negative of what they learned and vote so", _LOWER, sign_flip
    ),
    Attack("scaling", f"as sign-flip, {SCALE:.0f} times as hard", _LOWER, scaling),
    Attack(
        "backdoor-trigger",
        f"two of {NODES} also learn that a trigger means one class, and send that twice as hard",
        f"the trigger works {100 * TRIGGER_MARGIN:.0f} points more often than in the honest run",
        backdoor,
    ),
)
