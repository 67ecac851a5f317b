"""One staging of an attack: whole rounds of real engines, and the same rounds with everyone honest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from flocknode.observe.ledger import Step
from flocknode.observe.rounds import RoundRecord, rounds_of
from protocol.events import Penalise
from protocol.ledger.block import BlockKind, DisputeBody, decode_body
from protocol.ledger.chain import replay
from protocol.ledger.state import Fault
from sim.attacks.attack import AttackError, Outcome, Result
from sim.errors import BrokenInvariantError, SimulationStalled
from sim.scenario.outcome import proven_faults
from sim.scenes import Cast, Scene
from sim.worker import Learner

NODES = 7
"""Two of them may be faulty. Four proposers of whom three are enough, two voters that do not propose."""


@frozen(kw_only=True)
class Staging:
    """`cast` names the adversaries. `during` is what happens around the nodes, before the first round ends.

    `left_behind`: nodes that need not end the rounds. `changes`: of parameters. `honest_learner`: of the
    rounds with everyone honest.
    """

    cast: Cast
    nodes: int = NODES
    rounds: int = 1
    during: Callable[[Scene], None] = lambda scene: None
    left_behind: Callable[[Scene], Sequence[int]] = lambda scene: ()
    twins: Callable[[Scene], Sequence[int]] | None = None
    learner: Learner | None = None
    honest_learner: Learner | None = None
    changes: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Trial:
    """What a staging came to. `stalled`: its rounds did not end. `broken`: an invariant that was violated."""

    scene: Scene
    honest: Scene
    rounds: int
    stalled: bool
    broken: str | None

    # -- who -------------------------------------------------------------------------------------

    @property
    def adversaries(self) -> tuple[bytes, ...]:
        """In the order of peers."""
        return tuple(sorted({node.peer for node in self.scene.world.nodes if not node.honest}))

    def role(self, peer: bytes) -> str:
        """What it was in the first round: "aggregator", "proposer 1", "voter 0", else "node 5"."""
        scene = self.scene
        index = next(node.index for node in scene.world.nodes if node.peer == peer)
        if index == scene.aggregator:
            return "aggregator"
        for name, members in (("proposer", scene.proposers), ("voter", scene.voters)):
            if index in members:
                return f"{name} {members.index(index)}"
        return f"node {index}"

    def blamed(self) -> set[bytes]:
        """Peers that paid for a proven fault, or were reported to its transport by an honest node.

        An unopened vote is a price and no proof of malice, so that it counts against adversaries only.
        """
        peers = {
            fault.peer
            for fault in proven_faults(self.steps)
            if fault.fault is not Fault.UNOPENED_VOTE or fault.peer in self.adversaries
        }
        nodes = self.scene.world.nodes
        return peers | {
            report.effect.peer
            for report in self.scene.world.reports
            if isinstance(report.effect, Penalise) and nodes[report.node].honest
        }

    # -- what ------------------------------------------------------------------------------------

    @property
    def steps(self) -> list[Step]:
        return ledger_of(self.scene)

    @property
    def records(self) -> list[RoundRecord]:
        """The rounds that ended, up to the one that was waited for."""
        return [record for record in rounds_of(self.steps) if record.round <= self.rounds]

    @property
    def rounds_lost(self) -> int:
        honest = _accepted(rounds_of(ledger_of(self.honest)), self.rounds)
        return honest - _accepted(self.records, self.rounds)

    def cost_units(self, accounts: Iterable[bytes] = ()) -> int:
        """What the adversaries, and further accounts of theirs, have less than after the honest rounds."""
        peers = {*self.adversaries, *accounts}
        return sum(_stake(self.honest, peer) - _stake(self.scene, peer) for peer in peers)

    @property
    def repaired(self) -> bool:
        """Whether a dispute put the true sum in the place of a forged one."""
        bodies = [decode_body(s.stored.block) for s in self.steps if s.stored.block.kind is BlockKind.DISPUTE]
        return any(isinstance(b, DisputeBody) and not b.sum_matches and not b.missing for b in bodies)

    def result(
        self,
        attack: str,
        *,
        reached: bool,
        found: str,
        struck: bool = True,
        detected: bool = False,
        accounts: Iterable[bytes] = (),
    ) -> Result:
        """Judge it. `detected`: the goal was noticed in another way than by blame."""
        if not struck:
            raise AttackError(f"{attack}: it never struck ({self.scene.params.profile}, {found})")
        blamed = self.blamed()
        guilty, wronged = blamed & set(self.adversaries), blamed - set(self.adversaries)
        outcome = Outcome.HARMLESS
        if reached or self.broken is not None:
            outcome = Outcome.SUCCEEDS
        elif guilty or self.repaired or detected:
            outcome = Outcome.DETECTED
        return Result(
            attack=attack,
            profile=self.scene.params.profile,
            outcome=outcome,
            blamed=tuple(sorted(map(self.role, guilty))),
            cost_units=self.cost_units(accounts),
            rounds_lost=self.rounds_lost,
            seed=self.scene.world.seed,
            found=found if self.broken is None else f"broken: {self.broken}",
            wrongly_blamed=tuple(sorted(map(self.role, wronged))),
        )


def run_trial(staging: Staging, profile: str, seed: int) -> Trial:
    """Stage an attack, and the same rounds without it."""
    changes = tuple(sorted(staging.changes.items()))
    learner: Any = staging.honest_learner  # a cache key, by identity
    honest = honest_run(staging.nodes, staging.rounds, profile, seed, learner, changes)
    scene = Scene(
        staging.cast,
        nodes=staging.nodes,
        seed=seed,
        profile=profile,
        twins=staging.twins,
        learner=staging.learner,
        **staging.changes,
    )
    stalled, broken = False, None
    try:
        staging.during(scene)
        for round_ in range(1, staging.rounds + 1):
            scene.end_round(round_, staging.left_behind(scene))
    except SimulationStalled:
        stalled = True
    except BrokenInvariantError as error:
        broken = str(error).splitlines()[0]
    return Trial(scene=scene, honest=honest, rounds=staging.rounds, stalled=stalled, broken=broken)


@lru_cache(maxsize=8)
def honest_run(
    nodes: int,
    rounds: int,
    profile: str,
    seed: int,
    learner: Any,
    changes: tuple[tuple[str, Any], ...],
) -> Scene:
    """The rounds with everyone honest."""
    scene = Scene(nodes=nodes, seed=seed, profile=profile, learner=learner, **dict(changes))
    for round_ in range(1, rounds + 1):
        scene.end_round(round_)
    return scene


def ledger_of(scene: Scene) -> list[Step]:
    """The ledger of the honest node that has come furthest, checked from genesis."""
    return [Step(*step) for step in replay(scene.founding.genesis, lambda: iter(scene.ledger()))]


def _accepted(records: Iterable[RoundRecord], rounds: int) -> int:
    return sum(record.accepted for record in records if record.round <= rounds)


def _stake(scene: Scene, peer: bytes) -> int:
    account = scene.state.account(peer)
    return 0 if account is None else account.stake_units
