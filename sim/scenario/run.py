"""Running a scenario in virtual time, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from flocknode.observe.ledger import Step
from protocol import durable
from protocol.certificates import quorum
from protocol.codec import DecodeError
from protocol.engine import Engine
from protocol.ledger.block import decode_stored_block
from protocol.ledger.chain import ChainError, replay
from protocol.ledger.settlement import LEAST_SURVIVORS
from protocol.params import Genesis
from sim.errors import BrokenInvariantError, EngineRaisedError, SimulationError, SimulationStalled
from sim.invariants.liveness import round_bound_ms
from sim.node import Node
from sim.scenario.manifest import Scenario
from sim.scenario.outcome import Ending, NodeEnd, proven_faults
from sim.scenario.stage import Stage, build_stage
from sim.scenario.timeline import Strike

LOOK_EVERY_MS = 20_000
"""Virtual time between two looks at whether a run has any hope of going on."""

Report = dict[str, Any]
Progress = Callable[[int], None]
"""Called with the number of rounds that have ended, when that changes."""


@frozen(kw_only=True)
class Violation:
    """An invariant that did not hold. `what` begins with the seed and ends with the end of the trace."""

    invariant: str
    what: str


@frozen(kw_only=True)
class Run:
    """One history. `failures`: expectations that did not hold; `violation`: why it was broken off.

    `struck`: how often each adversary really bent something, by behaviour; `strikes`: faults that struck.
    """

    stage: Stage
    ending: Ending
    violation: Violation | None
    failures: tuple[str, ...]
    events: int
    virtual_ms: int
    trace_digest: str
    struck: Mapping[str, int]
    strikes: tuple[Strike, ...]

    @property
    def passed(self) -> bool:
        return self.violation is None and not self.failures


def run_scenario(
    scenario: Scenario, seed: int, *, progress: Progress = lambda ended: None, check_ledgers: bool = True,
    keep_trace: int = 20_000,
) -> Run:  # fmt: skip
    """A function of scenario and seed alone. Raises `ScenarioError` for a cast that cannot be.

    `check_ledgers`: replay each node's own records in the end, instead of trusting what was checked as they
    were written.
    """
    stage = build_stage(scenario, seed, keep_trace)
    stage.timeline.begin()
    stage.world.start_all()
    violation = _live(stage, progress)
    ending = _ending(stage, check_ledgers)
    return Run(
        stage=stage,
        ending=ending,
        violation=violation,
        failures=() if violation else tuple(ending.failures()),
        events=stage.world.schedule.happened,
        virtual_ms=stage.world.now,
        trace_digest=stage.world.trace_digest(),
        struck=_struck(stage),
        strikes=tuple(stage.timeline.strikes),
    )


def _struck(stage: Stage) -> dict[str, int]:
    """By behaviour, over all nodes that have it."""
    struck = dict.fromkeys((name for name, _ in stage.cast.values()), 0)
    for name, watched in stage.cast.values():
        struck[name] += watched.struck
    return struck


def _live(stage: Stage, progress: Progress) -> Violation | None:
    """Until the last round has ended everywhere and nothing more is to come, or something is wrong."""
    liveness = _Liveness(stage)
    stage.ledger.rules.append(liveness)
    goal = stage.scenario.network.rounds
    told = -1

    def is_over(_: object) -> bool:
        nonlocal told
        if liveness.ended != told:
            told = liveness.ended
            progress(min(told, goal))
        return told >= goal and stage.timeline.open == 0 and _all_ended(stage, goal)

    patience_ms = round(stage.scenario.network.patience_s * 1_000)
    try:
        while stage.world.now < patience_ms:
            try:
                stage.world.run(is_over, max_virtual_ms=min(LOOK_EVERY_MS, patience_ms - stage.world.now))
                return None
            except SimulationStalled as error:
                if liveness.is_hopeless():
                    return liveness.of_stall(error)
    except BrokenInvariantError as error:
        return Violation(invariant=error.invariant, what=str(error))
    except EngineRaisedError as error:
        return Violation(invariant="no exception leaves the engine", what=str(error))
    except SimulationError as error:
        return Violation(invariant="simulation", what=str(error))
    return None


def _all_ended(stage: Stage, goal: int) -> bool:
    """Every honest node that is up, or about to be, has ended the last round."""
    return all(
        stage.round_of.get(node.index, 0) > goal
        for node in stage.world.nodes
        if node.honest and not node.down
    )


class _Liveness:
    """A `StepRule`: while the network is whole, each round ends within its bound."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._began_ms = 0
        self.ended = 0

    def __call__(self, step: Step) -> None:
        if step.after.round == step.before.round:
            return
        self.ended = step.before.round
        self._began_ms = self._stage.world.now

    @property
    def waited_ms(self) -> int:
        """How long no round has ended, and nothing struck or was mended."""
        return self._stage.world.now - max(self._began_ms, self._stage.timeline.quiet_since_ms)

    @property
    def bound_ms(self) -> int:
        validators = len(self._stage.timeline.state.validators)
        return round_bound_ms(self._stage.founding.genesis.params, validators)

    def is_hopeless(self) -> bool:
        """Nothing more is to come that could change anything, and a round has had its time."""
        return self._stage.timeline.open == 0 and self.waited_ms > self.bound_ms

    def of_stall(self, error: SimulationStalled) -> Violation | None:
        """No violation where the network was not whole."""
        if not is_whole(self._stage):
            return None
        return Violation(
            invariant="liveness",
            what=f"the network is whole, and no round ended for {self.waited_ms} ms; the bound is "
            f"{self.bound_ms} ms: {error}",
        )


