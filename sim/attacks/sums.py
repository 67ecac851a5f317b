"""Attacks on the sum: what honest nodes adopt, whatever aggregator, proposers and colluders do.

docs/PROTOCOL.md section 5. The goal is the same throughout: that the model adopted is another one than the
plain sum of the updates of U2 leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from protocol.ledger.state import Phase
from protocol.params import CommitmentScheme, Sparsify
from protocol.secagg.commitment import SingularCommitment
from protocol.secagg.scheme import Scheme
from sim.adversaries.aggregators import (
    BlindForger,
    CheckForger,
    CollusiveForger,
    EquivocatingAggregator,
    InformedForger,
    MalformedSum,
    OmittingAggregator,
    TargetForger,
    first_coordinate,
    kernel_of,
    kernel_of_own_u,
)
from sim.adversaries.challengers import RushingChallenger
from sim.adversaries.coalition import Coalition
from sim.adversaries.forgery import Int64Vec
from sim.adversaries.learning_behaviours import DELTA, FOREIGN_U, constant_sum
from sim.adversaries.proposers import (
    Accomplice,
    CheckBreaker,
    Inconsistent,
    Poisoner,
    RogueCommitter,
    off_by_one,
    out_of_bounds,
    unchanged,
    whole_bound,
)
from sim.adversaries.tampering import Both
from sim.adversaries.voters import Contrarian
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import NODES, Staging, Trial, run_trial
from sim.attacks.voting import STRICT
from sim.filters import Filter
from sim.network import Impairment
from sim.scenario.outcome import proven_faults
from sim.scenes import Cast, Scene

PAPER_CLIENTS = 10
"""A network with five proposers, of whom one, two or three collude with the aggregator."""
COLLUDERS = 3


def adopted_another(scene: Scene) -> bool:
    """Whether the first round moved the model anywhere else than the plain sum over U2 does."""
    if np.array_equal(scene.model(), scene.initial_model()):
        return False
    return not np.array_equal(scene.model(), scene.plain_model(scene.contributors()))


def _judge(name: str, trial: Trial) -> Result:
    scene = trial.scene
    reached = adopted_another(scene)
    verdict = "/".join(scene.verdicts()) or "no verdict"
    end = "another sum" if reached else "nothing"
    if not reached and not np.array_equal(scene.model(), scene.initial_model()):
        end = "the true sum"
    return trial.result(name, reached=reached, found=f"{verdict}; {end} was adopted")


def _by_aggregator(make: Callable[[Scene], Filter]) -> Callable[[str, str, int], Result]:
    def stage(name: str, profile: str, seed: int) -> Result:
        staging = Staging(cast=lambda scene: {scene.aggregator: make(scene)})
        return _judge(name, run_trial(staging, profile, seed))

    return stage


def _informed(
    forger: Callable[[Scene, Coalition], InformedForger], accomplices: int = 1, nodes: int = NODES
) -> Callable[[str, str, int], Result]:
    """The aggregator forges with what some proposers tell it."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        coalition = Coalition()
        told = {index: Accomplice(coalition) for index in scene.proposers[:accomplices]}
        return {scene.aggregator: forger(scene, coalition), **told}

    def stage(name: str, profile: str, seed: int) -> Result:
        return _judge(name, run_trial(Staging(cast=cast, nodes=nodes), profile, seed))

    return stage


def _kernel_delta(scene: Scene) -> Callable[[Scheme], Int64Vec]:
    params = scene.params
    if params.commitment is CommitmentScheme.SINGULAR:
        return kernel_of_own_u(500)
    return kernel_of(
        SingularCommitment(
            FOREIGN_U, params.dimension, group_size=params.singular_group_size, rank=params.singular_rank
        ),
        500,
    )


