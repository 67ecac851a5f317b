"""The tables as bars; on a logarithmic axis where what is compared differs by large factors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from sim.bench.peers.render import LABELS
from sim.bench.peers.summary import ClientRow, RoundRow
from sim.figures.plots import COLOURS, FigureError, plain_log_labels, save

FOOT = 5
"""How far below the lowest bar a logarithmic axis begins."""
LARGE_FACTOR = 30
"""Between the highest and the lowest bar; below it the axis begins at zero and bars are true to scale."""
HEADROOM = 1.12
"""Above the highest bar, for its number."""
HATCHES = ("", "//", "..", "xx", "\\\\", "++")


@frozen
class Bars:
    """`values[group][system]`; None where there is nothing to show."""

    title: str
    y_label: str
    groups: tuple[str, ...]
    systems: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


def client_bars(rows: Sequence[ClientRow]) -> Bars:
    """Milliseconds by size."""
    sizes = list(dict.fromkeys((row.n, row.d) for row in rows))
    systems = tuple(dict.fromkeys(row.system for row in rows))
    by_key = {(row.n, row.d, row.system): row.seconds for row in rows}
    values = tuple(tuple(_scaled(by_key.get((n, d, s)), 1e3) for s in systems) for n, d in sizes)
    groups = tuple(f"{n} clients\n{d:,} weights" for n, d in sizes)
    return Bars("One client's work", "ms", groups, systems, values)


def round_bars(rows: Sequence[RoundRow]) -> Bars:
    """Seconds of a round."""
    values = tuple(row.seconds for row in rows)
    systems = tuple(row.system for row in rows)
    return Bars("A round of 8 nodes", "s", ("median round",), systems, (values,))


def byte_bars(rows: Sequence[RoundRow]) -> Bars:
    """Kilobytes of a node in a round."""
    sent = tuple(_scaled(row.sent, 1e-3) for row in rows)
    received = tuple(_scaled(row.received, 1e-3) for row in rows)
    systems = tuple(row.system for row in rows)
    return Bars("Bytes of a node in a round", "kB", ("sent", "received"), systems, (sent, received))


def draw_bars(bars: Bars, stem: Path) -> None:
    """Write `stem`.png and `stem`.svg. FigureError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FigureError("charts need matplotlib: pip install 'flocknode[bench]'") from error
    settings: Any = {
        "svg.hashsalt": "flocknode",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / max(1, len(bars.systems))
        for number, system in enumerate(bars.systems):
            heights = [group[number] or 0.0 for group in bars.values]
            places = [group + (number - (len(bars.systems) - 1) / 2) * width for group in range(len(heights))]
            drawn = axes.bar(
                places,
                heights,
                width * 0.92,
                label=LABELS.get(system, system),
                color=COLOURS[number % len(COLOURS)],
                hatch=HATCHES[number % len(HATCHES)],
                edgecolor="white",
            )
            axes.bar_label(drawn, [_short(height) for height in heights], fontsize=7)
        axes.set_xticks(range(len(bars.groups)), bars.groups)
        axes.set_ylabel(bars.y_label)
        axes.set_title(bars.title, fontsize=9)
        shown = [value for group in bars.values for value in group if value]
        if shown and max(shown) > LARGE_FACTOR * min(shown):
            axes.set_yscale("log")
            axes.set_ylim(min(shown) / FOOT, max(shown) * HEADROOM**3)
            plain_log_labels(axes.yaxis, *axes.get_ylim())
        elif shown:
            axes.set_ylim(0, max(shown) * HEADROOM)
        if bars.systems:
            figure.legend(fontsize=7, frameon=False, loc="outside lower center", ncols=2)
        save(figure, stem)


def _short(height: float) -> str:
    """Three digits, never an exponent."""
    if not height:
        return "none"
    return f"{height:,.0f}" if height >= 100 else f"{height:.3g}"


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
