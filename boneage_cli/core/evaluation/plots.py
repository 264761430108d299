"""Plots of training, of predicted against known ages and sexes, and of speed, as PNG files.

They use matplotlib's figures directly instead of pyplot, so that they need no display, keep no
state, and may be drawn from several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, MultipleLocator, NullLocator

from boneage_cli.files import whole_file
from boneage_cli.sexes import says_boy

# Okabe & Ito 2008, a palette that colour-blind readers tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_LINES = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# One more than there are colours, so that no two of many lines have both in common.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# What a history tells of each epoch, the most telling first.
_CURVES = {"mae": "MAE (months)", "sex_error": "sex errors (fraction)", "loss": "loss"}


def learning_curve(history: pd.DataFrame, path: Path) -> Figure:
    """Draws the errors, the loss and the learning rate of a run over its epochs.

    Args:
        history: Rows with epoch, train_loss, val_loss and learning_rate, and where the model
            predicts them train_mae and val_mae (months), train_sex_error and val_sex_error
            (fractions); missing values leave gaps.
        path: The PNG file.

    Returns:
        What was written.
    """
    names = [name for name in _CURVES if f"val_{name}" in history]
    with _figure(path, (7, 1.5 + 2.6 * len(names))) as figure:
        heights = [2.6] * len(names) + [1.3]
        *panels, rate = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for axes, name in zip(panels, names, strict=True):
            _curves(axes, history, name)
        _mark_best(panels[0], history, f"val_{names[0]}")
        # Above the curves, which fill the panel of a run that hardly learns.
        panels[0].legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderpad=0.2
        )
        rate.plot(history["epoch"], history["learning_rate"], color=GREY, marker="o", markersize=3)
        rate.set_ylabel("learning rate")
        if history["learning_rate"].max() > 3 * history["learning_rate"].min() > 0:
            rate.set_yscale("log")
        rate.set_xlabel("epoch")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def scatter(
    true: np.ndarray,
    predicted: np.ndarray,
    path: Path,
    title: str = "",
    male: np.ndarray | None = None,
) -> Figure:
    """Draws predicted against known ages, with the line on which they are equal.

    Args:
        true: Known ages in months, shape (n,).
        predicted: Predicted ages in months, shape (n,).
        path: The PNG file.
        title: The plot's heading; the MAE and n are added to it.
        male: Sex per radiograph, shape (n,), to tell boys from girls; None for one colour.

    Returns:
        What was written.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    with _figure(path, (6, 6)) as figure:
        axes = figure.subplots()
        low, high = _limits(np.concatenate([true, predicted]))
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, label="equal")
        for label, rows, colour, marker in _groups(len(true), male):
            axes.scatter(
                true[rows],
                predicted[rows],
                s=_marker_size(len(true)),
                c=colour,
                marker=marker,
                alpha=_opacity(len(true)),
                linewidths=0,
                label=label,
            )
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel("known bone age (months)")
        axes.set_ylabel("predicted bone age (months)")
        _whole_years(axes.xaxis, axes.yaxis)
        mae = np.abs(predicted - true).mean()
        _head(axes, title, f"MAE {mae:.2f} months, n = {len(true)}")
        legend = axes.legend(loc="upper left", frameon=False)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    return figure


