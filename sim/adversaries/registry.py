"""The names by which scenarios call adversaries."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.messages import Kind
from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.aggregators import (
    BlindForger,
    CollusiveForger,
    MalformedSum,
    OmittingAggregator,
    SilentAggregator,
    first_coordinate,
)
from sim.adversaries.proposers import (
    Accomplice,
    CheckBreaker,
    Inconsistent,
    Poisoner,
    off_by_one,
    out_of_bounds,
    unchanged,
)
from sim.adversaries.voters import Contrarian, Withholder
from sim.filters import Filter
from sim.scenario.manifest import ScenarioError

HONEST = "honest"


def _withholder(*kinds: Kind) -> Behaviour:
    names = " and ".join(kind.name for kind in kinds)
    return Behaviour(
        about=f"never lets a {names} leave the node",
        make=lambda actor: Withholder(actor.identity, actor.network, frozenset(kinds)),
    )


def _poisoner(actor: Actor) -> Poisoner:
    return Poisoner(actor.founding.genesis.params.clip_micro / 1e6)


BEHAVIOURS: Mapping[str, Behaviour] = {
    "poisoner": Behaviour(about="sends the largest update away from where it should go", make=_poisoner),
    "contrarian": Behaviour(about="votes against whatever is good", make=lambda actor: Contrarian()),
    "lazy-aggregator": Behaviour(
        about="leaves contributions out of the sum", make=lambda actor: OmittingAggregator()
    ),
    "silent-aggregator": Behaviour(about="never adds up", make=lambda actor: SilentAggregator()),
    "blind-forger": Behaviour(about="touches the sum without the keys", make=lambda actor: BlindForger()),
    "malformed-sum": Behaviour(about="claims a blob that is no sum", make=lambda actor: MalformedSum()),
    "accomplice": Behaviour(
        about="tells its coalition everything",
        make=lambda actor: Accomplice(actor.coalition),
        colludes=True,
    ),
    "collusive-forger": Behaviour(
        about="adds a delta with z from an accomplice",
        make=lambda actor: CollusiveForger(actor.coalition, first_coordinate(-700)),
        colludes=True,
    ),
    "check-breaker": Behaviour(
        about="uploads hidden values that are not its own", make=lambda actor: CheckBreaker()
    ),
    "mis-committer": Behaviour(
        about="commits to another update than it uploads",
        make=lambda actor: Inconsistent(unchanged, off_by_one),
    ),
    "out-of-bounds": Behaviour(
        about="contributes beyond the bound",
        make=lambda actor: Inconsistent(out_of_bounds, out_of_bounds),
    ),
    "vote-withholder": _withholder(Kind.VOTE_OPENING),
    "reveal-withholder": _withholder(Kind.REVEAL),
    "silent-leader": _withholder(Kind.PROPOSAL),
}


def make_filter(name: str, actor: Actor) -> Filter | None:
    """The filter of a behaviour; None for an honest node. Raises `ScenarioError` for an unknown one."""
    if name == HONEST:
        return None
    behaviour = BEHAVIOURS.get(name)
    if behaviour is None:
        raise ScenarioError(f"unknown behaviour {name!r}: choose one of {', '.join(sorted(BEHAVIOURS))}")
    if unknown := sorted(actor.options.keys() - behaviour.options):
        raise ScenarioError(f"behaviour {name!r} has no option {unknown[0]!r}")
    if behaviour.colludes and actor.alone:
        raise ScenarioError(f"behaviour {name!r} needs accomplices that share what they know: not in the lab")
    return behaviour.make(actor)
