"""What unwatched rounds before and after the changes say: whether they are short enough, and shorter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sim.bench.peers.summary import ROUND_GOAL_S, SOURCE
from sim.figures.claims import Claim
from sim.figures.profile.read import Rounds, ToldProfile

BUDGET = "ours: the budget of a round"
GOAL_NODES = 8
NODES = re.compile(r"--nodes[= ](\d+)")
GOAL = f"A median round, without training, takes at most {ROUND_GOAL_S} s with {GOAL_NODES} real processes"
EACH_PAIR = "The changes made the round shorter in each pair"
MEDIAN_PAIR = "The changes made the round shorter in the median pair"


def profile_claims(told: ToldProfile) -> tuple[Claim, ...]:
    """Of unwatched rounds only: a watched round is slower than another one."""
    if told.rounds is None:
        return ()
    goal = [_goal(told.rounds)] if decides_goal(told.rounds) else []
    return (*goal, _each_pair(told.rounds), _median_pair(told.rounds))


def decides_goal(rounds: Rounds) -> bool:
    """Whether they were of as many nodes as the goal is about, by their command."""
    return [int(nodes) for nodes in set(NODES.findall(rounds.command))] == [GOAL_NODES]


def _goal(rounds: Rounds) -> Claim:
    return Claim(
        name="profile-round-seconds",
        statement=GOAL,
        source=BUDGET,
        rule=f"the median over the pairs of the median round after the changes is at most {ROUND_GOAL_S} s",
        holds=rounds.after_s <= ROUND_GOAL_S,
        found=f"{rounds.after_s:.3f} s, the median of {_pairs(rounds)}; "
        f"{rounds.before_s:.3f} s before the changes.",
        numbers={"after_s": rounds.after_s, "before_s": rounds.before_s, "goal_s": ROUND_GOAL_S},
    )


def _each_pair(rounds: Rounds) -> Claim:
    ratios = [pair.ratio for pair in rounds.pairs]
    shorter = sum(ratio < 1 for ratio in ratios)
    return Claim(
        name="profile-each-pair",
        statement=EACH_PAIR,
        source=SOURCE,
        rule="after / before, of median rounds, is below 1 in every pair",
        holds=shorter == len(ratios),
        found=f"shorter in {shorter} of {_pairs(rounds)}; after / before {_span(ratios)}.",
        numbers={"shorter": shorter, "pairs": len(ratios), "lowest": min(ratios), "highest": max(ratios)},
    )


def _median_pair(rounds: Rounds) -> Claim:
    return Claim(
        name="profile-median-pair",
        statement=MEDIAN_PAIR,
        source=SOURCE,
        rule="the median over the pairs of after / before, of median rounds, is below 1",
        holds=rounds.ratio < 1,
        found=f"after / before {rounds.ratio:.3f}, the median of {_pairs(rounds)}.",
        numbers={"ratio": rounds.ratio},
    )


def _pairs(rounds: Rounds) -> str:
    return f"{len(rounds.pairs)} pair{'s' * (len(rounds.pairs) != 1)}"


def _span(ratios: Sequence[float]) -> str:
    return f"from {min(ratios):.3f} to {max(ratios):.3f}"