def bland_altman(true: np.ndarray, predicted: np.ndarray, path: Path, title: str = "") -> Figure:
    """Draws the difference of predicted and known age over their mean, with limits of agreement.

    The limits are bias ± 1.96 standard deviations (Bland & Altman, Lancet 1986;327:307–310).

    Args:
        true: Known ages in months, shape (n,).
        predicted: Predicted ages in months, shape (n,).
        path: The PNG file.
        title: The plot's heading.

    Returns:
        What was written.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    differences = predicted - true
    bias = differences.mean()
    spread = 1.96 * differences.std(ddof=1) if len(differences) > 1 else 0.0
    with _figure(path, (7.5, 5)) as figure:
        axes = figure.subplots()
        axes.scatter(
            (true + predicted) / 2,
            differences,
            s=_marker_size(len(true)),
            c=BLUE,
            alpha=_opacity(len(true)),
            linewidths=0,
        )
        axes.axhline(0, color=GREY, linewidth=0.8)
        reach = 1.1 * max(np.abs(differences).max(), abs(bias) + spread, 1.0)
        axes.set_ylim(-reach, reach)
        lines = [(bias, "-", f"bias: {bias:+.1f}")]
        if spread:
            lines += [
                (bias + spread, "--", f"+1.96 SD: {bias + spread:+.1f}"),
                (bias - spread, "--", f"−1.96 SD: {bias - spread:+.1f}"),
            ]
        for height, style, label in lines:
            axes.axhline(height, color=ORANGE, linestyle=style, linewidth=1.4)
            axes.annotate(
                label.replace("-", "−"),
                (1.01, height),
                xycoords=("axes fraction", "data"),
                color=ORANGE,
                va="center",
                annotation_clip=False,
            )
        axes.set_xlabel("mean of known and predicted bone age (months)")
        axes.set_ylabel("predicted − known bone age (months)")
        _whole_years(axes.xaxis)
        _head(axes, title, f"limits of agreement, n = {len(true)}")
    return figure


def sexes(male: np.ndarray, probability: np.ndarray, path: Path, title: str = "") -> Figure:
    """Draws how well boys are told from girls, and whether probabilities mean what they say.

    Left the receiver operating characteristic, with the threshold of 0.5 marked; right the share of
    boys among radiographs of like probability, in tenths of equal size, against that probability.

    Args:
        male: Whether each child is a boy, (n,).
        probability: Of being a boy, (n,).
        path: The PNG file.
        title: The plot's heading; the share that is right and n are added to it.

    Returns:
        What was written.
    """
    male, probability = np.asarray(male, bool), np.asarray(probability, float)
    said = says_boy(probability)
    with _figure(path, (9, 4.8)) as figure:
        curve, calibration = figure.subplots(1, 2)
        for axes in (curve, calibration):
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if male.any() and not male.all():
            order = np.argsort(-probability, kind="stable")
            # Equal probabilities lie on one side of every threshold.
            ends = np.append(np.diff(probability[order]) != 0, True)
            found = np.cumsum(male[order])[ends] / male.sum()
            mistaken = np.cumsum(~male[order])[ends] / (~male).sum()
            curve.plot(np.append(0, mistaken), np.append(0, found), color=BLUE)
            curve.plot(
                said[~male].mean(),
                said[male].mean(),
                "o",
                color=ORANGE,
                label="probability above 0.5",
            )
            curve.legend(loc="lower right", frameon=False)
        curve.set_xlabel("share of girls taken for boys")
        curve.set_ylabel("share of boys found")
        tenths = np.array_split(np.argsort(probability, kind="stable"), min(10, len(male)))
        calibration.plot(
            [probability[rows].mean() for rows in tenths],
            [male[rows].mean() for rows in tenths],
            "o-",
            color=BLUE,
        )
        calibration.set_xlabel("predicted probability of a boy, mean of a tenth")
        calibration.set_ylabel("share of boys in it")
        _head(curve, title, f"{(said == male).mean():.1%} of sexes right, n = {len(male)}")
    return figure


def losses(
    names: Sequence[str],
    groups: Sequence[str],
    lost: np.ndarray,
    path: Path,
    title: str = "",
    figures: str = "",
) -> Figure:
    """Draws by how much an error grows under each of several changes, with intervals.

    The axis is linear up to one month and logarithmic beyond, since some changes cost a tenth of a
    month and others years.

    Args:
        names: Of n changes, drawn from above.
        groups: What each concerns, n of them; neighbours of one group stand together.
        lost: Growth in months and the ends of its interval, shape (n, 3).
        path: The PNG file.
        title: The plot's heading.
        figures: What is added to the heading.

    Returns:
        What was written.
    """
    # An interval whose end is 0.00 as printed shows nothing, whatever the sign of what is left.
    lost = np.round(np.asarray(lost, float).reshape(-1, 3), 2)
    starts = [place for place, group in enumerate(groups) if place and group != groups[place - 1]]
    # A gap parts the groups.
    places = range(len(names))
    heights = np.array([place + 0.6 * sum(start <= place for start in starts) for place in places])
    with _figure(path, (7.5, 1.8 + 0.25 * heights.max(initial=1))) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for height, (value, low, high) in zip(heights, lost, strict=True):
            colour = ORANGE if low > 0 else GREEN if high < 0 else GREY
            axes.plot([low, high], [height, height], color=colour, linewidth=2)
            axes.plot(value, height, "o", color=colour, markersize=5)
            axes.annotate(
                # Adding zero turns -0.0 into 0.0.
                f"{value + 0.0:+.2f}".replace("-", "−").replace("+0.00", "0.00"),
                (1.01, height),
                xycoords=("axes fraction", "data"),
                color=colour,
                fontsize=9,
                va="center",
                annotation_clip=False,
            )
        axes.set_yticks(heights, names)
        axes.set_ylim(heights.max(initial=0) + 0.8, -0.8)
        _months_of_any_size(axes.xaxis, lost)
        axes.set_xlabel("MAE lost (months, 95 % interval)")
        _head(axes, title, figures)
    return figure


def by_batch_size(
    series: Mapping[str, np.ndarray], path: Path, label: str, title: str = ""
) -> Figure:
    """Draws a figure of several networks against the batch size.

    Args:
        series: Of each network batch sizes and figures above 0, shape (n, 2); in the order in which
            the legend names them.
        path: The PNG file.
        label: What the figure is, with its unit.
        title: The plot's heading.

    Returns:
        What was written.
    """
    sizes = np.unique(np.concatenate([points[:, 0] for points in series.values()]))
    figures = np.concatenate([points[:, 1] for points in series.values()])
    # Room for the legend, two networks a line.
    with _figure(path, (7.5, 4.6 + 0.11 * len(series))) as figure:
        axes = figure.subplots()
        for place, (network, points) in enumerate(series.items()):
            axes.plot(
                *points.T,
                color=_LINES[place % len(_LINES)],
                marker=_MARKERS[place % len(_MARKERS)],
                markersize=5,
                label=network,
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sizes.tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda size, _: f"{size:g}")
        if figures.max() > 10 * figures.min():
            # Small and large networks side by side.
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
    """Draws a figure of several networks as bars, each with its number.

    Args:
        names: Of n networks, drawn from above.
        values: Their figures, shape (n,).
        path: The PNG file.
        label: What the figure is, with its unit.
        title: The plot's heading.

    Returns:
        What was written.
    """
    places = np.arange(len(names))
    with _figure(path, (7.5, 2.9 + 0.3 * len(names))) as figure:
        axes = figure.subplots()
        drawn = axes.barh(places, values, color=BLUE, height=min(0.7, 0.25 * len(names)))
        # Their white ground keeps the grid from running through the numbers.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        numbers = [_three_digits(value) for value in values]
        axes.bar_label(drawn, labels=numbers, padding=4, bbox=ground)
        axes.set_yticks(places, names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * float(np.max(values)))
        axes.set_xlabel(label)
        axes.set_title(title, loc="left", fontsize=11)
    return figure


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    yield figure
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E6E6E6")
        axes.set_axisbelow(True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def _curves(axes: Axes, history: pd.DataFrame, name: str) -> None:
    for phase, label, colour, style in (
        ("train", "training", ORANGE, "--"),
        ("val", "validation", BLUE, "-"),
    ):
        axes.plot(
            history["epoch"],
            history[f"{phase}_{name}"],
            color=colour,
            linestyle=style,
            marker="o",
            markersize=3,
            label=label,
        )
    axes.set_ylabel(_CURVES[name])
    # From zero, so that the eye sees how far it has come down; some losses go below.
    values = history[[f"train_{name}", f"val_{name}"]].to_numpy(float)
    values = values[np.isfinite(values)]
    if len(values):
        low, high = min(0.0, values.min()), max(0.0, values.max())
        reach = 0.08 * (high - low or 1.0)
        axes.set_ylim(low - reach if low else low, high + reach)


def _mark_best(axes: Axes, history: pd.DataFrame, column: str) -> None:
    values = history[column].to_numpy(float)
    if not np.isfinite(values).any():
        return
    best = int(np.nanargmin(values))
    epoch = int(history["epoch"].iloc[best])
    axes.plot(
        epoch,
        values[best],
        marker="*",
        markersize=14,
        color=GREEN,
        linestyle="none",
        label=f"best: {values[best]:.4g}, epoch {epoch}",
    )


def _groups(
    number: int, male: np.ndarray | None
) -> Iterator[tuple[str | None, np.ndarray, str, str]]:
    if male is None:
        yield None, np.ones(number, bool), BLUE, "o"
        return
    boys = np.asarray(male, bool)
    yield f"girls ({(~boys).sum()})", ~boys, ORANGE, "o"
    yield f"boys ({boys.sum()})", boys, BLUE, "^"


def _limits(values: np.ndarray) -> tuple[float, float]:
    return min(0.0, 12 * np.floor(values.min() / 12)), 12 * np.ceil(values.max() / 12 + 0.01)


def _whole_years(*ages: Axis) -> None:
    for axis in ages:
        low, high = sorted(axis.get_view_interval())
        if high - low > 24:
            axis.set_major_locator(MultipleLocator(12 if high - low <= 72 else 24))


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


def _marker_size(number: int) -> float:
    return float(np.clip(600 / np.sqrt(max(number, 1)), 5, 36))


def _opacity(number: int) -> float:
    return float(np.clip(15 / np.sqrt(max(number, 1)), 0.25, 0.8))


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _head(axes: Axes, title: str, figures: str) -> None:
    axes.set_title(f"{title}\n{figures}" if title else figures, loc="left", fontsize=11)
