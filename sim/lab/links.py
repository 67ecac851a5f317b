"""What is wrong with the lab's links at a moment, and the packet filter that makes it so. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from sim.scenario.manifest import LinkTable

MILLION = 10**6
TABLE = "faults"


@frozen(order=True)
class Shape:
    """A node's wire, in both directions. `bytes_per_s` None: as fast as it goes. Delays are one-way."""

    bytes_per_s: int | None = None
    delay_min_ms: int = 0
    delay_max_ms: int = 0


@frozen(kw_only=True)
class Trouble:
    """What one fault does to links while it lasts.

    `down`: nodes whose wire is unplugged. `cut`: (source, target), from which nothing arrives. `loss`: the
    share of packets to and from a node that is dropped. `shapes`: of slow nodes.
    """

    down: frozenset[int] = frozenset()
    cut: frozenset[tuple[int, int]] = frozenset()
    loss: Mapping[int, float] = field(factory=dict)
    shapes: Mapping[int, Shape] = field(factory=dict)


@frozen(kw_only=True)
class Links:
    """The links of `count` nodes under all the troubles that last. `base`: what holds for all the time."""

    count: int
    base: Shape = Shape()
    base_loss: float = 0.0
    troubles: tuple[Trouble, ...] = ()

    @staticmethod
    def whole(count: int) -> Links:
        """Nothing is wrong."""
        return Links(count=count)

    def is_down(self, node: int) -> bool:
        return any(node in trouble.down for trouble in self.troubles)

    def cut(self) -> list[tuple[int, int]]:
        """(source, target) of all links that are dead, ascending."""
        return sorted({pair for trouble in self.troubles for pair in trouble.cut})

    def loss(self, node: int) -> float:
        """The share of packets to and from a node that is dropped; losses of several faults add up."""
        kept = 1.0
        for trouble in self.troubles:
            kept *= 1.0 - trouble.loss.get(node, 0.0)
        return 1.0 - kept

    def shape(self, node: int) -> Shape:
        """The slowest rate and the sum of all delays."""
        shapes = [self.base, *(t.shapes[node] for t in self.troubles if node in t.shapes)]
        rates = [shape.bytes_per_s for shape in shapes if shape.bytes_per_s is not None]
        return Shape(
            min(rates, default=None),
            sum(shape.delay_min_ms for shape in shapes),
            sum(shape.delay_max_ms for shape in shapes),
        )


def partition(count: int, groups: Sequence[Sequence[int]]) -> frozenset[tuple[int, int]]:
    """Links between the sides; nodes in none of the groups are one more side.

    A node that is named twice is where it was named first.
    """
    side: dict[int, int] = {}
    for number, group in enumerate(groups, start=1):
        for node in group:
            side.setdefault(node, number)
    return frozenset(
        (a, b) for a in range(count) for b in range(count) if a != b and side.get(a, 0) != side.get(b, 0)
    )


def base_of(link: LinkTable) -> tuple[Shape, float]:
    """What [link] asks for; a value that is its default leaves the lab's links as they are.

    A message passes two wires, its sender's and its receiver's: each has half of the latency.
    """
    usual = LinkTable()
    least_ms, most_ms = link.latency_min_ms, link.latency_max_ms
    if (least_ms, most_ms) == (usual.latency_min_ms, usual.latency_max_ms):
        least_ms, most_ms = 0, 0
    rate = None if link.bytes_per_s == usual.bytes_per_s else link.bytes_per_s
    return Shape(rate, least_ms // 2, -(-most_ms // 2)), link.loss


def ruleset(links: Links, port: Callable[[int], str]) -> str:
    """An nftables script that puts these links in the place of what there was. `port`: a node's device."""
    drops = []
    if pairs := links.cut():
        elements = ", ".join(f'"{port(a)}" . "{port(b)}"' for a, b in pairs)
        drops.append(f"iifname . oifname {{ {elements} }} drop")
    if links.base_loss:
        drops.append(f"{_chance(links.base_loss)} drop")
    for node in range(links.count):
        if links.loss(node):
            for side in ("iifname", "oifname"):
                drops.append(f'{side} "{port(node)}" {_chance(links.loss(node))} drop')
    rules = "\n".join(f"    {drop}" for drop in drops)
    return f"""\
table bridge {TABLE} {{}}
delete table bridge {TABLE}
table bridge {TABLE} {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
{rules}
  }}
}}
"""


def _chance(share: float) -> str:
    return f"numgen random mod {MILLION} < {round(share * MILLION)}"
