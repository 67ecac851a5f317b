"""What the nodes of a demo are founded from: all of it follows from the options and their seed."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from attrs import evolve

from flocknode.config import Behaviour
from flocknode.defaults import DEMO_INTERVAL_S, STAKE_TOKENS, PaceOptions, founding_settings, pool_units
from flocknode.demo.options import POISON_SCALE, DemoOptions
from flocknode.founding import Draw, Plan
from protocol.codec import digest
from protocol.ledger.economy import UNITS

DROP_EVERY = 2
"""Proposers are killed in every second round."""

DROP_DELAY_MS = 2_000
"""How long training takes in those rounds: long enough for a kill to land between sharing and uploading."""

HOST = "127.0.0.1"


def plan_of(options: DemoOptions) -> Plan:
    """The network of a demo, on ports that are free now."""
    n_proposers, n_voters = options.roles
    pace = PaceOptions(interval_s=DEMO_INTERVAL_S, rounds=options.rounds, patience=0)
    return Plan(
        name="demo",
        task=options.task,
        addresses=free_addresses(options.nodes),
        profile=options.profile,
        proposers=n_proposers,
        voters=n_voters,
        seed=options.seed,
        stake_units=round(STAKE_TOKENS * UNITS),
        pool_units=pool_units(pace),
        settings=founding_settings(contract=options.contract, gamma=options.gamma, pace=pace),
        training_seeds=tuple(training_seed(options.seed, index) for index in range(options.nodes)),
        behaviours={index: behaviour_of(options, index) for index in range(options.nodes)},
    )


def behaviour_of(options: DemoOptions, index: int) -> Behaviour:
    """The last `poison` nodes poison; where proposers are to be dropped, all train slowly in those rounds."""
    behaviour = Behaviour()
    if index >= options.nodes - options.poison:
        behaviour = Behaviour(kind="poison", scale=POISON_SCALE)
    if options.drop:
        behaviour = evolve(behaviour, train_delay_ms=DROP_DELAY_MS, delay_every=DROP_EVERY)
    return behaviour


def training_seed(seed: int, index: int) -> int:
    """What orders the samples of node `index`."""
    return int.from_bytes(digest("demo training", seed.to_bytes(8, "big"), bytes((index,)))[:4], "big")


def seeded_draw(seed: int) -> Draw:
    """Keys and beacon of a run that can be repeated: fit for a demo on one machine, and for nothing else."""

    def draw(label: str) -> bytes:
        return digest("demo", seed.to_bytes(8, "big"), label.encode())

    return draw


def free_addresses(count: int) -> tuple[str, ...]:
    """Addresses on this machine on which nothing listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind((HOST, 0))
        return tuple(f"/ip4/{HOST}/tcp/{bound.getsockname()[1]}" for bound in sockets)
