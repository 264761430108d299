"""Estimates the intensity of full white for files that state only their container's depth."""

from __future__ import annotations

import numpy as np

_DEPTHS = (8, 10, 12, 14)


def estimate_white(pixels: np.ndarray) -> int:
    """Estimates the intensity of full white in gray pixels.

    A 16-bit PNG or TIFF seldom states how many of its bits are used. The result is the smallest
    depth used in digital radiography (8, 10, 12, 14 or 16 bits) that holds the brightest pixel, so
    that an image reads the same whether it was stored in 8 bits, as those values in 16 bits, or in
    its detector's 12 bits. Pixels that are all multiples of 257 or all multiples of 256 are 8-bit
    values widened to 16 bits; this is recognised however dark they are.

    Args:
        pixels: Intensities of any shape, uint8 or uint16.

    Returns:
        255, 1023, 4095, 16383 or 65535.
    """
    if pixels.dtype == np.uint8:
        return 255
    peak = int(pixels.max())
    if peak >= 2 ** _DEPTHS[-1] or (peak > 255 and _widened(pixels)):
        return 65535
    return next(2**bits - 1 for bits in _DEPTHS if peak < 2**bits)


def _widened(pixels: np.ndarray) -> bool:
    """Whether all pixels are multiples of 257, or all of 256."""
    # A sample of the rows is nearly always enough to exclude it.
    few = pixels[::64]
    return any(not (few % step).any() and not (pixels % step).any() for step in (257, 256))
