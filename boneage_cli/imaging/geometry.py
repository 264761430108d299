"""Coordinate transform between a radiograph and the network's image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneage_cli.imaging.resize import halvings

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Matrix = NDArray[np.float64]
"""An affine transform, (2, 3)."""


@dataclass(frozen=True)
class Geometry:
    """The transform from a stored radiograph to the network's image: crop, resize, place.

    Points are fractions (x, y) of width and height: (0, 0) is the corner of the first pixel and
    (1, 1) that of the last.

    Attributes:
        source: Width and height of the stored radiograph, pixels.
        target: Width and height of the network's image, pixels.
        crop: Left, top, right and bottom of the crop, pixels of the radiograph.
        placed: Left, top, width and height of the crop in the network's image, pixels.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    crop: tuple[int, int, int, int]
    placed: tuple[int, int, int, int]

    @property
    def frame(self) -> Matrix:
        """Transform from fractions of the radiograph to fractions of the network's image."""
        width, height = self.source
        left, top, right, bottom = self.crop
        x, y, across, down = self.placed
        scale_x, scale_y = across / (right - left), down / (bottom - top)
        pixels = np.array(
            [[width * scale_x, 0, x - left * scale_x], [0, height * scale_y, y - top * scale_y]]
        )
        return pixels / np.array(self.target)[:, None]


def fit_geometry(
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    aspect: float | None = None,
    box: Box = (0.0, 0.0, 1.0, 1.0),
    keep_aspect: bool = True,
) -> Geometry:
    """Returns the geometry that fits a part of a radiograph into the network's image.

    Args:
        source: Width and height of the stored radiograph, pixels.
        target: Width and height of the network's image, pixels.
        aspect: Width divided by height of the radiograph as it was taken; None if its pixels are
            square.
        box: Left, top, right and bottom of the part, fractions of width and height.
        keep_aspect: True to centre the part with its true aspect ratio, False to stretch it over
            the whole image.
    """
    width, height = source
    left, right = _pixels(box[0], box[2], width)
    top, bottom = _pixels(box[1], box[3], height)
    across, down = target
    if keep_aspect:
        proportion = (right - left) / (bottom - top) * (aspect or width / height) * height / width
        across = min(across, max(1, round(target[1] * proportion)))
        down = min(down, max(1, round(target[0] / proportion)))
    # Sides that halve evenly resize much faster; this trims less than half a pixel of the result.
    step = 2 ** halvings(right - left, bottom - top, across, down)
    left, right = _trim(left, right, step)
    top, bottom = _trim(top, bottom, step)
    placed = ((target[0] - across) // 2, (target[1] - down) // 2, across, down)
    return Geometry(source, target, (left, top, right, bottom), placed)


def _pixels(first: float, last: float, length: int) -> tuple[int, int]:
    start = min(max(int(np.floor(first * length)), 0), length - 1)
    return start, max(min(int(np.ceil(last * length)), length), start + 1)


def _trim(start: int, stop: int, step: int) -> tuple[int, int]:
    spare = (stop - start) % step
    return start + spare // 2, stop - (spare - spare // 2)