def _rogue(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        coalition = Coalition()
        rogue = RogueCommitter(coalition, constant_sum, others=len(scene.proposers) - 1)
        return {scene.aggregator: TargetForger(coalition, constant_sum), scene.proposers[0]: rogue}

    return _judge(name, run_trial(Staging(cast=cast), profile, seed))


def _rushing(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        coalition, delta = Coalition(), first_coordinate(DELTA)
        network, identities = scene.founding.genesis.network, scene.founding.identities
        others = len(scene.proposers) - 2
        rushers = {
            index: Both(
                Accomplice(coalition),
                RushingChallenger(identities[index], network, coalition, delta, place, others),
            )
            for place, index in enumerate(scene.proposers[:2])
        }
        return {scene.aggregator: CollusiveForger(coalition, delta), **rushers}

    return _judge(name, run_trial(Staging(cast=cast, nodes=PAPER_CLIENTS), profile, seed))


# -- proposers ---------------------------------------------------------------------------------------


def _by_proposer(filter: Filter) -> Cast:
    return lambda scene: {scene.proposers[0]: filter}


def _unbounded(name: str, profile: str, seed: int) -> Result:
    return _judge(
        name, run_trial(Staging(cast=_by_proposer(Inconsistent(out_of_bounds, out_of_bounds))), profile, seed)
    )


def _whole_bound(name: str, profile: str, seed: int) -> Result:
    """Committed to and within the bound of the sum, but more than one clipped update may be."""
    trial = run_trial(Staging(cast=_by_proposer(Inconsistent(whole_bound, whole_bound))), profile, seed)
    scene = trial.scene
    moved = int(np.abs(scene.model() - scene.initial_model()).max()) / 2**24
    allowed = scene.params.clip / len(scene.proposers)
    return trial.result(
        name,
        reached=moved > 2 * allowed,
        found=f"one weight moved by {moved:.2f}; one clipped update can move it by {allowed:.2f}",
    )


def _sabotage(name: str, profile: str, seed: int) -> Result:
    """A proposer mis-commits, and so does a voter's share of the penalties, if there were any."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        return {scene.proposers[0]: Inconsistent(unchanged, off_by_one), scene.voters[0]: Contrarian()}

    return _judge_profit(name, run_trial(Staging(cast=cast), profile, seed))


def _poison_for_profit(name: str, profile: str, seed: int) -> Result:
    """The poisoner loses gamma, and its accomplice earns half of what all proposers lose."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        return {scene.proposers[0]: Poisoner(scene.params.clip), scene.voters[0]: Filter()}

    changes = {**STRICT, "sparsify": Sparsify.OFF, "sparsify_permille": 1000}
    return _judge_profit(name, run_trial(Staging(cast=cast, changes=changes), profile, seed))


def _judge_profit(name: str, trial: Trial) -> Result:
    cost = trial.cost_units()
    found = f"the attackers have {-cost / 1e6:+.3f} tokens against an honest run"
    return trial.result(name, reached=cost < 0, found=found)


def _framing(name: str, profile: str, seed: int) -> Result:
    """Whether the honest aggregator pays for what a client committed to."""
    return _judge_framing(name, run_trial(Staging(cast=_by_mis_committer()), profile, seed))


def _framing_by_stalling(name: str, profile: str, seed: int) -> Result:
    """The same, where whoever asks the client for its upload is still waiting when the dispute ends."""

    def stall(scene: Scene) -> None:
        scene.run_until(scene.observer, Phase.BALLOT)
        scene.world.network.impair([scene.proposers[0]], Impairment(delay_ms=STALL_MS))

    return _judge_framing(name, run_trial(Staging(cast=_by_mis_committer(), during=stall), profile, seed))


def _by_mis_committer() -> Cast:
    return _by_proposer(Inconsistent(unchanged, off_by_one))


def _judge_framing(name: str, trial: Trial) -> Result:
    scene = trial.scene
    framed = scene.peer(scene.aggregator)
    paid = scene.change(scene.aggregator) < 0
    blamed = any(fault.peer == framed for fault in proven_faults(trial.steps))
    found = f"{'/'.join(scene.verdicts())}; the aggregator {'paid' if paid else 'was cleared'}"
    return trial.result(name, reached=paid or blamed, found=found)


def _broken_check(name: str, profile: str, seed: int) -> Result:
    return _judge(name, run_trial(Staging(cast=_by_proposer(CheckBreaker())), profile, seed))


def _two_claims(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        others = [i for i in range(NODES) if i != scene.aggregator]
        return {
            scene.aggregator: EquivocatingAggregator(
                scene.founding.identities[scene.aggregator],
                scene.founding.genesis.network,
                scene.peers(others[:3]),
                scene.peers(others[3:]),
            )
        }

    return _judge(name, run_trial(Staging(cast=cast), profile, seed))


STALL_MS = 6_000
"""Longer than a dispute may last; a round of the staging ends all the same."""

_ANOTHER = "the model adopted is not what the plain sum of the updates leads to"
_PROFIT = "the attackers have more stake than after an honest run"

AGGREGATION = (
    Attack(
        "lazy-aggregator",
        "leaves a contribution out of the sum and claims it whole",
        _ANOTHER,
        _by_aggregator(lambda scene: OmittingAggregator()),
    ),
    Attack(
        "keyless-forger",
        "changes the sum without knowing z",
        _ANOTHER,
        _by_aggregator(lambda scene: BlindForger()),
    ),
    Attack("no-sum", "claims a blob that is no sum", _ANOTHER, _by_aggregator(lambda scene: MalformedSum())),
    *(
        Attack(
            f"colluding-forger-{count}",
            f"adds a delta of its own; {count} of five proposers gave it z and U",
            _ANOTHER,
            _informed(
                lambda scene, coalition: CollusiveForger(coalition, first_coordinate(DELTA)),
                count,
                PAPER_CLIENTS,
            ),
        )
        for count in range(1, COLLUDERS + 1)
    ),
    Attack(
        "check-forger",
        "breaks a hidden value of the sum, so that a proposer seems to have broken its own",
        _ANOTHER,
        _informed(lambda scene, coalition: CheckForger(coalition)),
    ),
    Attack(
        "kernel-forgery",
        "adds a delta with U delta = 0; one proposer gave it z and U",
        _ANOTHER,
        _informed(lambda scene, coalition: CollusiveForger(coalition, _kernel_delta(scene))),
    ),
    Attack(
        "rushing-challenger",
        "two proposers pick their part of the challenge last, so that the forged sum fits it",
        _ANOTHER,
        _rushing,
    ),
    Attack(
        "rogue-commitment",
        "the last proposer commits to X less the sum of the others, and the aggregator claims X",
        _ANOTHER,
        _rogue,
    ),
    Attack("two-claims", "the aggregator signs two sums and shows one to each half", _ANOTHER, _two_claims),
)

CONTRIBUTIONS = (
    Attack(
        "unbounded-contribution", "a proposer commits to and sends more than any sum may be", _ANOTHER,
        _unbounded,
    ),
    Attack(
        "whole-bound-contribution",
        "a proposer uses the bound of the whole sum for one weight",
        "that weight moves by more than twice what one clipped update can do",
        _whole_bound,
    ),
    Attack(
        "broken-check", "a proposer uploads a hidden value that is not its own", _ANOTHER, _broken_check
    ),
    Attack(
        "framed-aggregator",
        "a proposer commits to another update than it uploads",
        "the honest aggregator pays or is blamed",
        _framing,
    ),
    Attack(
        "framed-by-stalling",
        "a proposer commits to another update than it uploads, and lets whoever asks for its upload wait",
        "the honest aggregator pays or is blamed",
        _framing_by_stalling,
    ),
    Attack(
        "sabotage-for-profit",
        "a proposer voids the round by mis-committing; a voter of its coalition waits for the penalties",
        _PROFIT,
        _sabotage,
    ),
    Attack(
        "poison-for-profit",
        "a proposer poisons the sum, so that a voter of its coalition earns by refusing it",
        _PROFIT,
        _poison_for_profit,
    ),
)  # fmt: skip
