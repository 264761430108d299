"""The pixels of one radiograph and the patient data from its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Radiograph:
    """One hand radiograph, white bone on black, at the depth of its file.

    Attributes:
        pixels: Intensities, shape (height, width), uint8 or uint16 as in the file. On the way to
            the network's image also float32, in gray levels that are not rounded yet.
        white: The intensity of full white: 255 for 8 bits, 4095 for 12 bits, …
        source: Origin of the file, for messages.
        aspect: Width divided by height of the image as it was taken, in millimetres, if the stored
            pixels are not square (e.g. an image squashed to 299 × 299); None if they are.
        male: The sex stated in the file, or None.
        age: Chronological age in months stated in the file, or None.
        age_doubt: Why ``age`` is None although the file tells of it, such as dates that contradict
            the stated age; else None.
        laterality: "L" or "R" as stated in the file, or None.
        tags: Values of requested DICOM elements, by keyword; None for elements that are missing.
    """

    pixels: np.ndarray
    white: int = 255
    source: str = ""
    aspect: float | None = None
    male: bool | None = None
    age: float | None = None
    age_doubt: str | None = None
    laterality: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)


def negative(radiograph: Radiograph) -> Radiograph:
    """Returns the radiograph with black and white exchanged."""
    pixels = radiograph.white - np.minimum(radiograph.pixels, radiograph.white)
    return replace(radiograph, pixels=pixels.astype(radiograph.pixels.dtype))


def aspect_of(radiograph: Radiograph) -> float:
    """Returns the width divided by the height of the radiograph as it was taken."""
    height, width = radiograph.pixels.shape
    return radiograph.aspect or width / height


def pixels_of(radiograph: Radiograph, share: float) -> tuple[float, float]:
    """Converts a fraction of the true height to stored pixels, horizontally and vertically."""
    height, width = radiograph.pixels.shape
    return share * width / aspect_of(radiograph), share * height
