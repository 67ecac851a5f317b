"""Attacks by what is sent, or not let through (docs/PROTOCOL.md sections 7.4, 8.5 and 11.6)."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.ledger.state import Phase
from protocol.messages import STATEMENT_KINDS, Kind
from sim.adversaries.noise import Eclipser, Flooder, Oversender
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import NODES, Staging, Trial, run_trial
from sim.filters import Filter
from sim.scenes import Scene

FLOOD = 4
"""Messages beside each that a flooder owes; a second run sends four times as many."""
OVERSIZE_BYTES = 900_000
ECLIPSED_ROUNDS = 2


def _flooded(profile: str, seed: int, count: int) -> Trial:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        network, identities = scene.founding.genesis.network, scene.founding.identities
        return {index: Flooder(identities[index], network, count) for index in scene.proposers[:2]}

    return run_trial(Staging(cast=cast), profile, seed)


def _flood(name: str, profile: str, seed: int) -> Result:
    """What an honest node keeps must not grow with what is sent."""
    few, many = _flooded(profile, seed, FLOOD), _flooded(profile, seed, 4 * FLOOD)
    sent = [sum(f.sent for f in t.scene.filters.values() if isinstance(f, Flooder)) for t in (few, many)]
    kept = [_kept(trial) for trial in (few, many)]
    found = f"{sent[0]} and {sent[1]} messages too many; {kept[0]} and {kept[1]} statements kept"
    return many.result(name, reached=many.rounds_lost > 0 or kept[1] > kept[0] + _SLACK, found=found)


_SLACK = 16
"""Statements of the next round that one of two runs may hold already."""


def _kept(trial: Trial) -> int:
    """The most statements that an honest node holds at the end."""
    scene = trial.scene
    honest = [node.index for node in scene.world.nodes if node.honest]
    pools = [scene.engine(index).pool for index in honest]
    return max(
        sum(len(list(pool.of_kind(round_, kind))) for kind in STATEMENT_KINDS for round_ in range(4))
        for pool in pools
    )


def _oversized(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        network, identities = scene.founding.genesis.network, scene.founding.identities
        return {
            index: Oversender(identities[index], network, OVERSIZE_BYTES) for index in scene.proposers[:2]
        }

    trial = run_trial(Staging(cast=cast), profile, seed)
    sent = sum(f.sent for f in trial.scene.filters.values() if isinstance(f, Oversender))
    slower = trial.scene.world.now / max(1, trial.honest.world.now)
    found = f"{sent} messages of {OVERSIZE_BYTES} bytes; the round took {slower:.1f} times as long"
    return trial.result(name, reached=trial.rounds_lost > 0, found=found)


def _cut_off(scene: Scene, victim: int, spared: tuple[int, ...] = ()) -> None:
    for other in range(NODES):
        if other != victim and other not in spared:
            scene.world.cut(victim, other)
            scene.world.cut(other, victim)


def _eclipse(name: str, profile: str, seed: int) -> Result:
    """The victim, a proposer, is connected to the two of the coalition alone, for two rounds."""

    def victim(scene: Scene) -> int:
        return scene.proposers[2]

    def cast(scene: Scene) -> Mapping[int, Filter]:
        network, identities = scene.founding.genesis.network, scene.founding.identities
        peer = scene.peer(victim(scene))
        return {index: Eclipser(identities[index], network, peer) for index in scene.proposers[:2]}

    def during(scene: Scene) -> None:
        _cut_off(scene, victim(scene), tuple(scene.proposers[:2]))
        for round_ in range(1, ECLIPSED_ROUNDS + 1):
            scene.end_round(round_, [victim(scene)])
        scene.world.heal()

    staging = Staging(cast=cast, rounds=ECLIPSED_ROUNDS, during=during)
    trial = run_trial(staging, profile, seed)
    scene = trial.scene
    paid = scene.change(victim(scene)) < 0
    caught_up = scene.engine(victim(scene)).state.round > ECLIPSED_ROUNDS
    fate = f"{'paid' if paid else 'paid nothing'} and {'caught up' if caught_up else 'fell behind'}"
    reached = trial.rounds_lost > 0 or paid or not caught_up
    return trial.result(name, reached=reached, found=f"the victim {fate}")


def _eclipsed_voter(name: str, profile: str, seed: int) -> Result:
    """A voter is cut off once its sealed vote is pinned, until the round is over."""

    def victim(scene: Scene) -> int:
        return scene.voters[0]

    def cast(scene: Scene) -> Mapping[int, Filter]:
        network, identities = scene.founding.genesis.network, scene.founding.identities
        peer = scene.peer(victim(scene))
        return {index: Eclipser(identities[index], network, peer) for index in scene.proposers[:2]}

    def during(scene: Scene) -> None:
        watched = next(n.index for n in scene.world.nodes if n.honest and n.index != victim(scene))
        scene.run_until(watched, Phase.BALLOT)
        engine = scene.engine(watched)
        sealed = scene.peer(victim(scene))
        scene.world.run(lambda _: engine.pool.get(1, Kind.SEALED_VOTE, sealed) is not None, 60_000)
        _cut_off(scene, victim(scene))

    staging = Staging(cast=cast, during=during, left_behind=lambda scene: [victim(scene)])
    trial = run_trial(staging, profile, seed)
    scene = trial.scene
    lost = -scene.change(victim(scene)) / 1e6
    return trial.result(name, reached=lost > 0, found=f"the honest voter lost {max(lost, 0):.3f} tokens")


_LOSS = "a round is lost"

NETWORK = (
    Attack(
        "flooding",
        "two proposers send noise, requests and endless statements beside each message",
        "a round is lost, or honest nodes keep more the more is sent",
        _flood,
    ),
    Attack(
        "oversized-messages",
        "two proposers send messages with bodies and payloads beyond every limit",
        _LOSS,
        _oversized,
    ),
    Attack(
        "eclipse",
        "a proposer reaches two liars only, for two rounds",
        "it finalises another block, pays, or does not catch up, or a round is lost",
        _eclipse,
    ),
    Attack(
        "eclipsed-voter",
        "an honest voter is cut off between sealing its vote and opening it",
        "it loses stake",
        _eclipsed_voter,
    ),
)
