"""Which runs the figures need, and their results by what they were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from sim.figures.flock.aggregation import RULES
from sim.figures.flock.contract import ADAPTIVE
from sim.figures.flock.experiment import VOTE, FlockRun
from sim.figures.flock.problem import IMAGES, LENDING_CLUB, MNIST
from sim.figures.sweep import Result

CLEAN = 0
"""No malicious clients."""
PAPER_GAMMA = 8
ETAS = (10, 20, 30, 40)
GAMMAS = (2, 4, 8, 16)

TITLES: Mapping[str, str] = {
    LENDING_CLUB: "Lending Club",
    MNIST: "MNIST",
    IMAGES: "pictures",
}


@frozen(kw_only=True)
class TaskSize:
    """`accuracy_rounds` of the learning curves, `contract_rounds` (no fewer) of those about stakes."""

    task: str
    seeds: int
    accuracy_rounds: int
    contract_rounds: int
    images: str = ""
    labels: str = ""

    def __attrs_post_init__(self) -> None:
        if self.contract_rounds < self.accuracy_rounds:
            raise ValueError(
                f"{self.task}: {self.contract_rounds} rounds, but curves of {self.accuracy_rounds}"
            )


@frozen(kw_only=True)
class Size:
    """How much is computed. `etas` in percent, `gammas` in tokens, ascending.

    `alone_seeds` and `alone_rounds` are those of the contract without training.
    """

    tasks: tuple[TaskSize, ...]
    clients: int = 50
    etas: tuple[int, ...] = ETAS
    gammas: tuple[int, ...] = GAMMAS
    first_seed: int = 1
    alone_seeds: int = 24
    alone_rounds: int = 160

    @property
    def all_gammas(self) -> tuple[int, ...]:
        return (*self.gammas, ADAPTIVE)

    def runs(self) -> list[FlockRun]:
        """Every run of every figure, the long ones first: none is left over for one processor."""
        every = [run for task in self.tasks for run in self._runs(task)]
        return sorted(every, key=lambda run: (-run.rounds, run.task == LENDING_CLUB, run.seed))

    def run(self, task: TaskSize, rule: str, eta: int, gamma: int, seed: int) -> FlockRun:
        """One of them."""
        return FlockRun(
            task=task.task,
            rule=rule,
            malicious_percent=eta,
            gamma=gamma,
            seed=seed,
            rounds=task.contract_rounds if rule == VOTE else task.accuracy_rounds,
            clients=self.clients,
            images=task.images,
            labels=task.labels,
        )

    def seeds(self, task: TaskSize) -> range:
        return range(self.first_seed, self.first_seed + task.seeds)

    def _runs(self, task: TaskSize) -> Iterator[FlockRun]:
        for seed in self.seeds(task):
            yield self.run(task, "fedavg", CLEAN, PAPER_GAMMA, seed)
            for eta in self.etas:
                for rule in RULES:
                    yield self.run(task, rule, eta, PAPER_GAMMA, seed)
                for gamma in self.all_gammas:
                    yield self.run(task, VOTE, eta, gamma, seed)


FULL = Size(
    tasks=(
        TaskSize(task=LENDING_CLUB, seeds=8, accuracy_rounds=100, contract_rounds=160),
        TaskSize(task=MNIST, seeds=12, accuracy_rounds=80, contract_rounds=80),
    )
)
QUICK = Size(
    tasks=(
        TaskSize(task=LENDING_CLUB, seeds=5, accuracy_rounds=40, contract_rounds=60),
        TaskSize(task=MNIST, seeds=5, accuracy_rounds=60, contract_rounds=60),
    ),
    etas=(10, 40),
    gammas=(8, 16),
    alone_seeds=8,
    alone_rounds=100,
)


def with_tasks(size: Size, names: tuple[str, ...]) -> Size:
    """Only the tasks of these names."""
    return evolve(size, tasks=tuple(task for task in size.tasks if task.task in names))


def with_pictures(size: Size, images: str, labels: str) -> Size:
    """Pictures of one's own in the place of MNIST."""
    return evolve(
        size,
        tasks=tuple(
            evolve(task, task=IMAGES, images=images, labels=labels) if task.task == MNIST else task
            for task in size.tasks
        ),
    )


@frozen(eq=False)
class Outcomes:
    """The results of all runs of `size`."""

    size: Size
    results: Mapping[FlockRun, Result] = field(repr=False)

    def over_seeds(
        self, task: TaskSize, rule: str, eta: int, gamma: int, value: Callable[[Result], object]
    ) -> npt.NDArray[np.float64]:
        """`value` of each seed's result, stacked: float64[seeds, ...]."""
        return np.array(
            [
                value(self.results[self.size.run(task, rule, eta, gamma, seed)])
                for seed in self.size.seeds(task)
            ],
            np.float64,
        )

    def votes(
        self, task: TaskSize, eta: int, gamma: int, value: Callable[[Result], object]
    ) -> npt.NDArray[np.float64]:
        """The same of runs with a vote."""
        return self.over_seeds(task, VOTE, eta, gamma, value)


def gamma_label(gamma: int) -> str:
    """As a legend has it."""
    return "adaptive gamma" if gamma == ADAPTIVE else f"gamma {gamma}"


def told_seeds(seeds: range) -> str:
    """First and last of a run of seeds."""
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
