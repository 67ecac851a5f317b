"""How a simulation fails: always with its seed, its virtual time and the end of its trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.world import World

TAIL_LINES = 30


class SimulationError(AssertionError):
    """A run went wrong; the message names the seed and shows the end of the trace."""

    def __init__(self, world: World, what: str) -> None:
        super().__init__(f"seed {world.seed} at {world.now} ms: {what}\n{world.trace.tail(TAIL_LINES)}")
        self.seed = world.seed


class SimulationStalled(SimulationError):  # noqa: N818
    """The goal of a run was not reached within its budget; `summary` has a line for each node."""

    def __init__(self, world: World, why: str) -> None:
        self.summary = "\n".join(node.summary() for node in world.nodes)
        super().__init__(world, f"{why}\n{self.summary}")


class BrokenInvariantError(SimulationError):
    """An invariant was violated; `invariant` is its name."""

    def __init__(self, world: World, what: str, invariant: str) -> None:
        super().__init__(world, what)
        self.invariant = invariant


class EngineRaisedError(SimulationError):
    """An engine let an exception out of `handle`."""


class AdversaryRaisedError(SimulationError):
    """A filter raised: the scenario's adversary is at fault, and no protocol."""


class WorldError(ValueError):
    """A scenario asks for what cannot be."""


class BlobMissingError(KeyError):
    """A job reads a blob that its node does not hold."""
