"""The plot of predicted against known sexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from boneage_cli.core.plots.figure import BLUE, GREY, ORANGE, figure_file, head
from boneage_cli.sexes import says_boy


def sexes(male: np.ndarray, probability: np.ndarray, path: Path, title: str = "") -> Figure:
    """Draws the ROC curve and the calibration of predicted sexes.

    Left the receiver operating characteristic, with the threshold of 0.5 marked; right the share of
    boys against the predicted probability, in tenths (by probability) of equal size.

    Args:
        male: Whether each child is a boy, (n,).
        probability: Predicted probability of a boy, (n,).
        path: The PNG file.
        title: The plot's heading; the accuracy and n are added to it.

    Returns:
        The figure that was written.
    """
    male, probability = np.asarray(male, bool), np.asarray(probability, float)
    said = says_boy(probability)
    with figure_file(path, (9, 4.8)) as figure:
        curve, calibration = figure.subplots(1, 2)
        for axes in (curve, calibration):
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if male.any() and not male.all():
            order = np.argsort(-probability, kind="stable")
            # Equal probabilities are one point of the curve.
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
        head(curve, title, f"{(said == male).mean():.1%} of sexes right, n = {len(male)}")
    return figure
