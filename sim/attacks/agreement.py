"""Attacks on the agreement and on what it is about (docs/PROTOCOL.md sections 7, 11.4 and 11.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protocol.consensus import leader_of
from protocol.ledger.state import Phase
from protocol.messages import Kind, Transaction, TransactionKind
from sim.adversaries.leaders import Censor, DoubleVoter, TwoBlockLeader
from sim.adversaries.ledger_behaviours import other_seal
from sim.adversaries.noise import Replayer
from sim.adversaries.speakers import LateAdvertiser, StakeShifter, TwoFaced
from sim.adversaries.voters import Abstainer, Contrarian, Withholder
from sim.attacks.attack import Attack, Result
from sim.attacks.trial import NODES, Staging, Trial, ledger_of, run_trial
from sim.filters import Filter
from sim.scenes import Cast, Scene

ROUNDS = 2
FAULTY = 2
"""Of seven, and less than a third of them."""

Make = Callable[[Scene, int], Filter]


def _faulty(make: Make) -> Cast:
    """The nodes that lead the first two heights in view 1."""

    def cast(scene: Scene) -> Mapping[int, Filter]:
        return {index: make(scene, index) for index in _leaders(scene)}

    return cast


def _leaders(scene: Scene) -> tuple[int, ...]:
    peers = scene.peers(range(NODES))
    leaders: list[int] = []
    height = 1
    while len(leaders) < FAULTY:
        leader = leader_of(peers, height, 1)
        index = next(i for i in range(NODES) if scene.peer(i) == leader)
        if index not in leaders:
            leaders.append(index)
        height += 1
    return tuple(leaders)


def _halves(scene: Scene, index: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    rest = [i for i in range(NODES) if i != index]
    return scene.peers(rest[:3]), scene.peers(rest[3:])


def _lost(name: str, trial: Trial, struck: bool = True, what: str = "") -> Result:
    """Whether rounds were lost, or honest nodes disagree (an invariant that every run checks)."""
    views = max((step.stored.block.view for step in trial.steps), default=0)
    ended = f"{len(trial.records)} of {trial.rounds} rounds ended, the last view was {views}"
    return trial.result(
        name,
        reached=trial.rounds_lost > 0 or trial.stalled,
        struck=struck,
        found=f"{what}{ended}",
    )


def _two_blocks(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        identity, network = scene.founding.identities[index], scene.founding.genesis.network
        return TwoBlockLeader(identity, network, *_halves(scene, index))

    trial = run_trial(Staging(cast=_faulty(make), rounds=ROUNDS), profile, seed)
    twice = sum(f.struck for f in trial.scene.filters.values() if isinstance(f, TwoBlockLeader))
    return _lost(name, trial, twice > 0, f"two blocks {twice} times; ")


def _silent_leaders(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        identity, network = scene.founding.identities[index], scene.founding.genesis.network
        return Withholder(identity, network, frozenset({Kind.PROPOSAL}))

    return _lost(name, run_trial(Staging(cast=_faulty(make), rounds=ROUNDS), profile, seed))


def _double_votes(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        return DoubleVoter(scene.founding.identities[index], scene.founding.genesis.network)

    return _lost(name, run_trial(Staging(cast=_faulty(make), rounds=ROUNDS), profile, seed))


def _twin(name: str, profile: str, seed: int) -> Result:
    """Two machines with the key of the first proposer, each with secrets of its own."""
    staging = Staging(
        cast=lambda scene: {scene.proposers[0]: Filter()},
        rounds=ROUNDS,
        twins=lambda scene: [scene.proposers[0]],
        left_behind=lambda scene: [scene.proposers[0], NODES],
    )
    return _lost(name, run_trial(staging, profile, seed))


def _two_sealed_votes(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        index = scene.voters[0]
        identity, network = scene.founding.identities[index], scene.founding.genesis.network
        return {index: TwoFaced(identity, network, Kind.SEALED_VOTE, *_halves(scene, index), other_seal)}

    return _lost(name, run_trial(Staging(cast=cast), profile, seed))


def _censored(name: str, profile: str, seed: int) -> Result:
    """A member wants to leave while its enemies lead; honest leaders come too."""

    def victim(scene: Scene) -> int:
        return next(i for i in range(NODES) if i not in _leaders_of_the_end(scene))

    def cast(scene: Scene) -> Mapping[int, Filter]:
        genesis = scene.founding.genesis
        return {
            index: Censor(
                scene.founding.identities[index], genesis.network, genesis, scene.peer(victim(scene))
            )
            for index in _leaders_of_the_end(scene)
        }

    def during(scene: Scene) -> None:
        # After the first block: the leader of OPEN, which carries transactions too, is not among them.
        scene.run_until(victim(scene), Phase.CONTRIBUTE)
        scene.order(victim(scene), TransactionKind.FUND, units=1_000_000)

    trial = run_trial(Staging(cast=cast, rounds=ROUNDS, during=during), profile, seed)
    scene = trial.scene
    account = scene.state.account(scene.peer(victim(scene)))
    assert account is not None
    times = sum(f.struck for f in scene.filters.values() if isinstance(f, Censor))
    when = next((r for r in range(1, ROUNDS + 1) if _nonce_after(scene, victim(scene), r)), None)
    found = f"left out {times} times, in the ledger after round {when}"
    return trial.result(name, reached=account.nonce == 0, struck=times > 0, found=found)


def _nonce_after(scene: Scene, index: int, round_: int) -> int:
    states = [step.after for step in ledger_of(scene) if step.after.round == round_ + 1]
    account = states[0].account(scene.peer(index)) if states else None
    return 0 if account is None else account.nonce


def _leaders_of_the_end(scene: Scene) -> tuple[int, ...]:
    """Who leads height 6, the OUTCOME of an ordinary first round, in view 1; and the next one."""
    peers = scene.peers(range(NODES))
    return tuple(
        next(i for i in range(NODES) if scene.peer(i) == leader_of(peers, 6, view)) for view in (1, 2)
    )


def _replay(name: str, profile: str, seed: int) -> Result:
    def make(scene: Scene, index: int) -> Filter:
        return Replayer(scene.founding.identities[index], scene.founding.genesis.network)

    trial = run_trial(Staging(cast=_faulty(make), rounds=ROUNDS), profile, seed)
    again = sum(f.replayed for f in trial.scene.filters.values() if isinstance(f, Replayer))
    return _lost(name, trial, again > 0, f"{again} messages again; ")


# -- the beacon of the next round --------------------------------------------------------------------


def _draw_after(scene: Scene) -> object:
    """What the first round's end draws: beacon and roles of the second."""
    after = next(step.after for step in ledger_of(scene) if step.after.round == ROUNDS)
    return after.beacon, after.learning.roles


