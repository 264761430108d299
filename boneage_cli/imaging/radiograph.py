"""The pixels of one radiograph and what its file says about the child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Radiograph:
    """One hand radiograph, white bone on black, at the depth of its file.

    Attributes:
        pixels: Intensities, shape (height, width), uint8 or uint16.
        maximum: The intensity of full white: 255 for 8 bits, 4095 for 12 bits, …
        source: Where it came from, for messages.
        aspect: Width divided by height of the hand as it was taken, in millimetres, where the
            stored pixels are not square (an image squashed to 299 × 299, say); None where they are.
        male: The sex that the file states, None where it states none.
        age: Chronological age in months, None where the file states none.
        laterality: "L" or "R", None where the file states none.
        tags: Elements of a DICOM file that were asked for, by keyword; None where it has none.
    """

    pixels: np.ndarray
    maximum: int = 255
    source: str = ""
    aspect: float | None = None
    male: bool | None = None
    age: float | None = None
    laterality: str | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)


def negative(radiograph: Radiograph) -> Radiograph:
    """The radiograph with black and white exchanged."""
    pixels = radiograph.maximum - np.minimum(radiograph.pixels, radiograph.maximum)
    return replace(radiograph, pixels=pixels.astype(radiograph.pixels.dtype))
