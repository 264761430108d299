"""Draws a heat map, regions and key points over a radiograph."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_cli.imaging.foreground import centre_intensities
from boneage_cli.imaging.gray_levels import to_8_bits
from boneage_cli.imaging.landmarks import Landmarks, Points
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.warping import warp

# Values 0 to 1 over a whole radiograph in its true proportions, float32 (H, W).
HeatMap = NDArray[np.float32]

# Height of the picture, pixels.
HEIGHT = 512
# Colour of each view's outline, (blue, green, red).
COLOURS = {"hand": (250, 200, 120), "carpal": (80, 220, 80), "metaph": (60, 220, 250)}
# Opacity at the maximum of the heat map, low enough for the bones to stay visible.
_OPAQUE = 0.45


def heat_colours(heat: HeatMap) -> np.ndarray:
    """Returns the colours of a heat map, uint8 (H, W, 3), blue, green, red."""
    return cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_JET)


def overlay(
    radiograph: Radiograph,
    *,
    heat: HeatMap | None = None,
    outlines: Iterable[tuple[str, Points]] = (),
    landmarks: Landmarks | None = None,
) -> np.ndarray:
    """Draws a heat map, outlines and key points over a radiograph.

    Args:
        radiograph: Any size and depth.
        heat: Heat map, transparent at 0 and red at 1.
        outlines: The view's name, which gives the colour, and its corners, (4, 2) fractions of the
            radiograph's width and height; the side from the first to the second is drawn thicker.
        landmarks: The key points of the hand, drawn as crosses.

    Returns:
        uint8 (512, W, 3), blue, green, red, in the radiograph's true proportions and with its
        contrast stretched.
    """
    width = max(round(HEIGHT * aspect_of(radiograph)), 1)
    levels = warp(radiograph, np.eye(2, 3), HEIGHT, width, rounded=False)
    # Stretches the contrast, since films are often faint and bones must be visible below the heat.
    black, white = centre_intensities(Radiograph(levels))
    shown = to_8_bits(levels, black, white) if white - black >= 1 else to_8_bits(levels)
    canvas = cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)
    if heat is not None:
        hot: HeatMap = cv2.resize(heat, (width, HEIGHT)).astype(np.float32, copy=False)
        colours = heat_colours(hot)
        opaque = _OPAQUE * hot[:, :, None]
        canvas = np.rint(canvas * (1 - opaque) + colours * opaque).astype(np.uint8)
    for view, corners in outlines:
        points = np.rint(corners * (width, HEIGHT)).astype(np.int32)
        cv2.polylines(canvas, [points], isClosed=True, color=COLOURS[view], thickness=2)
        cv2.line(canvas, points[0].tolist(), points[1].tolist(), COLOURS[view], 4)
    if landmarks is not None:
        for x, y in np.rint(landmarks.array() * (width, HEIGHT)).astype(int).tolist():
            cv2.drawMarker(canvas, (x, y), (80, 80, 255), cv2.MARKER_CROSS, 16, 2)
    return canvas
