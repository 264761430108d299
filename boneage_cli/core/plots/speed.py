"""Plots that compare the speed of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from boneage_cli.core.plots.figure import BLUE, LINES, figure_file
from boneage_cli.wording import three_digits

# One more marker than colours, so that many lines still differ in colour or marker.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def by_batch_size(
    series: Mapping[str, np.ndarray], path: Path, label: str, title: str = ""
) -> Figure:
    """Draws a quantity of several networks against the batch size.

    Args:
        series: For each network batch sizes and values above 0, shape (n, 2), in the order of the
            legend.
        path: The PNG file.
        label: Name of the quantity, with its unit.
        title: The plot's heading.

    Returns:
        The figure that was written.
    """
    sizes = np.unique(np.concatenate([points[:, 0] for points in series.values()]))
    figures = np.concatenate([points[:, 1] for points in series.values()])
    # The height leaves room for the legend, two networks per line.
    with figure_file(path, (7.5, 4.6 + 0.11 * len(series))) as figure:
        axes = figure.subplots()
        for place, (network, points) in enumerate(series.items()):
            axes.plot(
                *points.T,
                color=LINES[place % len(LINES)],
                marker=_MARKERS[place % len(_MARKERS)],
                markersize=5,
                label=network,
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sizes.tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda size, _: f"{size:g}")
        if figures.max() > 10 * figures.min():
            # Small and large networks together need a logarithmic scale.
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            axes.set_ylim(0, 1.08 * figures.max())
        axes.set_xlabel("batch size")
        axes.set_ylabel(label)
        axes.set_title(title, loc="left", fontsize=11)
        figure.legend(loc="outside lower left", frameon=False, ncols=2 if len(series) > 1 else 1)
    return figure


def bars(
    names: Sequence[str], values: np.ndarray, path: Path, label: str, title: str = ""
) -> Figure:
    """Draws a quantity of several networks as bars, labelled with their values.

    Args:
        names: The names of n networks, from top to bottom.
        values: Their values, shape (n,).
        path: The PNG file.
        label: Name of the quantity, with its unit.
        title: The plot's heading.

    Returns:
        The figure that was written.
    """
    places = np.arange(len(names))
    with figure_file(path, (7.5, 2.9 + 0.3 * len(names))) as figure:
        axes = figure.subplots()
        drawn = axes.barh(places, values, color=BLUE, height=min(0.7, 0.25 * len(names)))
        # The white background keeps grid lines from crossing the numbers.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        numbers = [three_digits(value) for value in values]
        axes.bar_label(drawn, labels=numbers, padding=4, bbox=ground)
        axes.set_yticks(places, names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * float(np.max(values)))
        axes.set_xlabel(label)
        axes.set_title(title, loc="left", fontsize=11)
    return figure
