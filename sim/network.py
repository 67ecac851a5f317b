"""The simulated network: which bytes arrive, how often and when. Times in virtual milliseconds.

A connection is a stream: it keeps its order unless a message is drawn to be reordered. Two nodes on different
sides of a partition lose their connection and notice; a link that is cut in one direction swallows silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from attrs import evolve, field, frozen, validators

_probability = validators.and_(validators.ge(0.0), validators.le(1.0))


class NetworkError(ValueError):
    """A link, a probability or a partition that cannot be."""


@frozen(kw_only=True)
class LinkModel:
    """How one direction of a link behaves. Latency is uniform in [latency_min_ms, latency_max_ms].

    `reorder` is the chance that a message leaves the order of its stream and comes up to `late_ms` later.
    """

    latency_min_ms: int = field(default=5, validator=validators.ge(0))
    latency_max_ms: int = field(default=40, validator=validators.ge(0))
    bytes_per_ms: int = field(default=12_500, validator=validators.ge(1))
    loss: float = field(default=0.0, validator=_probability)
    duplicate: float = field(default=0.0, validator=_probability)
    reorder: float = field(default=0.0, validator=_probability)
    late_ms: int = field(default=1_000, validator=validators.ge(0))

    span: int = field(init=False, eq=False, repr=False)
    """How many latencies there are to draw from."""

    def __attrs_post_init__(self) -> None:
        if self.latency_max_ms < self.latency_min_ms:
            raise NetworkError("latency_max_ms must not be below latency_min_ms")
        object.__setattr__(self, "span", self.latency_max_ms - self.latency_min_ms + 1)

    def latency_ms(self, size: int, random: Random) -> int:
        """One draw of latency plus the time that `size` bytes take on the line."""
        return self.latency_min_ms + int(random.random() * self.span) + size // self.bytes_per_ms


@frozen(kw_only=True)
class Impairment:
    """What makes a link worse: more loss, more latency, fewer bytes a millisecond (None: as many)."""

    loss: float = field(default=0.0, validator=_probability)
    delay_ms: int = field(default=0, validator=validators.ge(0))
    bytes_per_ms: int | None = None

    def applied(self, link: LinkModel) -> LinkModel:
        """The link with this on top of what it has already."""
        most = link.bytes_per_ms if self.bytes_per_ms is None else self.bytes_per_ms
        return evolve(
            link,
            loss=1.0 - (1.0 - link.loss) * (1.0 - self.loss),
            latency_min_ms=link.latency_min_ms + self.delay_ms,
            latency_max_ms=link.latency_max_ms + self.delay_ms,
            bytes_per_ms=min(link.bytes_per_ms, most),
        )


class Network:
    """Links between nodes 0 .. n-1. Every draw is from the `random` of the world."""

    def __init__(self, model: LinkModel, random: Random) -> None:
        self.model = model
        self._random = random
        self._overrides: dict[tuple[int, int], LinkModel] = {}
        self._impairments: dict[int, tuple[frozenset[int], Impairment]] = {}
        self._links: dict[tuple[int, int], tuple[LinkModel, LinkModel]] = {}
        self._cut: set[tuple[int, int]] = set()
        self._partitions: dict[int, dict[int, int]] = {}
        self._made = 0
        self._line_free: dict[tuple[int, int], int] = {}
        self._last_arrival: dict[tuple[int, int], int] = {}

    # -- faults ------------------------------------------------------------------------------------

    def set_link(self, source: int, target: int, model: LinkModel | None) -> None:
        """Give one direction of one link a model of its own; None takes it back."""
        if model is None:
            self._overrides.pop((source, target), None)
        else:
            self._overrides[source, target] = model
        self._links.clear()

    def impair(self, nodes: Iterable[int], impairment: Impairment) -> int:
        """Make every link of these nodes worse, both ways; returns a number for `end_impairment`."""
        self._made += 1
        self._impairments[self._made] = (frozenset(nodes), impairment)
        self._links.clear()
        return self._made

    def end_impairment(self, number: int) -> None:
        """Undo one impairment; harmless where it has ended."""
        self._impairments.pop(number, None)
        self._links.clear()

    def cut(self, source: int, target: int) -> None:
        """Swallow what goes from source to target. An open connection stays up; a new one cannot be made."""
        self._cut.add((source, target))

    def mend(self, source: int, target: int) -> None:
        self._cut.discard((source, target))

    def partition(self, groups: Iterable[Iterable[int]]) -> int:
        """Only nodes of one group reach each other; those that no group names are one more group.

        Several partitions may stand at once: a link must be inside a group of each. Returns the partition's
        number, for `end_partition`.
        """
        sides: dict[int, int] = {}
        for side, group in enumerate(groups, start=1):
            for node in group:
                if node in sides:
                    raise NetworkError(f"node {node} stands on two sides of the partition")
                sides[node] = side
        self._made += 1
        self._partitions[self._made] = sides
        return self._made

    def end_partition(self, number: int) -> None:
        """Undo one partition; harmless where it has ended."""
        self._partitions.pop(number, None)

    def heal(self) -> None:
        """Undo every partition and every cut."""
        self._partitions = {}
        self._cut = set()

    # -- what a message meets ------------------------------------------------------------------------

    def separated(self, a: int, b: int) -> bool:
        """Whether a partition stands between the two."""
        if not self._partitions:
            return False
        return any(sides.get(a, 0) != sides.get(b, 0) for sides in self._partitions.values())

    def passes(self, source: int, target: int) -> bool:
        """Whether bytes flow in this direction now."""
        if not self._partitions and not self._cut:
            return True
        return not self.separated(source, target) and (source, target) not in self._cut

    def connectable(self, a: int, b: int) -> bool:
        """Whether a new connection can be made: it takes both directions."""
        return self.passes(a, b) and self.passes(b, a)

    def link(self, source: int, target: int) -> LinkModel:
        if not self._overrides and not self._impairments:
            return self.model
        known = self._links.get((source, target))
        if known is None or known[0] is not self.model:
            known = self.model, self._impaired(source, target)
            self._links[source, target] = known
        return known[1]

    def _impaired(self, source: int, target: int) -> LinkModel:
        link = self._overrides.get((source, target), self.model)
        for nodes, impairment in self._impairments.values():
            if source in nodes or target in nodes:
                link = impairment.applied(link)
        return link

    def arrivals(self, source: int, target: int, size: int, now: int) -> list[int]:
        """When a message sent now arrives: no time at all if it is lost, two if it is duplicated."""
        if (self._partitions or self._cut) and not self.passes(source, target):
            return []
        link = self.link(source, target) if self._overrides or self._impairments else self.model
        draw = self._random.random
        if link.loss and draw() < link.loss:
            return []
        line = source, target
        due = self._sent(line, size, link, now) + link.latency_min_ms + int(draw() * link.span)
        if link.reorder and draw() < link.reorder:
            due += int(draw() * link.late_ms)
        else:
            last = self._last_arrival.get(line, 0)
            if due < last:
                due = last
            self._last_arrival[line] = due
        if link.duplicate and draw() < link.duplicate:
            return [due, due + int(draw() * link.late_ms)]
        return [due]

    def arrivals_at(
        self, source: int, targets: Iterable[int], size: int, now: int
    ) -> Iterator[tuple[int, int]]:
        """One message sent to each of these in turn: (target, when it arrives), as `arrivals` has it."""
        link = self.model
        if (
            self._partitions
            or self._cut
            or self._overrides
            or self._impairments
            or (link.loss or link.reorder or link.duplicate or size >= link.bytes_per_ms)
        ):
            for target in targets:
                for due in self.arrivals(source, target, size, now):
                    yield target, due
            return
        draw, last_arrival, line_free = self._random.random, self._last_arrival, self._line_free
        soonest, span = now + link.latency_min_ms, link.span
        for target in targets:
            line = source, target
            due = soonest + int(draw() * span)
            if line in line_free:
                due += self._sent(line, size, link, now) - now
            last = last_arrival.get(line, 0)
            if due < last:
                due = last
            last_arrival[line] = due
            yield target, due

    def _sent(self, line: tuple[int, int], size: int, link: LinkModel, now: int) -> int:
        """When the last byte is on the line: a message waits for those before it."""
        if size < link.bytes_per_ms and line not in self._line_free:
            return now
        free = self._line_free.get(line, now)
        sent = (free if free > now else now) + size // link.bytes_per_ms
        if sent > now:
            self._line_free[line] = sent
        elif free < now:
            del self._line_free[line]
        return sent

    def round_trip_ms(self, a: int, b: int, reply_bytes: int) -> int:
        """One request and its reply of `reply_bytes`."""
        request = self.link(a, b).latency_ms(0, self._random)
        return request + self.link(b, a).latency_ms(reply_bytes, self._random)

    def request_lost(self, a: int, b: int) -> bool:
        """Whether a request or its reply goes missing."""
        for link in (self.link(a, b), self.link(b, a)):
            if link.loss and self._random.random() < link.loss:
                return True
        return False
