"""What an experiment may put around the parts of a node: a filter around its engine, a slow network.

A node that is started as usual has nothing around it. The fault lab (`sim.lab`) gives dishonest nodes their
filters and slow links their delays here, so that the node itself knows of neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from flocknode.node import StateMachine
    from flocknode.transport.base import Transport


def _engine_itself(engine: StateMachine) -> StateMachine:
    return engine


def _transport_itself(transport: Transport) -> Transport:
    return transport


@frozen
class Wraps:
    """Each is called as the node is put together, and returns what it uses in place of the part.

    `engine` is called again for each engine that takes the place of one that failed on a message.
    """

    engine: Callable[[StateMachine], StateMachine] = _engine_itself
    transport: Callable[[Transport], Transport] = _transport_itself


NO_WRAPS = Wraps()
