"""Dealers, holders and revealers that break what they pinned (docs/PROTOCOL.md sections 3.3 and 3.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from protocol.ledger.block import BlockKind
from protocol.ledger.state import Phase
from protocol.messages import Kind
from protocol.sharing import ShareKind
from sim.adversaries.dealers import BoxSpoiler, CheckWithholder, FalseReleaser, GarbageDealer, ZSpoiler
from sim.adversaries.proposers import FalseRevealer, WeightInflater
from sim.adversaries.tampering import Both
from sim.adversaries.voters import Withholder
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import Staging, Trial, ledger_of, run_trial
from sim.filters import Filter
from sim.scenes import Cast, Scene

Signed = Callable[[Scene, int], Filter]


def _first_proposer(make: Signed) -> Cast:
    return lambda scene: {scene.proposers[0]: make(scene, scene.proposers[0])}


def _withholder(*kinds: Kind) -> Signed:
    def make(scene: Scene, index: int) -> Filter:
        return Withholder(scene.founding.identities[index], scene.founding.genesis.network, frozenset(kinds))

    return make


def _costless_loss(name: str, trial: Trial) -> Result:
    """Whether a round was lost, or adopted another sum, and nobody guilty paid for it."""
    scene = trial.scene
    kind = scene.kinds()[-1]
    end = kind.name
    if kind is BlockKind.ABORT:
        end = f"ABORT, {scene.body(BlockKind.ABORT).reason.name}"
    guilty = trial.blamed() & set(trial.adversaries)
    wrong = kind is BlockKind.OUTCOME and not (
        np.array_equal(scene.model(), scene.initial_model())
        or np.array_equal(scene.model(), scene.plain_model(scene.contributors()))
    )
    return trial.result(
        name, reached=(trial.rounds_lost > 0 and not guilty) or wrong, found=f"round 1: {end}"
    )


def _staged(cast: Cast) -> Callable[[str, str, int], Result]:
    return lambda name, profile, seed: _costless_loss(name, run_trial(Staging(cast=cast), profile, seed))


def _garbage_dropout(name: str, profile: str, seed: int) -> Result:
    """Under single masks self seeds are not dealt: garbage shares of a mask key, then a dropout."""

    def during(scene: Scene) -> None:
        scene.run_until(scene.proposers[0], Phase.CONTRIBUTE)
        scene.world.crash(scene.proposers[0])

    cast = _first_proposer(lambda scene, index: GarbageDealer(ShareKind.MASK))
    return _costless_loss(name, run_trial(Staging(cast=cast, during=during), profile, seed))


def _false_releases(scene: Scene, index: int) -> Filter:
    return FalseReleaser(scene.founding.identities[index], scene.founding.genesis.network)


def _heavy(scene: Scene, index: int) -> Filter:
    params = scene.params
    return WeightInflater(
        scene.founding.identities[index], scene.founding.genesis.network, params.max_weight + 1
    )


def _z_spoiler(scene: Scene, index: int) -> Filter:
    return ZSpoiler(scene.peers(scene.proposers[1:2]))


# -- a dealer that nobody can do without ------------------------------------------------------------


def _delay_complaint(scene: Scene) -> None:
    """One honest holder is slow to be heard, until the shares are pinned."""
    holder = scene.proposers[1]
    others = [i for i in range(len(scene.world.nodes)) if i != holder]
    scene.run_until(scene.observer, Phase.SHARE)
    for other in others:
        scene.world.cut(holder, other)
    scene.run_until(scene.aggregator, Phase.CONTRIBUTE)
    for other in others:
        scene.world.mend(holder, other)


def _spoiler_that(make: Signed) -> Cast:
    """Its shares are attested by the two holders that have good ones, and by itself."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        dealer, holder = scene.proposers[:2]
        spoiler = BoxSpoiler(scene.peer(holder), deaf_to=frozenset({Kind.COMPLAINT}))
        return {dealer: Both(spoiler, make(scene, dealer))}

    return cast


