"""Curves with bands, drawn by matplotlib: the same bytes of SVG for the same data, and no colour alone.

The palette is Okabe and Ito's (jfly.uni-koeln.de/color, 2008), which readers with any common colour blindness
can tell apart; each curve has a marker and a line style of its own as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Series = npt.NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MARKS_PER_CURVE = 8
CONFIDENCE = 0.95
STYLE: Final[Any] = {
    "svg.hashsalt": "flocknode",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""Settings of matplotlib."""
PANEL_INCHES = (4.4, 3.3)
PNG_DOTS_PER_INCH = 110
PNG_COLOURS = 256
BAND_PLACES = 30
"""A band is drawn at no more places of its curve, so that SVGs stay small; the CSV has all of them."""
POINT = re.compile(r"([ML]) (-?\d+\.\d+) (-?\d+\.\d+)")
"""A straight step of an SVG's path."""
PLACE = re.compile(r'x="(-?\d+\.\d+)" y="(-?\d+\.\d+)"')
"""Where a marker stands."""
INDENT = re.compile(r"^ +", re.MULTILINE)
"""No text of these files is of more than one line: letters are paths."""
FEW_DECADES = 2.5
"""A logarithmic axis that spans less has labels at 1, 2 and 5 of every decade."""
LONG_LABEL = 1e5
"""Unless they are as long as this."""


class FigureError(ValueError):
    """A figure cannot be drawn: no matplotlib, no panel, or a curve that does not fit its axis."""


@frozen(eq=False)
class Band:
    """A mean over seeds and where it may lie; each float64[x], NaN where there is nothing to show."""

    mean: Series
    low: Series
    high: Series

    def within(self, low: float, high: float) -> Band:
        """The same, not beyond what the quantity can be: a share is in [0, 1]."""
        return Band(self.mean, np.clip(self.low, low, high), np.clip(self.high, low, high))


@frozen(eq=False)
class Curve:
    """`x` float64[x]. `style` picks colour, dash and marker: the same number looks the same in every panel.

    `foreign`: measured by others on their machines; drawn thin, with hollow markers and never with a band.
    `fit`: a law fitted to the curve of the same style; drawn thin and without markers.
    """

    label: str
    x: Series
    band: Band
    style: int
    foreign: bool = False
    fit: bool = False


