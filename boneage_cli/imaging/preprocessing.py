"""Preprocessing: from a radiograph to the network's input image.

The steps and the reasons for their order:

1. blur a radiograph with many rows (``rows``) if the model was trained on low resolution;
2. crop the hand (``foreground``), so that it fills the network's image;
3. resize at the file's depth, in the true aspect ratio, before anything is rounded to 8 bits;
4. map intensities to 8 bits (``contrast``), with the same result for any depth of the file;
5. CLAHE after the resize, as HDA_Project does, so that its tiles are a fixed fraction of the hand
   at any resolution of the detector;
6. pad with black last, so that the padding does not affect any histogram.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from boneage_cli.imaging.clahe import apply_clahe
from boneage_cli.imaging.foreground import Foreground, centre_intensities, find_foreground
from boneage_cli.imaging.geometry import Box, Geometry, fit_geometry
from boneage_cli.imaging.gray_levels import in_gray_levels, to_8_bits
from boneage_cli.imaging.radiograph import Radiograph, pixels_of
from boneage_cli.imaging.resize import resize
from boneage_cli.settings_section import Section


class Preprocessing(Section):
    """The pixels that a network sees. They belong to the model and travel in its bundle."""

    height: int = Field(
        256, ge=32, le=2048, description="Height of the network's input image, pixels"
    )
    width: int = Field(
        256, ge=32, le=2048, description="Width of the network's input image, pixels"
    )
    fit: Literal["pad", "squash"] = Field(
        "pad",
        description="How the image is fitted to height × width: pad keeps the aspect ratio "
        "and fills up with black; squash stretches it",
    )
    foreground: bool = Field(False, description="Crop the radiograph to the hand before the resize")
    foreground_margin: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Margin around the cropped hand, as a fraction of its width and height",
    )
    rows: int = Field(
        0,
        ge=0,
        description="Height in pixels of the radiographs trained on, if all are of low "
        "resolution: taller ones are blurred to match; 0 for no blur",
    )
    contrast: Literal["none", "stretch", "centre"] = Field(
        "none",
        description="Contrast normalisation: none, stretch (1st to 99th percentile of the hand "
        "mapped to black and white) or centre (percentiles of the central 60 % of the image's "
        "width and height, which is faster)",
    )
    clahe: bool = Field(
        False,
        description="Apply contrast limited adaptive histogram equalisation (CLAHE) after "
        "the resize",
    )
    clahe_clip_limit: float = Field(
        2.0,
        gt=0,
        le=100,
        description="Clip limit of CLAHE: the maximum contrast gain; at 1 the image hardly changes",
    )
    clahe_tiles: int = Field(
        8, ge=1, le=64, description="Number of CLAHE tiles in each direction: 8 means 8 × 8"
    )

    @model_validator(mode="after")
    def _tiles_have_pixels(self) -> Preprocessing:
        if self.clahe and self.clahe_tiles * 4 > min(self.height, self.width):
            raise ValueError(
                f"clahe_tiles = {self.clahe_tiles} leaves tiles of less than 4 pixels in "
                f"{self.width} × {self.height}; set fewer"
            )
        return self


def preprocess(radiograph: Radiograph, settings: Preprocessing) -> np.ndarray:
    """Returns the network's image of a radiograph. The same input always gives the same output.

    Args:
        radiograph: White bone on black, of any size: uint8 or uint16, or a cut of a registered hand
            in gray levels that are not rounded yet, float32.
        settings: The preprocessing settings.

    Returns:
        uint8, (settings.height, settings.width).
    """
    radiograph = _evened(radiograph, settings)
    needed = settings.foreground or settings.contrast == "stretch"
    hand = find_foreground(radiograph) if needed else None
    place = _geometry(radiograph, settings, hand)
    left, top, right, bottom = place.crop
    x, y, across, down = place.placed
    content = resize(radiograph.pixels[top:bottom, left:right], across, down)
    content = to_8_bits(content, *_black_and_white(radiograph, settings, hand))
    if settings.clahe:
        content = apply_clahe(content, settings.clahe_clip_limit, settings.clahe_tiles, 255)
    if content.shape == (settings.height, settings.width):
        return content
    image = np.zeros((settings.height, settings.width), np.uint8)
    image[y : y + down, x : x + across] = content
    return image


def softness(radiograph: Radiograph, settings: Preprocessing) -> float:
    """Returns how much a radiograph with more than ``settings.rows`` rows is blurred.

    The blur widens a Gaussian of half a pixel to half a pixel of an image with ``settings.rows``
    rows.

    Returns:
        Standard deviation of a Gaussian, as a fraction of the radiograph's height.
    """
    height = radiograph.pixels.shape[0]
    if not 0 < settings.rows < height:
        return 0.0
    return 0.5 * math.sqrt(settings.rows**-2 - height**-2)


def geometry(radiograph: Radiograph, settings: Preprocessing) -> Geometry:
    """Returns the geometry that ``preprocess`` applies to a radiograph."""
    hand = find_foreground(_evened(radiograph, settings)) if settings.foreground else None
    return _geometry(radiograph, settings, hand)


def _evened(radiograph: Radiograph, settings: Preprocessing) -> Radiograph:
    """Converts pixels to gray levels 0 to 255 (float32, unrounded) and blurs by ``softness``."""
    pixels = in_gray_levels(radiograph.pixels, radiograph.white)
    if share := softness(radiograph, settings):
        across, down = pixels_of(radiograph, share)
        pixels = cv2.GaussianBlur(
            pixels, (0, 0), across, sigmaY=down, borderType=cv2.BORDER_REPLICATE
        )
    return replace(radiograph, pixels=pixels, white=255)


def _geometry(radiograph: Radiograph, settings: Preprocessing, hand: Foreground | None) -> Geometry:
    height, width = radiograph.pixels.shape
    # Without a hand nothing is cropped: too much background is better than half a hand.
    box: Box = (0.0, 0.0, 1.0, 1.0)
    if settings.foreground and hand is not None:
        left, top, right, bottom = hand.box
        aside = settings.foreground_margin * (right - left)
        above = settings.foreground_margin * (bottom - top)
        box = (left - aside, top - above, right + aside, bottom + above)
    return fit_geometry(
        (width, height),
        (settings.width, settings.height),
        aspect=radiograph.aspect,
        box=box,
        keep_aspect=settings.fit == "pad",
    )


def _black_and_white(
    radiograph: Radiograph, settings: Preprocessing, hand: Foreground | None
) -> tuple[float, float]:
    """Returns the gray levels that become 0 and 255."""
    black, white = 0.0, 255.0
    if settings.contrast == "stretch" and hand is not None:
        black, white = hand.darkest, hand.brightest
    elif settings.contrast != "none":
        black, white = centre_intensities(radiograph)
    # A range of less than one gray level is an empty image, which would be stretched to noise.
    return (black, white) if white - black >= 1 else (0.0, 255.0)
