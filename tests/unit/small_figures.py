"""Sizes at which every experiment takes seconds, for tests."""

from __future__ import annotations

from attrs import evolve

from sim.bench.peers import plan as peers_plan
from sim.bench.peers.plan import CLIENT, ROUND, Case
from sim.figures.flock.plan import Size, TaskSize
from sim.figures.flock.problem import LENDING_CLUB
from sim.figures.vcdfl import plan as vcdfl_plan

FLOCK = Size(
    tasks=(TaskSize(task=LENDING_CLUB, seeds=1, accuracy_rounds=2, contract_rounds=3),),
    clients=16,
    etas=(25,),
    gammas=(8,),
    alone_seeds=2,
    alone_rounds=12,
)
VCDFL = evolve(
    vcdfl_plan.QUICK,
    d=400,
    dimensions=(200, 400),
    clients=(5, 10),
    repeats=1,
    far_dimensions=(400, 800),
    far_clients=(5, 10),
    seeds=(1,),
    rounds=2,
    interpolated=640,
)
PEERS = evolve(
    peers_plan.QUICK,
    client_cases=(Case(CLIENT, 5, 300),),
    round_case=Case(ROUND, 8, 50_890, rounds=2),
    round_limit_s=0.01,
)
"""Rounds are lost: nothing ends in so short a time."""
