"""Scenarios drawn at random: a network, some of it dishonest, and what breaks while it runs.

At most f = (n - 1) / 3 nodes are faulty for good: adversaries, machines whose store was tampered with, and
those that stay down. Everything else that breaks is mended again, so that the network must go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from attrs import define, evolve

from protocol.codec import digest
from protocol.ledger.adaptive import AdaptiveGamma
from protocol.ledger.judgement import Judgement
from protocol.ledger.pace import Pace
from protocol.ledger.state import Phase
from protocol.messages import Kind, TransactionKind
from protocol.params import MICRO, PROFILES, ProtocolParams, Sparsify
from protocol.sortition import default_roles
from sim.adversaries.registry import BEHAVIOURS
from sim.scenario.manifest import (
    SHORT_DEADLINES,
    Expectation,
    Fault,
    FaultKind,
    LinkTable,
    NetworkTable,
    NodeTable,
    Scenario,
)
from sim.scenario.moments import Place
from sim.scenario.selectors import Part, Selector

SIZES = (4, 5, 5, 5, 5, 6, 6, 7, 7, 7, 8, 10)
PHASES = (Phase.SHARE, Phase.CONTRIBUTE, Phase.AGGREGATE, Phase.BALLOT, Phase.VOTE)
STATEMENTS = (
    Kind.KEY_ADVERT,
    Kind.SHARE_BUNDLE,
    Kind.CONTRIBUTION,
    Kind.RECEIPT,
    Kind.SHARE_RELEASE,
    Kind.AGGREGATE_CLAIM,
    Kind.REVEAL,
    Kind.SEALED_VOTE,
    Kind.VOTE_OPENING,
)
LEAST_NODES = 4
PATIENCE_S = 4_000.0
AMPLE_TOKENS = 1_000.0
"""So much that nobody is put out of a network that is too small to lose a validator."""
SMALL = 7


def history_seed(seed: int, number: int) -> int:
    """The seed of one history of a campaign: it alone draws the scenario, and runs it."""
    data = digest("fuzz", seed.to_bytes(16, "big", signed=True), number.to_bytes(8, "big"))
    return int.from_bytes(data[:6], "big")


def draw_scenario(seed: int) -> Scenario:
    """A function of the seed alone."""
    return _Draw(Random(f"scenario {seed}"), seed).scenario()


@define
class _Draw:
    """`spare`: how many more nodes may be faulty for good; `taken`: those that are."""

    random: Random
    seed: int
    nodes: int = 0
    rounds: int = 0
    spare: int = 0
    taken: tuple[int, ...] = ()

    def scenario(self) -> Scenario:
        r = self.random
        self.nodes, self.rounds = r.choice(SIZES), r.choice((3, 3, 3, 4))
        # A network of four stops for good when it loses one: docs/PROTOCOL.md section 11.5, limit 3.
        self.spare = (self.nodes - 1) // 3 if self.nodes > LEAST_NODES else 0
        profile = "vcdfl" if r.random() < 0.15 else "hardened"
        cast = self._cast(profile)
        faults = [
            self._fault() for _ in range(r.choice((0, 1, 1, 2, 2, 3, 4)) if cast else r.choice((1, 2, 3, 4)))
        ]
        # From a stream of their own, so that all else that is drawn from a seed stays what it was.
        orders = self._orders(Random(f"orders {self.seed}"))
        late = self._late(Random(f"late {self.seed}"))
        return Scenario(
            name=f"drawn-{self.seed}",
            about="Drawn at random.",
            network=NetworkTable(
                nodes=self.nodes,
                rounds=self.rounds,
                profile=profile,
                stake_tokens=AMPLE_TOKENS if self.nodes < SMALL or r.random() < 0.5 else 64.0,
                patience_s=PATIENCE_S,
            ),
            params=self._params(profile),
            link=self._link(),
            nodes=tuple(cast),
            faults=(*(fault for fault in faults if fault is not None), *orders, *late),
            expect=Expectation(ended=0),
        )

    # -- the network -----------------------------------------------------------------------------

    def _params(self, profile: str) -> ProtocolParams:
        r = self.random
        n_proposers, n_voters = default_roles(self.nodes)
        if r.random() < 0.2:
            n_proposers = r.randint(3, self.nodes - 1)
        params = PROFILES[profile](
            dimension=64, n_proposers=n_proposers, n_voters=r.choice((1, n_voters, n_voters))
        )
        changes: dict[str, Any] = {**SHORT_DEADLINES, "max_weight": r.choice((1, 64, 1 << 16))}
        if r.random() < 0.3:
            changes["max_attempts"] = r.randint(1, 3)
        if r.random() < 0.2:
            changes["view_timeout_ms"] = r.choice((300, 2_000))
        if profile == "hardened" and r.random() < 0.15:
            changes |= {"sparsify": Sparsify.SHARED_SUPPORT, "sparsify_permille": r.choice((250, 500))}
        # From a stream of its own, so that all else that is drawn from a seed stays what it was.
        apart = Random(f"gamma {self.seed}")
        if apart.random() < 0.15:
            changes["adaptive_gamma"] = AdaptiveGamma(window=apart.choice((1, 2, 8)))
        apart = Random(f"judgement {self.seed}")
        if apart.random() < 0.4:
            changes["judgement"] = Judgement(tolerance_permille=apart.choice((1, 100, 2_000)))
        apart = Random(f"pace {self.seed}")
        if apart.random() < 0.2:
            changes["pace"] = Pace(
                interval_ms=apart.choice((0, 500, 5_000)),
                rounds=apart.choice((0, 1, 2)),
                patience=apart.choice((0, 1, 2)),
                heeds_done=apart.random() < 0.5 and "judgement" in changes,
                resume_units=apart.choice((0, MICRO, 2 * MICRO)),
            )
        return evolve(params, **changes)

    def _orders(self, apart: Random) -> list[Fault]:
        """What operators ask for. A member that leaves counts as one that is faulty for good."""
        orders: list[Fault] = []
        while apart.random() < 0.3:
            kind = apart.choice((TransactionKind.TRANSFER, TransactionKind.FUND, TransactionKind.LEAVE))
            who = (Selector(Part.NODE, apart.randrange(self.nodes)),)
            at_s = round(apart.uniform(0.0, 60.0), 2)
            if kind is TransactionKind.LEAVE:
                free = [number for number in range(self.nodes) if number not in self.taken]
                if not self.spare or not free:
                    continue
                who = (Selector(Part.NODE, apart.choice(free)),)
                self.taken, self.spare = (*self.taken, who[0].number), self.spare - 1
            orders.append(
                Fault(
                    do=FaultKind.ORDER,
                    who=who,
                    order=kind,
                    tokens=0.0 if kind is TransactionKind.LEAVE else apart.choice((0.5, 2.0, 5.0)),
                    to=(Selector(Part.ALL),) if kind is TransactionKind.TRANSFER else (),
                    at_s=at_s,
                )
            )
            if kind is TransactionKind.LEAVE and apart.random() < 0.5:
                again = Fault(do=FaultKind.ORDER, who=who, order=TransactionKind.JOIN, at_s=at_s + 30.0)
                orders.append(again)
        return orders

    def _late(self, apart: Random) -> list[Fault]:
        """A node that is away for many rounds, its ledger kept, and comes back to a network that went on."""
        if apart.random() >= 0.2 or self.nodes <= LEAST_NODES:
            return []
        who = (Selector(Part.NODE, apart.randrange(self.nodes)),)
        for_s = apart.choice((15.0, 30.0, 60.0))
        return [Fault(do=FaultKind.KILL, who=who, for_s=for_s, place=Place(1, apart.choice(PHASES)))]

    def _link(self) -> LinkTable:
        r = self.random
        if r.random() < 0.5:
            return LinkTable()
        slowest = r.choice((20, 60, 250))
        return LinkTable(
            latency_min_ms=r.choice((1, 10)),
            latency_max_ms=slowest,
            loss=r.choice((0.0, 0.0, 0.02, 0.1)),
            duplicate=r.choice((0.0, 0.05)),
            reorder=r.choice((0.0, 0.2)),
            late_ms=r.choice((200, 1_500)),
            bytes_per_s=r.choice((200_000, 12_500_000)),
        )

    # -- who misbehaves --------------------------------------------------------------------------

    def _cast(self, profile: str) -> list[NodeTable]:
        r = self.random
        cast: list[NodeTable] = []
        while self.spare and r.random() < 0.65:
            number = self._another()
            if r.random() < 0.12:
                cast.append(NodeTable(who=(Selector(Part.NODE, number),), twin=True))
            else:
                cast.append(NodeTable(who=(Selector(Part.NODE, number),), behaviour=self._behaviour(profile)))
        return cast

    def _behaviour(self, profile: str) -> str:
        """Under the paper's profile colluders forge at will, which is shown elsewhere."""
        names = [
            name
            for name, behaviour in sorted(BEHAVIOURS.items())
            if profile == "hardened" or not behaviour.colludes
        ]
        return self.random.choice(names)

    def _another(self) -> int:
        """One more node that is faulty for good."""
        number = self.random.choice([n for n in range(self.nodes) if n not in self.taken])
        self.taken = (*self.taken, number)
        self.spare -= 1
        return number

    # -- what breaks -----------------------------------------------------------------------------

    def _fault(self) -> Fault | None:
        kind = self.random.choice(tuple(_FAULTS))
        return _FAULTS[kind](self)

    def _moment(self) -> dict[str, Any]:
        r = self.random
        if r.random() < 0.15:
            return {"at_s": round(r.uniform(0.0, 8.0), 2)}
        place = Place(r.randint(1, self.rounds), r.choice(PHASES))
        return {"place": place, "after_s": r.choice((0.0, 0.0, round(r.uniform(0.0, 1.0), 2)))}

    def _statement_moment(self) -> dict[str, Any]:
        """When a node says something: armed from the beginning of a round."""
        return {"place": Place(self.random.randint(1, self.rounds)), "sends": self.random.choice(STATEMENTS)}

    def _someone(self) -> tuple[Selector, ...]:
        r = self.random
        if r.random() < 0.3:
            return (Selector(Part.NODE, r.randrange(self.nodes)),)
        part = r.choice((Part.PROPOSER, Part.PROPOSER, Part.AGGREGATOR, Part.VOTER, Part.LEADER))
        return (Selector(part, r.choice((0, 0, 1)) if part is not Part.LEADER else 0),)

    def _seconds(self) -> float:
        return round(self.random.choice((0.2, 1.0, 3.0, 8.0)) * self.random.uniform(0.5, 1.5), 2)

    def kill(self) -> Fault | None:
        r = self.random
        moment = self._statement_moment() if r.random() < 0.4 else self._moment()
        if self.spare and r.random() < 0.2:
            return Fault(do=FaultKind.KILL, who=(Selector(Part.NODE, self._another()),), **self._moment())
        after = r.randrange(12) if "sends" not in moment and r.random() < 0.5 else None
        return Fault(
            do=FaultKind.KILL, who=self._someone(), for_s=self._seconds(), after_effects=after, **moment
        )

    def blackout(self) -> Fault | None:
        """Everybody at once."""
        return Fault(do=FaultKind.KILL, who=(Selector(Part.ALL),), for_s=self._seconds(), **self._moment())

    def pause(self) -> Fault | None:
        return Fault(do=FaultKind.PAUSE, who=self._someone(), for_s=self._seconds(), **self._moment())

    def disconnect(self) -> Fault | None:
        return Fault(do=FaultKind.DISCONNECT, who=self._someone(), for_s=self._seconds(), **self._moment())

    def partition(self) -> Fault | None:
        r = self.random
        side = r.sample(range(self.nodes), r.randint(1, self.nodes // 2))
        groups = (tuple(Selector(Part.NODE, number) for number in sorted(side)),)
        return Fault(do=FaultKind.PARTITION, groups=groups, for_s=self._seconds(), **self._moment())

    def cut(self) -> Fault | None:
        far = (Selector(Part.ALL),) if self.random.random() < 0.3 else self._someone()
        return Fault(do=FaultKind.CUT, who=self._someone(), to=far, for_s=self._seconds(), **self._moment())

    def loss(self) -> Fault | None:
        who = (Selector(Part.ALL),) if self.random.random() < 0.4 else self._someone()
        rate = self.random.choice((0.1, 0.3, 0.6))
        return Fault(do=FaultKind.LOSS, who=who, rate=rate, for_s=self._seconds(), **self._moment())

    def slow(self) -> Fault | None:
        return Fault(
            do=FaultKind.SLOW,
            who=self._someone(),
            delay_ms=self.random.choice((0, 200, 1_500)),
            bytes_per_s=self.random.choice((None, 5_000, 100_000)),
            for_s=self._seconds(),
            **self._moment(),
        )

    def busy(self) -> Fault | None:
        factor = float(self.random.choice((3, 10, 40)))
        return Fault(
            do=FaultKind.BUSY, who=self._someone(), factor=factor, for_s=self._seconds(), **self._moment()
        )

    def clock(self) -> Fault | None:
        factor = self.random.choice((0.5, 0.9, 1.1, 2.0, 5.0))
        return Fault(do=FaultKind.CLOCK, who=self._someone(), factor=factor, **self._moment())

    def corrupt(self) -> Fault | None:
        if not self.spare:
            return None
        who = (Selector(Part.NODE, self._another()),)
        for_s = self._seconds() if self.random.random() < 0.7 else None
        return Fault(do=FaultKind.CORRUPT, who=who, for_s=for_s, **self._moment())

    def truncate(self) -> Fault | None:
        if not self.spare:
            return None
        who = (Selector(Part.NODE, self._another()),)
        return Fault(do=FaultKind.TRUNCATE, who=who, for_s=self._seconds(), **self._moment())

    def disk_full(self) -> Fault | None:
        return Fault(do=FaultKind.DISK_FULL, who=self._someone(), for_s=self._seconds(), **self._moment())


_FAULTS: Mapping[str, Callable[[_Draw], Fault | None]] = {
    "kill": _Draw.kill,
    "kill again": _Draw.kill,
    "blackout": _Draw.blackout,
    "pause": _Draw.pause,
    "disconnect": _Draw.disconnect,
    "partition": _Draw.partition,
    "cut": _Draw.cut,
    "loss": _Draw.loss,
    "slow": _Draw.slow,
    "busy": _Draw.busy,
    "clock": _Draw.clock,
    "corrupt": _Draw.corrupt,
    "truncate": _Draw.truncate,
    "disk-full": _Draw.disk_full,
}
"""A clock that runs fast or slow stays so; everything else is mended."""
