"""A network of real processes in which one node after the other is killed in the middle of a phase.

Run as a script: nodes are forked, which a test runner full of threads should not do. Prints, as JSON, whom it
killed when, and what the ledgers say afterwards.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from flocknode.config import load_node_dir
from flocknode.demo.fleet import Fleet, preload
from flocknode.demo.plan import free_addresses, seeded_draw
from flocknode.demo.watch import watch
from flocknode.founding import Plan, found
from flocknode.observe.follow import Follower
from flocknode.observe.report import is_consistent, is_supply_conserved, read_node
from flocknode.observe.rounds import rounds_of
from protocol.consensus import leader_of
from protocol.ledger.state import LedgerState, Phase

SETTINGS = {"phase_deadline_ms": 3_000, "train_deadline_ms": 8_000, "view_timeout_ms": 1_000}
PHASES = (Phase.SHARE, Phase.CONTRIBUTE, Phase.AGGREGATE, Phase.BALLOT, Phase.VOTE)
DOWN_S = 1.5


@frozen
class Blow:
    """Kill the leader or the aggregator of `phase` in `round`, `delay_s` after the phase began."""

    round: int
    phase: Phase
    victim: str
    delay_s: float
    stays_down: bool


def plan_blows(seed: int, rounds: int, stays_down: bool) -> list[Blow]:
    """One blow a round from round 2 on, leader and aggregator in turn, each phase as the seed has it."""
    random = Random(seed)
    return [
        Blow(
            round=number,
            phase=Phase.AGGREGATE if stays_down else random.choice(PHASES),
            victim="aggregator" if stays_down or number % 2 else "leader",
            delay_s=random.uniform(0.0, 0.08),
            stays_down=stays_down,
        )
        for number in range(2, rounds + 1)
    ]


@define(eq=False)
class Executioner:
    fleet: Fleet
    members: dict[bytes, int]
    blows: list[Blow]
    done: list[dict[str, object]] = field(factory=list)
    down: list[int] = field(factory=list)
    _due_s: float | None = None
    _back_s: float = 0.0
    _last_round: int = 0
    _stays_down: bool = False

    def step(self, state: LedgerState) -> None:
        now_s = time.monotonic()
        if self.down:
            may_return = state.round > self._last_round if self._stays_down else now_s >= self._back_s
            if may_return:
                self.fleet.start(self.down.pop())
        elif self.blows:
            self._strike(self.blows[0], state, now_s)

    def _strike(self, blow: Blow, state: LedgerState, now_s: float) -> None:
        if state.round > blow.round:
            # The phase was over before the blow fell: without delay the next time.
            self._due_s = None
            self.blows[0] = Blow(state.round, blow.phase, blow.victim, 0.0, blow.stays_down)
            return
        if state.round < blow.round or state.learning.phase is not blow.phase:
            return
        if self._due_s is None:
            self._due_s = now_s + blow.delay_s
        if now_s < self._due_s:
            return
        peer = leader(state) if blow.victim == "leader" else state.learning.aggregator
        assert peer is not None
        index = self.members[peer]
        self.fleet.kill(index)
        self.down.append(index)
        self.done.append(
            {"round": state.round, "phase": blow.phase.name, "victim": blow.victim, "node": index}
        )
        self._due_s, self._back_s = None, time.monotonic() + DOWN_S
        self._last_round, self._stays_down = state.round, blow.stays_down
        self.blows.pop(0)


def leader(state: LedgerState) -> bytes:
    """Who leads the next block in view 1."""
    adverts = [advert.peer for advert in state.learning.adverts if advert.peer in state.validators]
    return leader_of(adverts or state.validators, state.height + 1, 1)


def run(root: Path, seed: int, nodes: int, rounds: int, stays_down: bool) -> dict[str, object]:
    plan = Plan(task="digits", addresses=free_addresses(nodes), seed=seed, settings=SETTINGS)
    directories = [load_node_dir(path) for path in found(root, plan, seeded_draw(seed))]
    paths = [directory.path for directory in directories]
    members = {directory.peer: index for index, directory in enumerate(directories)}
    preload(directories[0])
    follower = Follower(directories[0].genesis, paths)
    with Fleet(paths) as fleet:
        fleet.start_all()
        executioner = Executioner(fleet, members, plan_blows(seed, rounds, stays_down))
        # Two more rounds, in which everyone is up.
        while executioner.blows or executioner.down:
            watch(
                fleet,
                follower,
                len(follower.rounds) + 1,
                lambda: executioner.step(follower.state),
                lambda: executioner.down,
            )
        last = len(follower.rounds) + 2
        watch(fleet, follower, last)
    records = [read_node(path) for path in paths]
    longest = max(records, key=lambda node: len(node.steps))
    ended = list(rounds_of(longest.steps))
    return {
        "killed": executioner.done,
        "exit_codes": [fleet.exit_code(index) for index in range(nodes)],
        "rounds": [[r.round, r.accepted, r.verdict, r.attempts] for r in ended],
        "heights": [node.end.height for node in records],
        "last_height": ended[last - 1].last_height,
        "faults": [node.fault for node in records],
        "consistent": is_consistent(records),
        "supply_conserved": is_supply_conserved(records),
    }


if __name__ == "__main__":
    place, chosen_seed, size, last_round, fate = sys.argv[1:]
    print(json.dumps(run(Path(place), int(chosen_seed), int(size), int(last_round), fate == "down")))