def _unprovable(name: str, profile: str, seed: int) -> Result:
    cast = _spoiler_that(_withholder(Kind.SHARE_RELEASE, Kind.REVEAL))
    return _costless_loss(name, run_trial(Staging(cast=cast, during=_delay_complaint), profile, seed))


def _silent_holders(name: str, profile: str, seed: int) -> Result:
    """n - T + 1 holders release nothing."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        silent = _withholder(Kind.SHARE_RELEASE)
        return {index: silent(scene, index) for index in scene.proposers[:2]}

    return _costless_loss(name, run_trial(Staging(cast=cast), profile, seed))


# -- the beacon --------------------------------------------------------------------------------------


def _beacon_moved(name: str, trial: Trial) -> Result:
    scene, honest = trial.scene, trial.honest
    moved = _beacon_after(trial.scene) != _beacon_after(honest)
    lost = "lost" if trial.rounds_lost else "kept"
    found = f"the next beacon is {'another' if moved else 'the same'}; the round is {lost}"
    assert scene.state.round > 1
    return trial.result(name, reached=moved or trial.rounds_lost > 0, found=found)


def _beacon_after(scene: Scene) -> bytes:
    """Of round 2."""
    return next(step.after.beacon for step in ledger_of(scene) if step.after.round == 2)


def _reveals(make: Signed) -> Callable[[str, str, int], Result]:
    cast = _first_proposer(make)
    return lambda name, profile, seed: _beacon_moved(name, run_trial(Staging(cast=cast), profile, seed))


def _false_reveal(scene: Scene, index: int) -> Filter:
    return FalseRevealer(scene.founding.identities[index], scene.founding.genesis.network)


def _nudge(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        return CheckWithholder(scene.founding.identities[index], scene.founding.genesis.network)

    staging = Staging(cast=_spoiler_that(make), during=_delay_complaint)
    return _beacon_moved(name, run_trial(staging, profile, seed))


_FREE_LOSS = "a round is lost, or another sum adopted, and nobody guilty pays"
_BEACON = "the next round's beacon is another one, or the round is lost"

DEALING = (
    Attack(
        "bad-shares-from-dealer",
        "a dealer shares its self seed along no polynomial",
        _FREE_LOSS,
        _staged(_first_proposer(lambda scene, index: GarbageDealer(ShareKind.SELF))),
    ),
    Attack(
        "bad-shares-then-dropout",
        "a dealer shares its mask key along no polynomial, and drops out",
        _FREE_LOSS,
        _garbage_dropout,
    ),
    Attack(
        "bad-shares-from-holder",
        "a holder releases shares that it was not dealt",
        _FREE_LOSS,
        _staged(_first_proposer(_false_releases)),
    ),
    Attack(
        "bad-z-to-some",
        "a dealer gives one holder another z than it pinned",
        _FREE_LOSS,
        _staged(_first_proposer(_z_spoiler)),
    ),
    Attack(
        "inflated-weight",
        "a dealer claims more samples than anyone may have",
        _FREE_LOSS,
        _staged(_first_proposer(_heavy)),
    ),
    Attack(
        "unprovable-sabotage",
        "a dealer spoils one share while the complaint is on its way, then withholds what it holds",
        _FREE_LOSS,
        _unprovable,
    ),
    Attack("silent-holders", "two of four holders release nothing (T = 3)", _FREE_LOSS, _silent_holders),
)

BEACON = (
    Attack(
        "withheld-reveal",
        "a proposer never reveals its check seed",
        _BEACON,
        _reveals(_withholder(Kind.REVEAL)),
    ),
    Attack(
        "false-reveal",
        "a proposer reveals another check seed than it pinned",
        _BEACON,
        _reveals(_false_reveal),
    ),
    Attack(
        "beacon-nudge",
        "as unprovable-sabotage, but the dealer helps with the sum and withholds its check seed alone",
        _BEACON,
        _nudge,
    ),
)
