"""Whatever the round looks like, masked and encoded aggregation is plain integer addition."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.checkpoint import decode_checkpoint
from protocol.jobs import AggregateResult
from protocol.params import Masking, ProtocolParams, Sparsify, hardened, vcdfl
from protocol.secagg.aggregate import unmask_sum
from protocol.secagg.encoding import MAX_CLIPPED_PLACES, quantise
from protocol.secagg.pairs import dangling_seeds
from protocol.secagg.scheme import scheme_of
from protocol.secagg.verification import Verdict
from sim.bench.rehearsal import Rehearsal, rehearse, whole_round

SPARSE = {Sparsify.OFF: 1000, Sparsify.SHARED_SUPPORT: 300, Sparsify.TOPK_LOCAL: 200}


@frozen
class Plan:
    """Who shares, who contributes what: U2 within U1 within the proposers."""

    proposers: int
    sharers: tuple[int, ...]
    contributors: tuple[int, ...]
    dimension: int
    seed: int
    weights: tuple[int, ...]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    proposers = draw(st.integers(3, 7))
    threshold = 2 * proposers // 3 + 1
    order = draw(st.permutations(range(proposers)))
    sharers = order[: draw(st.integers(threshold, proposers))]
    contributors = sharers[: draw(st.integers(threshold, len(sharers)))]
    return Plan(
        proposers,
        tuple(sorted(sharers)),
        tuple(sorted(contributors)),
        draw(st.integers(1, 60)),
        draw(st.integers(0, 2**32)),
        tuple(draw(st.lists(st.integers(1, 1 << 16), min_size=proposers, max_size=proposers))),
    )


def params_of(profile: str, sparsify: Sparsify, plan: Plan) -> ProtocolParams:
    make = hardened if profile == "hardened" else vcdfl
    params = make(dimension=plan.dimension, n_proposers=plan.proposers, n_voters=1)
    return evolve(params, sparsify=sparsify, sparsify_permille=SPARSE[sparsify])


def secure_sum(round_: Rehearsal, contributors: Sequence[int], claim: AggregateResult) -> list[int]:
    """What the published aggregate says, unmasked."""
    scheme = scheme_of(round_.context)
    coefficients = scheme.read_coefficients(claim.sum, "sum")
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    dangling = dangling_seeds(round_.context, contributors, dict(claim.mask_secrets))
    plain = unmask_sum(scheme, coefficients, points, [seed for _, seed in claim.self_seeds], dangling)
    values: list[int] = plain.extended[: scheme.length].tolist()
    return values


def plainly_moved(model: list[int], total: list[int], weights: list[int], fraction_bits: int) -> list[int]:
    """model + mean update in units of 2^-24, rounded half up, in exact fractions."""
    step = Fraction(1 << 16, sum(weights)) * Fraction(2) ** (24 - fraction_bits)
    return [weight + (2 * value * step + 1) // 2 for weight, value in zip(model, total, strict=True)]


@pytest.mark.parametrize("sparsify", list(Sparsify))
@pytest.mark.parametrize("profile", ["hardened", "vcdfl"])
@settings(max_examples=15, deadline=None)
@given(plan=plans())
def test_the_secure_aggregate_is_the_plain_sum(profile: str, sparsify: Sparsify, plan: Plan) -> None:
    params = params_of(profile, sparsify, plan)
    rng = np.random.default_rng(plan.seed)
    d = plan.dimension
    model = rng.normal(size=d).astype(np.float32)
    round_ = rehearse(params, plan.proposers, plan.seed.to_bytes(8, "big"), model)
    # Beyond the clipping bound in places.
    updates = {i: rng.normal(scale=0.7, size=d).astype(np.float32) for i in plan.contributors}
    weights = dict(enumerate(plan.weights))
    claim, job = whole_round(round_, plan.sharers, plan.contributors, updates, weights)
    assert claim.faults == ()
    result = round_.verify(job)
    assert (result.verdict, result.bounded) == (Verdict.TRUSTED, True)

    scheme = scheme_of(round_.context)
    moved = decode_checkpoint(params, result.model)
    support = np.arange(d)
    if sparsify is Sparsify.SHARED_SUPPORT:
        sent = -(-d * SPARSE[sparsify] // 1000)
        assert moved.last_aggregate is None or np.count_nonzero(moved.last_aggregate) <= sent
        assert scheme.length == sent
    total = np.zeros(scheme.length, dtype=np.int64)
    for member in plan.contributors:
        update, residual = updates[member], round_.contributions[member].residual
        if sparsify is Sparsify.OFF:
            assert residual is None
            chosen = update
        else:
            # What is sent and what is kept are the update, coordinate by coordinate.
            assert residual is not None
            chosen = np.where(residual == 0, update, np.float32(0))
            assert np.array_equal(chosen + residual, update)
            if sparsify is Sparsify.SHARED_SUPPORT:
                support = np.flatnonzero(chosen)
                chosen = chosen[support]
        beyond = [int(support[k]) for k, value in enumerate(chosen.tolist()) if abs(value) > params.clip]
        clipping = round_.contributions[member].clipping
        assert clipping is not None
        assert (clipping.coordinates, clipping.clipped_coordinates) == (chosen.size, len(beyond))
        assert list(clipping.clipped_at) == beyond[:MAX_CLIPPED_PLACES]
        assert clipping.largest == (max(abs(value) for value in chosen.tolist()) if beyond else 0.0)
        seed = round_.secrets[member].rounding_seed
        total += quantise(chosen, weights[member], 1 << 16, scheme.fixed, seed)
    assert secure_sum(round_, plan.contributors, claim) == total.tolist()

    scattered = np.zeros(d, dtype=np.int64)
    scattered[support] = total
    expected = plainly_moved(
        [round(float(weight) * 2**24) for weight in model],
        scattered.tolist(),
        [weights[i] for i in plan.contributors],
        scheme.fixed.fraction_bits,
    )
    assert moved.model.tolist() == expected
    if params.masking is Masking.DOUBLE:
        assert dict(claim.self_seeds) == {i: round_.secrets[i].self_seed for i in plan.contributors}
    dropped = set(plan.sharers) - set(plan.contributors)
    assert dict(claim.mask_secrets) == {i: round_.secrets[i].mask_secret for i in dropped}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_error_feedback_returns_what_was_left_out(seed: int) -> None:
    """What is not sent is kept, with momentum: VCD-FL algorithm 2, on a shared support."""
    plan = Plan(3, (0, 1, 2), (0, 1, 2), 20, seed, (1, 1, 1))
    params = params_of("hardened", Sparsify.SHARED_SUPPORT, plan)
    round_ = rehearse(params, 3, b"feedback")
    round_.pin_sharers((0, 1, 2))
    rng = np.random.default_rng(seed)
    kept = np.zeros(20, dtype=np.float32)
    for _ in range(3):
        update = rng.normal(size=20).astype(np.float32)
        result = round_.contribute(0, update, 1, kept)
        assert result.residual is not None
        whole = np.float32(0.5) * kept + update
        sent = np.flatnonzero(result.residual == 0)
        assert sent.size == 6
        assert np.array_equal(np.delete(result.residual, sent), np.delete(whole, sent))
        kept = result.residual


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["hardened", "vcdfl"]))
def test_one_upload_alone_looks_uniform(seed: int, profile: str) -> None:
    """Two updates far apart give uploads that differ everywhere, and none shows its update in the clear."""
    plan = Plan(3, (0, 1, 2), (0, 1, 2), 40, seed, (1 << 16,) * 3)
    params = params_of(profile, Sparsify.OFF, plan)
    round_ = rehearse(params, 3, seed.to_bytes(8, "big"))
    round_.pin_sharers((0, 1, 2))
    scheme = scheme_of(round_.context)
    points = scheme.interpolation.points_from(round_.z_root, scheme.masked_length)
    update = np.zeros(40, dtype=np.float32)
    upload = round_.contribute(0, update, 1 << 16).upload
    masked = scheme.interpolation.evaluate(
        scheme.read_coefficients(upload, "upload"), scheme.masked_length, points
    )[:40]
    # A masked zero is below 2^20 in magnitude with probability 2^-10 each.
    near_zero = np.minimum(masked, 2130706433 - masked) < 1 << 20
    assert np.count_nonzero(near_zero) < 6