def _vote_grinding(name: str, profile: str, seed: int) -> Result:
    """Every vote that a voter can give or not give, and what each draws."""

    def withholding(kind: Kind) -> Make:
        def make(scene: Scene, index: int) -> Filter:
            identity = scene.founding.identities[index]
            return Withholder(identity, scene.founding.genesis.network, frozenset({kind}))

        return make

    choices: tuple[Make, ...] = (
        lambda scene, index: Contrarian(),
        lambda scene, index: Abstainer(),
        withholding(Kind.VOTE_OPENING),
        withholding(Kind.SEALED_VOTE),
    )
    trials = [
        run_trial(
            Staging(cast=lambda scene, make=make: {scene.voters[0]: make(scene, scene.voters[0])}),  # type: ignore[misc]
            profile,
            seed,
        )
        for make in choices
    ]
    draws = {repr(_draw_after(trial.scene)) for trial in trials} | {repr(_draw_after(trials[0].honest))}
    cheapest = min(trials, key=lambda trial: trial.cost_units())
    found = f"{len(choices) + 1} ways to vote lead to {len(draws)} draws"
    return cheapest.result(name, reached=len(draws) > 1, found=found)


def _late_advert(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        index = scene.proposers[0]
        return {index: LateAdvertiser(scene.founding.identities[index], scene.founding.genesis.network)}

    trial = run_trial(Staging(cast=cast), profile, seed)
    scene = trial.scene
    after = next(step.after for step in trial.steps if step.after.round == ROUNDS)
    pinned = after.learning.advert_of(scene.peer(scene.proposers[0])) is not None
    found = f"its advert is {'pinned' if pinned else 'too late'}"
    return trial.result(name, reached=pinned, found=found)


def _stake_shift(name: str, profile: str, seed: int) -> Result:
    def cast(scene: Scene) -> Mapping[int, Filter]:
        index = scene.proposers[0]
        fund = Transaction(TransactionKind.FUND, 0, scene.peer(index), 30_000_000)
        identity = scene.founding.identities[index]
        return {index: StakeShifter(identity, scene.founding.genesis.network, (fund,))}

    trial = run_trial(Staging(cast=cast), profile, seed)
    moved = _draw_after(trial.scene) != _draw_after(trial.honest)
    found = f"the draw is {'another' if moved else 'the same'}"
    return trial.result(name, reached=moved, found=found)


_LOSS = "honest nodes finalise different blocks, or rounds are lost"

AGREEMENT = (
    Attack(
        "equivocating-leader",
        "two of seven sign two blocks whenever they lead, one for each half",
        _LOSS,
        _two_blocks,
    ),
    Attack("withholding-leader", "two of seven never propose a block when they lead", _LOSS, _silent_leaders),
    Attack(
        "censoring-leader",
        "two leaders of a round's last block leave a victim's transaction out",
        "it is not in the ledger two rounds later",
        _censored,
    ),
    Attack("twin", "a second machine runs under a proposer's key, with secrets of its own", _LOSS, _twin),
    Attack(
        "equivocating-validator",
        "two of seven sign a second vote of the agreement beside each",
        _LOSS,
        _double_votes,
    ),
    Attack(
        "equivocating-voter",
        "a voter shows each half another sealed vote",
        _LOSS,
        _two_sealed_votes,
    ),
    Attack("replayed-statements", "two of seven say everything again one round later", _LOSS, _replay),
)

GRINDING = (
    Attack(
        "vote-grinding",
        "a voter chooses among +1, -1, 0, a vote not sealed and one not opened for what each draws",
        "two of them lead to different beacons or roles",
        _vote_grinding,
    ),
    Attack(
        "late-advert",
        "a member advertises for the next round once it knows the next beacon",
        "its advert is pinned",
        _late_advert,
    ),
    Attack(
        "stake-shift",
        "a member moves stake once it knows the next beacon",
        "the next round's roles are others",
        _stake_shift,
    ),
)
