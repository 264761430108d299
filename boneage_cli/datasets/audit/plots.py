"""Plots of a data set as SVG text with a transparent background, for light or dark pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from boneage_cli.ages import OLDEST_BONE_AGE
from boneage_cli.datasets.audit.audit import Audit
from boneage_cli.datasets.audit.image_statistics import BINS
from boneage_cli.datasets.audit.images import DARK, FAINT
from boneage_cli.datasets.audit.labels import bone_ages

# Palette of Okabe & Ito 2008, whose colours colour-blind readers can distinguish.
_SPLIT_COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}
_BOYS, _GIRLS, _UNKNOWN = "#0072B2", "#D55E00", "#8a8f98"
# Readable on white and on near-black.
_INK = "#7d8694"


class Plot(NamedTuple):
    """A plot with its title and caption."""

    title: str
    svg: str
    caption: str
    wide: bool = False


def audit_plots(audit: Audit) -> list[Plot]:
    """Draws bone ages, intensities, exposure and image sizes, if known."""
    plots = [_ages(audit)] if len(bone_ages(audit.rows)) else []
    if any(row.statistics for row in audit.rows):
        plots += [_histograms(audit), _exposure(audit), _sizes(audit)]
    return plots


def _ages(audit: Audit) -> Plot:
    splits = {split: rows for split, rows in audit.by_split().items() if len(bone_ages(rows))}
    drawing = io.StringIO()
    with _figure(drawing, (9.2, 2.9)) as figure:
        panels = figure.subplots(1, len(splits), squeeze=False, sharex=True)[0]
        for axes, (split, rows) in zip(panels, splits.items(), strict=True):
            by_sex = {
                "girls": (_GIRLS, [row for row in rows if row.male is False]),
                "boys": (_BOYS, [row for row in rows if row.male is True]),
                "sex unknown": (_UNKNOWN, [row for row in rows if row.male is None]),
            }
            groups = {name: group for name, group in by_sex.items() if len(bone_ages(group[1]))}
            axes.hist(
                [bone_ages(group) for _, group in groups.values()],
                bins=np.arange(0, OLDEST_BONE_AGE + 1, 12).tolist(),
                stacked=True,
                color=[colour for colour, _ in groups.values()],
                label=list(groups),
                rwidth=0.9,
            )
            axes.set_title(f"{split} ({len(bone_ages(rows)):,})", loc="left")
            axes.set_xlabel("bone age (months)")
            axes.set_xticks(range(0, int(OLDEST_BONE_AGE) + 1, 48))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        panels[0].set_ylabel("radiographs")
    return Plot(
        "Bone age and sex", drawing.getvalue(), "One bar for each year of bone age.", wide=True
    )


def _histograms(audit: Audit) -> Plot:
    drawing = io.StringIO()
    edges = np.linspace(0, 100, BINS + 1)
    with _figure(drawing, (9.2, 3.2)) as figure:
        axes = figure.subplots()
        for split, rows in audit.by_split().items():
            images = [row.statistics.histogram for row in rows if row.statistics]
            if not images:
                continue
            shares = 100 * np.array(images)
            low, high = np.percentile(shares, [10, 90], axis=0)
            colour = _SPLIT_COLOURS[split]
            axes.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.15, lw=0)
            axes.stairs(shares.mean(axis=0), edges, color=colour, lw=1.4, label=split)
        axes.set_yscale("symlog", linthresh=1, linscale=0.6)
        axes.set_ylim(bottom=0)
        axes.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.set_xlim(0, 100)
        axes.set_xlabel("intensity (% of full white)")
        axes.set_ylabel("share of pixels (%)")
        axes.legend()
    caption = (
        "Lines are means over the images of a split, bands cover the middle 80 % of the images. "
        "If the lines of two splits differ, they were exposed or processed differently."
    )
    return Plot("Intensity histograms", drawing.getvalue(), caption, wide=True)


def _exposure(audit: Audit) -> Plot:
    drawing = io.StringIO()
    with _figure(drawing, (4.5, 3.8)) as figure:
        axes = figure.subplots()
        for split, rows in audit.by_split().items():
            points = np.array(
                [(row.statistics.mean, row.statistics.contrast) for row in rows if row.statistics]
            )
            _cloud(axes, 100 * points, split)
        axes.axvline(100 * DARK, color=_INK, lw=0.8, ls=":")
        axes.axhline(100 * FAINT, color=_INK, lw=0.8, ls=":")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("mean intensity (% of full white)")
        axes.set_ylabel("standard deviation (%)")
        _legend(axes)
    caption = (
        "One point per image. Left of the vertical dotted line: very dark; below the horizontal "
        "one: faint, which means low contrast."
    )
    return Plot("Exposure", drawing.getvalue(), caption)


def _sizes(audit: Audit) -> Plot:
    drawing = io.StringIO()
    known = any(row.width and row.height for row in audit.rows)
    with _figure(drawing, (4.5, 3.8)) as figure:
        axes = figure.subplots()
        for split, rows in audit.by_split().items():
            sizes = [row.true_size(row.statistics) for row in rows if row.statistics]
            _cloud(axes, np.array(sizes), split)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.05)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
        axes.set_aspect("equal")
        axes.set_xlabel("width (pixels)")
        axes.set_ylabel("height (pixels)")
        _legend(axes)
    caption = "One point per image" + (
        "; its original size where the table has it." if known else "."
    )
    return Plot("Image size", drawing.getvalue(), caption)


def _cloud(axes: Axes, points: np.ndarray, split: str) -> None:
    if len(points):
        # Points are rasterized, because thousands of vector shapes would make the page slow.
        alpha = float(np.clip(30 / np.sqrt(len(points)), 0.25, 0.8))
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=7,
            lw=0,
            alpha=alpha,
            color=_SPLIT_COLOURS[split],
            label=split,
            rasterized=True,
        )


def _legend(axes: Axes) -> None:
    for handle in axes.legend(markerscale=2).legend_handles:
        if handle is not None:
            handle.set_alpha(1)


@contextmanager
def _figure(drawing: io.StringIO, size: tuple[float, float]) -> Iterator[Figure]:
    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.titlesize": 9.5,
        "legend.frameon": False,
        "svg.hashsalt": "boneage",
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained", dpi=200)
        yield figure
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=_INK, alpha=0.2, lw=0.6)
            axes.set_axisbelow(True)
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
