"""The figures of VCD-FL's experiments, out of what the jobs gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sim.figures.plots import Curve, Panel, band_over_seeds, line
from sim.figures.report import Chapter, Figure, Table
from sim.figures.vcdfl import claims, published
from sim.figures.vcdfl.cost import PROFILES, CostJob
from sim.figures.vcdfl.measured import Measured, cost_table
from sim.figures.vcdfl.plan import Plan
from sim.figures.vcdfl.series import as_series, fitted

Value = Callable[[CostJob, str], float]

LABELS = {"vcdfl": "vcdfl profile, here", "hardened": "hardened profile, here"}
STYLES = {"vcdfl": 0, "hardened": 1}
PUBLISHED_STYLE = 2
MODE_LABELS = {"topk_local": "topk_local (the paper's)", "shared_support": "shared_support (ours)"}


def make_chapter(plan: Plan, measured: Measured, command: str, where: str) -> Chapter:
    """All figures; `where` describes the machine."""
    return Chapter(
        name="vcdfl",
        title="VCD-FL's experiments",
        command=command,
        text=(
            f"Measured on one thread of this machine: {where}. Both profiles take turns in one run; a time "
            f"is the median of {plan.repeats} runs, or a single run where setting up took over a minute. "
            "The published curves are those of a third party's re-implementation on other machines: compare "
            "their shapes, not their seconds. Training data are those of the Python packages; nothing is "
            "random but by seed, so accuracies repeat exactly and times do not."
        ),
        figures=(
            by_dimension(plan, measured),
            by_clients(plan, measured),
            by_dropouts(plan, measured),
            compression(plan, measured),
            growth(plan, measured),
        ),
        seeds="keys and updates are drawn from fixed seeds (sim/bench/rehearsal.py)",
        machine=where,
    )


# -- the paper's range -----------------------------------------------------------------------------


def by_dimension(plan: Plan, measured: Measured) -> Figure:
    """Verification, client time and traffic over the number of weights."""
    jobs = plan.by_dimension()
    at = [job.d for job in jobs]
    told = [
        claims.linear_in(measured, jobs, profile, step, claims.PAPER if profile == "vcdfl" else claims.OURS)
        for profile in PROFILES
        for step in ("verify", "client")
    ]
    told += [c for p in PROFILES if (c := claims.below_published(measured, jobs, p)) is not None]
    return Figure(
        name="vcdfl-dimension",
        title=f"Cost over the number of weights, {plan.n} clients",
        text=(
            "Verification is eqs. 18 and 19 at one node, client work is keys, shares, masks, encoding and "
            "commitment, traffic is what one client sends and receives without envelopes. "
            "The vertical axes are logarithmic."
        ),
        panels=(
            _panel(
                "verification",
                "weights",
                "s",
                at,
                jobs,
                _time(measured, "verify"),
                published.VERIFY_BY_DIMENSION,
            ),
            _panel(
                "client", "weights", "s", at, jobs, _time(measured, "client"), published.CLIENT_BY_DIMENSION
            ),
            _panel(
                "traffic of a client",
                "weights",
                "MB",
                at,
                jobs,
                measured.traffic_mb,
                published.TRAFFIC_BY_DIMENSION,
            ),
        ),
        table=cost_table(measured, jobs),
        claims=(*told, *claims.budgets(measured, jobs[-1])),
        columns=3,
    )


def by_clients(plan: Plan, measured: Measured) -> Figure:
    """The same over the number of clients."""
    jobs = plan.by_clients()
    at = [job.n for job in jobs]
    return Figure(
        name="vcdfl-clients",
        title=f"Cost over the number of clients, {plan.d:,} weights",
        text="As above; of the published figures only verification is known for other than 100 clients.",
        panels=(
            _panel(
                "verification",
                "clients",
                "s",
                at,
                jobs,
                _time(measured, "verify"),
                published.VERIFY_BY_CLIENTS,
            ),
            _panel("client", "clients", "s", at, jobs, _time(measured, "client"), ()),
            _panel("traffic of a client", "clients", "MB", at, jobs, measured.traffic_mb, ()),
        ),
        table=cost_table(measured, jobs),
        claims=tuple(claims.slower_than_clients(measured, jobs, profile) for profile in PROFILES),
        columns=3,
    )


def by_dropouts(plan: Plan, measured: Measured) -> Figure:
    """What clients that leave after sharing cost those who stay."""
    jobs = plan.by_dropouts()
    at = [100 * job.dropouts for job in jobs]
    steps = {
        "verify": "verification",
        "unmask": "unmasking, at every node",
        "aggregate": "sum and secrets rebuilt, aggregator",
    }
    told = [claims.dropouts_cost_nothing(measured, jobs, profile) for profile in PROFILES]
    return Figure(
        name="vcdfl-dropouts",
        title=f"Cost over dropouts, {plan.n} clients, {plan.d:,} weights",
        text=(
            "Clients leave after they have shared their secrets and before they upload. "
            "The aggregator rebuilds their mask keys from shares, and every node takes off the masks "
            "that they left behind."
        ),
        panels=tuple(
            _panel(title, "% dropped out", "s", at, jobs, _time(measured, step), ())
            for step, title in steps.items()
        ),
        table=cost_table(measured, jobs),
        claims=(*told, *[claim for job in jobs for claim in claims.budgets(measured, job)]),
        columns=3,
    )


def _panel(
    title: str,
    x_label: str,
    y_label: str,
    at: Sequence[float],
    jobs: Sequence[CostJob],
    value: Value,
    others: Sequence[published.Published],
) -> Panel:
    own = [
        Curve(
            LABELS[profile],
            as_series(at),
            line(as_series(value(job, profile) for job in jobs)),
            STYLES[profile],
        )
        for profile in PROFILES
    ]
    foreign = [curve.curve(PUBLISHED_STYLE + number) for number, curve in enumerate(others)]
    return Panel(title, x_label, y_label, (*own, *foreign), y_log=True, x_ticks=tuple(at))


def _time(measured: Measured, step: str) -> Value:
    return lambda job, profile: measured.seconds(job, profile, step)


# -- compression -----------------------------------------------------------------------------------


def compression(plan: Plan, measured: Measured) -> Figure:
    """Accuracy, bytes and interpolation against the share of coordinates sent."""
    percents = [permille / 10 for permille in plan.permilles]
    modes = list(MODE_LABELS)
    compressed = plan.permilles[:-1]
    told = [claims.accuracy_kept(measured, plan, mode, permille) for mode in modes for permille in compressed]
    told += [claims.bytes_saved(measured, plan, mode, claims.TENTH) for mode in modes]
    told += [claims.interpolation_saved(measured, plan, under) for under in ("plain", "masked", "shared")]
    return Figure(
        name="vcdfl-compression",
        title="Gradient compression: accuracy, bytes and interpolation",
        text=(
            f"{plan.nodes} nodes train {plan.task} for {plan.rounds} rounds with {len(plan.seeds)} seeds; "
            "each round is masked, encoded, summed, unmasked and verified, and the model moves by that sum. "
            "Bytes are those of a client's upload and commitment; the dotted curve is what the paper's top "
            "values would take as pairs of index and value if nothing masked them. "
            f"Interpolation is the paper's, groups of {plan.group_size}, {plan.interpolated:,} weights."
        ),
        panels=(
            Panel(
                f"accuracy after {plan.rounds} rounds",
                "% of coordinates sent",
                "accuracy",
                [_accuracy_curve(plan, measured, mode, style) for style, mode in enumerate(modes)],
                x_log=True,
                x_ticks=tuple(percents),
                legend="lower right",
            ),
            Panel(
                "bytes of a client's contribution",
                "% of coordinates sent",
                "kB",
                [
                    *(_bytes_curve(plan, measured, mode, style) for style, mode in enumerate(modes)),
                    _unmasked_curve(plan, measured),
                ],
                x_log=True,
                y_log=True,
                x_ticks=tuple(percents),
                legend="lower right",
            ),
            Panel(
                "interpolation of one client",
                "% of coordinates sent",
                "ms",
                _interpolation_curves(plan, measured),
                x_log=True,
                y_log=True,
                x_ticks=tuple(percents),
                legend="lower right",
            ),
        ),
        table=_compression_table(plan, measured),
        seeds=", ".join(map(str, plan.seeds)),
        claims=tuple(told),
        columns=3,
    )


def _accuracy_curve(plan: Plan, measured: Measured, mode: str, style: int) -> Curve:
    jobs = plan.training()
    last = np.stack([measured.accuracy(jobs[mode, each])[:, -1] for each in plan.permilles], axis=1)
    band = band_over_seeds(last)
    return Curve(MODE_LABELS[mode], _percents(plan), band.within(0, 1), style)


def _bytes_curve(plan: Plan, measured: Measured, mode: str, style: int) -> Curve:
    kilobytes = [_contribution_bytes(plan, measured, mode, each) / 1e3 for each in plan.permilles]
    return Curve(MODE_LABELS[mode], _percents(plan), line(as_series(kilobytes)), style)


def _unmasked_curve(plan: Plan, measured: Measured) -> Curve:
    pairs = [
        8 * measured.of_training(plan.training()["topk_local", each], "values") / 1e3
        for each in plan.permilles
    ]
    return Curve("top values without masks (computed)", _percents(plan), line(as_series(pairs)), 3)


def _interpolation_curves(plan: Plan, measured: Measured) -> list[Curve]:
    labels = {
        "plain": "top values, no masks",
        "masked": "top values, masked",
        "shared": "shared support, masked",
    }
    return [
        Curve(
            label,
            _percents(plan),
            line(as_series(1000 * measured.interpolation(job)[under] for job in plan.interpolation())),
            style,
        )
        for style, (under, label) in enumerate(labels.items())
    ]


def _percents(plan: Plan) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([permille / 10 for permille in plan.permilles], dtype=np.float64)


def _contribution_bytes(plan: Plan, measured: Measured, mode: str, permille: int) -> float:
    jobs = plan.training()[mode, permille]
    return measured.of_training(jobs, "upload") + measured.of_training(jobs, "commitment")


def _compression_table(plan: Plan, measured: Measured) -> Table:
    interpolated = {job.permille: measured.interpolation(job) for job in plan.interpolation()}
    rows: list[tuple[str | int | float, ...]] = []
    for (mode, permille), jobs in plan.training().items():
        times = interpolated[permille]
        for job in jobs:
            result = measured.results[job]
            rows.append(
                (
                    mode,
                    permille / 10,
                    job.seed,
                    result["upload"],
                    result["commitment"],
                    result["float32_update"],
                    result["values"],
                    times["plain"],
                    times["shared" if mode == "shared_support" else "masked"],
                    *result["accuracy"],
                )
            )
    columns = ("mode", "percent", "seed", "upload_bytes", "commitment_bytes", "float32_update_bytes")
    more = ("nonzero_values", "interpolation_top_values_unmasked_s", "interpolation_masked_s")
    rounds = tuple(f"accuracy_after_{number}" for number in range(plan.rounds + 1))
    return Table((*columns, *more, *rounds), tuple(rows))


# -- past the paper --------------------------------------------------------------------------------


def growth(plan: Plan, measured: Measured) -> Figure:
    """Both ways past the paper's range, with the fitted power laws."""
    far_d, far_n = plan.far_by_dimension(), plan.far_by_clients()
    jobs = tuple(dict.fromkeys([*far_d, *far_n]))
    single = sorted({(job.n, job.d) for job in jobs if measured.once(job)})
    names = ", ".join(f"{n} clients x {d:,} weights" for n, d in single)
    told = [
        claims.linear_in(measured, far_d, profile, step, claims.OURS)
        for profile in PROFILES
        for step in ("client", "verify")
    ]
    slowest = measured.seconds(far_d[-1], "hardened", "client")
    return Figure(
        name="vcdfl-growth",
        title="Past the paper's range",
        text=(
            f"Upper row: over weights at {plan.few} clients; lower: over clients at {plan.d:,} weights, "
            "with the power law that fits best. Above 256 clients masks run along a sparse random graph, in "
            f"both profiles. At {far_d[-1].d:,} weights a hardened client works {slowest:.2f} s. "
            + (f"Measured once: {names}." if single else "No size took long enough to be measured only once.")
        ),
        panels=tuple(
            _growth_panel(measured, step, x_label, run)
            for x_label, run in (("weights", far_d), ("clients", far_n))
            for step in ("client", "verify")
        ),
        table=cost_table(measured, jobs),
        claims=(
            *told,
            *[claims.n_log_n(measured, far_n, profile) for profile in PROFILES],
            *[claim for job in far_d for claim in claims.budgets(measured, job)],
        ),
    )


def _growth_panel(measured: Measured, step: str, x_label: str, jobs: Sequence[CostJob]) -> Panel:
    sizes = [job.d if x_label == "weights" else job.n for job in jobs]
    curves = []
    for profile in PROFILES:
        costs = [measured.seconds(job, profile, step) for job in jobs]
        curves.append(Curve(profile, as_series(sizes), line(as_series(costs)), STYLES[profile]))
        curves.append(fitted(sizes, costs, profile, STYLES[profile]))
    title = "client" if step == "client" else "verification"
    return Panel(f"{title} over {x_label}", x_label, "s", curves, x_log=True, y_log=True, legend="upper left")
