"""What one size of round costs a client and every verifier, in each profile, measured turn by turn.

The steps are those of `sim.bench.protocol`. Uploads are added up as they are made and then forgotten, so
that memory does not grow with the number of clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen

from protocol import jobs
from protocol.algebra import field as fp
from protocol.context import Index
from protocol.jobs import AggregateResult, ContributeResult, VerifyJob
from protocol.params import Challenge, Masking
from protocol.secagg.aggregate import PlainSum
from protocol.secagg.scheme import scheme_of
from sim.bench.protocol import (
    both_equations,
    client_work,
    dropped_of,
    network_params,
    shared_round,
    synthetic_update,
    unmasked,
)
from sim.bench.rehearsal import Rehearsal

PROFILES = ("vcdfl", "hardened")
LONG_S = 60.0
"""A size that takes longer than this to set up is measured once."""
SEED_BYTES = 32

Json = dict[str, Any]


@frozen
class CostJob:
    """`n` proposers, `d` weights, the share `dropouts` of the proposers gone after sharing.

    `aggregator`: time the aggregator's job too, for which everybody's uploads and shares are kept.
    """

    n: int
    d: int
    dropouts: float
    repeats: int
    aggregator: bool = False


@frozen
class Traffic:
    """Bytes that one client sends and receives in a round, by what they are.

    Values of the protocol alone, without envelopes, certificates and repair. What is broadcast counts once
    for each of the other clients, because there is no server to copy it.
    """

    sent: dict[str, int]
    received: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.sent.values()) + sum(self.received.values())


@frozen(eq=False)
class Prepared:
    """A round of which all uploads are in and summed up."""

    round_: Rehearsal
    job: VerifyJob
    plain: PlainSum
    contributors: tuple[Index, ...]


def measure_cost(job: CostJob) -> Json:
    """`seconds`: lists of runs by profile and step, after a turn that does not count; bytes by what they are.

    `once`: setting up took so long that there was one run, the first. `BenchError` as in `bench_protocol`.
    """
    begun = time.perf_counter()
    rounds = {profile: prepare(job, profile) for profile in PROFILES}
    once = time.perf_counter() - begun > LONG_S
    if not once:
        _turn(job, rounds)
    turns = [_turn(job, rounds) for _ in range(1 if once else job.repeats)]
    seconds = {
        profile: {name: [turn[profile][name] for turn in turns] for name in turns[0][profile]}
        for profile in PROFILES
    }
    traffic = {profile: traffic_of(prepared) for profile, prepared in rounds.items()}
    return {
        "once": once,
        "seconds": seconds,
        "sent": {profile: each.sent for profile, each in traffic.items()},
        "received": {profile: each.received for profile, each in traffic.items()},
        "upload": {
            profile: each.sent["upload"] + len(rounds[profile].round_.contributions[0].commitment)
            for profile, each in traffic.items()
        },
    }


def prepare(job: CostJob, profile: str) -> Prepared:
    """Everybody contributes; kernels are compiled, and both equations hold, when this returns."""
    round_ = shared_round(network_params(job.n, job.d, profile), job.n)
    contributors = tuple(range(job.n - dropped_of(job.n, job.dropouts)))
    round_.deal(0)
    claim = _claim(round_, contributors, keep=job.aggregator)
    if job.aggregator:
        for dealer in range(1, job.n):
            round_.deal(dealer)
    verify_job = round_.verify_job(contributors, claim)
    prepared = Prepared(round_, verify_job, unmasked(round_, verify_job), contributors)
    both_equations(round_, verify_job, prepared.plain)
    return prepared


def _claim(round_: Rehearsal, contributors: Sequence[Index], keep: bool) -> AggregateResult:
    """The sum and the secrets that unmask it, as an honest aggregator publishes them."""
    scheme = scheme_of(round_.context)
    total = np.zeros(scheme.coefficients_shape, dtype=np.uint32)
    for index in contributors:
        update = synthetic_update(round_.context.params, index)
        result = jobs.run(round_.contribute_job(index, update, 1 + index), round_.read)
        assert isinstance(result, ContributeResult)
        fp.accumulate(total, scheme.read_coefficients(result.upload, "upload"))
        if keep:
            round_.put(result.upload)
        round_.weights[index] = 1 + index
        round_.contributions[index] = evolve(result, upload=b"", residual=None)
    data = fp.to_bytes(total)
    double = round_.context.params.masking is Masking.DOUBLE
    dropped = [index for index in round_.context.sharers if index not in set(contributors)]
    return AggregateResult(
        data,
        round_.put(data),
        tuple((index, round_.secrets[index].self_seed) for index in contributors) if double else (),
        tuple((index, round_.secrets[index].mask_secret) for index in dropped),
    )


def _steps(job: CostJob, prepared: Prepared) -> dict[str, Callable[[], object]]:
    round_, verify_job, plain = prepared.round_, prepared.job, prepared.plain
    steps: dict[str, Callable[[], object]] = {
        "client": lambda: client_work(round_),
        "verify": lambda: both_equations(round_, verify_job, plain),
        "unmask": lambda: unmasked(round_, verify_job),
    }
    if job.aggregator:
        aggregate_job = round_.aggregate_job(prepared.contributors)
        steps["aggregate"] = lambda: jobs.run(aggregate_job, round_.read)
    return steps


def _turn(job: CostJob, rounds: Mapping[str, Prepared]) -> dict[str, dict[str, float]]:
    """Seconds of every step, first of one profile, then of the other."""
    return {
        profile: {name: _timed(step) for name, step in _steps(job, prepared).items()}
        for profile, prepared in rounds.items()
    }


def _timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def traffic_of(prepared: Prepared) -> Traffic:
    """Of proposer 0, in a round of which `prepared.contributors` stay."""
    round_, context = prepared.round_, prepared.round_.context
    scheme, others = scheme_of(context), len(context.proposers) - 1
    dealt = sum(len(box) for index, box in enumerate(round_.dealings[0].boxes) if index != 0)
    commitment = len(round_.contributions[0].commitment)
    # rho_i reveals the commitment and A_i; the paper broadcasts R_i besides.
    revealed = SEED_BYTES * (2 if context.params.challenge is Challenge.CLEAR else 1)
    peers = len(prepared.contributors) - 1
    return Traffic(
        sent={
            "upload": scheme.upload_bytes,
            "commitment": others * commitment,
            "shares": dealt,
            "reveals": others * revealed,
        },
        received={
            "sum": scheme.upload_bytes,
            "commitment": peers * commitment,
            "shares": dealt,
            "reveals": peers * revealed,
            "unmasking": SEED_BYTES * (len(prepared.job.self_seeds) + len(prepared.job.mask_secrets)),
        },
    )
