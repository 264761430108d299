"""Places the two regions of the hand at the peaks of a model's heat map.

The method is that of HDA_Project's ROI locator: the lower of the two highest peaks is the carpus;
the highest peak above its square is the metacarpals and phalanges. Here peaks are true local
maxima, and squares may extend beyond the radiograph, so that both keep their shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from boneage_cli.core.explanation.overlay import HeatMap
from boneage_cli.imaging.landmarks import Points

# Side of the squares, as a fraction of the radiograph's shorter side (HDA_Project's value).
SIDE = 0.48
# Minimum heat of a peak, relative to the map's maximum; HDA_Project used 0.25 to 0.4.
THRESHOLD = 0.3


@dataclass(frozen=True)
class Peak:
    """A local maximum of a heat map: its position in pixels of the map, and its heat (0 to 1)."""

    x: int
    y: int
    heat: float

    @property
    def centre(self) -> Points:
        """The centre of its pixel, (2,), where (0, 0) is the map's corner."""
        return np.array((self.x + 0.5, self.y + 0.5))


@dataclass(frozen=True)
class SalientRegions:
    """The regions found in one heat map.

    Attributes:
        carpal: Corners of the carpal square, (4, 2) fractions of the radiograph's width and height,
            clockwise from the top left one. They may lie outside the radiograph.
        metaph: The same for the metacarpals and phalanges.
        heat: Heat of the lower of the two peaks, 0 to 1; 0 if one is missing.
        guessed: The regions without a peak. If one is missing, it is the other's reflection through
            the radiograph's centre, with the carpal one lower; if both are, they lie at the centre.
    """

    carpal: Points
    metaph: Points
    heat: float
    guessed: tuple[str, ...]


def find_peaks(heat: HeatMap, distance: float) -> list[Peak]:
    """Returns the local maxima of a heat map, highest first, after non-maximum suppression.

    Args:
        heat: Heat map, (H, W), non-negative.
        distance: Maxima within this distance of a higher peak are suppressed, pixels.
    """
    around = np.ones((3, 3), np.uint8)
    top = (heat > 0) & (heat >= cv2.dilate(heat, around))
    # A plateau on a slope also passes this test but is no maximum: some pixel at its edge, of the
    # same heat, has a hotter neighbour.
    rim = cv2.dilate(np.where(top, np.float32(-1), heat), around)
    _, labels, _, middles = cv2.connectedComponentsWithStats(top.astype(np.uint8), connectivity=8)
    level, first = np.unique(labels, return_index=True)
    on_slope = np.unique(labels[top & (rim >= heat)])
    candidates = [
        Peak(round(middles[label][0]), round(middles[label][1]), float(heat.flat[place]))
        for label, place in zip(level, first, strict=True)
        if label and label not in on_slope
    ]
    peaks: list[Peak] = []
    for peak in sorted(candidates, key=lambda peak: -peak.heat):
        if all(math.hypot(peak.x - other.x, peak.y - other.y) > distance for other in peaks):
            peaks.append(peak)
    return peaks


def place_regions(heat: HeatMap, threshold: float = THRESHOLD) -> SalientRegions:
    """Places the carpal and the metacarpal/phalangeal square by a heat map.

    Args:
        heat: Heat map of the whole radiograph in its true proportions, fingers upwards, (H, W), 0
            to 1.
        threshold: Minimum heat of a peak.
    """
    height, width = heat.shape
    side = SIDE * min(height, width)
    peaks = [peak for peak in find_peaks(heat, side / 2) if peak.heat >= threshold]
    middle = np.array((width, height)) / 2
    carpal = max(peaks[:2], key=lambda peak: peak.y, default=None)
    # Peaks at the height of the carpal square or below belong to the wrist and forearm.
    above = [peak for peak in peaks if carpal and peak.y < carpal.y - side / 2]
    metaph = above[0] if above else None
    if carpal and not metaph and carpal.y < height / 2:
        # A single peak in the upper half is taken as metaph, so that the carpal square is the
        # lower of the peak and its reflection.
        carpal, metaph = None, carpal
    carpal_centre = carpal.centre if carpal else 2 * middle - (metaph.centre if metaph else middle)
    metaph_centre = metaph.centre if metaph else 2 * middle - carpal_centre
    square = side / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    found = {"carpal": carpal, "metaph": metaph}
    return SalientRegions(
        carpal=(carpal_centre + square) / (width, height),
        metaph=(metaph_centre + square) / (width, height),
        heat=min(peak.heat if peak else 0.0 for peak in found.values()),
        guessed=tuple(region for region, peak in found.items() if peak is None),
    )
