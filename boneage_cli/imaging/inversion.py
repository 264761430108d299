"""Detection of inverted radiographs: black bone on white, saved so by a viewer."""

from __future__ import annotations

import numpy as np

from boneage_cli.imaging.geometry import Box, Matrix
from boneage_cli.imaging.landmarks import Landmarks
from boneage_cli.imaging.radiograph import Radiograph, aspect_of
from boneage_cli.imaging.registration import apply_inverse, canonical_from_image


def is_negative(radiograph: Radiograph, landmarks: Landmarks) -> bool:
    """Whether the radiograph is inverted: the hand is darker than its surroundings.

    Compares the median of the palm with those of two narrow strips next to wrist and forearm;
    beyond a collimated field, the background may be bright in a positive, too.

    Args:
        radiograph: Any size and depth.
        landmarks: The key points of its hand.
    """
    matrix = canonical_from_image(landmarks, aspect_of(radiograph))
    palm, *beside = (
        _sampled(radiograph, matrix, box)
        for box in ((-0.10, -0.40, 0.20, 0.10), (-0.38, 0.0, -0.24, 0.2), (0.24, 0.1, 0.36, 0.3))
    )
    levels = [np.median(strip) for strip in beside if strip.size]
    return bool(palm.size and levels and np.median(palm) < min(levels))


def _sampled(radiograph: Radiograph, matrix: Matrix, box: Box) -> np.ndarray:
    """Samples pixels on a grid in a canonical-frame box, skipping points outside the image."""
    left, top, right, bottom = box
    grid = np.stack(np.meshgrid(np.linspace(left, right, 16), np.linspace(top, bottom, 16)), -1)
    places = apply_inverse(matrix, grid.reshape(-1, 2))
    inside = places[((places >= 0) & (places < 1)).all(1)]
    height, width = radiograph.pixels.shape
    columns, rows = (inside * (width, height)).astype(int).T
    return radiograph.pixels[rows, columns]