def is_whole(stage: Stage) -> bool:
    """Whether more than 2/3 of the validators, and no fewer than a round needs, are honest, up and connected.

    Never while training rests: no round is due.

    docs/PROTOCOL.md section 3.1: "Fewer than 4 eligible: no roles, the round waits for adverts."
    """
    validators = stage.timeline.state.validators
    if stage.timeline.state.rests:
        return False
    up = [n for n in stage.world.nodes if n.honest and n.alive and not n.paused and n.peer in validators]
    linked = [n for n in up if sum(other.index in n.connections for other in up) >= len(up) - 1]
    return len(linked) >= max(quorum(len(validators)), LEAST_SURVIVORS + 1)


# -- what came of it -----------------------------------------------------------------------------------


Replayed = tuple[list[Step], str | None]
"""A ledger as far as it verifies, and why no further."""


def _ending(stage: Stage, check_ledgers: bool) -> Ending:
    members = stage.world.nodes[: stage.scenario.network.nodes]
    replayed: dict[tuple[bytes, ...], Replayed] = {}

    def ledger_of(node: Node) -> Replayed:
        """Nodes whose records are the same bytes need one replay between them."""
        if not check_ledgers:
            return stage.ledger.steps[: node.height], None
        blocks = stored_blocks(node)
        if blocks not in replayed:
            replayed[blocks] = replay_blocks(stage.founding.genesis, blocks)
        return replayed[blocks]

    nodes = []
    for node in members:
        steps, fault = ledger_of(node)
        end = NodeEnd(number=node.index, up=node.alive, honest=node.honest, steps=steps, fault=fault)
        nodes.append(end)
    return Ending(
        scenario=stage.scenario,
        nodes=nodes,
        numbers=stage.numbers,
        parts=stage.parts,
        returns=stage.returns.seen,
    )


def stored_blocks(node: Node) -> tuple[bytes, ...]:
    """A node's own block records, by height."""
    return tuple(value for _, value in sorted(node.records.get(durable.BLOCK, {}).items()))


def replay_blocks(genesis: Genesis, blocks: Sequence[bytes]) -> Replayed:
    """Stored blocks, checked from genesis."""
    steps: list[Step] = []
    try:
        for stored, before, after in replay(genesis, lambda: map(decode_stored_block, blocks)):
            steps.append(Step(stored, before, after))
    except (ChainError, DecodeError) as error:
        return steps, str(error)
    return steps, None


def make_report(run: Run) -> Report:
    """The run as JSON-ready values."""
    ending = run.ending
    state = ending.longest.steps[-1].after if ending.longest.steps else None
    return {
        "scenario": run.stage.scenario.name,
        "seed": run.stage.seed,
        "passed": run.passed,
        "failures": list(run.failures),
        "violation": None
        if run.violation is None
        else {"invariant": run.violation.invariant, "what": run.violation.what},
        "rounds": [
            {
                "round": record.round,
                "verdict": record.verdict,
                "accepted": record.accepted,
                "attempts": record.attempts,
                "contributors": [ending.numbers[peer] for peer in record.contributors],
                "dropped": [ending.numbers[peer] for peer in record.dropped],
                "votes": {str(ending.numbers[peer]): vote for peer, vote in record.votes.items()},
                "stake_changes_units": {
                    str(ending.numbers[peer]): units
                    for peer, units in record.stake_changes.items()
                    if peer in ending.numbers
                },
            }
            for record in ending.rounds
        ],
        "proven_faults": [
            {"round": f.round, "node": ending.numbers.get(f.peer), "fault": f.fault.name}
            for f in proven_faults(ending.longest.steps)
        ],
        "nodes": [
            {
                "node": node.number,
                "behaviour": run.stage.cast[node.number][0] if node.number in run.stage.cast else "honest",
                "up": node.up,
                "height": node.height,
                "stake_units": None if state is None else _stake(run, node.number),
            }
            for node in ending.nodes
        ],
        "returns": [attrs.asdict(back) for back in ending.came_back.values()],
        "strikes": [
            {"at_ms": s.at_ms, "round": s.round, "fault": s.kind.value, "nodes": list(s.nodes)}
            for s in run.strikes
        ],
        "struck": dict(run.struck),
        "events": run.events,
        "virtual_ms": run.virtual_ms,
        "trace": run.trace_digest,
    }


def _stake(run: Run, number: int) -> int | None:
    state = run.ending.longest.steps[-1].after
    account = state.account(run.stage.founding.identities[number].peer)
    return None if account is None else account.stake_units


def engine_of(node: Node) -> Engine | None:
    """The engine of a node that is up."""
    return node.engine if isinstance(node.engine, Engine) else None
