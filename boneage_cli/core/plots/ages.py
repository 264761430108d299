"""Plots of predicted against known ages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from boneage_cli.core.plots.figure import BLUE, GREY, ORANGE, figure_file, head


def scatter(
    true: np.ndarray,
    predicted: np.ndarray,
    path: Path,
    title: str = "",
    male: np.ndarray | None = None,
) -> Figure:
    """Draws predicted against known ages, with the line of equality.

    Args:
        true: Known ages in months, shape (n,).
        predicted: Predicted ages in months, shape (n,).
        path: The PNG file.
        title: The plot's heading; the MAE and n are added to it.
        male: Whether each child is a boy, shape (n,), for two colours; None for one colour.

    Returns:
        The figure that was written.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    with figure_file(path, (6, 6)) as figure:
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
        head(axes, title, f"MAE {mae:.2f} months, n = {len(true)}")
        legend = axes.legend(loc="upper left", frameon=False)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    return figure


def bland_altman(true: np.ndarray, predicted: np.ndarray, path: Path, title: str = "") -> Figure:
    """Draws predicted − known age over the mean of both, with limits of agreement.

    The limits are bias ± 1.96 standard deviations (Bland & Altman, Lancet 1986;327:307–310).

    Args:
        true: Known ages in months, shape (n,).
        predicted: Predicted ages in months, shape (n,).
        path: The PNG file.
        title: The plot's heading.

    Returns:
        The figure that was written.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    differences = predicted - true
    bias = differences.mean()
    spread = 1.96 * differences.std(ddof=1) if len(differences) > 1 else 0.0
    with figure_file(path, (7.5, 5)) as figure:
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
        head(axes, title, f"limits of agreement, n = {len(true)}")
    return figure


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
        # An impossible age among the labels would make millions of ticks.
        if 24 < high - low <= 480:
            axis.set_major_locator(MultipleLocator(12 if high - low <= 72 else 24))


def _marker_size(number: int) -> float:
    return float(np.clip(600 / np.sqrt(max(number, 1)), 5, 36))


def _opacity(number: int) -> float:
    return float(np.clip(15 / np.sqrt(max(number, 1)), 0.25, 0.8))
