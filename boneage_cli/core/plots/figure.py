"""Common parts of all plots: file output, style of axes, colours and headings.

Plots use matplotlib's figures directly instead of pyplot, so that they need no display, keep no
global state, and can be drawn from several threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from boneage_cli.files import whole_file

# Okabe & Ito 2008, a palette for colour-blind readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
LINES = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@contextmanager
def figure_file(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Yields a figure to draw on, and writes it when the block ends.

    Args:
        path: The PNG file.
        size: Width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    yield figure
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E6E6E6")
        axes.set_axisbelow(True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def head(axes: Axes, title: str, figures: str) -> None:
    """Sets a plot's heading: a title, which may be empty, and below it a line of metrics."""
    axes.set_title(f"{title}\n{figures}" if title else figures, loc="left", fontsize=11)
