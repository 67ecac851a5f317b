"""Milliseconds of a node and round by part, before beside after, as bars."""

from __future__ import annotations

from pathlib import Path

from sim.figures.plots import COLOURS, STYLE, FigureError, save
from sim.figures.profile.read import ToldProfile
from sim.figures.profile.shares import parts_by_size

LABELS = ("before", "after")
HATCHES = ("", "//")
HEIGHT = 0.8
"""Of the bars of one part; the next part is 1 away."""
INCHES = (7.5, 0.4)
"""Width of the picture, and height of each part."""
HEADROOM = 1.12
"""Beyond the longest bar, for its number."""


def draw_parts(told: ToldProfile, stem: Path) -> None:
    """Write `stem`.png and `stem`.svg; of the profiles that are there. FigureError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FigureError("figures need matplotlib: pip install 'flocknode[figures]'") from error
    parts = parts_by_size(told)
    styles = zip((told.before, told.after), LABELS, COLOURS, HATCHES, strict=False)
    shown = [each for each in styles if each[0] is not None]
    thickness = HEIGHT / max(1, len(shown))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(INCHES[0], 1.2 + INCHES[1] * len(parts)), layout="constrained")
        axes = figure.subplots()
        longest = 0.0
        for number, (profile, label, colour, hatch) in enumerate(shown):
            assert profile is not None
            lengths = [profile.part_ms(part) for part in parts]
            places = [place + (number - (len(shown) - 1) / 2) * thickness for place in range(len(parts))]
            bars = axes.barh(
                places, lengths, thickness * 0.92, label=label, color=colour, hatch=hatch, edgecolor="white"
            )
            axes.bar_label(bars, [f"{length:.1f}" for length in lengths], fontsize=7, padding=2)
            longest = max([longest, *lengths])
        axes.set_yticks(range(len(parts)), parts)
        axes.invert_yaxis()
        axes.set_xlim(0, longest * HEADROOM or 1)
        axes.set_xlabel("CPU time of a node in a round, ms")
        figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=len(shown))
        save(figure, stem)
