"""The form of an invariant, and of its violation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from flocknode.observe.ledger import Step
from protocol.events import Effect

if TYPE_CHECKING:
    from sim.node import Node


class InvariantError(AssertionError):
    """A run reached a state that must not be. The world adds the seed and the trace."""

    def __init__(self, what: str, invariant: str = "") -> None:
        super().__init__(what)
        self.invariant = invariant


class Invariant(Protocol):
    """Called after events with the node and the effects it performed; raises `InvariantError`."""

    def __call__(self, node: Node, performed: Sequence[Effect]) -> None: ...


class StepRule(Protocol):
    """Called with each block once, when the first honest node has committed it; raises `InvariantError`."""

    def __call__(self, step: Step) -> None: ...


def name_of(rule: object) -> str:
    """The name that a violation is reported under: that of the rule's class, in lower case."""
    return type(getattr(rule, "__self__", rule)).__name__.lower()


def apply_rule(rule: StepRule, step: Step) -> None:
    """Raises `InvariantError` with the rule's own name, whoever asked."""
    try:
        rule(step)
    except InvariantError as error:
        error.invariant = error.invariant or name_of(rule)
        raise
