"""The plot of a training over its epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from boneage_cli.core.plots.figure import BLUE, GREEN, GREY, ORANGE, figure_file

# Metrics of a history with their labels, the most informative first.
_CURVES = {"mae": "MAE (months)", "sex_error": "sex errors (fraction)", "loss": "loss"}


def learning_curve(history: pd.DataFrame, path: Path) -> Figure:
    """Draws the errors, the loss and the learning rate of a run over its epochs.

    Args:
        history: Rows with epoch, train_loss, val_loss and learning_rate, and depending on the
            model's targets train_mae and val_mae (months), train_sex_error and val_sex_error
            (fractions); missing values leave gaps.
        path: The PNG file.

    Returns:
        The figure that was written.
    """
    names = [name for name in _CURVES if f"val_{name}" in history]
    with figure_file(path, (7, 1.5 + 2.6 * len(names))) as figure:
        heights = [2.6] * len(names) + [1.3]
        *panels, rate = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for axes, name in zip(panels, names, strict=True):
            _curves(axes, history, name)
        _mark_best(panels[0], history, f"val_{names[0]}")
        # Above the panel, because the curves of a run that hardly learns fill it.
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
    # The axis includes zero, so that the decrease is visible; some losses are negative.
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
