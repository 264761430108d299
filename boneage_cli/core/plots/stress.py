"""The plot of the stress test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from boneage_cli.core.plots.figure import GREEN, GREY, ORANGE, figure_file, head
from boneage_cli.wording import decimal


def mae_increases(
    names: Sequence[str],
    groups: Sequence[str],
    increases: np.ndarray,
    path: Path,
    title: str = "",
    figures: str = "",
) -> Figure:
    """Draws the increase in MAE under each perturbation, with intervals.

    The axis is linear up to one month and logarithmic beyond, since some perturbations increase
    the MAE by a tenth of a month and others by years.

    Args:
        names: The names of n perturbations, from top to bottom.
        groups: The group of each perturbation; neighbours of one group are drawn together.
        increases: Increase in MAE, months, and the ends of its interval, shape (n, 3).
        path: The PNG file.
        title: The plot's heading.
        figures: A line of metrics added to the heading.

    Returns:
        The figure that was written.
    """
    # Rounded as printed, so that an interval that ends at 0.00 does not count as different from 0.
    increases = np.round(np.asarray(increases, float).reshape(-1, 3), 2)
    starts = [place for place, group in enumerate(groups) if place and group != groups[place - 1]]
    # A gap separates the groups.
    places = range(len(names))
    heights = np.array([place + 0.6 * sum(start <= place for start in starts) for place in places])
    with figure_file(path, (7.5, 1.8 + 0.25 * heights.max(initial=1))) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for height, (value, low, high) in zip(heights, increases, strict=True):
            colour = ORANGE if low > 0 else GREEN if high < 0 else GREY
            axes.plot([low, high], [height, height], color=colour, linewidth=2)
            axes.plot(value, height, "o", color=colour, markersize=5)
            axes.annotate(
                decimal(value, 2, "+").replace("-", "−").replace("+0.00", "0.00"),
                (1.01, height),
                xycoords=("axes fraction", "data"),
                color=colour,
                fontsize=9,
                va="center",
                annotation_clip=False,
            )
        axes.set_yticks(heights, names)
        axes.set_ylim(heights.max(initial=0) + 0.8, -0.8)
        _months_of_any_size(axes.xaxis, increases)
        axes.set_xlabel("increase in MAE (months, 95 % interval)")
        head(axes, title, figures)
    return figure


def _months_of_any_size(axis: Axis, values: np.ndarray) -> None:
    low = 1.15 * min(float(values.min(initial=0)), -0.2)
    high = 1.15 * max(float(values.max(initial=0)), 1.0)
    axis.axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axis.axes.set_xlim(low, high)
    steps = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)
    ticks = [step for step in (*(-step for step in steps), 0, *steps) if low <= step <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda tick, _: f"{tick:+g}".replace("-", "−") if tick else "0")
