"""VCD-FL's figures at tiny sizes: what is counted, what is claimed, and that a stopped run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from small_figures import VCDFL as TINY

from protocol.params import PROFILES as PARAMS
from protocol.secagg.scheme import build_scheme
from sim.bench.protocol import BenchError
from sim.figures.claims import Claim
from sim.figures.sweep import Result, sweep
from sim.figures.vcdfl import claims
from sim.figures.vcdfl.chapter import make_chapter
from sim.figures.vcdfl.compression import TrainingJob, train
from sim.figures.vcdfl.cost import PROFILES, CostJob, measure_cost
from sim.figures.vcdfl.measured import Measured
from sim.figures.vcdfl.plan import PAPER, InTurn, Job, execute
from sim.figures.vcdfl.run import store_at
from sim.figures.vcdfl.series import fitted


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured({job: execute(job) for job in TINY.jobs()})


def test_the_plan_reaches_the_sizes_of_the_paper_and_beyond() -> None:
    jobs = PAPER.jobs()
    assert len(jobs) == len(set(jobs))
    costs = [job for job in jobs if isinstance(job, CostJob)]
    assert {(job.n, job.d) for job in costs} >= {(100, d) for d in range(20_000, 100_001, 20_000)}
    assert {(job.n, job.d) for job in costs} >= {(n, 100_000) for n in range(20, 101, 20)}
    assert max(job.d for job in costs) == 10_000_000
    assert max(job.n for job in costs) == 1_000
    assert {job.dropouts for job in costs} == {0.0, 0.1, 0.2}
    trained = {(job.mode, job.permille) for job in jobs if isinstance(job, TrainingJob)}
    assert trained == {(m, p) for m in ("topk_local", "shared_support") for p in (10, 100, 500, 1000)}


def test_traffic_is_what_the_scheme_says() -> None:
    result = measure_cost(CostJob(10, 500, 0.2, 1))
    for profile in PROFILES:
        params = PARAMS[profile](dimension=500, n_proposers=10, n_voters=1)
        scheme = build_scheme(params, bytes(32), bytes(32))
        sent, received = result["sent"][profile], result["received"][profile]
        assert sent["upload"] == received["sum"] == scheme.upload_bytes
        assert sent["commitment"] == 9 * scheme.commitment_bytes
        assert received["commitment"] == 7 * scheme.commitment_bytes  # of the others that stay
        assert result["upload"][profile] == scheme.upload_bytes + scheme.commitment_bytes
        assert not result["once"]
    double, single = (result["received"][profile]["unmasking"] for profile in ("hardened", "vcdfl"))
    assert (double, single) == (32 * (8 + 2), 32 * 2)


def test_more_dropouts_than_the_threshold_allows_are_refused() -> None:
    with pytest.raises(BenchError, match="survive at most"):
        measure_cost(CostJob(10, 500, 0.4, 1))


def test_a_size_that_takes_long_is_measured_once_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.figures.vcdfl.cost.LONG_S", 0.0)
    result = measure_cost(CostJob(5, 100, 0.0, 3))
    assert result["once"]
    assert all(len(runs) == 1 for steps in result["seconds"].values() for runs in steps.values())


def test_masks_undo_the_papers_compression_and_not_ours(measured: Measured) -> None:
    paper = claims.bytes_saved(measured, TINY, "topk_local", 100)
    ours = claims.bytes_saved(measured, TINY, "shared_support", 100)
    assert not paper.holds
    assert paper.numbers["compressed"] == paper.numbers["whole"]
    assert ours.holds
    jobs = TINY.training()
    values = [measured.of_training(jobs["topk_local", permille], "values") for permille in TINY.permilles]
    assert values == sorted(values)  # the top values are fewer, although their bytes are not
    assert values[0] < 0.02 * values[-1] + 20


def test_all_coordinates_are_the_same_training_in_both_modes() -> None:
    job = TrainingJob("digits", 4, 2, "topk_local", 1000, 3)
    paper, ours = train(job), train(evolve(job, mode="shared_support"))
    assert paper["accuracy"] == ours["accuracy"]
    assert paper["upload"] == ours["upload"]
    assert paper == train(job)


def test_training_through_the_masked_sum_learns() -> None:
    result = train(TrainingJob("digits", 4, 4, "topk_local", 500, 1))
    assert len(result["accuracy"]) == 5
    assert result["accuracy"][-1] > 0.7 > result["accuracy"][0]


def test_a_power_law_is_fitted_and_named() -> None:
    curve = fitted([1, 2, 4], [3.0, 6.0, 12.0], "x", 0)
    assert curve.label == "x: fit, exponent 1.00"
    assert np.allclose(curve.band.mean, [3, 6, 12])


def _with_seconds(measured: Measured, seconds: dict[CostJob, float]) -> Measured:
    results: dict[Job, Result] = dict(measured.results)
    for job, value in seconds.items():
        steps = {step: [value] for step in ("client", "verify", "unmask")}
        results[job] = {**results[job], "seconds": dict.fromkeys(PROFILES, steps)}
    return Measured(results)


@pytest.mark.parametrize(("power", "linear"), [(1.0, True), (2.0, False), (0.5, False)])
def test_growth_claims_follow_the_numbers(measured: Measured, power: float, linear: bool) -> None:
    jobs = TINY.by_dimension()
    planted = _with_seconds(measured, {job: 1e-6 * job.d**power for job in jobs})
    claim = claims.linear_in(planted, jobs, "vcdfl", "verify", "test")
    assert claim.holds is linear
    assert claim.numbers["exponent"] == pytest.approx(power)


@pytest.mark.parametrize(("factor", "holds"), [(1.0, True), (1.5, False)])
def test_the_dropout_claim_follows_the_numbers(measured: Measured, factor: float, holds: bool) -> None:
    jobs = TINY.by_dropouts()
    planted = _with_seconds(measured, {jobs[0]: 1.0, jobs[1]: 1.0, jobs[2]: factor})
    assert claims.dropouts_cost_nothing(planted, jobs, "vcdfl").holds is holds


def test_budgets_are_claimed_only_at_the_sizes_they_are_set_for(measured: Measured) -> None:
    job = TINY.by_dimension()[0]
    assert claims.budgets(measured, job) == []
    paper = CostJob(100, 100_000, 0.0, 7)
    planted = Measured({paper: measured.results[job]})
    told = claims.budgets(planted, paper)
    assert [claim.name for claim in told] == [
        "budget-client-100-100000",
        "budget-verify-100-100000",
        "budget-upload-100-100000",
    ]
    assert claims.below_published(planted, [paper], "hardened") is not None
    assert claims.below_published(measured, TINY.by_dimension(), "hardened") is None


def test_a_stopped_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    jobs: list[Job] = list(TINY.interpolation())
    store = store_at(tmp_path, "this machine")
    done: list[Job] = []

    def stopping(job: Job) -> Result:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return execute(job)

    with pytest.raises(KeyboardInterrupt):
        sweep(jobs, stopping, store, InTurn())
    later: list[Job] = []

    def counting(job: Job) -> Result:
        later.append(job)
        return execute(job)

    sweep(jobs, counting, store, InTurn())
    assert done + later == jobs
    assert store_at(tmp_path, "another machine").get(jobs[0]) is None


def test_the_chapter_says_what_stands_in_its_files(measured: Measured) -> None:
    chapter = make_chapter(TINY, measured, "command", "a machine")
    names = [claim.name for claim in chapter.claims]
    assert len(names) == len(set(names))
    assert all(isinstance(claim, Claim) and claim.rule and claim.found for claim in chapter.claims)
    foreign = [
        curve.label
        for figure in chapter.figures
        for panel in figure.panels
        for curve in panel.curves
        if curve.foreign
    ]
    assert foreign
    assert all("other machines" in label for label in foreign)
    for figure in chapter.figures:
        assert all(len(row) == len(figure.table.columns) for row in figure.table.rows)