@frozen(eq=False)
class Panel:
    """One pair of axes. `y_limits`: lowest and highest, None for what the data ask for.

    `reference`: a horizontal line at this height, with its label. `legend`: the corner for one of its own.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...] = field(converter=tuple[Curve, ...])
    x_log: bool = False
    y_log: bool = False
    y_limits: tuple[float | None, float | None] = (None, None)
    x_ticks: tuple[float, ...] = ()
    reference: tuple[float, str] | None = None
    legend: str = "best"


def band_over_seeds(values: Series) -> Band:
    """Mean and 95 % confidence interval of it over the first axis, float64[seeds, x], by Student's t.

    Of a single seed there is no band: low and high are its values. FigureError for anything but two axes.
    """
    from scipy.stats import t

    if values.ndim != 2 or not len(values):
        raise FigureError(f"a band needs values of shape [seeds, x], got {values.shape}")
    mean = values.mean(axis=0)
    seeds = len(values)
    if seeds == 1:
        return Band(mean, mean, mean)
    half = t.ppf(0.5 + CONFIDENCE / 2, seeds - 1) * values.std(axis=0, ddof=1) / np.sqrt(seeds)
    return Band(mean, mean - half, mean + half)


def line(values: Series) -> Band:
    """A curve without a band, float64[x]."""
    return Band(values, values, values)


def draw(panels: Sequence[Panel], stem: Path, columns: int = 2) -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.svg, panels row by row; their paths. FigureError without matplotlib.

    Where all panels have the same curves, one legend stands below them; else each has its own.
    """
    if not panels:
        raise FigureError(f"{stem.name}: no panels")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FigureError("figures need matplotlib: pip install 'flocknode[figures]'") from error
    columns = min(columns, len(panels))
    rows = ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        # Figure without pyplot: savefig then picks Agg and SVG by itself, and no window system is touched.
        width = PANEL_INCHES[0] * columns
        figure = Figure(figsize=(width, PANEL_INCHES[1] * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for unused in axes[len(panels) :]:
            unused.set_axis_off()
        shared = len(panels) > 1 and _same_styles(panels)
        for panel, ax in zip(panels, axes, strict=False):
            _draw_panel(panel, ax)
            if not shared and panel.curves:
                ax.legend(fontsize=7, frameon=False, loc=panel.legend)
        if shared:
            every = [ax.get_legend_handles_labels() for ax in axes[: len(panels)]]
            by_name = {
                name: handle for handles, names in every for handle, name in zip(handles, names, strict=True)
            }
            figure.legend(
                by_name.values(),
                by_name.keys(),
                loc="outside lower center",
                ncols=_legend_columns(list(by_name), width),
                frameon=False,
            )
        return save(figure, stem)


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """`stem`.png in a palette, `stem`.svg in tenths of a point: small files, and the same bytes again."""
    from PIL import Image

    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    figure.savefig(png, dpi=PNG_DOTS_PER_INCH, metadata={"Software": None})
    with Image.open(png) as picture:
        flat = picture.convert("RGB").quantize(PNG_COLOURS, dither=Image.Dither.NONE)
    flat.save(png, optimize=True)
    figure.set_layout_engine("none")  # what was laid out stays: it takes longer than drawing
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    text = PLACE.sub(lambda place: f'x="{float(place[1]):.1f}" y="{float(place[2]):.1f}"', svg.read_text())
    svg.write_text(INDENT.sub("", POINT.sub(_tenths, text)))
    return png, svg


def _tenths(point: re.Match[str]) -> str:
    return f"{point[1]} {float(point[2]):.1f} {float(point[3]):.1f}"


def _same_styles(panels: Sequence[Panel]) -> bool:
    """Whether a label means the same curve in every panel, some are in all, and none is fitted to one."""
    if any(curve.fit for panel in panels for curve in panel.curves):
        return False
    styles = [{curve.label: curve.style for curve in panel.curves} for panel in panels]
    union = {label: style for each in styles for label, style in each.items()}
    alike = all(union[label] == style for each in styles for label, style in each.items())
    common = set.intersection(*(set(each) for each in styles))
    return alike and bool(common)


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many as fit into `width` inches, in rows of like length."""
    each = 0.6 + 0.075 * max(map(len, labels), default=0)
    fit = max(1, int(width / each))
    return max(1, ceil(len(labels) / ceil(len(labels) / fit)))


def _draw_panel(panel: Panel, ax: Axes) -> None:
    for curve in panel.curves:
        _draw_curve(panel, curve, ax)
    if panel.reference is not None:
        height, label = panel.reference
        ax.axhline(height, color="#8C8C8C", linewidth=0.8, linestyle=":")
        ax.annotate(label, (1.01, height), xycoords=("axes fraction", "data"), fontsize=7, va="center")
    ax.set_title(panel.title, fontsize=9)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    if panel.x_log:
        ax.set_xscale("log")
    if panel.y_log:
        ax.set_yscale("log")
        plain_log_labels(ax.yaxis, *ax.get_ylim())
    low, high = panel.y_limits
    ax.set_ylim(bottom=low, top=high)
    if panel.x_ticks:
        ax.set_xticks(panel.x_ticks, [f"{tick:,g}" for tick in panel.x_ticks])
        ax.minorticks_off()
    elif panel.x_log:
        plain_log_labels(ax.xaxis, *ax.get_xlim())
    ax.grid(alpha=0.25, linewidth=0.5)


def plain_log_labels(axis: Axis, low: float, high: float) -> None:
    """Numbers as people write them, 0.05 and 2,000, in the place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    few = log10(high / low) < FEW_DECADES and high < LONG_LABEL
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(NullFormatter())


def _draw_curve(panel: Panel, curve: Curve, ax: Axes) -> None:
    if len(curve.x) != len(curve.band.mean):
        raise FigureError(
            f"{panel.title}: curve {curve.label!r} has {len(curve.x)} places, {len(curve.band.mean)} values"
        )
    colour = COLOURS[curve.style % len(COLOURS)]
    dash = DASHES[curve.style % len(DASHES)]
    if curve.fit:
        ax.plot(curve.x, curve.band.mean, color=colour, label=curve.label, linestyle=":", linewidth=0.8)
        return
    ax.plot(
        curve.x,
        curve.band.mean,
        color=colour,
        label=curve.label,
        linestyle=dash,
        linewidth=0.9 if curve.foreign else 1.5,
        marker=MARKERS[curve.style % len(MARKERS)],
        markersize=4,
        markerfacecolor="white" if curve.foreign else colour,
        markevery=max(1, len(curve.x) // MARKS_PER_CURVE),
    )
    if not curve.foreign and not np.array_equal(curve.band.low, curve.band.high):
        shown = slice(None, None, ceil(len(curve.x) / BAND_PLACES))
        ax.fill_between(
            curve.x[shown],
            curve.band.low[shown],
            curve.band.high[shown],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
