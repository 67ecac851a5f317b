"""What the protocol costs a client, the aggregator and every verifier (docs/PROTOCOL.md section 10).

The steps timed are the functions that `protocol.jobs.run` is made of, in its order, and the jobs as a whole;
the inputs are those of a real round. Everything runs on one thread.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen

from protocol import jobs
from protocol.algebra import field as fp
from protocol.codec import digest
from protocol.context import Index
from protocol.jobs import AggregateJob, AggregateResult, VerifyJob
from protocol.params import PROFILES, Masking, ProtocolParams
from protocol.secagg.aggregate import (
    PlainSum,
    eq19_holds,
    joint_challenge,
    sum_coefficients,
    sum_commitments,
    unmask_sum,
)
from protocol.secagg.contribute import (
    compress,
    encode_masked,
    encode_update,
    mask_update,
    publish_commitment,
)
from protocol.secagg.pairs import dangling_seeds, own_pair_seeds
from protocol.secagg.scheme import scheme_of
from protocol.secagg.verification import eq18_holds
from protocol.secrets import RoundSecrets
from protocol.sharing import ShareKind, rebuild_many
from sim.bench.growth import growth_exponent, median_seconds, series
from sim.bench.rehearsal import ROUND, Float32Vec, Rehearsal, rehearse

LEAST_PROPOSERS = 4
LEAST_DIMENSION = 64


class BenchError(ValueError):
    """A size, profile or share of dropouts for which there is no round to measure."""


@frozen
class ProtocolBench:
    """Medians in seconds by step, sizes in bytes, growth exponents (1 is linear)."""

    n: int
    d: int
    profile: str
    dropouts: float
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    growth: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """As `flocknode bench protocol --json` writes it."""
        return {
            "n": self.n,
            "d": self.d,
            "profile": self.profile,
            "dropouts": self.dropouts,
            "seconds": dict(self.seconds),
            "bytes": dict(self.bytes),
            "growth": dict(self.growth),
        }


@frozen
class Budget:
    """Upper limits of docs/PROTOCOL.md section 10 for the hardened profile, in seconds."""

    client: float
    verify: float
    aggregate: float | None


BUDGETS = {
    (100, 100_000, 0.0): Budget(0.10, 0.02, 0.10),
    (100, 100_000, 0.2): Budget(0.10, 0.02, 0.50),
    (20, 1_000_000, 0.0): Budget(0.25, 0.10, None),
}
UPLOAD_BUDGET = 1.15
"""Bytes of an upload with its commitment, over the bytes of the update as float32."""


def bench_protocol(n: int, d: int, profile: str, dropouts: float, repeats: int) -> ProtocolBench:
    """Measure one network of `n` proposers and `d` coordinates, of which `dropouts` leave after sharing.

    Growth is fitted over three sizes an octave apart. `BenchError` for what cannot be measured.
    """
    round_ = shared_round(network_params(n, d, profile), n)
    contributors = list(range(n - dropped_of(n, dropouts)))
    for index in contributors:
        round_.contribute(index, synthetic_update(round_.context.params, index), 1 + index)
    seconds = {
        **_client_steps(round_, repeats),
        **_aggregator_steps(round_, contributors, repeats),
        **_verifier_steps(round_, contributors, repeats),
    }
    return ProtocolBench(n, d, profile, dropouts, seconds, _sizes(round_), _growth(round_, profile, repeats))


def network_params(n: int, d: int, profile: str) -> ProtocolParams:
    """Of `n` proposers and `d` coordinates. `BenchError` where there is no such network."""
    if profile not in PROFILES:
        raise BenchError(f"profile {profile!r}: there are {', '.join(sorted(PROFILES))}")
    if n < LEAST_PROPOSERS or d < LEAST_DIMENSION:
        raise BenchError(f"n {n} and d {d}: at least {LEAST_PROPOSERS} and {LEAST_DIMENSION}")
    try:
        return PROFILES[profile](dimension=d, n_proposers=n, n_voters=1)
    except ValueError as error:
        raise BenchError(str(error)) from error


def dropped_of(n: int, dropouts: float) -> int:
    """How many of `n` proposers leave after sharing. `BenchError` where too few would stay."""
    dropped = round(n * dropouts)
    if not 0 <= dropped <= n - (2 * n // 3 + 1):
        raise BenchError(f"dropouts {dropouts}: {n} proposers survive at most {n - 2 * n // 3 - 1}")
    return dropped


def synthetic_update(params: ProtocolParams, index: Index) -> Float32Vec:
    """float32[d], uniform in +-0.05, a function of the index."""
    words = fp.expand(digest("bench update", index.to_bytes(4, "big")), b"update", params.dimension)
    return (words.astype(np.float32) / np.float32(fp.P) - np.float32(0.5)) * np.float32(0.1)


def shared_round(params: ProtocolParams, n: int) -> Rehearsal:
    """A round after its setup block, kernels compiled and keys expanded."""
    round_ = rehearse(params, n, b"bench")
    jobs.warm(params, round_.context.network)
    round_.pin_sharers(range(n))
    return round_


# -- client ----------------------------------------------------------------------------------------


def client_work(round_: Rehearsal) -> None:
    """All that proposer 0 does in a round: keys, shares, masks, encoding, commitment."""
    _keys(round_)
    jobs.run(round_.deal_job(0), round_.read)
    jobs.run(round_.contribute_job(0, synthetic_update(round_.context.params, 0), 1), round_.read)


def _keys(round_: Rehearsal) -> tuple[bytes, bytes]:
    secrets = RoundSecrets.derive(digest("bench entropy"), round_.context.network, ROUND)
    return secrets.mask_public, secrets.seal_public


def _client_steps(round_: Rehearsal, repeats: int) -> dict[str, float]:
    context, params, scheme = round_.context, round_.context.params, scheme_of(round_.context)
    secrets, update = round_.secrets[0], synthetic_update(round_.context.params, 0)
    sent, _ = compress(params, update, None, None)
    extended = encode_update(params, scheme, sent, 1, secrets)
    seeds = own_pair_seeds(context, 0, secrets.mask_key)
    masked = mask_update(params, extended, 0, seeds, secrets.self_seed)
    steps = {
        "keys": lambda: _keys(round_),
        "shares": lambda: jobs.run(round_.deal_job(0), round_.read),
        "compress": lambda: compress(params, update, None, None),
        "quantise": lambda: encode_update(params, scheme, sent, 1, secrets),
        "pair keys": lambda: own_pair_seeds(context, 0, secrets.mask_key),
        "masks": lambda: mask_update(params, extended, 0, seeds, secrets.self_seed),
        "interpolate": lambda: encode_masked(scheme, masked, secrets.check_seed, round_.z_root),
        "commit": lambda: publish_commitment(context, scheme, extended, 0, secrets.check_seed),
        "contribute job": lambda: jobs.run(round_.contribute_job(0, update, 1), round_.read),
        "client_total": lambda: client_work(round_),
    }
    return {name: median_seconds(step, repeats) for name, step in steps.items()}


# -- aggregator ------------------------------------------------------------------------------------


def _aggregator_steps(round_: Rehearsal, contributors: list[Index], repeats: int) -> dict[str, float]:
    for dealer in round_.context.sharers:
        round_.deal(dealer)
    job = round_.aggregate_job(contributors)
    claim = round_.aggregate(contributors)
    verify_job = round_.verify_job(contributors, claim)

    def whole() -> None:
        jobs.run(job, round_.read)
        unmasked(round_, verify_job)

    steps = {
        "sum": lambda: _summed(round_, job),
        "rebuild": lambda: _rebuilt(job),
        "aggregate job": lambda: jobs.run(job, round_.read),
        "unmask": lambda: unmasked(round_, verify_job),
        "aggregate": whole,
    }
    return {name: median_seconds(step, repeats) for name, step in steps.items()}


def _summed(round_: Rehearsal, job: AggregateJob) -> bytes:
    scheme = scheme_of(job.context)
    uploads = (scheme.read_coefficients(round_.read(name), "upload") for name in job.upload_digests)
    return fp.to_bytes(sum_coefficients(scheme, uploads))


def _rebuilt(job: AggregateJob) -> None:
    rebuild_many(job.context, ShareKind.SELF, job.self_shares)
    rebuild_many(job.context, ShareKind.MASK, job.mask_shares)


def unmasked(round_: Rehearsal, job: VerifyJob) -> PlainSum:
    """The plain sum of a claim, as every verifier computes it first."""
    scheme = scheme_of(job.context)
    coefficients = scheme.read_coefficients(round_.read(job.sum_digest), "sum")
    points = scheme.interpolation.points_from(job.z_root, scheme.masked_length)
    dangling = dangling_seeds(job.context, job.contributors, dict(job.mask_secrets))
    return unmask_sum(scheme, coefficients, points, [seed for _, seed in job.self_seeds], dangling)


# -- every verifier --------------------------------------------------------------------------------


def _claim(round_: Rehearsal, everyone: list[Index]) -> VerifyJob:
    """What an honest aggregator publishes when nobody drops out; it takes no shares, so nobody need deal."""
    scheme = scheme_of(round_.context)
    uploads = (scheme.read_coefficients(round_.contributions[index].upload, "upload") for index in everyone)
    data = fp.to_bytes(sum_coefficients(scheme, uploads))
    double = round_.context.params.masking is Masking.DOUBLE
    self_seeds = tuple((index, round_.secrets[index].self_seed) for index in everyone) if double else ()
    return round_.verify_job(everyone, AggregateResult(data, round_.put(data), self_seeds, ()))


def _verifier_steps(round_: Rehearsal, contributors: list[Index], repeats: int) -> dict[str, float]:
    job = round_.verify_job(contributors, round_.aggregate(contributors))
    plain = unmasked(round_, job)
    steps = {
        "eq 18": lambda: _eq18(round_, job),
        "eq 19": lambda: _eq19(job, plain),
        "verify": lambda: both_equations(round_, job, plain),
        "verify job": lambda: jobs.run(job, round_.read),
    }
    return {name: median_seconds(step, repeats) for name, step in steps.items()}


def _eq18(round_: Rehearsal, job: VerifyJob) -> None:
    scheme = scheme_of(job.context)
    coefficients = scheme.read_coefficients(round_.read(job.sum_digest), "sum")
    points = scheme.interpolation.points_from(job.z_root, scheme.masked_length)
    _confirm(eq18_holds(coefficients, points, scheme.interpolation, job.check_seeds), "eq. 18")


def _eq19(job: VerifyJob, plain: PlainSum) -> None:
    context, scheme = job.context, scheme_of(job.context)
    published = [scheme.read_commitment(data, "commitment") for data in job.commitments]
    total = sum_commitments(context, scheme, job.contributors, published, job.check_seeds)
    challenge = joint_challenge(context.params, scheme, job.check_seeds, job.challenge_seeds)
    count = len(job.contributors)
    _confirm(scheme.commitment.within_bound(plain.extended, count), "the bound")
    _confirm(eq19_holds(scheme, plain, total, count, challenge), "eq. 19")


def both_equations(round_: Rehearsal, job: VerifyJob, plain: PlainSum) -> None:
    """Eqs. 18 and 19 of VCD-FL, and the bound. `BenchError` where one does not hold."""
    _eq18(round_, job)
    _eq19(job, plain)


def _confirm(holds: bool, what: str) -> None:
    """A benchmark of a check that fails would time something else."""
    if not holds:
        raise BenchError(f"{what} does not hold in an honest round")


# -- sizes and growth ------------------------------------------------------------------------------


def _sizes(round_: Rehearsal) -> dict[str, int]:
    contribution = round_.contributions[0]
    boxes = sum(len(box) for box in round_.dealings[0].boxes)
    upload, commitment = len(contribution.upload), len(contribution.commitment)
    return {
        "upload": upload,
        "commitment": commitment,
        "share_boxes": boxes,
        "upload_total": upload + commitment,
        "round_total": upload + commitment + boxes,
        "float32_update": 4 * round_.context.params.dimension,
    }


def _growth(whole: Rehearsal, profile: str, repeats: int) -> dict[str, float]:
    """Exponents around the sizes of `whole`, a round with all contributions of U2 in."""
    n, d = len(whole.context.proposers), whole.context.params.dimension
    in_d, in_n = series(d, LEAST_DIMENSION), series(n, LEAST_PROPOSERS)
    costs = {
        (proposers, dimension): _client_and_verify(
            whole
            if (proposers, dimension) == (n, d)
            else shared_round(network_params(proposers, dimension, profile), proposers),
            repeats,
        )
        for proposers, dimension in sorted({(n, size) for size in in_d} | {(size, d) for size in in_n})
    }
    return {
        "client_in_d": growth_exponent(in_d, [costs[n, size][0] for size in in_d]),
        "client_in_n": growth_exponent(in_n, [costs[size, d][0] for size in in_n]),
        "verify_in_d": growth_exponent(in_d, [costs[n, size][1] for size in in_d]),
        "verify_in_n": growth_exponent(in_n, [costs[size, d][1] for size in in_n]),
    }


def _client_and_verify(round_: Rehearsal, repeats: int) -> tuple[float, float]:
    """Seconds of one client and of both equations, in a round that everyone stays in."""
    everyone = list(round_.context.sharers)
    for index in everyone:
        if index not in round_.contributions:
            round_.contribute(index, synthetic_update(round_.context.params, index), 1 + index)
    job = _claim(round_, everyone)
    plain = unmasked(round_, job)
    client = median_seconds(lambda: client_work(round_), repeats)
    return client, median_seconds(lambda: both_equations(round_, job, plain), repeats)


# -- for people ------------------------------------------------------------------------------------


def render(bench: ProtocolBench) -> str:
    """A table in plain text, with the budget where docs/PROTOCOL.md section 10 sets one."""
    lines = [
        f"{bench.profile}: {bench.n} proposers, {bench.d} coordinates, {bench.dropouts:.0%} dropouts",
        "",
    ]
    budget = BUDGETS.get((bench.n, bench.d, bench.dropouts)) if bench.profile == "hardened" else None
    limits: dict[str, float | None] = {}
    if budget is not None:
        limits = {"client_total": budget.client, "verify": budget.verify, "aggregate": budget.aggregate}
    for name, seconds in bench.seconds.items():
        limit = limits.get(name)
        against = "" if limit is None else f"   budget {1000 * limit:.0f} ms"
        lines.append(f"  {name:<16} {1000 * seconds:10.2f} ms{against}")
    lines.append("")
    update = bench.bytes["float32_update"]
    for name, size in bench.bytes.items():
        against = f"   budget {UPLOAD_BUDGET}" if name == "upload_total" and budget is not None else ""
        lines.append(f"  {name:<16} {size:10d} bytes  {size / update:6.3f} x float32{against}")
    lines.append("")
    for name, exponent in bench.growth.items():
        lines.append(f"  {name:<16} exponent {exponent:5.2f}")
    return "\n".join(lines)
