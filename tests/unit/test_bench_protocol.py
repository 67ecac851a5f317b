"""The protocol benchmark measures real rounds, and its figures are what it says they are."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from protocol.params import PROFILES
from protocol.secagg.scheme import build_scheme
from sim.bench.growth import growth_exponent, median_seconds, series
from sim.bench.protocol import BenchError, bench_protocol, render


@pytest.mark.parametrize(("profile", "dropouts"), [("hardened", 0.2), ("vcdfl", 0.0)])
def test_bench_reports_every_step_and_size(profile: str, dropouts: float) -> None:
    bench = bench_protocol(5, 80, profile, dropouts, 1)
    report = json.loads(json.dumps(bench.to_json()))
    assert (report["n"], report["d"], report["profile"]) == (5, 80, profile)
    assert report["dropouts"] == dropouts
    assert {"keys", "shares", "masks", "client_total", "verify", "aggregate"} <= set(report["seconds"])
    assert min(report["seconds"].values()) >= 0
    assert set(report["growth"]) == {"client_in_d", "client_in_n", "verify_in_d", "verify_in_n"}
    scheme = build_scheme(PROFILES[profile](dimension=80, n_proposers=5, n_voters=1), bytes(32), bytes(32))
    sizes = report["bytes"]
    assert sizes["upload"] == scheme.upload_bytes
    assert sizes["commitment"] == scheme.commitment_bytes
    assert sizes["upload_total"] == sizes["upload"] + sizes["commitment"]
    assert sizes["round_total"] == sizes["upload_total"] + sizes["share_boxes"]
    assert sizes["float32_update"] == 320
    text = render(bench)
    assert "client_total" in text
    assert "exponent" in text
    assert "budget" not in text


def test_budgets_stand_beside_the_sizes_they_are_set_for() -> None:
    bench = bench_protocol(4, 64, "hardened", 0.0, 1)
    text = render(evolve(bench, n=100, d=100_000))
    assert "budget 100 ms" in text
    assert "budget 20 ms" in text
    assert "budget 1.15" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((3, 80, "hardened", 0.0), "n 3"),
        ((5, 10, "hardened", 0.0), "d 10"),
        ((5, 80, "paper", 0.0), "'paper'"),
        ((5, 80, "hardened", 0.4), "survive at most 1"),
        ((5, 80, "hardened", -0.2), "dropouts -0.2"),
        ((5000, 80, "hardened", 0.0), "n_proposers"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    arguments: tuple[int, int, str, float], named: str
) -> None:
    with pytest.raises(BenchError, match=named):
        bench_protocol(*arguments, 1)


def test_exponents_of_known_laws() -> None:
    sizes = [10, 20, 40]
    assert growth_exponent(sizes, [3.0 * size for size in sizes]) == pytest.approx(1)
    assert growth_exponent(sizes, [0.1 * size**2 for size in sizes]) == pytest.approx(2)
    assert growth_exponent(sizes, [7.0, 7.0, 7.0]) == pytest.approx(0)
    for bad in (([5], [1.0]), ([5, 5], [1.0, 2.0]), ([5, 6], [1.0]), ([5, 6], [0.0, 1.0])):
        with pytest.raises(ValueError, match=r"growth|positive"):
            growth_exponent(*bad)
    assert series(100, 4) == (25, 50, 100)
    assert series(5, 4) == (5, 10, 20)


def test_the_median_leaves_out_the_first_run() -> None:
    calls: list[int] = []
    assert median_seconds(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 4
