"""The names by which scenarios call adversaries."""

from __future__ import annotations

from collections.abc import Mapping

from sim.adversaries.actor import Actor, Behaviour
from sim.adversaries.learning_behaviours import LEARNING
from sim.adversaries.ledger_behaviours import LEDGER
from sim.adversaries.pace_breakers import PACE_BREAKERS
from sim.adversaries.rule_breakers import RULE_BREAKERS
from sim.adversaries.sources import SOURCES
from sim.filters import Filter
from sim.scenario.manifest import ScenarioError

HONEST = "honest"

BEHAVIOURS: Mapping[str, Behaviour] = {**LEARNING, **LEDGER, **RULE_BREAKERS, **SOURCES, **PACE_BREAKERS}


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
