"""Statistics of a radiograph, kept instead of its pixels in an audit of many images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from boneage_cli.imaging.radiograph import Radiograph

BINS = 32

# Longest side in pixels to which images are reduced for the bright-surround test.
_LAYOUT_SIDE = 150


@dataclass(frozen=True)
class ImageStatistics:
    """Size, intensities and identity of one radiograph.

    Attributes:
        width: Stored width in pixels.
        height: Stored height in pixels.
        aspect: Width divided by height of the image as it was taken; see ``Radiograph.aspect``.
        white: The intensity of full white: 255 for 8 bits, 4095 for 12.
        mean: Mean intensity as a fraction of full white; so are the next three.
        contrast: Standard deviation of the intensities.
        darkest: Lowest intensity.
        brightest: Highest intensity.
        histogram: Share of the pixels in each of 32 equal bins from black to full white, float32.
        bright_surround: Brightness of the background minus that of the hand, as a fraction of full
            white; negative for an ordinary radiograph.
        digest: Hash of the decoded pixels and their shape; equal for the same image in two files.
    """

    width: int
    height: int
    aspect: float
    white: int
    mean: float
    contrast: float
    darkest: float
    brightest: float
    histogram: np.ndarray
    bright_surround: float
    digest: str

    @property
    def true_size(self) -> tuple[float, float]:
        """Width and height with square pixels of the stored height."""
        return self.aspect * self.height, self.height

    @property
    def is_constant(self) -> bool:
        """Whether all pixels have the same intensity."""
        return self.darkest == self.brightest


def image_statistics(radiograph: Radiograph) -> ImageStatistics:
    """Measures one radiograph; its pixels are not kept."""
    pixels, white = np.ascontiguousarray(radiograph.pixels), radiograph.white
    height, width = pixels.shape
    mean, deviation = cv2.meanStdDev(pixels)
    darkest, brightest, _, _ = cv2.minMaxLoc(pixels)
    counts = cv2.calcHist([pixels], [0], None, [BINS], [0, white + 1])
    digest = hashlib.blake2b(f"{height}x{width} {pixels.dtype}".encode(), digest_size=16)
    digest.update(pixels.data)
    return ImageStatistics(
        width=width,
        height=height,
        aspect=radiograph.aspect or width / height,
        white=white,
        mean=float(mean[0, 0]) / white,
        contrast=float(deviation[0, 0]) / white,
        darkest=darkest / white,
        brightest=brightest / white,
        histogram=(counts.ravel() / pixels.size).astype(np.float32),
        bright_surround=_bright_surround(pixels) / white,
        digest=digest.hexdigest(),
    )


def _bright_surround(pixels: np.ndarray) -> float:
    """Returns the brightness of the background minus that of the hand, in intensity levels.

    A border brighter than the middle is not sufficient: many RSNA radiographs have a white
    collimator frame. The result is therefore the smaller of two differences: the strips beside the
    wrist and fingers minus the strip through the middle, and the median of the image minus the
    mean of its central half. Of 12,411 RSNA training radiographs 9 exceed 1 % of full white (all
    small exposed fields in a bright surround); of the same radiographs inverted, 99.1 % do.
    """
    step = -(-max(pixels.shape) // _LAYOUT_SIDE)
    layout = np.ascontiguousarray(pixels[::step, ::step])
    height, width = layout.shape
    if min(height, width) < 8:
        return -float(np.iinfo(pixels.dtype).max)
    # OpenCV's means are fast and release the global interpreter lock.
    hand = layout[height // 4 : 7 * height // 8]
    left, middle, right = (
        cv2.mean(hand[:, start * width // 8 : end * width // 8])[0]
        for start, end in ((1, 2), (3, 5), (6, 7))
    )
    centre = cv2.mean(layout[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4])[0]
    return float(min((left + right) / 2 - middle, np.median(layout) - centre))
