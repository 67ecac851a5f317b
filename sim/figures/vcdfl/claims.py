"""The claims of VCD-FL's evaluation and ours, each decided by the numbers measured here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.bench.growth import growth_exponent
from sim.bench.protocol import BUDGETS, UPLOAD_BUDGET
from sim.figures.claims import Claim
from sim.figures.vcdfl import published
from sim.figures.vcdfl.cost import CostJob
from sim.figures.vcdfl.measured import Measured
from sim.figures.vcdfl.plan import Plan

PAPER = "VCD-FL, IEEE TIFS 2023"
OURS = "docs/PROTOCOL.md section 10"
LINEAR = (0.8, 1.2)
SAME = 1.1
MUCH_LESS = 0.75
ACCURACY_TOLERANCE = 0.02
TENTH = 100
"""Permille."""


def linear_in(measured: Measured, jobs: Sequence[CostJob], profile: str, step: str, source: str) -> Claim:
    """Whether a step's time is proportional to the number of weights, and what a straight line makes of it.

    Where fixed work weighs, time grows along a straight line and the exponent is below 1.
    """
    sizes = [job.d for job in jobs]
    seconds = [measured.seconds(job, profile, step) for job in jobs]
    exponent = growth_exponent(sizes, seconds)
    slope, fixed = np.polyfit(sizes, seconds, 1)
    straight = float(np.corrcoef(sizes, seconds)[0, 1]) ** 2
    low, high = LINEAR
    return Claim(
        name=f"{step}-linear-{profile}-{min(sizes)}-{max(sizes)}",
        statement=f"{_what(step)} grows linearly with the number of weights ({profile} profile)",
        source=source,
        rule=f"the fitted exponent over {min(sizes):,} to {max(sizes):,} weights is in [{low}, {high}]",
        holds=low <= exponent <= high,
        found=(
            f"exponent {exponent:.2f}; the best straight line is {1e3 * fixed:.1f} ms and "
            f"{1e9 * slope:.0f} ns a weight, and explains {straight:.0%} of the variance."
        ),
        numbers={"exponent": exponent, "fixed_s": float(fixed), "slope_s": float(slope), "r2": straight},
    )


def slower_than_clients(measured: Measured, jobs: Sequence[CostJob], profile: str) -> Claim:
    """Verification against the number of clients, as in the published curve."""
    sizes = [job.n for job in jobs]
    exponent = growth_exponent(sizes, [measured.seconds(job, profile, "verify") for job in jobs])
    curve = published.VERIFY_BY_CLIENTS[0]
    theirs = growth_exponent(curve.at, curve.values)
    return Claim(
        name=f"verify-in-clients-{profile}",
        statement=f"Verification grows more slowly than the number of clients ({profile} profile)",
        source=PAPER,
        rule=f"the fitted exponent over {min(sizes)} to {max(sizes)} clients is below 1",
        holds=exponent < 1,
        found=f"exponent {exponent:.2f}; that of the published curve is {theirs:.2f}.",
        numbers={"exponent": exponent, "published_exponent": theirs},
    )


def dropouts_cost_nothing(measured: Measured, jobs: Sequence[CostJob], profile: str) -> Claim:
    """Both equations are over what the survivors sent."""
    none, most = jobs[0], jobs[-1]
    ratio = measured.seconds(most, profile, "verify") / measured.seconds(none, profile, "verify")
    unmask = measured.seconds(most, profile, "unmask") / measured.seconds(none, profile, "unmask")
    return Claim(
        name=f"dropouts-verify-{profile}",
        statement=f"Verification is not affected by clients that drop out ({profile} profile)",
        source=f"{PAPER}, dynamic support",
        rule=f"both equations take at most {SAME} times as long with {most.dropouts:.0%} gone as with none",
        holds=ratio <= SAME,
        found=f"{ratio:.2f} times as long; taking off the masks before takes {unmask:.1f} times as long.",
        numbers={"verify_ratio": ratio, "unmask_ratio": unmask},
    )


def below_published(measured: Measured, jobs: Sequence[CostJob], profile: str) -> Claim | None:
    """Against the published curves at the same sizes; None where no size is the same."""
    by_size = {job.d: job for job in jobs if job.n == published.CLIENTS}
    verify, client, traffic = (
        published.VERIFY_BY_DIMENSION[0],
        published.CLIENT_BY_DIMENSION[0],
        published.TRAFFIC_BY_DIMENSION[0],
    )
    ratios: dict[str, float] = {}
    for name, curve in (("verify", verify), ("client", client), ("traffic", traffic)):
        for d, theirs in zip(curve.at, curve.values, strict=True):
            if d in by_size:
                job = by_size[d]
                own = measured.traffic_mb(job, profile) if name == "traffic" else None
                own = measured.seconds(job, profile, name) if own is None else own
                ratios[f"{name}_{d}"] = own / theirs
    if not ratios:
        return None
    worst = {
        name: max(value for key, value in ratios.items() if key.startswith(name))
        for name in ("verify", "client", "traffic")
    }
    return Claim(
        name=f"below-published-{profile}",
        statement=(
            f"The {profile} profile needs less of everything than the published re-implementation of VCD-FL"
        ),
        source="ours; the times compared were measured on different machines",
        rule="verification, client time and traffic are below the published ones at every size in common",
        holds=max(ratios.values()) < 1,
        found=(
            "at most "
            + ", ".join(f"{value:.3f} of the {name}" for name, value in worst.items())
            + " (traffic does not depend on the machine, times do)."
        ),
        numbers=ratios,
    )


def budgets(measured: Measured, job: CostJob) -> list[Claim]:
    """Ours for this size, if one is set."""
    budget = BUDGETS.get((job.n, job.d, job.dropouts))
    if budget is None:
        return []
    claims = []
    limits = [("client", budget.client), ("verify", budget.verify)]
    if job.aggregator and budget.aggregate is not None:
        limits = [("aggregate", budget.aggregate)]
    for step, limit in limits:
        taken = measured.seconds(job, "hardened", step)
        if step == "aggregate":
            taken += measured.seconds(job, "hardened", "unmask")
        dropouts = f", {job.dropouts:.0%} dropouts" if job.aggregator else ""
        claims.append(
            Claim(
                name=f"budget-{step}-{job.n}-{job.d}" + (f"-{job.dropouts:g}" if job.aggregator else ""),
                statement=(
                    f"{_what(step)} takes at most {limit} s "
                    f"({job.n} clients, {job.d:,} weights{dropouts}, hardened profile)"
                ),
                source=OURS,
                rule="the median on this machine, one thread",
                holds=taken <= limit,
                found=f"{taken:.4f} s.",
                numbers={"seconds": taken, "limit": limit},
            )
        )
    if not job.aggregator:
        ratio = measured.upload_ratio(job, "hardened")
        claims.append(
            Claim(
                name=f"budget-upload-{job.n}-{job.d}",
                statement=(
                    f"A client uploads at most {UPLOAD_BUDGET} times its float32 update "
                    f"({job.n} clients, {job.d:,} weights, hardened profile)"
                ),
                source=OURS,
                rule="bytes of the upload and the commitment",
                holds=ratio <= UPLOAD_BUDGET,
                found=f"{ratio:.3f} times.",
                numbers={"ratio": ratio, "limit": UPLOAD_BUDGET},
            )
        )
    return claims


def n_log_n(measured: Measured, jobs: Sequence[CostJob], profile: str) -> Claim:
    """A client's time against the number of clients."""
    sizes = [job.n for job in jobs]
    exponent = growth_exponent(sizes, [measured.seconds(job, profile, "client") for job in jobs])
    allowed = growth_exponent(sizes, [n * float(np.log(n)) for n in sizes])
    return Claim(
        name=f"client-n-log-n-{profile}",
        statement=f"A client's time grows at most like n log n in the clients ({profile} profile)",
        source=OURS,
        rule=f"the fitted exponent over {min(sizes)} to {max(sizes)} clients is at most that of n log n",
        holds=exponent <= allowed,
        found=f"exponent {exponent:.2f}, n log n has {allowed:.2f} there.",
        numbers={"exponent": exponent, "n_log_n": allowed},
    )


