"""What a demo is asked for, checked before anything is started."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from flocknode.contract import DEFAULT as DEFAULT_CONTRACT
from flocknode.contract import ContractError, contract_settings
from flocknode.defaults import DEMO_ROUNDS
from flocknode.gamma import DEFAULT, GammaError, gamma_settings
from protocol.certificates import quorum
from protocol.ledger.settlement import least_sharers
from protocol.params import PROFILES
from protocol.sortition import default_roles

TASKS = ("mnist", "lending-club", "digits")
MIN_NODES = 4
MAX_NODES = 64
MAX_ROUNDS = 1_000
POISON_SCALE = 3.0


class DemoError(Exception):
    """The demo cannot be run as asked, or did not come to its end; the message says what to change."""


@frozen(kw_only=True)
class DemoOptions:
    """The options of `flocknode demo`. `proposers` and `voters` None: those of the network's size."""

    nodes: int = 7
    rounds: int = DEMO_ROUNDS
    task: str = "mnist"
    proposers: int | None = None
    voters: int | None = None
    profile: str = "hardened"
    contract: str = DEFAULT_CONTRACT
    gamma: str = DEFAULT
    poison: int = 0
    drop: int = 0
    seed: int = 0
    directory: Path | None = None
    report: Path | None = None
    quiet: bool = False

    @property
    def roles(self) -> tuple[int, int]:
        """(proposers, voters) of a round."""
        n_proposers, n_voters = default_roles(self.nodes)
        return (
            n_proposers if self.proposers is None else self.proposers,
            n_voters if self.voters is None else self.voters,
        )


def check(options: DemoOptions) -> None:
    """Raises `DemoError` for the first option that does not fit the others."""
    nodes, (n_proposers, n_voters) = options.nodes, _roles_or_error(options)
    _require(options.task in TASKS, f"--task {options.task}: choose one of {', '.join(TASKS)}")
    _require(options.profile in PROFILES, f"--profile {options.profile}: choose one of {', '.join(PROFILES)}")
    try:
        gamma_settings(options.gamma)
        contract_settings(options.contract)
    except (ContractError, GammaError) as error:
        raise DemoError(str(error)) from error
    _require(1 <= options.rounds <= MAX_ROUNDS, f"--rounds {options.rounds}: from 1 to {MAX_ROUNDS}")
    _require(
        3 <= n_proposers < nodes,
        f"--proposers {n_proposers}: with {nodes} nodes from 3 to {nodes - 1}, "
        "because fewer than three updates hide nobody's, and the aggregator never proposes",
    )
    _require(
        1 <= n_voters < nodes,
        f"--voters {n_voters}: with {nodes} nodes from 1 to {nodes - 1}, all but the aggregator",
    )
    _require(0 <= options.poison <= nodes, f"--poison {options.poison}: from 0 to the {nodes} nodes")
    spare = n_proposers - least_sharers(n_proposers)
    _require(
        0 <= options.drop <= spare,
        f"--drop {options.drop}: of {n_proposers} proposers {least_sharers(n_proposers)} must stay, "
        f"or the round is lost; drop at most {spare}, or raise --proposers",
    )
    _require(
        nodes - options.drop >= quorum(nodes),
        f"--drop {options.drop}: {quorum(nodes)} of {nodes} nodes must stay up to agree on a block",
    )
    _require(0 <= options.seed < 2**31, f"--seed {options.seed}: from 0 to {2**31 - 1}")
    report, directory = options.report, options.directory
    _require(report is None or report.parent.is_dir(), f"--report {report}: there is no such directory")
    _require(
        directory is None or not directory.exists() or not any(directory.iterdir()),
        f"--dir {directory}: not empty; the nodes of a demo need a new directory",
    )


def _roles_or_error(options: DemoOptions) -> tuple[int, int]:
    _require(
        MIN_NODES <= options.nodes <= MAX_NODES,
        f"--nodes {options.nodes}: from {MIN_NODES} to {MAX_NODES} "
        f"(with fewer than {MIN_NODES}, two survivors would each learn the other's update)",
    )
    return options.roles


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise DemoError(what)
