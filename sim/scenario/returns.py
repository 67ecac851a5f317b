"""How nodes that were away came back: how long it took, what they received, and what it cost the others.

A return begins with a start of the node. It ends when the node has the blocks that it lacked then: those
that others had before. Whoever watches, in virtual time or from outside, tells what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median

from attrs import define, field, frozen
from attrs.validators import ge, gt

from flocknode.observe.ledger import Step
from protocol.ledger.block import encode_stored_block

ROUNDS_BEFORE = 60
"""Of the rounds that others made while the node was away, so many, the last ones, give the usual time."""


@frozen(kw_only=True)
class CaughtUp:
    """What must hold of a return: at least `rounds` were missed, and it took at most `within_s` seconds.

    `received`: the bytes that the node received, over those of the blocks that it lacked. `slower`: the
    others' median round meanwhile, over that of before.
    """

    rounds: int = field(default=1, validator=ge(1))
    within_s: float = field(default=15.0, validator=gt(0.0))
    received: float = field(default=1.3, validator=ge(1.0))
    slower: float = field(default=1.2, validator=gt(0.0))


@define
class _Open:
    """A return as it is seen. Bytes are counted since the start."""

    node: int
    began_s: float
    first_height: int
    last_height: int
    ended_s: float | None = None
    received_bytes: int = 0


@frozen(kw_only=True)
class Return:
    """A return, judged by the ledger: blocks `first_height` to `last_height`, of `rounds` rounds.

    `seconds` is None if the node never had them all. `usual_s`, `meanwhile_s`: medians of the others' rounds,
    None where there was none.
    """

    node: int
    first_height: int
    last_height: int
    rounds: int
    block_bytes: int
    received_bytes: int
    seconds: float | None
    usual_s: float | None
    meanwhile_s: float | None

    def shortfalls(self, wanted: CaughtUp) -> Iterator[str]:
        """What does not hold of what had to."""
        blocks = self.last_height - self.first_height + 1
        who = f"node {self.node}, back with {blocks} blocks of {self.rounds} rounds to catch up on,"
        if self.rounds < wanted.rounds:
            yield f"{who} should have missed {wanted.rounds} rounds"
        if self.seconds is None:
            yield f"{who} has not caught up"
            return
        if self.seconds > wanted.within_s:
            yield f"{who} took {self.seconds:.1f} s, not at most {wanted.within_s:g} s"
        if self.received_bytes > wanted.received * self.block_bytes:
            yield (
                f"{who} received {self.received_bytes} bytes, not at most {wanted.received:g} times "
                f"the {self.block_bytes} bytes of the blocks"
            )
        if self.usual_s is None or self.meanwhile_s is None:
            yield f"{who} was back too early or too late to tell how long others' rounds took"
        elif self.meanwhile_s > wanted.slower * self.usual_s:
            yield (
                f"{who} made others' rounds take {self.meanwhile_s:.2f} s, not at most {wanted.slower:g} "
                f"times the {self.usual_s:.2f} s of before"
            )


@define(eq=False)
class Returns:
    """What is seen of `nodes` nodes. Times in seconds of any clock, the same for all."""

    nodes: int
    _heights: dict[int, int] = field(factory=dict, init=False)
    _taken_s: dict[int, float] = field(factory=dict, init=False)
    """When a block was first taken by anybody."""
    _open: dict[int, _Open] = field(factory=dict, init=False)
    """The last return of each node that lacked anything."""

    def started(self, node: int, height: int, at_s: float) -> None:
        """A node begins a life with a ledger of this height."""
        self._heights[node] = height
        network_height = max((h for other, h in self._heights.items() if other != node), default=0)
        if network_height > height:
            self._open[node] = _Open(node, at_s, height + 1, network_height)

    def took_block(self, node: int, height: int, at_s: float, received_bytes: int) -> None:
        """A node has a block; `received_bytes`: all that it received since its start."""
        self._heights[node] = height
        self._taken_s[height] = min(at_s, self._taken_s.get(height, at_s))
        back = self._open.get(node)
        if back is not None and back.ended_s is None:
            back.received_bytes = received_bytes
            if height >= back.last_height:
                back.ended_s = at_s

    def judged(self, steps: Sequence[Step]) -> Mapping[int, Return]:
        """The last return of each node, by the longest ledger."""
        ends = [step.stored.block.height for step in steps if step.after.round != step.before.round]
        return {node: self._judge(back, steps, ends) for node, back in sorted(self._open.items())}

    def _judge(self, back: _Open, steps: Sequence[Step], ends: Sequence[int]) -> Return:
        lacked = steps[back.first_height - 1 : back.last_height]
        times = [self._taken_s[height] for height in ends if height in self._taken_s]
        rounds = [(after, after - before) for before, after in pairwise(times) if after > before]
        usual = [lasted for at_s, lasted in rounds if at_s <= back.began_s][-ROUNDS_BEFORE:]
        # Every round that the node was catching up in, and be it for a moment.
        ended_s = back.began_s if back.ended_s is None else back.ended_s
        meanwhile = [lasted for at_s, lasted in rounds if at_s > back.began_s and at_s - lasted <= ended_s]
        return Return(
            node=back.node,
            first_height=back.first_height,
            last_height=back.last_height,
            rounds=sum(back.first_height <= height <= back.last_height for height in ends),
            block_bytes=sum(len(encode_stored_block(step.stored)) for step in lacked),
            received_bytes=back.received_bytes,
            seconds=None if back.ended_s is None else back.ended_s - back.began_s,
            usual_s=median(usual) if usual else None,
            meanwhile_s=median(meanwhile) if meanwhile else None,
        )