# -- compression -----------------------------------------------------------------------------------


def accuracy_kept(measured: Measured, plan: Plan, mode: str, permille: int) -> Claim:
    """The last round's accuracy against that without compression."""
    jobs = plan.training()
    everything = plan.permilles[-1]
    compressed = float(measured.accuracy(jobs[mode, permille])[:, -1].mean())
    whole = float(measured.accuracy(jobs[mode, everything])[:, -1].mean())
    return Claim(
        name=f"accuracy-{mode}-{permille}",
        statement=f"Sending {permille / 10:g} % of the coordinates ({mode}) does not hurt the model",
        source=PAPER if mode == "topk_local" else "ours",
        rule=(
            f"the mean accuracy after {plan.rounds} rounds is at most {ACCURACY_TOLERANCE} below "
            "that with all coordinates"
        ),
        holds=compressed >= whole - ACCURACY_TOLERANCE,
        found=f"{compressed:.3f} against {whole:.3f}.",
        numbers={"compressed": compressed, "whole": whole},
    )


def bytes_saved(measured: Measured, plan: Plan, mode: str, permille: int) -> Claim:
    """What is on the wire under dense masks."""
    jobs = plan.training()
    everything = plan.permilles[-1]
    small, whole = (
        measured.of_training(jobs[mode, each], "upload")
        + measured.of_training(jobs[mode, each], "commitment")
        for each in (permille, everything)
    )
    return Claim(
        name=f"bytes-{mode}-{permille}",
        statement=f"Sending {permille / 10:g} % of the coordinates ({mode}) reduces communication",
        source=PAPER if mode == "topk_local" else "ours",
        rule="upload and commitment of a client are fewer bytes than with all coordinates",
        holds=small < whole,
        found=f"{small:,.0f} against {whole:,.0f} bytes, {small / whole:.2f} times as many.",
        numbers={"compressed": small, "whole": whole},
    )


def interpolation_saved(measured: Measured, plan: Plan, under: str) -> Claim:
    """`under`: plain, masked or shared, see `sim.figures.vcdfl.compression.time_interpolation`."""
    by_permille = {job.permille: measured.interpolation(job)[under] for job in plan.interpolation()}
    small, whole = by_permille[TENTH], by_permille[plan.permilles[-1]]
    how = {
        "plain": "of values without masks, which nobody may send",
        "masked": "of the top values under masks",
        "shared": "of a shared support under masks",
    }[under]
    return Claim(
        name=f"interpolation-{under}",
        statement=f"Compression to 10 % reduces the time of Lagrange interpolation, {how}",
        source="ours" if under == "shared" else f"{PAPER}, algorithm 2",
        rule=f"it takes at most {MUCH_LESS} of the time with all coordinates",
        holds=small <= MUCH_LESS * whole,
        found=f"{1000 * small:.1f} against {1000 * whole:.1f} ms.",
        numbers={"compressed": small, "whole": whole},
    )


def _what(step: str) -> str:
    return {
        "client": "A client's work",
        "verify": "Verification",
        "unmask": "Unmasking",
        "aggregate": "Summing and unmasking",
    }[step]
